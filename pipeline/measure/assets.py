"""The files that a recipe names to measure with: found out to be wrong before anything runs, not hours later."""

from pipeline.measure.fasttext.model import FastTextModel
from pipeline.measure.language import BUILTIN, asset_path
from pipeline.measure.urls import BlockList
from schemas.config_model import file_of
from schemas.recipe import Measure

__all__ = ["check_assets"]


def check_assets(measure: Measure) -> None:
    """Raise ConfigError, with the recipe's key, for a file that is missing or not what it should be.

    Raises StorageError where a store fails. A model that is shipped is not read again.
    """
    with file_of("measure.language_model"):
        path = asset_path(measure.language_model)
        if not measure.language_model.startswith(BUILTIN):
            FastTextModel(path)
    if measure.url_block_list is not None:
        with file_of("measure.url_block_list"):
            BlockList.load(measure.url_block_list)

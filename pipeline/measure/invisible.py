"""The first edit of a text: what is not seen is deleted, before anything is measured."""

from collections.abc import Mapping
from typing import Any

from pipeline.measure.signal_group import Batch, Measure
from pipeline.text.edits import EDITS, no_edits
from pipeline.text.invisible import delete_invisible

__all__ = ["COLUMNS", "setup"]

COLUMNS = {"raw_edits": EDITS}  # from the stored text to the view raw


def setup(options: Mapping[str, Any]) -> Measure:
    """Delete invisible characters if `options["delete"]`."""

    def measure(batch: Batch) -> dict[str, Any]:
        return {"raw_edits": delete_invisible(*batch.buffers()) if options["delete"] else no_edits(len(batch))}

    return measure

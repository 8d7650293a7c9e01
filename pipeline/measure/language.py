"""The language of a text, by a fastText model.

Source: Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification"; lid.176. The threshold 0.65 is the one
of FineWeb.
Differs: from datatrove, which keeps a document if *any* wanted language scores above the threshold; here it is the
best one, as in DCLM. Above one half both are the same. The compressed model is shipped, where datatrove downloads the
large one.
A text without a word has no language and the score 0.
"""

import functools
import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.measure.counts import Counts, Rule, Signal
from pipeline.measure.fasttext.model import FastTextModel
from pipeline.text.edits import text_buffers
from pipeline.text.lines import lined_texts
from schemas import storage

__all__ = ["RULES", "SIGNALS", "LanguageModel", "asset_path"]

BUILTIN = "builtin:"


def asset_path(uri: str) -> Path:
    """The local path of an asset that a recipe names: shipped ("builtin:NAME"), local or in a bucket (fetched once).

    Raises ValueError for an unknown shipped name, StorageError or FileNotFoundError for what cannot be read.
    """
    if not uri.startswith(BUILTIN):
        return storage.fetch(uri, Path(tempfile.gettempdir()) / "gristmill-assets")
    path = Path(str(files("pipeline.assets").joinpath(uri.removeprefix(BUILTIN))))
    if not path.is_file():
        shipped = sorted(file.name for file in path.parent.iterdir() if file.suffix in (".ftz", ".bin"))
        raise ValueError(f"{uri}: no such model is shipped; shipped: {', '.join(BUILTIN + name for name in shipped)}")
    return path


@functools.lru_cache(maxsize=1)
def _load(path: Path, num_bytes: int, mtime_ns: int) -> FastTextModel:
    """The model in a file of this size and age: a task of a few megabytes takes about as long as loading it."""
    return FastTextModel(path)


class LanguageModel:
    """A fastText model, which a process loads once for all its tasks. Not to be pickled: make one in each worker."""

    def __init__(self, uri: str) -> None:
        path = asset_path(uri)
        found = path.stat()
        self._model = _load(path, found.st_size, found.st_mtime_ns)
        self._labels = pa.array(self._model.labels, pa.string())

    def predict(self, texts: pa.LargeStringArray) -> tuple[pa.StringArray, np.ndarray]:
        """The best label of each text (null where there is no word) and its probability, float32 widened to float64.

        It sees the whole text: of 2,935 pages of eleven manuals and news, 39 change their verdict if it sees only the
        first 8,000 bytes.
        """
        best, scores = self._model.predict(*lined_texts(*text_buffers(texts)))
        labels = self._labels.take(pa.array(best, mask=best < 0))
        return labels, scores.astype(np.float64)


def score(counts: Counts) -> np.ndarray:
    """Probability of the best language."""
    return counts.language_score.astype(np.float64)


SIGNALS = (Signal("language.score", "raw", score),)

RULES = (
    Rule("language.not_wanted", "language", "not in", (), "the recipe's list of labels"),
    Rule("language.low_score", "language.score", "<", 0.65, "Penedo et al. 2024, section 3.3"),
)

"""The language of a text, by a fastText model.

Source: Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification"; lid.176. The threshold 0.65 is the one
of FineWeb.
Differs: from datatrove, which keeps a document if *any* wanted language scores above the threshold; here it is the
best one, as in DCLM. Above one half both are the same. The compressed model is shipped, where datatrove downloads the
large one.
A text without a word has no language and the score 0.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.measure.assets import asset_path
from pipeline.measure.fasttext.model import FastTextModel
from pipeline.measure.signal_group import Batch, Measure, Rule
from pipeline.text.edits import text_buffers
from pipeline.text.lines import lined_texts

__all__ = ["COLUMNS", "RULES", "SIGNALS", "LanguageModel", "setup"]


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


def setup(options: Mapping[str, Any]) -> Measure:
    """Load the model that `options["model"]` names."""
    model = LanguageModel(options["model"])

    def measure(batch: Batch) -> dict[str, Any]:
        labels, scores = model.predict(batch.texts)
        return {"language": labels, "language.score": scores}

    return measure


COLUMNS = {"language": pa.string()}
SIGNALS = {"language.score": "Probability of the best language."}

RULES = (
    Rule("language.not_wanted", "language", "not in", (), "the recipe's list of labels"),
    Rule("language.low_score", "language.score", "<", 0.65, "Penedo et al. 2024, section 3.3"),
)

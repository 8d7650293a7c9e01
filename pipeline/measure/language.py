"""The language of a text, by a fastText model.

Source: Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification"; lid.176. The threshold 0.65 is the one
of FineWeb.
Differs: from datatrove, which keeps a document if *any* wanted language scores above the threshold; here it is the
best one, as in DCLM. Above one half both are the same. The compressed model is shipped, where datatrove downloads the
large one.
An empty text has no language and the score 0.
"""

import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa

from schemas import storage

from .counts import Counts, Rule, Signal

__all__ = ["RULES", "SIGNALS", "LanguageModel", "asset_path"]

LABEL_PREFIX = "__label__"
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


class LanguageModel:
    """A loaded fastText model. Not to be pickled: load it in each worker."""

    def __init__(self, uri: str) -> None:
        import fasttext

        path = asset_path(uri)
        try:
            self._model = fasttext.FastText._FastText(str(path))
        except (ValueError, RuntimeError, MemoryError) as error:
            raise ValueError(f"{uri}: not a fastText model: {error}") from None

    def predict(self, texts: pa.LargeStringArray) -> tuple[pa.StringArray, np.ndarray]:
        """The best label of each text (null where there is none) and its probability, float32 widened to float64.

        fastText reads one line, so newlines become spaces. It gets the whole text: of 2,935 pages of eleven manuals
        and news, 39 change their verdict if it gets the first 8,000 bytes.
        """
        labels: list[str | None] = []
        scores = np.zeros(len(texts))
        for i, text in enumerate(texts.to_pylist()):
            best = self._model.f.predict(text.replace("\n", " ") + "\n", 1, 0.0, "strict") if text.strip() else ()
            labels.append(best[0][1].removeprefix(LABEL_PREFIX) if best else None)
            scores[i] = best[0][0] if best else 0.0
        return pa.array(labels, pa.string()), scores


def score(counts: Counts) -> np.ndarray:
    """Probability of the best language."""
    return counts.language_score.astype(np.float64)


SIGNALS = (Signal("language.score", "raw", score),)

RULES = (
    Rule("language.not_wanted", "language", "not in", (), "the recipe's list of labels"),
    Rule("language.low_score", "language.score", "<", 0.65, "Penedo et al. 2024, section 3.3"),
)

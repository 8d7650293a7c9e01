"""Which of several duplicates is kept: a total order over documents, so that no choice depends on arrival."""

import difflib
from collections.abc import Sequence

import numpy as np

from pipeline.select.columns import PartColumns

__all__ = ["check_preferences", "order_keys", "preference_keys"]

COLUMNS = {
    "longer_text": ("num_bytes", -1.0),
    "shorter_text": ("num_bytes", 1.0),
    "earlier_date": ("date", 1.0),
    "later_date": ("date", -1.0),
}


def _column(wish: str) -> tuple[str, float]:
    """The column that a wish of `prefer` looks at, and the sign that puts the better document first."""
    if wish in COLUMNS:
        return COLUMNS[wish]
    direction, _, signal = wish.partition(":")
    return signal, -1.0 if direction == "highest" else 1.0


def check_preferences(prefer: Sequence[str], names: Sequence[str]) -> None:
    """Raise ValueError when `prefer` names a signal that the parts do not hold."""
    for wish in prefer:
        if _column(wish)[0] not in names:
            near = difflib.get_close_matches(_column(wish)[0], names, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "name a measured signal"
            raise ValueError(f"prefer: {wish}: no such signal; {hint}")


def preference_keys(columns: PartColumns, prefer: Sequence[str], rows: np.ndarray) -> np.ndarray:
    """(len(prefer), n) float64 of `rows`: smaller is better, what is not known last."""
    keys = np.empty((len(prefer), len(rows)))
    for number, wish in enumerate(prefer):
        name, sign = _column(wish)
        keys[number] = sign * columns.floats(name)[rows]
    keys[np.isnan(keys)] = np.inf
    return keys


def order_keys(keys: np.ndarray, ids: np.ndarray, addresses: np.ndarray) -> list[np.ndarray]:
    """The whole order, most significant first: preferences, doc_id, address."""
    return [*keys, ids[:, 0], ids[:, 1], addresses]

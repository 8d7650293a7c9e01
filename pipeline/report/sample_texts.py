"""Texts of chosen rows, fetched from the parts."""

from collections import defaultdict
from collections.abc import Iterable

from pipeline.report.part_files import Parts
from pipeline.text.edits import apply_edits
from schemas.dataset import Dataset, Place

__all__ = ["final_texts"]


def final_texts(dataset: Dataset, parts: Parts, places: Iterable[Place]) -> dict[Place, str]:
    """The text of each row with its edits applied; rows without a text, or whose part is gone, are left out."""
    wanted: dict[int, dict[int, Place]] = defaultdict(dict)
    for place in places:
        part, row = dataset.part_of(place)
        if part in parts:
            wanted[part][row] = place
    texts: dict[Place, str] = {}
    for part, rows in sorted(wanted.items()):
        numbers, columns = parts.take(part, rows, ["text", "edits"])
        with_text = columns["text"].is_valid()
        kept = columns.filter(with_text).combine_chunks()
        stored, edits = kept["text"].combine_chunks(), kept["edits"].combine_chunks()
        places_of_texts = [rows[row] for row, is_valid in zip(numbers, with_text.to_pylist(), strict=True) if is_valid]
        texts |= zip(places_of_texts, apply_edits(stored, edits).to_pylist(), strict=True)
    return texts

"""The texts that a tokenizer is trained on: parts in seeded order, documents by hash of doc_id, up to a byte limit."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.pack.documents import order_keys, part_batches, part_table, read_verdicts, texts_of
from pipeline.pack.groups import PackPart

__all__ = ["Sample", "choose_sample"]


@dataclass(frozen=True)
class Sample:
    """Chosen rows of parts; the texts are read when they are used."""

    parts: list[PackPart]
    rows: list[NDArray[np.bool_]]  # of each part
    num_bytes: int  # of all texts

    @property
    def digest(self) -> str:
        """What distinguishes samples."""
        digest = hashlib.sha256()
        for part, rows in zip(self.parts, self.rows, strict=True):
            digest.update(part.content.encode() + np.packbits(rows).tobytes())
        return digest.hexdigest()[:16]

    def texts(self) -> Iterator[str]:
        """The final texts, a batch of a part in memory at a time."""
        for part, rows in zip(self.parts, self.rows, strict=True):
            for first, batch in part_batches(part, ["text", "edits", "num_bytes"]):
                yield from texts_of(batch, rows[first : first + batch.num_rows], part.uri).to_pylist()


def choose_sample(parts: Sequence[PackPart], seed: int, sample_bytes: int) -> Sample:
    """Choose kept documents until the next would exceed `sample_bytes`; the first is taken whatever its size."""
    ordered = sorted(parts, key=lambda part: (xxhash.xxh3_64_intdigest(part.sha256.encode(), seed), part.number))
    chosen_parts: list[PackPart] = []
    chosen_rows: list[NDArray[np.bool_]] = []
    size = 0
    for part in ordered:
        verdicts = read_verdicts(part, ["doc_id", "kept"])
        kept = np.flatnonzero(verdicts["kept"].to_numpy())
        ids = verdicts["doc_id"].take(kept).to_pylist()
        kept = kept[np.lexsort((kept, order_keys(ids, seed)))]
        sizes = part_table(part, ["num_bytes"])["num_bytes"].take(kept).to_numpy()
        count = int(np.searchsorted(size + np.cumsum(sizes), sample_bytes, side="right"))
        if size == 0 and len(kept):
            count = max(count, 1)
        rows = np.zeros(part.rows, bool)
        rows[kept[:count]] = True
        chosen_parts.append(part)
        chosen_rows.append(rows)
        size += int(sizes[:count].sum())
        if count < len(kept):
            break
    return Sample(chosen_parts, chosen_rows, size)

"""Which documents are held out for validation: by cluster, so that twins never stand on both sides."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.select.columns import as_ids, halves
from pipeline.select.files import fixed_bytes
from schemas.arrow import HASH

__all__ = ["NO_SIDE", "RECORDED", "SIDES", "TRAIN", "VALIDATION", "Recorded", "recorded_batch", "sides_of_clusters"]

NO_SIDE, TRAIN, VALIDATION = 0, 1, 2
SIDES = [None, "train", "validation"]

# Splits of an earlier generation's documents, sorted by doc_id.
RECORDED = pa.schema([pa.field("doc_id", HASH, nullable=False), pa.field("side", pa.int8(), nullable=False)])


def sides_of_clusters(clusters: np.ndarray, seed: int, fraction: float) -> np.ndarray:
    """The side (int8) of each cluster (n, 2): validation where xxh3_64(cluster, seed) < floor(fraction 2^64)."""
    limit = int(Fraction(fraction) * (1 << 64))
    if limit == 0:
        return np.full(len(clusters), TRAIN, np.int8)
    data = np.ascontiguousarray(clusters.astype(">u8")).tobytes()
    hashes = np.fromiter(
        (xxhash.xxh3_64_intdigest(data[start : start + 16], seed) for start in range(0, len(data), 16)),
        np.uint64,
        len(clusters),
    )
    return np.where(hashes < np.uint64(limit), VALIDATION, TRAIN).astype(np.int8)


def recorded_batch(splits: pa.Table) -> pa.RecordBatch:
    """A table of doc_id and split as RECORDED. Raises ValueError when a document stands on both sides."""
    ids = halves(fixed_bytes(splits["doc_id"].combine_chunks()))
    is_validation = np.array([side == "validation" for side in splits["split"].to_pylist()], bool)
    order = np.lexsort((is_validation, ids[:, 1], ids[:, 0]))
    ids, side = ids[order], np.where(is_validation, VALIDATION, TRAIN).astype(np.int8)[order]
    again = np.concatenate([[False], (ids[1:] == ids[:-1]).all(axis=1)]) if len(ids) else np.empty(0, bool)
    torn = np.flatnonzero(again & (side != np.roll(side, 1)))
    if torn.size:
        raise ValueError(f"doc_id {as_ids(ids[torn[:1]])[0].as_py().hex()} is recorded in train and in validation")
    return pa.record_batch([as_ids(ids[~again]), pa.array(side[~again])], schema=RECORDED)


class Recorded:
    """Splits of an earlier generation, found by doc_id."""

    def __init__(self, table: pa.Table) -> None:
        self._ids = halves(fixed_bytes(table["doc_id"].combine_chunks()))
        self._side = table["side"].to_numpy()

    def sides(self, ids: np.ndarray) -> np.ndarray:
        """The recorded side (int8) of each document (n, 2); NO_SIDE: not recorded."""
        sides = np.zeros(len(ids), np.int8)
        if not len(self._ids):
            return sides
        places = np.searchsorted(self._ids[:, 0], ids[:, 0])
        # Two doc_ids that share their upper half lie beside each other.
        while True:
            open_ = places < len(self._ids)
            open_[open_] = self._ids[places[open_], 0] == ids[open_, 0]
            found = open_.copy()
            found[open_] = self._ids[places[open_], 1] == ids[open_, 1]
            sides[found] = self._side[places[found]]
            further = open_ & ~found
            if not further.any():
                return sides
            places = np.where(further, places + 1, len(self._ids))

"""The fixed-width rows that cross shuffles, many to an element, and the partitions they are keyed by.

A document's *address* is (part, row), as one number `part << 32 | row`; addresses order documents of a source as their
files are ordered.
"""

from collections.abc import Iterable, Iterator

import numpy as np

__all__ = [
    "BUCKET_ROW",
    "EDGE_ROW",
    "EQUAL_ROW",
    "LINK_ROW",
    "PARTITION_BYTES",
    "address",
    "num_partitions",
    "pack",
    "partition_of",
    "unpack",
]

PARTITION_BYTES = 32 << 20  # rows under one key, about; all of them must fit in a worker's memory

# 24 bytes, where contracts give 16: equal texts are told by all 128 bits of their hash, without a second look.
EQUAL_ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("address", "<u8")])
# A document in a bucket of a band.
BUCKET_ROW = np.dtype([("hash", "<u8"), ("address", "<u8")])
# What became of an EQUAL_ROW that is not the first of its equals: `row` of the part that is the key equals `first`.
LINK_ROW = np.dtype([("kind", "<u4"), ("row", "<u4"), ("first", "<u8")])
# A verified pair, the smaller address first.
EDGE_ROW = np.dtype([("a", "<u8"), ("b", "<u8"), ("similarity", "<f8")])

SHIFT = np.uint64(32)


def address(part: int, rows: np.ndarray) -> np.ndarray:
    """Addresses (uint64) of rows of one part."""
    return (np.uint64(part) << SHIFT) | rows.astype(np.uint64)


def num_partitions(rows: int, row_bytes: int, partition_bytes: int = PARTITION_BYTES) -> int:
    """Partitions that `rows` rows are spread over: by the size of the corpus alone, never by who works on it."""
    return max(1, -(-rows * row_bytes // partition_bytes))


def partition_of(hashes: np.ndarray, partitions: int) -> np.ndarray:
    """The partition (0 ..) of each 64-bit hash, by its upper bits."""
    return ((hashes >> SHIFT) * np.uint64(partitions) >> SHIFT).astype(np.int64)


def pack(rows: np.ndarray, partition_of_row: np.ndarray, selected: range) -> Iterator[tuple[int, bytes]]:
    """The rows of each selected partition as bytes, partitions without a row left out."""
    if selected.stop - selected.start == 1 and not partition_of_row.any():
        # All in one partition: no sort.
        groups: Iterable[tuple[int, np.ndarray]] = [(0, rows)] if rows.size and 0 in selected else []
    else:
        order = np.argsort(partition_of_row, kind="stable")
        bounds = np.searchsorted(partition_of_row[order], np.arange(selected.start, selected.stop + 1))
        groups = ((p, rows[order[bounds[i] : bounds[i + 1]]]) for i, p in enumerate(selected))
    for partition, members in groups:
        if members.size:
            yield partition, members.tobytes()


def unpack(elements: Iterable[bytes], dtype: np.dtype) -> np.ndarray:
    """Rows of all elements, in no particular order: sort before the order can matter."""
    return np.frombuffer(b"".join(elements), dtype)

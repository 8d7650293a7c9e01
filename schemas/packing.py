"""Packing whole documents into rows of T tokens by best fit: both sides count and place alike.

Contracts, section 7, "Packing documents". The pipeline writes the number of rows into the manifest, the trainer
cuts its batches by the same placement, so the rule lives here, once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.kernel_cache import njit_cached

__all__ = ["Placement", "packed_rows", "place_documents"]

BLOCK = 64  # lengths a block of the search for room; any size gives the same result


class Placement(NamedTuple):
    """Pieces of documents in the order in which they are placed; inside a packed row they lie in this order."""

    document: NDArray[np.int64]  # row of the document in its shard
    offset: NDArray[np.int64]  # tokens of the document before the piece
    length: NDArray[np.int64]  # tokens of the piece, 1 to T
    row: NDArray[np.int64]  # packed row that holds the piece, numbered as opened


def place_documents(lengths: NDArray[np.integer], sequence_length: int) -> Placement:
    """Cut documents at multiples of T and place the pieces, longest first, each in the fullest row with room.

    `lengths` are the tokens of a shard's documents, in row order, end-of-text included. Pieces go by (length
    descending, document, offset); of equally full rows the lowest number wins. O(n log n).
    Raises ValueError for a sequence length below 1.
    """
    if sequence_length < 1:
        raise ValueError(f"sequence_length={sequence_length}: it must be at least 1")
    lengths = np.asarray(lengths, dtype=np.int64)
    full, rest = np.divmod(lengths, sequence_length)
    # Pieces of T tokens sort first and each fills a row of its own.
    document = np.repeat(np.arange(len(lengths), dtype=np.int64), full)
    first = np.cumsum(full) - full
    offset = (np.arange(len(document), dtype=np.int64) - first[document]) * sequence_length
    short = np.flatnonzero(rest)
    short = short[np.argsort(-rest[short], kind="stable")]  # stable: equal lengths stay in document order
    rows = _best_fit(rest[short], sequence_length) + len(document)
    return Placement(
        np.concatenate([document, short]),
        np.concatenate([offset, full[short] * sequence_length]),
        np.concatenate([np.full(len(document), sequence_length, dtype=np.int64), rest[short]]),
        np.concatenate([np.arange(len(document), dtype=np.int64), rows]),
    )


def packed_rows(lengths: NDArray[np.integer], sequence_length: int) -> int:
    """Rows that `place_documents` opens for a shard's documents."""
    rows = place_documents(lengths, sequence_length).row
    return int(rows.max()) + 1 if len(rows) else 0


@njit_cached()
def _best_fit(lengths, sequence_length):  # type: ignore[no-untyped-def]
    """The row of each piece, for pieces shorter than T in descending order of length.

    Rows with equal room form a skew heap by row number (`left`, `right`), its root in `roots[room]`;
    `occupied` counts the rows of each block of 64 rooms, so that the search skips empty stretches.
    """
    count = len(lengths)
    rows = np.empty(count, np.int64)
    left = np.full(count, -1, np.int64)
    right = np.full(count, -1, np.int64)
    roots = np.full(sequence_length + 1, -1, np.int64)
    occupied = np.zeros(sequence_length // BLOCK + 1, np.int64)
    opened = 0
    for piece in range(count):
        length = lengths[piece]
        room = _smallest_room(roots, occupied, length)
        if room < 0:
            row, room = opened, sequence_length
            opened += 1
        else:
            row = roots[room]
            roots[room] = _merge(left[row], right[row], left, right)
            occupied[room // BLOCK] -= 1
            left[row] = right[row] = -1
        rows[piece] = row
        room -= length
        if room > 0:
            roots[room] = _merge(roots[room], row, left, right)
            occupied[room // BLOCK] += 1
    return rows


@njit_cached()
def _smallest_room(roots, occupied, length):  # type: ignore[no-untyped-def]
    """The least room of any open row that is at least `length`; -1: none."""
    block = length // BLOCK
    room = length
    while block < len(occupied):
        if occupied[block]:
            end = min((block + 1) * BLOCK, len(roots))
            while room < end:
                if roots[room] >= 0:
                    return room
                room += 1
        block += 1
        room = block * BLOCK
    return -1


@njit_cached()
def _merge(one, other, left, right):  # type: ignore[no-untyped-def]
    """The root of two skew heaps made one: the smaller root leads, its old right side merges on."""
    if one < 0:
        return other
    if other < 0:
        return one
    node, other = min(one, other), max(one, other)
    root = node
    while True:
        rest = right[node]
        right[node] = left[node]
        if rest < 0:
            left[node] = other
            return root
        node_next, other = min(rest, other), max(rest, other)
        left[node] = node_next
        node = node_next

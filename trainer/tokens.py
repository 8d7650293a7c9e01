"""Rows of shards as arrays: copied out of the memory-mapped file, then widened to what a model takes.

A row is made of pieces: one of T tokens in packing `windows`, one a document in `documents`. What is copied first is
narrow (the shard's own 2 or 4 bytes a token: little to send between processes), inputs and masks are derived from it.

B rows of a batch, T tokens a row, P pieces, R record batches of a shard. Contracts, section 7, "Rows".
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.manifest import DatasetError
from schemas.packing import place_documents

__all__ = ["IGNORED", "NarrowBatch", "OpenShard", "Wide", "gather", "pieces_of", "widen"]

IGNORED = -100  # a position without a target, as torch's cross_entropy takes it
Ints = NDArray[np.int64]


class Placed(NamedTuple):
    """The pieces of a shard's packed rows, in order of row; pieces of a row in the order in which they lie."""

    first: Ints  # rows + 1: pieces before each row
    start: Ints  # token of the shard
    length: NDArray[np.int32]
    column: NDArray[np.int32]  # of the row
    fresh: NDArray[np.bool_]  # begins its document


class OpenShard:
    """A shard's file in memory, as far as the operating system has it there; it holds no file descriptor.

    Raises DatasetError for a file that is no shard, or not one of that type and number of tokens.
    """

    def __init__(self, path: str, token_type: np.dtype[Any], num_tokens: int) -> None:
        self.path = path
        try:
            # The mapping outlives the descriptor, for as long as the buffer does.
            with pa.memory_map(path) as file:
                whole = file.read_buffer(file.size())
            with pa.ipc.open_file(whole) as reader:
                tokens = [reader.get_batch(number)["tokens"] for number in range(reader.num_record_batches)]
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise DatasetError(f"{path}: not a shard: {' '.join(str(error).split())}") from None
        if any(column.type.value_type != pa.from_numpy_dtype(token_type) for column in tokens):
            raise DatasetError(f"{path}: its tokens are {tokens[0].type.value_type}, the manifest says {token_type}")
        self._whole = whole
        self.file = np.frombuffer(whole, token_type, len(whole) // token_type.itemsize)
        offsets = [column.offsets.to_numpy() for column in tokens]
        counts = [int(each[-1] - each[0]) for each in offsets]
        self.starts_R = np.cumsum([0, *counts], dtype=np.int64)  # R + 1: tokens before each record batch
        if int(self.starts_R[-1]) != num_tokens:
            raise DatasetError(f"{path} has {self.starts_R[-1]} tokens, the manifest says {num_tokens}")
        self.places_R = np.array(
            [self._place(column) + int(each[0]) for column, each in zip(tokens, offsets, strict=True)], np.int64
        )  # element of `file` that is the first token of each record batch
        self.lengths = np.concatenate([np.empty(0, np.int32), *(np.diff(each) for each in offsets)])
        self._placed: dict[int, Placed] = {}

    def _place(self, column: pa.ListArray) -> int:
        values = column.values.buffers()[1]
        place = values.address - self._whole.address if values is not None else 0
        if not 0 <= place <= len(self._whole) or place % self.file.itemsize:
            raise DatasetError(f"{self.path}: its tokens are compressed or not aligned: a shard is neither")
        return place // self.file.itemsize + column.values.offset

    def document_of(self, tokens: Ints) -> Ints:
        """The documents (rows of the shard's file) that hold these tokens."""
        return np.searchsorted(np.cumsum(self.lengths, dtype=np.int64), tokens, side="right")

    def placed(self, sequence_length: int, num_rows: int | None = None) -> Placed:
        """Where packing `documents` puts the shard's documents. Raises DatasetError for another number of rows."""
        if sequence_length not in self._placed:
            self._placed[sequence_length] = _place_pieces(self.lengths, sequence_length)
        placed = self._placed[sequence_length]
        if num_rows is not None and len(placed.first) - 1 != num_rows:
            raise DatasetError(
                f"{self.path} packs into {len(placed.first) - 1} rows of {sequence_length} tokens, the manifest says "
                f"{num_rows}"
            )
        return placed


def _place_pieces(lengths: NDArray[np.int32], sequence_length: int) -> Placed:
    placement = place_documents(lengths, sequence_length)
    by_row = np.argsort(placement.row, kind="stable")  # stable: pieces stay in the order in which they were placed
    row, length = placement.row[by_row], placement.length[by_row]
    num_rows = int(row[-1]) + 1 if len(row) else 0
    first = np.searchsorted(row, np.arange(num_rows + 1))
    before = np.cumsum(length) - length
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return Placed(
        first=first,
        start=starts[placement.document[by_row]] + placement.offset[by_row],
        length=length.astype(np.int32),
        column=(before - before[first[row]]).astype(np.int32),
        fresh=placement.offset[by_row] == 0,
    )


@dataclass(eq=False)
class NarrowBatch:
    """Rows as the shards hold them. Small enough to be sent through a pipe."""

    targets_BT: NDArray[Any]  # uint16 or uint32; 0 where no piece lies
    row_P: NDArray[np.int32]  # pieces in order of (row, column)
    column_P: NDArray[np.int32]
    length_P: NDArray[np.int32]
    before_P: NDArray[np.int64]  # the input at the piece's first position: the token before it, or end-of-text


class Wide(NamedTuple):
    """What a model takes."""

    tokens_BT: Ints  # inputs; end-of-text where there is no target
    targets_BT: Ints  # IGNORED: no target
    positions_BT: NDArray[np.int32] | None  # count from each document's first input on
    documents_BT: NDArray[np.int32] | None  # number of the document in its row; -1 where there is none


def pieces_of(
    shard: OpenShard, rows: Ints, sequence_length: int, packing: str, num_rows: int | None = None
) -> tuple[Ints, ...]:
    """Pieces of some rows: place in `rows`, column, start, length, whether one begins after an end-of-text.

    `num_rows`: what the manifest counts, which the shard's packed rows are held against.
    """
    if packing == "windows":
        places = np.arange(len(rows), dtype=np.int64)
        start = rows * sequence_length
        return places, np.zeros_like(places), start, np.full_like(places, sequence_length), start == 0
    placed = shard.placed(sequence_length, num_rows)
    counts = placed.first[rows + 1] - placed.first[rows]
    places = np.repeat(np.arange(len(rows), dtype=np.int64), counts)
    chosen = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts) + placed.first[rows][places]
    return places, placed.column[chosen], placed.start[chosen], placed.length[chosen], placed.fresh[chosen]


def gather(shard: OpenShard, pieces: tuple[Ints, ...], end_of_text: int, targets_BT: NDArray[Any]) -> Ints:
    """Copy pieces (as `pieces_of` gives them) into rows of `targets_BT`; returns the token before each, (P,)."""
    row, column, start, length, fresh = pieces
    before_P = np.empty(len(row), np.int64)
    arguments = (row, column, start, length, fresh)
    _copy(shard.file, shard.places_R, shard.starts_R, *arguments, end_of_text, targets_BT, before_P)
    return before_P


@numba.njit(cache=True, nogil=True)
def _copy(file, places_R, starts_R, row, column, start, length, fresh, end_of_text, targets_BT, before_P):  # type: ignore[no-untyped-def]
    for p in range(len(row)):
        token, left, to = start[p], length[p], column[p]
        r = np.searchsorted(starts_R, token, side="right") - 1
        if fresh[p]:
            before_P[p] = end_of_text
        else:
            q = r if token > starts_R[r] else np.searchsorted(starts_R, token - 1, side="right") - 1
            before_P[p] = file[places_R[q] + token - 1 - starts_R[q]]
        while left > 0:
            count = min(left, starts_R[r + 1] - token)
            place = places_R[r] + token - starts_R[r]
            targets_BT[row[p], to : to + count] = file[place : place + count]
            token, left, to, r = token + count, left - count, to + count, r + 1


def widen(batch: NarrowBatch, end_of_text: int, mask: bool) -> Wide:
    """Inputs and targets in int64, and positions and document numbers if masks are wanted.

    A document begins with a piece, and after each end-of-text inside one.
    """
    shape = batch.targets_BT.shape
    tokens_BT, targets_BT = np.empty(shape, np.int64), np.empty(shape, np.int64)
    masks = np.empty((2, *shape) if mask else (2, 0, 0), np.int32)
    pieces = (batch.row_P, batch.column_P, batch.length_P, batch.before_P)
    _widen(batch.targets_BT, *pieces, end_of_text, tokens_BT, targets_BT, masks[0], masks[1], mask)
    return Wide(tokens_BT, targets_BT, masks[0] if mask else None, masks[1] if mask else None)


@numba.njit(cache=True, nogil=True)
def _widen(narrow, row_P, column_P, length_P, before_P, end, tokens, targets, positions, documents, mask):  # type: ignore[no-untyped-def]
    p = 0
    for b in range(len(narrow)):
        t, document = 0, -1
        while p < len(row_P) and row_P[p] == b:
            stop = column_P[p] + length_P[p]
            tokens[b, t] = before_P[p]
            tokens[b, t + 1 : stop] = narrow[b, t : stop - 1]
            targets[b, t:stop] = narrow[b, t:stop]
            if mask:
                begin = t
                document += 1
                for i in range(t, stop):
                    if i > t and tokens[b, i] == end:
                        begin = i
                        document += 1
                    positions[b, i] = i - begin
                    documents[b, i] = document
            t = stop
            p += 1
        tokens[b, t:] = end
        targets[b, t:] = IGNORED
        if mask:
            positions[b, t:] = 0
            documents[b, t:] = -1

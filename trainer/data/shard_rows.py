"""Rows of shards as arrays: copied out of the memory-mapped file, then widened to what a model takes.

A row is made of pieces: one of T tokens in packing `windows`, one a document in `documents`. What is copied first is
narrow (the shard's own 2 or 4 bytes a token: little to send between processes), inputs and masks are derived from it.

B rows of a batch, T tokens a row, P pieces, S open shards, R record batches of a shard. Contracts, section 7,
"Rows".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
import pyarrow as pa
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from schemas.dataset import DatasetError, map_shard
from schemas.packing import place_documents

__all__ = ["IGNORED", "Layout", "NarrowBatch", "OpenShard", "Pieces", "Wide", "gather", "pieces_of", "widen"]

IGNORED = -100  # a position without a target, as torch's cross_entropy takes it
Ints = NDArray[np.int64]


class Placed(NamedTuple):
    """The pieces of a shard's packed rows, in order of row; pieces of a row in the order in which they lie."""

    first: Ints  # rows + 1: pieces before each row
    start: Ints  # token of the shard
    length: NDArray[np.int32]
    column: NDArray[np.int32]  # of the row
    fresh: NDArray[np.bool_]  # begins its document

    def addresses(self) -> tuple[int, ...]:
        """Of the five arrays, for a kernel."""
        return tuple(array.ctypes.data for array in self)


class OpenShard:
    """A shard's file in memory, as far as the operating system has it there; it holds no file descriptor.

    Raises DatasetError for a file that is no shard, or not one of that type and number of tokens.
    """

    def __init__(self, path: str, token_type: np.dtype[Any], num_tokens: int) -> None:
        self.path = path
        shard = map_shard(path)
        tokens = [batch["tokens"] for batch in shard.batches]
        if any(column.type.value_type != pa.from_numpy_dtype(token_type) for column in tokens):
            raise DatasetError(f"{path}: its tokens are {tokens[0].type.value_type}, the manifest says {token_type}")
        self._whole = shard.whole  # the addresses below are good as long as it is
        self.token_type = token_type
        offsets = [np.from_dlpack(column.offsets) for column in tokens]  # `to_numpy` imports pandas first
        counts = [int(each[-1] - each[0]) for each in offsets]
        self.starts_R = np.cumsum([0, *counts], dtype=np.int64)  # R + 1: tokens before each record batch
        if int(self.starts_R[-1]) != num_tokens:
            raise DatasetError(f"{path} has {self.starts_R[-1]} tokens, the manifest says {num_tokens}")
        places = [
            self._address(column, int(each[0]), count)
            for column, each, count in zip(tokens, offsets, counts, strict=True)
        ]
        self.addresses_R = np.array([*places, 0], np.int64)  # R + 1: of the first token of each record batch
        self.lengths = np.concatenate([np.empty(0, np.int32), *(np.diff(each) for each in offsets)])
        self._placed: dict[int, Placed] = {}

    def _address(self, column: pa.ListArray, first: int, count: int) -> int:
        """Where tokens `first` to `first + count` of a column begin; they must lie in the file, as they are."""
        values, size = column.values.buffers()[1], self.token_type.itemsize
        begin = self._whole.address if values is None else values.address + (column.values.offset + first) * size
        inside = self._whole.address <= begin <= begin + count * size <= self._whole.address + len(self._whole)
        if first < 0 or count < 0 or not inside or begin % size:
            raise DatasetError(f"{self.path}: its tokens are compressed or not aligned: a shard is neither")
        return begin

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
    first = np.searchsorted(row, np.arange(num_rows + 1)).astype(np.int64)
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


class Layout:
    """Open shards side by side, as the kernels read them: made anew when one is opened or closed. S shards."""

    def __init__(self, shards: Iterable[OpenShard]) -> None:
        self._shards = tuple(shards)  # kept: the addresses are theirs
        self.first_S = np.cumsum([0, *(len(shard.starts_R) for shard in self._shards)])  # S + 1
        none = np.empty(0, np.int64)
        self.starts_R = np.concatenate([none, *(shard.starts_R for shard in self._shards)])
        self.addresses_R = np.concatenate([none, *(shard.addresses_R for shard in self._shards)])
        self._tables: dict[int, Ints] = {}

    def tables(self, sequence_length: int) -> Ints:
        """(S, 5) addresses of each shard's `Placed`."""
        if sequence_length not in self._tables:
            addresses = [shard.placed(sequence_length).addresses() for shard in self._shards]
            self._tables[sequence_length] = np.array(addresses, np.int64).reshape(-1, 5)
        return self._tables[sequence_length]


class Pieces(NamedTuple):
    """Pieces of the rows of a batch, in order of (row, column)."""

    shard_P: Ints  # index in the layout
    row_P: NDArray[np.int32]  # of the batch
    column_P: NDArray[np.int32]
    start_P: Ints  # token of the shard
    length_P: NDArray[np.int32]
    fresh_P: NDArray[np.bool_]  # begins after an end-of-text, whatever stands before it


def pieces_of(layout: Layout, shard_B: Ints, row_B: Ints, sequence_length: int, packing: str) -> Pieces:
    """The pieces of a batch: row `row_B` of shard `shard_B` (index in the layout; -1: a lost one, no pieces).

    The rows must be there: of a layout's shards, nothing is checked here.
    """
    if packing == "windows":
        rows = np.flatnonzero(shard_B >= 0)
        start_P, nothing = row_B[rows] * sequence_length, np.zeros(len(rows), np.int32)
        whole = np.full(len(rows), sequence_length, np.int32)
        return Pieces(shard_B[rows], rows.astype(np.int32), nothing, start_P, whole, start_P == 0)
    return Pieces(*_placed_pieces(layout.tables(sequence_length), shard_B, row_B))


def gather(layout: Layout, pieces: Pieces, end_of_text: int, targets_BT: NDArray[Any]) -> Ints:
    """Copy pieces into rows of `targets_BT`; returns the token before each, (P,). One pass, whatever the shards."""
    before_P = np.empty(len(pieces.row_P), np.int64)
    places = (layout.first_S, layout.starts_R, layout.addresses_R)
    _copy(*places, *pieces, end_of_text, targets_BT, before_P)
    return before_P


def _as_pointer(typing, address):  # type: ignore[no-untyped-def]
    """An address as a pointer, which numba has no word for. The caller answers for what lies there."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.inttoptr(arguments[0], cgutils.voidptr_t)

    return numba.types.voidptr(address), build


_pointer: Any = intrinsic(_as_pointer)


@numba.njit(cache=True, nogil=True)
def _copy(first_S, starts, addresses, shard, row, column, start, length, fresh, end_of_text, targets, before):  # type: ignore[no-untyped-def]
    size = targets.itemsize
    for p in range(len(row)):
        first, last = first_S[shard[p]], first_S[shard[p] + 1]
        token, left, to = start[p], np.int64(length[p]), np.int64(column[p])
        r = first + np.searchsorted(starts[first:last], token, side="right") - 1
        if fresh[p]:
            before[p] = end_of_text
        else:
            q = r if token > starts[r] else first + np.searchsorted(starts[first:last], token - 1, side="right") - 1
            before[p] = numba.carray(_pointer(addresses[q] + (token - 1 - starts[q]) * size), 1, targets.dtype)[0]
        while left > 0:
            count = min(left, starts[r + 1] - token)
            found = numba.carray(_pointer(addresses[r] + (token - starts[r]) * size), count, targets.dtype)
            targets[row[p], to : to + count] = found
            token, left, to, r = token + count, left - count, to + count, r + 1


@numba.njit(cache=True, nogil=True)
def _placed_pieces(tables, shard_B, row_B):  # type: ignore[no-untyped-def]
    """Look the rows up in the shards' `Placed`, whose arrays' addresses are the rows of `tables`."""
    total = 0
    for b in range(len(row_B)):
        if shard_B[b] >= 0:
            first = numba.carray(_pointer(tables[shard_B[b], 0]), row_B[b] + 2, np.int64)
            total += first[row_B[b] + 1] - first[row_B[b]]
    shard, start = np.empty(total, np.int64), np.empty(total, np.int64)
    row, column, length = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.int32)
    fresh = np.empty(total, np.bool_)
    p = 0
    for b in range(len(row_B)):
        s = shard_B[b]
        if s < 0:
            continue
        first = numba.carray(_pointer(tables[s, 0]), row_B[b] + 2, np.int64)
        begin, end = first[row_B[b]], first[row_B[b] + 1]
        starts = numba.carray(_pointer(tables[s, 1]), end, np.int64)
        lengths = numba.carray(_pointer(tables[s, 2]), end, np.int32)
        columns = numba.carray(_pointer(tables[s, 3]), end, np.int32)
        fresh_of = numba.carray(_pointer(tables[s, 4]), end, np.bool_)
        for i in range(begin, end):
            shard[p], row[p] = s, b
            column[p], start[p], length[p], fresh[p] = columns[i], starts[i], lengths[i], fresh_of[i]
            p += 1
    return shard, row, column, start, length, fresh


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
            while mask and t < stop:
                document += 1
                begin, t = t, t + 1
                while t < stop and tokens[b, t] != end:
                    t += 1
                for i in range(begin, t):
                    positions[b, i] = i - begin
                    documents[b, i] = document
            t = stop
            p += 1
        tokens[b, t:] = end
        targets[b, t:] = IGNORED
        if mask:
            positions[b, t:] = 0
            documents[b, t:] = -1

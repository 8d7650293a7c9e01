"""A rank's batches, read from shards: by a thread of the training process, or by worker processes (worker.py).

Free of torch, so that a worker starts in a second. Nothing is kept but open shards: batch b is read alike by anyone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from schemas.manifest import DatasetError
from trainer.dataset import Dataset, ShardFiles
from trainer.order import Batch, EndOfRun, Order, Phase, Window, slice_of
from trainer.tokens import NarrowBatch, OpenShard, gather, pieces_of

__all__ = ["Job", "ReadBatch", "Reader", "ShardLost", "Shelf", "UseOfShards"]


class ShardLost(DatasetError):
    """A shard that is bad and stays bad; the message names it."""


class Shelf(Protocol):
    """Where remote shards can be read on this machine: see cache.py."""

    def path(self, shard: int) -> str:
        """The shard's local file; waits until it is there. Raises ShardLost, or StorageError."""

    def past(self, batch: int) -> None:
        """Nothing before `batch` is read any more, and no file that only earlier batches need is open."""

    def close(self) -> None:
        """Nothing is read any more."""


@dataclass(frozen=True, eq=False)
class Job:
    """What a reader must know; small enough to be sent to a worker."""

    datasets: Sequence[Dataset]
    seed: int
    phases: Sequence[Phase]
    rank: int = 0
    world: int = 1
    skipped: Sequence[int] = ()
    lost: Mapping[int, int] = field(default_factory=dict)  # shard: first batch without its targets
    skip_lost: bool = False  # go on without a shard that stays bad
    shelf: Any = None  # the Cache, where a dataset is remote

    def order(self) -> Order:
        """The run's order, for one thread."""
        return Order(self.seed, self.phases, self.skipped)


@dataclass(eq=False)
class ReadBatch:
    """A rank's slice of a batch, as the shards hold it."""

    rows: Batch
    narrow: NarrowBatch
    lost: dict[int, int]  # shards that this batch was the first to miss, and the batch


class UseOfShards:
    """Which shards the batches around a moving batch number need, and until when."""

    def __init__(self, order: Order, start: int) -> None:
        self._windows = _windows_from(order, start)
        self._following: Window | None = next(self._windows, None)
        self._last: dict[int, int] = {}  # shard: last batch of the windows that have begun
        self._soonest = start  # no shard is over before this batch

    def over(self, batch: int) -> list[int]:
        """Shards of begun windows that no batch from `batch` on reads in those; each is told once a window."""
        while self._following is not None and self._following.first_batch <= batch:
            for shard in self._following.shards:
                self._last[shard] = max(self._following.last_batch, self._last.get(shard, -1))
            self._soonest = min(self._soonest, self._following.last_batch + 1)
            self._following = next(self._windows, None)
        if batch < self._soonest:
            return []
        over = [shard for shard, last in self._last.items() if last < batch]
        for shard in over:
            del self._last[shard]
        self._soonest = min(self._last.values(), default=batch) + 1
        return over


def _windows_from(order: Order, start: int) -> Iterator[Window]:
    """The windows that batches from `start` on read; none past the run's end, where a worker may be told to begin."""
    try:
        yield from order.windows_from(start)
    except EndOfRun:
        return


class Reader:
    """Reads batches in rising order. Not for several threads at once."""

    def __init__(self, job: Job, start: int, stopped: Callable[[], bool]) -> None:
        """Read from batch `start` on; `stopped` ends a wait for a remote shard."""
        self.order = job.order()
        self._job = job
        self._shelf: Shelf | None = job.shelf.enter(self.order, start, stopped) if job.shelf is not None else None
        self._files = ShardFiles(self.order.shards, job.datasets)
        self._lost = dict(job.lost)
        self._open: dict[int, OpenShard] = {}
        self._use = UseOfShards(self.order, start)

    def batches(self, start: int, step: int = 1) -> Iterator[ReadBatch]:
        """Batches start, start + step, ... without the skipped ones, to the run's end."""
        skipped, b = set(self.order.skipped), start
        while True:
            if b not in skipped:
                try:
                    yield self.read(b)
                except EndOfRun:
                    return
            b += step

    def close(self) -> None:
        """Let go of all shards."""
        self._open.clear()
        if self._shelf is not None:
            self._shelf.close()

    def read(self, b: int) -> ReadBatch:
        """This rank's rows of a batch. Raises EndOfRun past the last, DatasetError for a bad shard that must not be."""
        for shard in self._use.over(b):
            self._open.pop(shard, None)
        if self._shelf is not None:
            self._shelf.past(b)
        rows = slice_of(self.order.batch(b), self._job.rank, self._job.world)
        lost: dict[int, int] = {}
        try:
            narrow = self._gather(rows, self.order.phase_of(b), lost)
        finally:
            self._lost |= lost
        return ReadBatch(rows, narrow, lost)

    def _gather(self, rows: Batch, phase: Phase, lost: dict[int, int]) -> NarrowBatch:
        """Piece by piece, shard by shard: rows of a shard stand together in a batch."""
        token_type = self._job.datasets[0].token_type
        targets_BT = np.zeros((len(rows), phase.sequence_length), token_type)
        edges = [0, *(np.flatnonzero(np.diff(rows.shard_G)) + 1).tolist(), len(rows)]
        columns: list[tuple[Any, ...]] = []
        for first, last in pairwise(edges):
            shard = self._opened(int(rows.shard_G[first]), rows.number, lost) if last > first else None
            if shard is None:
                continue
            counted = self._files.packed_rows(int(rows.shard_G[first]), phase.sequence_length)
            pieces = pieces_of(shard, rows.row_G[first:last], phase.sequence_length, phase.packing, counted)
            end_of_text = self._job.datasets[0].end_of_text
            before_P = gather(shard, pieces, end_of_text, targets_BT[first:last])
            columns.append((pieces[0] + first, pieces[1], pieces[3], before_P))
        none = np.empty(0, np.int64)
        joined = [np.concatenate(column) for column in zip(*columns, strict=True)] if columns else [none] * 4
        row_P, column_P, length_P = (column.astype(np.int32) for column in joined[:3])
        return NarrowBatch(targets_BT, row_P, column_P, length_P, joined[3])

    def _opened(self, shard: int, b: int, lost: dict[int, int]) -> OpenShard | None:
        """The open shard; None for a lost one."""
        if shard in self._open:
            return self._open[shard]
        if self._lost.get(shard, b + 1) <= b or shard in lost:
            return None
        try:
            path = self._files.path(shard)
            if path is None:
                assert self._shelf is not None, "a remote dataset is read through a cache"
                path = self._shelf.path(shard)
            opened = OpenShard(path, self._files.dataset(shard).token_type, int(self._files.tokens_N[shard]))
        except DatasetError:
            if not self._job.skip_lost:
                raise
            lost[shard] = b
            return None
        self._open[shard] = opened
        return opened

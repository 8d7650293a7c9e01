"""A rank's batches, read from shards: by a thread of the training process, or by worker processes (worker.py).

Free of torch, so that a worker starts in a second. Nothing is kept but open shards: batch b is read alike by anyone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
        """The rows' tokens, copied out of their shards; none for those of a lost shard."""
        dataset = self._job.datasets[0]  # all have one tokenizer
        targets_BT = np.zeros((len(rows), phase.sequence_length), dataset.token_type)
        edge_B = np.ones(len(rows), np.bool_)  # rows of a shard stand together in a batch
        np.not_equal(rows.shard_G[1:], rows.shard_G[:-1], out=edge_B[1:])
        shards: list[OpenShard] = []
        places = []
        for shard in rows.shard_G[edge_B].tolist():
            opened = self._opened(shard, rows.number, phase, lost)
            places.append(-1 if opened is None else len(shards))
            shards += [] if opened is None else [opened]
        shard_B = np.array(places, np.int64)[np.cumsum(edge_B) - 1]
        pieces = pieces_of(shards, shard_B, rows.row_G, phase.sequence_length, phase.packing)
        before_P = gather(shards, pieces, dataset.end_of_text, targets_BT)
        return NarrowBatch(targets_BT, pieces.row_P, pieces.column_P, pieces.length_P, before_P)

    def _opened(self, shard: int, b: int, phase: Phase, lost: dict[int, int]) -> OpenShard | None:
        """The open shard; None for a lost one."""
        if self._lost.get(shard, b + 1) <= b or shard in lost:
            return None
        try:
            opened = self._open.get(shard) or self._open_shard(shard)
            if phase.packing == "documents":
                opened.placed(phase.sequence_length, self._files.packed_rows(shard, phase.sequence_length))
        except DatasetError:
            if not self._job.skip_lost:
                raise
            lost[shard] = b
            return None
        self._open[shard] = opened
        return opened

    def _open_shard(self, shard: int) -> OpenShard:
        path = self._files.path(shard)
        if path is None:
            assert self._shelf is not None, "a remote dataset is read through a cache"
            path = self._shelf.path(shard)
        return OpenShard(path, self._files.dataset(shard).token_type, int(self._files.tokens_N[shard]))

"""A rank's batches, read from shards: by a thread of the training process, or by worker processes (reader_process.py).

Free of torch, so that a worker starts in a second. Nothing is kept but open shards: batch b is read alike by anyone.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from schemas.dataset import DatasetError, check_digest
from trainer.data.shard_files import ShardFiles
from trainer.data.shard_rows import Layout, NarrowBatch, OpenShard, gather, pieces_of
from trainer.data.train_split import TrainSplit
from trainer.order.batch_order import Batch, EndOfRun, Order, Phase, Window, slice_of

__all__ = ["Job", "ReadBatch", "Reader", "ShardLost", "ShardProvider", "UseOfShards"]

NEVER = 2**62


class ShardLost(DatasetError):
    """A shard that is bad and stays bad; the message names it."""


class ShardProvider(Protocol):
    """Where remote shards can be read on this machine: see cache.py."""

    def path(self, shard: int) -> str:
        """The shard's local file; waits until it is there. Raises ShardLost, or StorageError."""

    def advance_to(self, batch: int) -> None:
        """Nothing before `batch` is read any more, and no file that only earlier batches need is open."""

    def close(self) -> None:
        """Nothing is read any more."""


@dataclass(frozen=True, eq=False)
class Job:
    """What a reader must know; small enough to be sent to a worker."""

    datasets: Sequence[TrainSplit]
    seed: int
    phases: Sequence[Phase]
    rank: int = 0
    world: int = 1
    skipped: Sequence[int] = ()
    lost: Mapping[int, int] = field(default_factory=dict)  # shard: first batch without its targets
    skip_lost: bool = False  # go on without a shard that stays bad
    verify: bool = True  # digest local shards before they are read
    provider: Any = None  # the Cache, where a dataset is remote

    def order(self) -> Order:
        """The run's order, for one thread."""
        return Order(self.seed, self.phases, self.skipped)


@dataclass(eq=False)
class ReadBatch:
    """A rank's slice of a batch, as the shards hold it."""

    samples: Batch
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
        """Return the shards of begun windows that no batch from `batch` on reads; each is named once a window."""
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
    """The windows that batches from `start` on read; none past the run's end, where a worker may begin."""
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
        self._provider: ShardProvider | None = (
            job.provider.enter(self.order, start, stopped) if job.provider is not None else None
        )
        self._files = ShardFiles(self.order.shards, job.datasets)
        self._lost = dict(job.lost)
        self._open: dict[int, OpenShard] = {}
        self._slot_N = np.empty(len(self.order.shards.source_N), np.int64)  # place in the layout; -1: not open
        self._verified_N = np.zeros(len(self._slot_N), np.bool_)  # local shards whose digest was checked
        self._cut: tuple[int, str] | None = None  # sequence length and packing that the open shards were checked for
        self._arrange()
        self._use = UseOfShards(self.order, start)

    def batches(self, start: int, step: int = 1, until: int | None = None) -> Iterator[ReadBatch]:
        """Yield batches start, start + step, ... without the skipped ones, to the run's end or before `until`."""
        skipped, b = set(self.order.skipped), start
        while until is None or b < until:
            if b not in skipped:
                try:
                    yield self.read(b)
                except EndOfRun:
                    return
            b += step

    def close(self) -> None:
        """Close all shards."""
        self._open.clear()
        self._arrange()
        if self._provider is not None:
            self._provider.close()

    def read(self, b: int) -> ReadBatch:
        """Return this rank's samples of a batch. Raises EndOfRun past the last, DatasetError for a bad shard."""
        phase = self.order.phase_of(b)
        self._close_shards(b, phase)
        if self._provider is not None:
            self._provider.advance_to(b)
        samples = slice_of(self.order.batch(b), self._job.rank, self._job.world)
        lost: dict[int, int] = {}
        try:
            narrow = self._gather(samples, phase, lost)
        finally:
            self._lost |= lost
        return ReadBatch(samples, narrow, lost)

    def _gather(self, samples: Batch, phase: Phase, lost: dict[int, int]) -> NarrowBatch:
        """Return the samples' tokens, copied out of their shards; none for those of a lost shard."""
        dataset = self._job.datasets[0]  # all have one tokenizer
        targets_BT = np.zeros((len(samples), phase.sequence_length), dataset.token_type)
        closed = self._slot_N[samples.shard_G] < 0
        if closed.any():
            for shard in np.unique(samples.shard_G[closed]).tolist():
                if self._lost.get(shard, NEVER) > samples.number and not self._try_shard(shard, phase):
                    lost[shard] = samples.number
            self._arrange()
        slot_B = self._slot_N[samples.shard_G]
        pieces = pieces_of(self._layout, slot_B, samples.row_G, phase.sequence_length, phase.packing)
        before_P = gather(self._layout, pieces, dataset.end_of_text, targets_BT)
        return NarrowBatch(targets_BT, pieces.row_P, pieces.column_P, pieces.length_P, before_P)

    # ------------------------------------------------------------ open shards

    def _arrange(self) -> None:
        self._slot_N[:] = -1
        self._slot_N[list(self._open)] = np.arange(len(self._open))
        self._layout = Layout(self._open.values())

    def _close_shards(self, b: int, phase: Phase) -> None:
        """Close what batch b and later ones do not read in the windows that have begun, or as it was checked."""
        gone = [shard for shard in self._use.over(b) if shard in self._open]
        cut = (phase.sequence_length, phase.packing)
        if cut != self._cut:
            gone, self._cut = list(self._open), cut
        for shard in gone:
            del self._open[shard]
        if gone:
            self._arrange()

    def _try_shard(self, shard: int, phase: Phase) -> bool:
        """Open a shard. False, or DatasetError, for a bad one, as the job treats lost shards."""
        try:
            opened = self._open_shard(shard)
            if phase.packing == "documents":
                opened.placed(phase.sequence_length, self._files.packed_rows(shard, phase.sequence_length))
        except DatasetError:
            if not self._job.skip_lost:
                raise
            return False
        self._open[shard] = opened
        return True

    def _open_shard(self, shard: int) -> OpenShard:
        token_type, num_tokens = self._files.dataset(shard).token_type, int(self._files.tokens_N[shard])
        local = self._files.path(shard)
        if local is not None:
            # Once a reader. W workers each do it: at a GB/s, for shards that last for hours, less than agreeing on it.
            if self._job.verify and not self._verified_N[shard]:
                check_digest(local, self.order.shards.sha256_N[shard].tobytes().hex(), local)
                self._verified_N[shard] = True
            return OpenShard(local, token_type, num_tokens)
        assert self._provider is not None, "a remote dataset is read through a cache"
        while True:
            path = self._provider.path(shard)
            try:
                return OpenShard(path, token_type, num_tokens)
            except DatasetError:
                if os.path.exists(path):
                    raise  # else it was evicted meanwhile for a reader that is behind, and comes again

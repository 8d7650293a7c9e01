"""The order of training samples: which rows of which shards make up batch b, for any b (contracts, section 7).

A pure function of the seed, the source names and the shards in use. Ranks and workers slice a batch and never enter;
nothing is stored but columns of shards, and nothing is walked over: batch 10,000,000 is as near as batch 0.
G = rows of a batch, or of a rank's slice of it.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.recipe import canonical_json
from trainer.order.mixture_schedule import EndOfRun, Plan
from trainer.order.phases import Phase, ShardTable, prepare

__all__ = [
    "ORDER_VERSION",
    "Batch",
    "Consumed",
    "EndOfRun",
    "LeftOut",
    "Order",
    "Phase",
    "ShardTable",
    "Window",
    "slice_of",
    "update_digest",
]

ORDER_VERSION = "order-1"


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples in batch order: by (source, epoch, carry-over first, place, row)."""

    number: int
    source_G: NDArray[np.int64]  # row of the table's `sources`
    epoch_G: NDArray[np.int64]  # of the source
    carried_G: NDArray[np.bool_]  # carried over by a re-window
    place_G: NDArray[np.int64]  # of the shard in its epoch
    shard_G: NDArray[np.int64]  # row of the table
    row_G: NDArray[np.int64]  # of the shard

    def __len__(self) -> int:
        """Rows."""
        return len(self.row_G)


@dataclass(frozen=True)
class Window:
    """Shards that are read together, by batches `first_batch` to `last_batch` (inclusive, skipped ones too)."""

    source: str
    epoch: int
    cut: int  # -1, or the batch of the re-window that made the window
    number: int
    carry_over: bool  # what a later re-window left of it
    shards: tuple[int, ...]  # rows of the table, in order of place
    first_batch: int
    last_batch: int


@dataclass(frozen=True)
class Consumed:
    """What a source has given before a batch, skipped batches included."""

    samples: int
    epochs: float  # rows left out or retired count as read


@dataclass(frozen=True)
class LeftOut:
    """Unread rows of a source's running window that a phase drops; they are lost to this epoch."""

    batch: int  # the phase's start
    source: str
    rows: int  # at the sequence length before

    def line(self) -> str:
        """For a person."""
        return f"the phase at batch {self.batch:,} leaves out {self.rows:,} unread rows of {self.source}"


class Order:
    """The order of a run. Cheap to make in every process; not for several threads at once.

    Raises ValueError for everything that section 7 refuses; where sources at their caps leave others that cannot fill
    a batch, that is raised for the batch in question, and `last_batch` is the one before.
    """

    def __init__(self, seed: int, phases: Sequence[Phase], skipped: Sequence[int] = ()) -> None:
        self.seed = seed
        self.shards, prepared = prepare(seed, phases)
        self.skipped = sorted(set(skipped))
        if self.skipped and self.skipped[0] < 0:
            raise ValueError(f"skipped names batch {self.skipped[0]}: batches count from 0")
        self._plan = Plan(seed, self.shards, prepared)
        # The k-th batch that is not skipped is k plus the skipped ones up to it: those i with skipped[i] - i <= k.
        self._kept_before = [batch - i for i, batch in enumerate(self.skipped)]

    # ------------------------------------------------------------ steps and batches

    def batch_of_step(self, step: int) -> int:
        """The batch that a step trains."""
        return step + bisect_right(self._kept_before, step)

    def step_of_batch(self, batch: int) -> int | None:
        """The step that trains a batch; None for a skipped one."""
        before = bisect_left(self.skipped, batch)
        skipped = before < len(self.skipped) and self.skipped[before] == batch
        return None if skipped else batch - before

    def batch(self, b: int) -> Batch:
        """The rows of a batch, skipped or not. Raises EndOfRun past the last."""
        segment = self._plan.segment(b)
        first, last = self._plan.consumed_around(segment, b)
        parts, columns = [], []
        for source in np.flatnonzero(last > first).tolist():
            for window, begin, end in self._plan.timelines[source].windows(int(first[source]), int(last[source])):
                parts.append((source, window.epoch, window.carry_over, end - begin))
                columns.append(window.read(begin, end))
        sources, epochs, carried, counts = zip(*parts, strict=True)
        place, shard, row = (np.concatenate(column) for column in zip(*columns, strict=True))
        return Batch(
            number=b,
            source_G=np.repeat(np.array(sources, np.int64), counts),
            epoch_G=np.repeat(np.array(epochs, np.int64), counts),
            carried_G=np.repeat(np.array(carried, np.bool_), counts),
            place_G=place,
            shard_G=shard,
            row_G=row,
        )

    def phase_of(self, b: int) -> Phase:
        """The phase of a batch. Raises EndOfRun past the last."""
        return self._plan.phases[self._plan.segment(b).phase].phase

    def last_batch(self) -> int | None:
        """The run's last batch, -1 for a run without one; None: without end."""
        return self._plan.last_batch()

    # ------------------------------------------------------------ shards ahead, and back from rows to batches

    def windows_from(self, b: int) -> Iterator[Window]:
        """The windows that batches from b on read, by (first batch, source); endless where the run is."""
        consumed = self._plan.consumed(b)
        sources = [self._windows(source, int(given)) for source, given in enumerate(consumed)]
        return merge(*sources, key=lambda window: window.first_batch)  # of equal ones, the earlier source's first

    def positions(
        self, shard: int, rows: Callable[[int, str], Sequence[int]], until: int
    ) -> list[tuple[int, int, int]]:
        """Every (batch, epoch, row) that reads some rows of a shard (a row of the table) before batch `until`, sorted.

        `rows(sequence_length, packing)` numbers the wanted rows, which differ between phases. Skipped batches are in.
        """
        until = self._at_most_end(until)
        source = int(self.shards.source_N[shard])
        timeline = self._plan.timelines[source]
        found = timeline.samples_of(shard, rows, int(self._plan.consumed(until)[source]))
        batches = [(self._plan.batch_of_sample(source, sample), epoch, row) for sample, epoch, row in found]
        return sorted((batch, epoch, row) for batch, epoch, row in batches if batch is not None)

    def _windows(self, source: int, sample: int) -> Iterator[Window]:
        """A source's windows from one of its samples on."""
        plan, timeline = self._plan, self._plan.timelines[source]
        while plan.batch_of_sample(source, sample) is not None:
            # Planning up to the window's end may find a re-window before it: so it is looked up again.
            plan.batch_of_sample(source, timeline.window(sample).end - 1)
            window = timeline.window(sample)
            first = plan.batch_of_sample(source, window.begin)
            last = plan.batch_of_sample(source, window.end - 1)
            if last is None:  # the source leaves, or the run ends, inside the window
                last = plan.batch_of_sample(source, plan.given(source) - 1)
            assert first is not None, f"sample {window.begin} of {self.shards.sources[source]} has no batch"
            assert last is not None, f"sample {sample} of {self.shards.sources[source]} has no batch"
            yield Window(
                source=self.shards.sources[source],
                epoch=window.epoch,
                cut=window.cut,
                number=window.number,
                carry_over=window.carry_over,
                shards=tuple(window.shards().tolist()),
                first_batch=first,
                last_batch=last,
            )
            sample = window.end

    # ------------------------------------------------------------ accounts

    def consumed(self, b: int) -> dict[str, Consumed]:
        """What each source has given before batch b (at most the end's)."""
        b = self._at_most_end(b)
        samples = self._plan.consumed(b).tolist()
        return {
            name: Consumed(given, timeline.epochs_at(b, given))
            for name, given, timeline in zip(self.shards.sources, samples, self._plan.timelines, strict=True)
        }

    def realised_tokens(self, step: int) -> dict[str, int]:
        """Target tokens of each source in the steps before `step`, skipped batches left out.

        Rows times sequence length: with packing `documents` the padding is in it, and rows of lost shards always are.
        """
        stop = self._at_most_end(self.batch_of_step(step))
        tokens = np.zeros(len(self.shards.sources), np.int64)
        b = 0
        while b < stop:
            segment = self._plan.segment(b)
            end = stop if segment.stop is None else min(stop, segment.stop)
            rows = self._plan.consumed(end) - segment.base
            for skipped in self.skipped[bisect_left(self.skipped, b) : bisect_left(self.skipped, end)]:
                before, after = self._plan.consumed_around(segment, skipped)
                rows -= after - before
            tokens += rows * self._plan.phases[segment.phase].phase.sequence_length
            b = end
        return dict(zip(self.shards.sources, tokens.tolist(), strict=True))

    def left_out(self) -> list[LeftOut]:
        """Rows that the re-windows drop, of all phases that the run reaches."""
        self._plan.last_batch()
        names = self.shards.sources
        return [
            LeftOut(windowing.batch, name, windowing.left_out)
            for name, timeline in zip(names, self._plan.timelines, strict=True)
            for windowing in timeline.windowings
            if windowing.left_out
        ]

    def plan(self, until: int) -> list[dict[str, Any]]:
        """The phases that start before batch `until`, as JSON: equal plans and seeds make equal batches until then."""
        return [
            {
                "start": prepared.phase.start,
                "global_batch": prepared.phase.global_batch,
                "sequence_length": prepared.phase.sequence_length,
                "packing": prepared.phase.packing,
                "weights": {self.shards.sources[s]: str(weight) for s, weight in prepared.weights.items()},
                "max_epochs": {self.shards.sources[s]: str(cap) for s, cap in sorted(prepared.caps.items())},
                "at_cap": prepared.phase.at_cap,
                "shards": prepared.phase.shards.digest(),
            }
            for prepared in self._plan.phases
            if prepared.phase.start < until
        ]

    def plan_digest(self, until: int) -> str:
        """Hex sha256 of `plan`: for the state, which a resumed run must fit as far as it has come."""
        return hashlib.sha256(canonical_json(self.plan(until))).hexdigest()

    def _at_most_end(self, b: int) -> int:
        """b, or the batch before which the run ends; all before it is planned then, and the phase that b starts."""
        try:
            self._plan.segment(b)
        except (EndOfRun, ValueError):
            if b < 0 or self._plan.end is None:
                raise
            return min(b, self._plan.end)
        return b


def update_digest(digest: bytes, batch: Batch, order: Order) -> bytes:
    """The rolling digest after a trained batch; 32 zero bytes before the first. Takes the whole batch, not a slice."""
    rows = np.empty((len(batch), 40), np.uint8)
    rows[:, :32] = order.shards.sha256_N[batch.shard_G]
    rows[:, 32:] = batch.row_G.astype("<u8").view(np.uint8).reshape(-1, 8)
    return hashlib.blake2b(digest + rows.tobytes(), digest_size=32).digest()


def slice_of(batch: Batch, rank: int, world: int) -> Batch:
    """A rank's rows: floor(r G / D) to floor((r + 1) G / D). Slices differ by a row where D does not divide G."""
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}: expected a rank from 0 to {world - 1}")
    part = slice(rank * len(batch) // world, (rank + 1) * len(batch) // world)
    return Batch(
        number=batch.number,
        source_G=batch.source_G[part],
        epoch_G=batch.epoch_G[part],
        carried_G=batch.carried_G[part],
        place_G=batch.place_G[part],
        shard_G=batch.shard_G[part],
        row_G=batch.row_G[part],
    )

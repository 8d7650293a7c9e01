"""The plan of a run: segments of constant weights, from phases and caps (contracts, section 7, "Caps" and "Phases").

A segment's end is computed, not walked to: the plan of a run is one segment a phase, and one more for each time that
sources reach their caps. It is made as far as it is needed.
"""

from bisect import bisect_right
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainer.order.mixture import CYCLE, Cycles, Segment
from trainer.order.phases import PreparedPhase, ShardTable, refuse_small_sources
from trainer.order.source_order import Timeline

__all__ = ["EndOfRun", "Plan"]

UNREACHABLE = 2**62  # samples: stands for no cap


class EndOfRun(Exception):
    """The run has no such batch, because sources reached their caps; the message names which and when."""


class Plan:
    """Segments in order, and the timeline of each source of the run's table."""

    def __init__(self, seed: int, table: ShardTable, phases: list[PreparedPhase]) -> None:
        self.phases = phases
        self.cycles = Cycles(seed)
        self.segments: list[Segment] = []
        self.end: int | None = None  # the batch before which the run ends, once that is known
        self.refusal: Exception | None = None  # what to raise for it
        self._names = table.sources
        words = np.ascontiguousarray(table.sha256_N[:, :8]).view("<u8").astype(np.uint64).reshape(-1)
        self.timelines = [Timeline(seed, name, words, table.sha256_N) for name in table.sources]
        self._replaces: dict[bytes, tuple[bytes, ...]] = {}
        self._endless = False
        self._enter(0, np.zeros(len(table.sources), np.int64))

    # ------------------------------------------------------------ looking up

    def segment(self, batch: int) -> Segment:
        """The segment of a batch. Raises EndOfRun past the end, or ValueError where a segment was refused."""
        if batch < 0:
            raise ValueError(f"batch {batch}: batches count from 0")
        while not self._known(batch) and self._extend():
            pass
        if self.refusal is not None and self.end is not None and batch >= self.end:
            raise self.refusal.with_traceback(None)
        return self.segments[bisect_right(self.segments, batch, key=lambda segment: segment.start) - 1]

    def consumed(self, batch: int) -> NDArray[np.int64]:
        """Samples of every source before a batch, skipped batches included; the end's own number is one too."""
        if batch == 0:
            return np.zeros(len(self._names), np.int64)
        return self.cycles.consumed(self.segment(batch - 1), batch)

    def consumed_around(self, segment: Segment, batch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Samples of every source before a batch of the segment, and after it."""
        return self.cycles.consumed(segment, batch), self.cycles.consumed(segment, batch + 1)

    def given(self, source: int) -> int:
        """Samples that a source gives in all, once nothing more of it is planned."""
        last = self.segments[-1]
        return int((last.base if last.stop is None else self.cycles.consumed(last, last.stop))[source])

    def batch_of_sample(self, source: int, sample: int) -> int | None:
        """The batch that takes a source's sample; None where none ever does."""
        while True:
            number = bisect_right(self.segments, sample, key=lambda segment: int(segment.base[source])) - 1
            if number >= 0:
                batch = self._batch_in(self.segments[number], source, sample)
                if batch is not None:
                    return batch
            if not self._extend():
                return None

    def last_batch(self) -> int | None:
        """The run's last batch, -1 if it has none; None: without end."""
        while self._extend():
            pass
        return None if self.end is None else self.end - 1

    def _known(self, batch: int) -> bool:
        if not self.segments:
            return False
        stop = self.segments[-1].stop
        return stop is None or batch < stop

    def _batch_in(self, segment: Segment, source: int, sample: int) -> int | None:
        place = int(np.searchsorted(segment.sources_S, source))
        if place == len(segment.sources_S) or segment.sources_S[place] != source:
            return None
        number, j = divmod(sample - int(segment.base[source]), int(segment.quotas_S[place]))
        first = segment.start + number * CYCLE // segment.global_batch
        if segment.stop is not None and first >= segment.stop:
            return None
        position = self.cycles.places(segment, number, np.array([place]), np.array([j]))[0]
        batch = segment.start + (number * CYCLE + int(position)) // segment.global_batch
        return batch if segment.stop is None or batch < segment.stop else None

    # ------------------------------------------------------------ planning

    def _enter(self, number: int, base: NDArray[np.int64]) -> None:
        """Start a phase: re-window its sources where it needs that, and apply their caps."""
        prepared = self.phases[number]
        self._replaces.update(prepared.phase.shards.replaces)
        for source, timeline in enumerate(self.timelines):
            if prepared.rewindow:
                timeline.rewindow(prepared.phase.start, int(base[source]), prepared.reads[source], self._replaces)
            timeline.enter_phase(int(base[source]), prepared.weights.get(source))
        self._limits = np.full(len(self._names), UNREACHABLE, np.int64)
        for source, cap in prepared.caps.items():
            self._limits[source] = min(UNREACHABLE, self.timelines[source].cap_end(cap))
        self._phase, self._start, self._base = number, prepared.phase.start, base
        self._active = list(prepared.weights)

    def _extend(self) -> bool:
        """Plan one segment more, or let sources leave before it has a batch. False: all is planned."""
        if self._endless or self.end is not None:
            return False
        prepared = self.phases[self._phase]
        segment = self._open(prepared)
        if segment is None:
            return False
        following = self.phases[self._phase + 1].phase.start if self._phase + 1 < len(self.phases) else None
        stop, over = self._first_over(segment, following)
        segment = replace(segment, stop=stop)
        if stop is None or stop > segment.start:
            self.segments.append(segment)
        if stop is None:
            self._endless = True
            return True
        base = self.cycles.consumed(segment, stop)
        if not over:
            self._enter(self._phase + 1, base)
            return True
        self._start, self._base = stop, base
        self._active = [source for source in self._active if source not in over]
        if prepared.phase.at_cap == "stop" or not self._active:
            self._end_at(stop, EndOfRun(self._farewell(prepared, stop, over)))
        return True

    def _open(self, prepared: PreparedPhase) -> Segment | None:
        """The next segment, its end not known yet; None ends the run there, where its sources cannot fill a batch."""
        try:
            quotas_S = refuse_small_sources(prepared, self._names, self._active)
        except ValueError as error:
            self._end_at(self._start, ValueError(f"from batch {self._start} on, with sources at their caps: {error}"))
            return None
        return Segment(
            phase=self._phase,
            start=self._start,
            stop=None,
            global_batch=prepared.phase.global_batch,
            names=tuple(self._names[source] for source in self._active),
            sources_S=np.array(self._active, np.int64),
            quotas_S=quotas_S,
            base=self._base,
        )

    def _first_over(self, segment: Segment, following: int | None) -> tuple[int | None, set[int]]:
        """The first batch that takes sources above their caps, and those; else the next phase's start, and none."""
        limit_S = self._limits[segment.sources_S]
        capped = np.flatnonzero(limit_S < UNREACHABLE)
        if not len(capped):
            return following, set()
        allowed = limit_S[capped] - segment.base[segment.sources_S[capped]]
        batch = segment.start
        if (allowed >= 0).all():
            # Sample number `allowed` of a source is the first above; the earliest is in the earliest cycle of any.
            number, j = np.divmod(allowed, segment.quotas_S[capped])
            first = int(number.min())
            batch += first * CYCLE // segment.global_batch
            if following is None or batch < following:
                soon = number == first
                place = int(self.cycles.places(segment, first, capped[soon], j[soon]).min())
                batch = segment.start + (first * CYCLE + place) // segment.global_batch
        if following is not None and batch >= following:
            return following, set()
        after = self.cycles.consumed(segment, batch + 1)[segment.sources_S]
        return batch, set(segment.sources_S[after > limit_S].tolist())

    def _end_at(self, batch: int, refusal: Exception) -> None:
        self.end, self.refusal = batch, refusal

    def _farewell(self, prepared: PreparedPhase, batch: int, over: set[int]) -> str:
        names = ", ".join(
            f"{self._names[source]} ({prepared.phase.max_epochs[self._names[source]]})" for source in sorted(over)
        )
        return f"the run ends before batch {batch}: sources reach max_epochs there: {names}; raise it to go on"

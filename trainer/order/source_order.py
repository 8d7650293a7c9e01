"""A source's samples in order: epochs of shards, windows of shards, and what re-cuts make of them.

Contracts, section 7, "Order within a source" and "Phases". Sample n of a source is a row of a shard, whatever the
batches do; a timeline answers for any n without a walk, from columns of shards alone. N = shards of a source; a shard's
id is its row in the run's table, and ids of a source ascend with sha256.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from trainer.order.permutation import key, mix64_array
from trainer.order.shard_window import Ids, Span

__all__ = ["Reads", "Timeline", "window_shards"]

NONE = np.empty(0, np.int64)
WHOLE = -1  # the cut of an epoch that starts with all its shards
KEPT_SPANS = 4
KEPT_LAYOUTS = 2


def window_shards(weight: Fraction) -> int:
    """K, the shards of a window, for a source of that normalised weight."""
    return max(4, int(64 * weight + Fraction(1, 2)))


@dataclass(frozen=True, eq=False)
class Reads:
    """How the rows of shards are cut in a phase, and the shards of a source that have any."""

    sequence_length: int
    packing: str
    ids_N: Ids  # ascending
    rows_N: NDArray[np.int64]  # at least 1 each


@dataclass(frozen=True, eq=False)
class Stretch:
    """The source from a re-cut to the next: the rest of an epoch (`epoch`, or all of it), then whole epochs."""

    batch: int  # of the re-cut
    begin: int  # first sample
    epoch: int
    cut: int  # `batch`, or WHOLE
    reads: Reads
    pool: NDArray[np.bool_]  # N: shards of the windows of the first epoch
    begun: Ids  # shards that the first epoch has begun before
    leftover: Span | None = None
    done: int = 0  # rows of the first epoch read, left out or retired before
    left_out: int = 0  # unread rows of the running window that the re-cut dropped

    def left(self) -> int:
        """Samples of the leftover."""
        return self.leftover.end - self.leftover.begin if self.leftover else 0

    def first_rows(self) -> int:
        """Samples of the first epoch from `begin` on."""
        return self.left() + int(self.reads.rows_N[self.pool].sum())

    def epoch_rows(self) -> int:
        """Samples of each later epoch."""
        return int(self.reads.rows_N.sum())

    def locate(self, sample: int) -> tuple[int, int]:
        """(epoch, samples of it since its start or the re-cut)."""
        used, first, rows = sample - self.begin, self.first_rows(), self.epoch_rows()
        if used < first or rows == 0:
            return (self.epoch, used) if used < first or first == 0 else (self.epoch + 1, 0)
        epochs, used = divmod(used - first, rows)
        return self.epoch + 1 + epochs, used

    def epoch_begin(self, epoch: int) -> int:
        """First sample of an epoch."""
        later = epoch - self.epoch - 1
        return self.begin if later < 0 else self.begin + self.first_rows() + later * self.epoch_rows()


@dataclass(frozen=True, eq=False)
class Layout:
    """The windows of an epoch: shards in order of place, `num_windows` of them side by side."""

    begin: int  # first sample of the first window
    epoch: int
    cut: int
    num_windows: int
    ids_N: Ids
    starts_N: NDArray[np.int64]  # N + 1: rows before each place

    def window(self, place: int) -> tuple[int, int, int]:
        """(number, first place, place after the last) of the window that holds a place."""
        count = len(self.ids_N)
        number = ((place + 1) * self.num_windows - 1) // count
        return number, number * count // self.num_windows, (number + 1) * count // self.num_windows


class Timeline:
    """One source over a run. It is told of phases in order, as the plan reaches them."""

    def __init__(self, seed: int, name: str, words: NDArray[np.uint64], digests: NDArray[np.uint8]) -> None:
        """`words`: the first 8 bytes of each shard's sha256, little-endian; `digests`: all 32; both by id."""
        self.name = name
        self.stretches: list[Stretch] = []
        self._seed = seed
        self._words = words
        self._digests = digests
        self._phase_begins: list[int] = []
        self._phase_weights: list[Fraction | None] = []
        self._spans: list[Span] = []
        self._layouts: list[tuple[Stretch, Layout]] = []

    # ------------------------------------------------------------ looking up

    def span(self, sample: int) -> Span:
        """The span that holds a sample, as far as the stretch goes that the plan knows of."""
        for span in self._spans:
            if span.begin <= sample < span.end:
                return span
        number = bisect_right(self.stretches, sample, key=lambda stretch: stretch.begin) - 1
        stretch = self.stretches[number]
        if stretch.leftover and sample < stretch.leftover.end:
            span = stretch.leftover
        else:
            layout = self._layout(stretch, stretch.locate(sample)[0])
            span = self._window_at(layout, int(np.searchsorted(layout.starts_N, sample - layout.begin, "right")) - 1)
        if number + 1 < len(self.stretches):
            span = replace(span, end=min(span.end, self.stretches[number + 1].begin))
        self._spans = [*self._spans[1 - KEPT_SPANS :], span]
        return span

    def spans(self, first: int, last: int) -> Iterator[tuple[Span, int, int]]:
        """The spans of samples first to last (exclusive), with the samples of each."""
        while first < last:
            span = self.span(first)
            stop = min(last, span.end)
            yield span, first, stop
            first = stop

    def epochs_at(self, batch: int, sample: int) -> float:
        """Epochs before a sample of a batch that is planned; rows left out or retired count as read."""
        stretch = self.stretches[bisect_right(self.stretches, batch, key=lambda stretch: stretch.batch) - 1]
        epoch, used = stretch.locate(sample)
        if epoch == stretch.epoch:
            used += stretch.done
            return epoch + used / max(1, stretch.done + stretch.first_rows())
        return epoch + used / max(1, stretch.epoch_rows())

    def samples_of(
        self, shard: int, rows: Callable[[int, str], Sequence[int]], until: int
    ) -> list[tuple[int, int, int]]:
        """(sample, epoch, row) of each reading of some rows of a shard before sample `until`.

        `rows` gives the numbers of the rows for a sequence length and packing.
        """
        found = []
        for stretch, end in self._stretches_until(until):
            wanted = rows(stretch.reads.sequence_length, stretch.reads.packing)
            if not len(wanted):
                continue
            spans = [stretch.leftover] if stretch.leftover else []
            for epoch in range(stretch.epoch, stretch.locate(end - 1)[0] + 1):
                chosen = stretch.reads.ids_N[stretch.pool] if epoch == stretch.epoch else stretch.reads.ids_N
                if shard in chosen:
                    layout = self._layout(stretch, epoch)
                    spans.append(self._window_at(layout, int(np.flatnonzero(layout.ids_N == shard)[0])))
            for span in spans:
                found += [(n, span.epoch, row) for n, row in span.samples_of(shard, wanted) if n < end]
        return sorted(found)

    def _stretches_until(self, until: int) -> Iterator[tuple[Stretch, int]]:
        """The stretches that give samples before `until`, with the sample after their last."""
        ends = [stretch.begin for stretch in self.stretches[1:]] + [until]
        for stretch, end in zip(self.stretches, ends, strict=True):
            if stretch.begin < min(end, until):
                yield stretch, min(end, until)

    def _layout(self, stretch: Stretch, epoch: int) -> Layout:
        for known, layout in self._layouts:
            if known is stretch and layout.epoch == epoch:
                return layout
        first = epoch == stretch.epoch
        cut = stretch.cut if first else WHOLE
        chosen = stretch.pool if first else slice(None)
        ids, rows = stretch.reads.ids_N[chosen], stretch.reads.rows_N[chosen]
        mixed = mix64_array(self._words[ids] ^ np.uint64(key(self._seed, "shards", self.name, epoch, cut)))
        order = np.argsort(mixed, kind="stable")  # ids ascend with sha256, which decides ties
        begin = stretch.epoch_begin(epoch)
        shards = window_shards(self._weight_at(begin))
        layout = Layout(
            begin=begin + (stretch.left() if first else 0),
            epoch=epoch,
            cut=cut,
            num_windows=-(-len(ids) // shards),
            ids_N=ids[order],
            starts_N=np.concatenate([[0], np.cumsum(rows[order])]),
        )
        self._layouts = [*self._layouts[1 - KEPT_LAYOUTS :], (stretch, layout)]
        return layout

    def _window_at(self, layout: Layout, place: int) -> Span:
        number, first, last = layout.window(place)
        before, after = int(layout.starts_N[first]), int(layout.starts_N[last])
        return Span(
            epoch=layout.epoch,
            cut=layout.cut,
            number=number,
            leftover=False,
            begin=layout.begin + before,
            end=layout.begin + after,
            key=key(self._seed, "rows", self.name, layout.epoch, layout.cut, number),
            place=first,
            ids_K=layout.ids_N[first:last],
            starts_K=layout.starts_N[first : last + 1] - before,
        )

    def _weight_at(self, sample: int) -> Fraction:
        """The weight in the phase that holds a sample: of phases that begin at it, only the last reads it."""
        weight = self._phase_weights[bisect_right(self._phase_begins, sample) - 1]
        assert weight is not None, f"{self.name}: sample {sample} is read in a phase that leaves the source out"
        return weight

    # ------------------------------------------------------------ phases

    def enter_phase(self, sample: int, weight: Fraction | None) -> None:
        """A phase starts before a sample, with a normalised weight, or None where it leaves the source out."""
        self._phase_begins.append(sample)
        self._phase_weights.append(weight)

    def cap_end(self, cap: Fraction) -> int:
        """Samples of the source at which a cap in epochs is reached; fewer than it has where that is past."""
        stretch = self.stretches[-1]
        whole = int(cap)
        if whole < stretch.epoch:
            return -1
        if whole == stretch.epoch:
            rows = stretch.done + stretch.first_rows()
            return stretch.begin - stretch.done + int((cap - whole) * rows)
        return stretch.epoch_begin(whole) + int((cap - whole) * stretch.epoch_rows())

    def recut(self, batch: int, sample: int, reads: Reads, replaces: Mapping[bytes, Sequence[bytes]]) -> None:
        """Another generation, sequence length or packing from a batch on, before a sample of the source."""
        self.stretches.append(self._recut(batch, sample, reads, replaces))
        self._spans, self._layouts = [], []  # they may reach past the cut

    def _recut(self, batch: int, sample: int, reads: Reads, replaces: Mapping[bytes, Sequence[bytes]]) -> Stretch:
        if not self.stretches:
            return _whole(batch, sample, 0, reads)
        old = self.stretches[-1]
        epoch, used = old.locate(sample)
        resumed = epoch == old.epoch and old.cut != WHOLE  # the epoch was cut before
        if used == 0 and not resumed:
            return _whole(batch, sample, epoch, reads)
        running, begun, ahead = self._split(old, epoch, sample, used)
        same = (reads.sequence_length, reads.packing) == (old.reads.sequence_length, old.reads.packing)
        rest = running.rest(sample, np.isin(running.ids_K, reads.ids_N)) if running and same else None
        unread = running.end - sample if running else 0
        dropped = unread - (rest.end - rest.begin if rest else 0)
        pool = self._unbegun(reads.ids_N, begun, replaces)
        if rest is None and not pool.any():
            return replace(_whole(batch, sample, epoch + 1, reads), left_out=dropped)
        retired = old.reads.rows_N[np.isin(old.reads.ids_N, np.setdiff1d(ahead, reads.ids_N))]
        done = (old.done if resumed else 0) + used + dropped + int(retired.sum())
        return Stretch(batch, sample, epoch, batch, reads, pool, begun, rest, done, dropped)

    def _split(self, old: Stretch, epoch: int, sample: int, used: int) -> tuple[Span | None, Ids, Ids]:
        """The running window, and the shards of the epoch begun and not begun, before a sample."""
        begun = old.begun if epoch == old.epoch else NONE
        pool = old.reads.ids_N[old.pool] if epoch == old.epoch else old.reads.ids_N
        if used == 0:
            return old.leftover, begun, pool  # nothing was read since the last cut
        running = self.span(sample - 1)
        if running.leftover:
            return running, begun, pool
        layout = self._layout(old, epoch)
        ended = running.place + len(running.ids_K)
        return running, np.union1d(begun, layout.ids_N[:ended]), layout.ids_N[ended:]

    def _unbegun(self, ids_N: Ids, begun: Ids, replaces: Mapping[bytes, Sequence[bytes]]) -> NDArray[np.bool_]:
        """Which shards the epoch may still read: not begun, and not standing for one that is, at any remove."""
        pool = ~np.isin(ids_N, begun)
        if replaces:
            spoiled = _successors({self._digests[shard].tobytes() for shard in begun}, replaces)
            for place in np.flatnonzero(pool) if spoiled else ():
                pool[place] = self._digests[ids_N[place]].tobytes() not in spoiled
        return pool


def _whole(batch: int, sample: int, epoch: int, reads: Reads) -> Stretch:
    return Stretch(batch, sample, epoch, WHOLE, reads, np.ones(len(reads.ids_N), np.bool_), NONE)


def _successors(digests: set[bytes], replaces: Mapping[bytes, Sequence[bytes]]) -> set[bytes]:
    """The shards that replace one of these, or one that does, and so on."""
    reached = set(digests)
    while True:
        more = {new for new, old in replaces.items() if new not in reached and not reached.isdisjoint(old)}
        if not more:
            return reached - digests
        reached |= more

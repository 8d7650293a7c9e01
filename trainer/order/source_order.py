"""A source's samples in order: epochs of shards, windows of shards, and what re-windows make of them.

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
from trainer.order.shard_window import Ids, ShardWindow

__all__ = ["Reads", "Timeline", "window_shards"]

NONE = np.empty(0, np.int64)
WHOLE = -1  # the cut of an epoch that starts with all its shards
KEPT_WINDOWS = 4
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
class Windowing:
    """How a source is cut into windows from one re-window to the next.

    The rest of an epoch (`epoch`, or all of it) comes first, then whole epochs.
    """

    batch: int  # of the re-window
    begin: int  # first sample
    epoch: int
    cut: int  # `batch`, or WHOLE
    reads: Reads
    pool: NDArray[np.bool_]  # N: shards of the windows of the first epoch
    begun: Ids  # shards that the first epoch has begun before
    carry_over: ShardWindow | None = None
    done: int = 0  # rows of the first epoch read, left out or retired before
    left_out: int = 0  # unread rows of the running window that the re-window dropped

    def left(self) -> int:
        """Samples of the carry-over."""
        return self.carry_over.end - self.carry_over.begin if self.carry_over else 0

    def first_rows(self) -> int:
        """Samples of the first epoch from `begin` on."""
        return self.left() + int(self.reads.rows_N[self.pool].sum())

    def epoch_rows(self) -> int:
        """Samples of each later epoch."""
        return int(self.reads.rows_N.sum())

    def locate(self, sample: int) -> tuple[int, int]:
        """(epoch, samples of it since its start or the re-window)."""
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
    """One source over a run. Phases are entered in order, as the plan reaches them."""

    def __init__(self, seed: int, name: str, words: NDArray[np.uint64], digests: NDArray[np.uint8]) -> None:
        """`words`: the first 8 bytes of each shard's sha256, little-endian; `digests`: all 32; both by id."""
        self.name = name
        self.windowings: list[Windowing] = []
        self._seed = seed
        self._words = words
        self._digests = digests
        self._phase_begins: list[int] = []
        self._phase_weights: list[Fraction | None] = []
        self._windows: list[ShardWindow] = []
        self._layouts: list[tuple[Windowing, Layout]] = []

    # ------------------------------------------------------------ looking up

    def window(self, sample: int) -> ShardWindow:
        """The window that holds a sample, cut off where the next known windowing begins."""
        for window in self._windows:
            if window.begin <= sample < window.end:
                return window
        number = bisect_right(self.windowings, sample, key=lambda windowing: windowing.begin) - 1
        windowing = self.windowings[number]
        if windowing.carry_over and sample < windowing.carry_over.end:
            window = windowing.carry_over
        else:
            layout = self._layout(windowing, windowing.locate(sample)[0])
            window = self._window_at(layout, int(np.searchsorted(layout.starts_N, sample - layout.begin, "right")) - 1)
        if number + 1 < len(self.windowings):
            window = replace(window, end=min(window.end, self.windowings[number + 1].begin))
        self._windows = [*self._windows[1 - KEPT_WINDOWS :], window]
        return window

    def windows(self, first: int, last: int) -> Iterator[tuple[ShardWindow, int, int]]:
        """The windows of samples first to last (exclusive), with the samples of each."""
        while first < last:
            window = self.window(first)
            stop = min(last, window.end)
            yield window, first, stop
            first = stop

    def epochs_at(self, batch: int, sample: int) -> float:
        """Epochs before a sample of a batch that is planned; rows left out or retired count as read."""
        windowing = self.windowings[bisect_right(self.windowings, batch, key=lambda windowing: windowing.batch) - 1]
        epoch, used = windowing.locate(sample)
        if epoch == windowing.epoch:
            used += windowing.done
            return epoch + used / max(1, windowing.done + windowing.first_rows())
        return epoch + used / max(1, windowing.epoch_rows())

    def samples_of(
        self, shard: int, rows: Callable[[int, str], Sequence[int]], until: int
    ) -> list[tuple[int, int, int]]:
        """(sample, epoch, row) of each reading of some rows of a shard before sample `until`.

        `rows` gives the numbers of the rows for a sequence length and packing.
        """
        found = []
        for windowing, end in self._windowings_until(until):
            wanted = rows(windowing.reads.sequence_length, windowing.reads.packing)
            if not len(wanted):
                continue
            windows = [windowing.carry_over] if windowing.carry_over else []
            for epoch in range(windowing.epoch, windowing.locate(end - 1)[0] + 1):
                chosen = windowing.reads.ids_N[windowing.pool] if epoch == windowing.epoch else windowing.reads.ids_N
                if shard in chosen:
                    layout = self._layout(windowing, epoch)
                    windows.append(self._window_at(layout, int(np.flatnonzero(layout.ids_N == shard)[0])))
            for window in windows:
                found += [(n, window.epoch, row) for n, row in window.samples_of(shard, wanted) if n < end]
        return sorted(found)

    def _windowings_until(self, until: int) -> Iterator[tuple[Windowing, int]]:
        """The windowings that give samples before `until`, with the sample after their last."""
        ends = [windowing.begin for windowing in self.windowings[1:]] + [until]
        for windowing, end in zip(self.windowings, ends, strict=True):
            if windowing.begin < min(end, until):
                yield windowing, min(end, until)

    def _layout(self, windowing: Windowing, epoch: int) -> Layout:
        for known, layout in self._layouts:
            if known is windowing and layout.epoch == epoch:
                return layout
        first = epoch == windowing.epoch
        cut = windowing.cut if first else WHOLE
        chosen = windowing.pool if first else slice(None)
        ids, rows = windowing.reads.ids_N[chosen], windowing.reads.rows_N[chosen]
        mixed = mix64_array(self._words[ids] ^ np.uint64(key(self._seed, "shards", self.name, epoch, cut)))
        order = np.argsort(mixed, kind="stable")  # ids ascend with sha256, which decides ties
        begin = windowing.epoch_begin(epoch)
        shards = window_shards(self._weight_at(begin))
        layout = Layout(
            begin=begin + (windowing.left() if first else 0),
            epoch=epoch,
            cut=cut,
            num_windows=-(-len(ids) // shards),
            ids_N=ids[order],
            starts_N=np.concatenate([[0], np.cumsum(rows[order])]),
        )
        self._layouts = [*self._layouts[1 - KEPT_LAYOUTS :], (windowing, layout)]
        return layout

    def _window_at(self, layout: Layout, place: int) -> ShardWindow:
        number, first, last = layout.window(place)
        before, after = int(layout.starts_N[first]), int(layout.starts_N[last])
        return ShardWindow(
            epoch=layout.epoch,
            cut=layout.cut,
            number=number,
            carry_over=False,
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
        windowing = self.windowings[-1]
        whole = int(cap)
        if whole < windowing.epoch:
            return -1
        if whole == windowing.epoch:
            rows = windowing.done + windowing.first_rows()
            return windowing.begin - windowing.done + int((cap - whole) * rows)
        return windowing.epoch_begin(whole) + int((cap - whole) * windowing.epoch_rows())

    def rewindow(self, batch: int, sample: int, reads: Reads, replaces: Mapping[bytes, Sequence[bytes]]) -> None:
        """Another generation, sequence length or packing from a batch on, before a sample of the source."""
        self.windowings.append(self._rewindow(batch, sample, reads, replaces))
        self._windows, self._layouts = [], []  # they may reach past the cut

    def _rewindow(self, batch: int, sample: int, reads: Reads, replaces: Mapping[bytes, Sequence[bytes]]) -> Windowing:
        if not self.windowings:
            return _whole(batch, sample, 0, reads)
        old = self.windowings[-1]
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
        return Windowing(batch, sample, epoch, batch, reads, pool, begun, rest, done, dropped)

    def _split(self, old: Windowing, epoch: int, sample: int, used: int) -> tuple[ShardWindow | None, Ids, Ids]:
        """The running window, and the shards of the epoch begun and not begun, before a sample."""
        begun = old.begun if epoch == old.epoch else NONE
        pool = old.reads.ids_N[old.pool] if epoch == old.epoch else old.reads.ids_N
        if used == 0:
            return old.carry_over, begun, pool  # nothing was read since the last cut
        running = self.window(sample - 1)
        if running.carry_over:
            return running, begun, pool
        layout = self._layout(old, epoch)
        ended = running.place + len(running.ids_K)
        return running, np.union1d(begun, layout.ids_N[:ended]), layout.ids_N[ended:]

    def _unbegun(self, ids_N: Ids, begun: Ids, replaces: Mapping[bytes, Sequence[bytes]]) -> NDArray[np.bool_]:
        """Return which shards the epoch may still read: not begun, and no replacement of a begun one."""
        pool = ~np.isin(ids_N, begun)
        if replaces:
            spoiled = _successors({self._digests[shard].tobytes() for shard in begun}, replaces)
            for place in np.flatnonzero(pool) if spoiled else ():
                pool[place] = self._digests[ids_N[place]].tobytes() not in spoiled
        return pool


def _whole(batch: int, sample: int, epoch: int, reads: Reads) -> Windowing:
    return Windowing(batch, sample, epoch, WHOLE, reads, np.ones(len(reads.ids_N), np.bool_), NONE)


def _successors(digests: set[bytes], replaces: Mapping[bytes, Sequence[bytes]]) -> set[bytes]:
    """The shards that replace one of these, or one that does, and so on."""
    reached = set(digests)
    while True:
        more = {new for new, old in replaces.items() if new not in reached and not reached.isdisjoint(old)}
        if not more:
            return reached - digests
        reached |= more

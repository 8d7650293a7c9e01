"""A window of shards: which row of which shard each sample reads, and what a re-window leaves of it.

Contracts, section 7, "Order within a source" and "Phases". K = shards of a window, B = samples requested; a shard's id
is its row in the run's table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trainer.order.permutation import inverse, permute

__all__ = ["Ids", "ShardWindow"]

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ShardWindow:
    """Samples `begin` to `end` (exclusive) of a source: the rows of one window, or what a re-window left of them."""

    epoch: int
    cut: int
    number: int  # of the window
    carry_over: bool
    begin: int
    end: int
    key: int
    place: int  # of the first shard, in its epoch
    ids_K: Ids
    starts_K: NDArray[np.int64]  # K + 1: rows before each shard, laid end to end
    origin: int = 0  # position in the window of sample `begin`
    kept: NDArray[np.int64] | None = None  # positions of the samples, where a re-window took shards out of the middle

    def _positions(self, first: int, last: int) -> NDArray[np.int64]:
        if self.kept is not None:
            return self.kept[first - self.begin : last - self.begin]
        shift = self.origin - self.begin
        return np.arange(first + shift, last + shift, dtype=np.int64)

    def _size(self) -> int:
        return int(self.starts_K[-1])

    def read(self, first: int, last: int) -> tuple[NDArray[np.int64], Ids, NDArray[np.int64]]:
        """Place, id and row for samples first to last (exclusive), sorted by (place, row)."""
        offsets_B = permute(self._positions(first, last), self._size(), self.key)
        offsets_B.sort()  # shards lie end to end in order of place, so this is (place, row)
        shard_B = np.searchsorted(self.starts_K, offsets_B, side="right") - 1
        return self.place + shard_B, self.ids_K[shard_B], offsets_B - self.starts_K[shard_B]

    def samples_of(self, shard: int, rows: Sequence[int]) -> list[tuple[int, int]]:
        """(sample, row) for each of the rows of a shard that the window reads."""
        found = np.flatnonzero(self.ids_K == shard)
        if not len(found):
            return []
        start, stop = self.starts_K[found[0]], self.starts_K[found[0] + 1]
        rows_B = np.array([row for row in rows if 0 <= row < stop - start], np.int64)
        x_B = inverse(start + rows_B, self._size(), self.key)
        if self.kept is None:
            sample_B = self.begin + x_B - self.origin
            read = sample_B >= self.begin
        else:
            nearest_B = np.minimum(np.searchsorted(self.kept, x_B), len(self.kept) - 1)
            sample_B, read = self.begin + nearest_B, self.kept[nearest_B] == x_B
        return list(zip(sample_B[read].tolist(), rows_B[read].tolist(), strict=True))

    def rest(self, sample: int, stays_K: NDArray[np.bool_]) -> "ShardWindow | None":
        """Return the carry-over from a sample on, without shards that do not stay; None: nothing is left."""
        if sample >= self.end or not stays_K.any():
            return None
        if stays_K.all() and self.kept is None:
            return replace(self, begin=sample, carry_over=True, origin=self.origin + sample - self.begin)
        x_B = self._positions(sample, self.end)
        shard_B = np.searchsorted(self.starts_K, permute(x_B, self._size(), self.key), side="right") - 1
        kept = x_B[stays_K[shard_B]]
        if not len(kept):
            return None
        return replace(self, begin=sample, end=sample + len(kept), carry_over=True, kept=kept)

    def shards(self) -> Ids:
        """The shards whose rows the window reads, in order of place."""
        if self.kept is None:
            return self.ids_K
        offsets_B = permute(self.kept, self._size(), self.key)
        return self.ids_K[np.unique(np.searchsorted(self.starts_K, offsets_B, side="right") - 1)]

"""Sources mixed by weight: cycles of 65,536 samples that hold exact counts of each (contracts, section 7, "Mixture").

A cycle is a sort under a key of its own, so that any batch is found without a walk from the first. S = sources of a
segment, in the order of their names.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.order.permutation import cycle_ranks, key

__all__ = ["CYCLE", "Cycles", "Segment", "normalised", "parse_decimal", "quotas"]

CYCLE = 65_536  # samples; also the most sources that a run can mix
KEPT_CYCLES = 4  # of 512 KiB each, and 128 bytes a source
BLOCK = 4096  # samples of a cycle that are counted anew for each look-up


def parse_decimal(text: str, what: str, hint: str) -> Fraction:
    """The exact rational of a decimal text. Raises ValueError, naming `what`, unless it is positive and finite."""
    try:
        number = Decimal(str(text))
    except InvalidOperation:
        number = Decimal(0)
    if not number.is_finite() or number <= 0:
        raise ValueError(f"{what}={text}: expected a positive decimal number; {hint}")
    return Fraction(number)


def normalised(weights: Sequence[Fraction]) -> list[Fraction]:
    """The weights divided by their sum."""
    total = sum(weights)
    return [weight / total for weight in weights]


def quotas(weights: Sequence[Fraction]) -> NDArray[np.int64]:
    """Samples of each source in a cycle: the largest remainders of w M are rounded up, ties to the smaller name."""
    exact = [weight * CYCLE for weight in normalised(weights)]
    whole = [int(share) for share in exact]
    # Stable: of equal remainders the earlier name is first.
    by_remainder = sorted(range(len(exact)), key=lambda s: whole[s] - exact[s])
    for source in by_remainder[: CYCLE - sum(whole)]:
        whole[source] += 1
    return np.array(whole, np.int64)


@dataclass(frozen=True, eq=False)
class Segment:
    """A run of batches with constant weights, `start` to `stop` (exclusive; None: without end)."""

    phase: int
    start: int
    stop: int | None
    global_batch: int
    names: tuple[str, ...]  # S, sorted
    sources_S: NDArray[np.int64]  # their numbers among all sources of the run
    quotas_S: NDArray[np.int64]
    base: NDArray[np.int64]  # samples of every source of the run before the segment


class Counted(NamedTuple):
    """A cycle, and what it has given at every BLOCK samples, so that a place in it is counted in no time."""

    cycle: NDArray[np.int64]
    before: NDArray[np.int64]  # (blocks, S): samples of each source before the block


def count_blocks(cycle: NDArray[np.int64], num_sources: int) -> Counted:
    """Count a cycle block by block."""
    blocks = CYCLE // BLOCK
    before = np.zeros((blocks, num_sources), np.int64)
    for block in range(1, blocks):
        before[block] = before[block - 1] + np.bincount(
            cycle[(block - 1) * BLOCK : block * BLOCK], minlength=num_sources
        )
    return Counted(cycle, before)


class Cycles:
    """The cycles of a run's segments, the latest few kept."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._last: tuple[Segment | None, int, NDArray[np.int64]] = (None, 0, np.empty(0, np.int64))
        self._kept: OrderedDict[tuple[int, tuple[str, ...], int], Counted] = OrderedDict()

    def cycle(self, segment: Segment, number: int) -> NDArray[np.int64]:
        """Which source (0 .. S-1) each sample of a cycle belongs to."""
        return self._counted(segment, number).cycle

    def _counted(self, segment: Segment, number: int) -> "Counted":
        # A segment that a cap ends before its first batch has the same start as its successor, with other sources.
        place = (segment.start, segment.names, number)
        counted = self._kept.pop(place, None)
        if counted is None:
            keys = [key(self._seed, "cycle", name, segment.start, number) for name in segment.names]
            ranks = cycle_ranks(np.array(keys, np.uint64), segment.quotas_S)
            ranks.sort()
            counted = count_blocks((ranks & np.uint64(0xFFFF)).astype(np.int64), len(keys))
        self._kept[place] = counted
        if len(self._kept) > KEPT_CYCLES:
            self._kept.popitem(last=False)
        return counted

    def counts(self, segment: Segment, samples: int) -> NDArray[np.int64]:
        """Samples of each of the S sources among the segment's first so many."""
        number, place = divmod(samples, CYCLE)
        counts = segment.quotas_S * number
        if place:
            cycle, before = self._counted(segment, number)
            block = place // BLOCK
            counts += before[block] + np.bincount(cycle[block * BLOCK : place], minlength=len(counts))
        return counts

    def consumed(self, segment: Segment, batch: int) -> NDArray[np.int64]:
        """Samples of every source of the run before a batch of the segment, or before the one after its last."""
        kept, number, last = self._last
        if kept is segment and number == batch:  # what a batch ends with, the next begins with
            return last.copy()
        consumed = segment.base.copy()
        consumed[segment.sources_S] += self.counts(segment, (batch - segment.start) * segment.global_batch)
        self._last = (segment, batch, consumed)
        return consumed.copy()

    def places(
        self, segment: Segment, number: int, source_N: NDArray[np.int64], j_N: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Where in a cycle sample j of a source stands, for pairs of them."""
        # Of 16 bits, so that numpy sorts by radix.
        by_source = np.argsort(self.cycle(segment, number).astype(np.uint16), kind="stable")
        first_S = np.cumsum(segment.quotas_S) - segment.quotas_S
        return by_source[first_S[source_N] + j_N]

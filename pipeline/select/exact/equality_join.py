"""Rows that are equal in 128 bits, and the first of each: repeated records and exact copies alike.

Both are found in two steps, so that no text can be so common that its rows fill a worker: each part first names the
first of its own equals, and only those cross the shuffle. "First" is by a total order, so it does not matter in which
step two rows meet.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import apache_beam as beam
import numpy as np

from pipeline.select.context import KINDS, Decision
from pipeline.select.rows import EQUAL_ROW, LINK_ROW, SHIFT, address, pack, partition_of, unpack
from schemas import storage

__all__ = ["LinkEqual", "SpreadParts", "equal_groups", "first_of_equals", "link_equal", "read_links", "resolve"]

ROW_MASK = np.uint64(0xFFFFFFFF)
# Keys of rows, most significant first, by which one is before another; given addresses.
Order = Callable[[np.ndarray], Sequence[np.ndarray]]


class EqualRows(Protocol):
    """What is compared in one shuffle: the rows of a part, and the order of equal ones."""

    kind: str

    def __init__(self, decision: Decision) -> None: ...

    def first_rows(self, part: int) -> Iterator[tuple[str, np.ndarray]]:
        """(kind, EQUAL_ROWs) of the part's rows that are the first of their equals in the part."""

    def order(self, addresses: np.ndarray) -> Sequence[np.ndarray]:
        """Keys of rows, most significant first."""


def equal_groups(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows that equal another one in both halves, and the number of the group that each belongs to."""
    # Few rows have an equal, so the lower half is looked at for those alone that share the upper one.
    order = np.argsort(high)
    same = high[order][1:] == high[order][:-1]
    shared = order[np.concatenate([same, [False]]) | np.concatenate([[False], same])] if same.size else order[:0]
    shared = shared[np.lexsort((low[shared], high[shared]))]
    same = (high[shared][1:] == high[shared][:-1]) & (low[shared][1:] == low[shared][:-1])
    starts = np.concatenate([[True], ~same])[: shared.size]
    ends = np.concatenate([~same, [True]])[: shared.size]
    equal = ~(starts & ends)
    return shared[equal], np.cumsum(starts[equal]) - 1


def first_of_equals(groups: np.ndarray, keys: Sequence[np.ndarray]) -> np.ndarray:
    """For each member of a group, the member of it that comes first by `keys` (most significant first)."""
    order = np.lexsort((*reversed(keys), groups))
    starts = np.concatenate([[True], groups[order][1:] != groups[order][:-1]])[: order.size]
    firsts: np.ndarray = order[starts][groups] if order.size else order
    return firsts


def link_equal(rows: np.ndarray, order: Order) -> tuple[np.ndarray, np.ndarray]:
    """Among EQUAL_ROWs: the addresses that are not the first of their equals, and the first of each."""
    members, groups = equal_groups(rows["high"], rows["low"])
    addresses = rows["address"][members]
    if not members.size:
        return addresses, addresses
    firsts = addresses[first_of_equals(groups, order(addresses))]
    later = addresses != firsts
    return addresses[later], firsts[later]


def resolve(part: int, num_rows: int, rows: np.ndarray, firsts: np.ndarray, links: np.ndarray) -> np.ndarray:
    """The first of each row's equals (addresses, num_rows): its own address where it has none before it.

    `rows` and `firsts` are the part's own links, `links` those of the shuffle for rows that are first in the part.
    """
    first = address(part, np.arange(num_rows, dtype=np.uint64))
    first[links["row"]] = links["first"]
    first[(rows & ROW_MASK).astype(np.int64)] = first[(firsts & ROW_MASK).astype(np.int64)]
    return first


def read_links(decision: Decision, kind: str, rounds: int, part: int) -> np.ndarray:
    """The LINK_ROWs of a part, found in all rounds of a kind's shuffle."""
    found = [storage.read(decision.tmp("links", f"{kind}-{number}-{part}")) for number in range(rounds)]
    return unpack(found, LINK_ROW)


class EmitEqual(beam.DoFn):
    """A part's rows by what they may equal: ((kind, partition), packed EQUAL_ROWs)."""

    def __init__(self, decision: Decision, rows: type[EqualRows], partitions: range) -> None:
        self._decision = decision
        self._make = rows
        self._partitions = partitions

    def setup(self) -> None:
        self._rows = self._make(self._decision)

    def process(self, part: int) -> Iterator[tuple[tuple[int, int], bytes]]:
        for kind, rows in self._rows.first_rows(part):
            of_row = partition_of(rows["high"], self._decision.equal_partitions())
            for partition, packed in pack(rows, of_row, self._partitions):
                yield (KINDS[kind], partition), packed


class LinkRows(beam.DoFn):
    """The rows of a partition that are not the first of their equals, by part: (part, packed LINK_ROWs)."""

    def __init__(self, decision: Decision, rows: type[EqualRows]) -> None:
        self._decision = decision
        self._make = rows

    def setup(self) -> None:
        self._rows = self._make(self._decision)

    def process(self, element: tuple[tuple[int, int], Iterable[bytes]]) -> Iterator[tuple[int, bytes]]:
        (kind, _), packed = element
        later, firsts = link_equal(unpack(packed, EQUAL_ROW), self._rows.order)
        links = np.zeros(later.size, LINK_ROW)
        links["kind"], links["row"], links["first"] = kind, later & ROW_MASK, firsts
        for part in np.unique(later >> SHIFT):
            yield int(part), links[later >> SHIFT == part].tobytes()


class WriteLinks(beam.DoFn):
    """Write a part's links of one round; the part goes on when they are written."""

    def __init__(self, decision: Decision, kind: str, round_number: int) -> None:
        self._decision = decision
        self._name = f"{kind}-{round_number}"

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        part, packed = element
        # Sorted, so that a retried bundle writes the same bytes.
        links = np.sort(unpack(packed, LINK_ROW), order=["kind", "row"])
        storage.write(self._decision.tmp("links", f"{self._name}-{part}"), links.tobytes())
        yield part


class LinkEqual(beam.PTransform):
    """Parts in, the same parts out once the links of all of them are written: one round of one shuffle."""

    def __init__(self, decision: Decision, rows: type[EqualRows], round_number: int, partitions: range) -> None:
        super().__init__()
        self._decision = decision
        self._rows = rows
        self._round = round_number
        self._partitions = partitions

    def expand(self, parts: beam.PCollection[int]) -> beam.PCollection[int]:
        links = (
            parts
            | "EmitEqual" >> beam.ParDo(EmitEqual(self._decision, self._rows, self._partitions))
            | "GroupEqual" >> beam.GroupByKey()
            | "LinkRows" >> beam.ParDo(LinkRows(self._decision, self._rows))
        )
        # Every part takes part, so that one without links goes on too.
        every = parts | "EveryPart" >> beam.Map(_no_links)
        return (
            (every, links)
            | "FlattenLinks" >> beam.Flatten()
            | "LinksByPart" >> beam.GroupByKey()
            | "WriteLinks" >> beam.ParDo(WriteLinks(self._decision, self._rows.kind, self._round))
        )


def _no_links(part: int) -> tuple[int, bytes]:
    return part, b""


class SpreadParts(beam.PTransform):
    """All parts' numbers, spread over the workers."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__()
        self._numbers = list(numbers)

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection[int]:
        # Create's own reshuffle would hand all parts to one worker.
        return pipeline | "ListParts" >> beam.Create(self._numbers, reshuffle=False) | "SpreadParts" >> beam.Reshuffle()

"""Exact copies: documents that passed the rules and have the same final text, by xxh3_128."""

from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa

from pipeline.select.columns import halves
from pipeline.select.context import Decision
from pipeline.select.documents import COPIES, Documents
from pipeline.select.exact.equality_join import link_equal, read_links, resolve
from pipeline.select.files import write_batch
from pipeline.select.rows import EQUAL_ROW, address

__all__ = ["TextRows", "WriteCopies"]


def _text_rows(documents: Documents, part: int) -> np.ndarray:
    """EQUAL_ROWs of the documents of a part that passed the rules, by their final text."""
    chosen = np.flatnonzero(documents.judged(part).passed)
    hashes = halves(documents.parts.open(part).fixed("final_hash", chosen))
    rows = np.empty(len(chosen), EQUAL_ROW)
    rows["high"], rows["low"], rows["address"] = hashes[:, 0], hashes[:, 1], address(part, chosen)
    return rows


class TextRows:
    """Documents by final text, in the order in which one is kept before another (an EqualRows)."""

    kind = "texts"

    def __init__(self, decision: Decision) -> None:
        self._documents = Documents(decision)

    def first_rows(self, part: int) -> Iterator[tuple[str, np.ndarray]]:
        """(kind, EQUAL_ROWs) of the part's documents that are the first of their equals in the part."""
        rows = _text_rows(self._documents, part)
        later, _ = link_equal(rows, self.order)
        yield self.kind, rows[~np.isin(rows["address"], later)] if later.size else rows

    def order(self, addresses: np.ndarray) -> Sequence[np.ndarray]:
        """The order of survivors, so that the representative of equal texts is the one to keep."""
        return self._documents.order(addresses)


class WriteCopies(beam.DoFn):
    """Write which documents of a part are copies, and of which; the part goes on when they are written."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._rounds = len(decision.text_rounds())

    def setup(self) -> None:
        self._documents = Documents(self._decision)

    def process(self, part: int) -> Iterable[int]:
        links = read_links(self._decision, TextRows.kind, self._rounds, part)
        later, firsts = link_equal(_text_rows(self._documents, part), self._documents.order)
        first = resolve(part, self._documents.parts.ref(part).rows, later, firsts, links)
        rows = np.flatnonzero(first != self._documents.parts.addresses_of(part))
        copies = pa.record_batch([pa.array(rows, pa.uint32()), pa.array(first[rows])], schema=COPIES)
        write_batch(self._decision.tmp("copies", f"{part}.arrow"), copies)
        yield part

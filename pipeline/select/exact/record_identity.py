"""Records that repeat inside a source, resolved before any rule. Contracts, section 1.

Of rows with one doc_id the first by address keeps it. A later one with the same text as an earlier one is that record
again, and dropped as `exact.same_record`; any other gets a doc_id of its own.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import xxhash

from pipeline.numba_kernels import kernel, types
from pipeline.select.columns import PartColumns, as_ids, halves
from pipeline.select.context import KINDS, Decision
from pipeline.select.exact.equality_join import link_equal, read_links, resolve
from pipeline.select.files import fixed_bytes, write_batch
from pipeline.select.rows import EQUAL_ROW, address
from pipeline.text.hashing import mix64
from schemas.arrow import HASH

__all__ = ["IDENTITIES", "RecordRows", "WriteIdentities", "alive", "final_ids", "identities"]

# Sparse: the rows whose doc_id is not their own, or that are a record again.
IDENTITIES = pa.schema(
    [
        pa.field("row", pa.uint32(), nullable=False),
        pa.field("doc_id", HASH, nullable=False),
        pa.field("same_record", pa.bool_(), nullable=False),
    ]
)
HALVES = types.Array(types.uint64, 2, "C", readonly=True)


@kernel(types.uint64[:, ::1](HALVES, HALVES, types.uint64, types.uint64))
def _record_keys(ids: Any, texts: Any, high: Any, low: Any) -> Any:
    """128 bits of (source, doc_id, text); for one source and doc_id a bijection of the text's hash."""
    keys = np.empty(ids.shape, np.uint64)
    for row in range(ids.shape[0]):
        keys[row, 0] = texts[row, 0] ^ mix64(ids[row, 0] ^ high)
        keys[row, 1] = texts[row, 1] ^ mix64(ids[row, 1] ^ low)
    return keys


def alive(columns: PartColumns) -> np.ndarray:
    """The rows that ingest did not drop."""
    dropped = columns.column("stage")
    return np.zeros(len(dropped), bool) if dropped.null_count == 0 else ~columns.valid("stage")


def _record_rows(columns: PartColumns) -> dict[str, np.ndarray]:
    """EQUAL_ROWs of a part: all rows by doc_id, those with a text by doc_id and text."""
    number = columns.part.number
    salt = halves(np.frombuffer(xxhash.xxh3_128_digest(columns.part.source.encode()), np.uint8)[None])[0]
    ids, texts = halves(columns.fixed("doc_id")), halves(columns.fixed("text_hash"))
    by_id = np.empty(len(ids), EQUAL_ROW)
    by_id["high"], by_id["low"] = ids[:, 0] ^ salt[0], ids[:, 1] ^ salt[1]
    by_id["address"] = address(number, np.arange(len(ids), dtype=np.uint64))
    with_text = by_id[alive(columns) & columns.valid("text_hash")]
    keys = _record_keys(ids, texts, salt[0], salt[1])[alive(columns) & columns.valid("text_hash")]
    with_text["high"], with_text["low"] = keys[:, 0], keys[:, 1]
    return {"ids": by_id, "records": with_text}


class RecordRows:
    """Rows by doc_id, and by doc_id and text, in the order of their addresses (an EqualRows)."""

    kind = "records"

    def __init__(self, decision: Decision) -> None:
        self.parts = decision.parts()

    def first_rows(self, part: int) -> Iterator[tuple[str, np.ndarray]]:
        """(kind, EQUAL_ROWs) of the part's rows that are the first of their equals in the part."""
        for kind, rows in _record_rows(self.parts.open(part)).items():
            later, _ = link_equal(rows, self.order)
            yield kind, rows[~np.isin(rows["address"], later)] if later.size else rows

    def order(self, addresses: np.ndarray) -> Sequence[np.ndarray]:
        """By address."""
        return [addresses]


def identities(columns: PartColumns, links: np.ndarray) -> pa.RecordBatch:
    """Final doc_ids of the rows that repeat one (IDENTITIES). `links` are the part's, of both kinds."""
    number, num_rows = columns.part.number, columns.part.rows
    first = {}
    for kind, rows in _record_rows(columns).items():
        later, firsts = link_equal(rows, lambda addresses: [addresses])
        first[kind] = resolve(number, num_rows, later, firsts, links[links["kind"] == KINDS[kind]])
    own = address(number, np.arange(num_rows, dtype=np.uint64))
    # A record again has the name of the row that it repeats, which may have had to take one itself.
    same_record = first["records"] != own
    renamed = (first["ids"] != own) & ~(same_record & (first["records"] == first["ids"]))
    rows = np.flatnonzero(renamed | same_record)
    ids = columns.fixed("doc_id", rows)
    new = renamed[rows]
    ids[new] = _new_ids(columns, rows[new], ids[new])
    return pa.record_batch([pa.array(rows, pa.uint32()), as_ids(halves(ids)), same_record[rows]], schema=IDENTITIES)


def _new_ids(columns: PartColumns, rows: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """doc_ids of rows that lost theirs: a hash over it and their text's hash, or, without a text, where they lie."""
    texts, valid = columns.fixed("text_hash", rows), columns.valid("text_hash")[rows]
    places = {name: columns.column(name).take(pa.array(rows)).to_pylist() for name in ("input", "position", "offset")}
    made = np.empty((len(rows), 16), np.uint8)
    for n in range(len(rows)):
        place = f"{places['input'][n]}\0{places['position'][n]}\0{places['offset'][n]}".encode()
        name = texts[n].tobytes() if valid[n] else place
        made[n] = np.frombuffer(xxhash.xxh3_128_digest(ids[n].tobytes() + name), np.uint8)
    return made


def final_ids(columns: PartColumns, resolved: pa.Table, rows: np.ndarray | None = None) -> np.ndarray:
    """Final doc_ids (n, 2) of all rows, or of `rows` in their order."""
    ids = halves(columns.fixed("doc_id", rows))
    if not resolved.num_rows:
        return ids
    changed, new = resolved["row"].to_numpy().astype(np.int64), halves(_ids_of(resolved))
    if rows is None:
        ids[changed] = new
        return ids
    place = np.minimum(np.searchsorted(changed, rows), len(changed) - 1)
    found = changed[place] == rows
    ids[found] = new[place[found]]
    return ids


def _ids_of(resolved: pa.Table) -> np.ndarray:
    return fixed_bytes(resolved["doc_id"].combine_chunks())


class WriteIdentities(beam.DoFn):
    """Write the final doc_ids of a part's repeats; the part goes on when they are written."""

    def __init__(self, decision: Decision) -> None:
        self._decision = decision
        self._rounds = len(decision.record_rounds())

    def setup(self) -> None:
        self._parts = self._decision.parts()

    def process(self, part: int) -> Iterable[int]:
        links = read_links(self._decision, RecordRows.kind, self._rounds, part)
        batch = identities(self._parts.open(part), links)
        write_batch(self._decision.tmp("identities", f"{part}.arrow"), batch)
        yield part

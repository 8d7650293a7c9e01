"""The ledger: one row a record read, kept or dropped, in one Parquet file a group (contracts, section 6)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.arrow import LEDGER
from schemas.dataset.files import open_file

__all__ = ["Place", "batches_of", "filtered", "schema_of", "take_rows"]

BATCH_ROWS = 1 << 16


@dataclass(frozen=True, order=True)
class Place:
    """A row of a ledger."""

    ledger: int  # its number: a row of the files table
    row: int


def schema_of(columns: Sequence[str] | None) -> pa.Schema:
    """The ledger's schema, or some of its columns in the order given. Raises ValueError for one that it lacks."""
    if columns is None:
        return LEDGER
    if unknown := [name for name in columns if name not in LEDGER.names]:
        raise ValueError(f"columns: {unknown[0]!r} is not a column of the ledger: {', '.join(LEDGER.names)}")
    return pa.schema([LEDGER.field(name) for name in columns])


def batches_of(dataset: str, path: str, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """A ledger's rows as (first row, batch); only the columns named are read."""
    with open_file(dataset, path) as source, pq.ParquetFile(source) as file:
        first = 0
        for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
            yield first, batch
            first += batch.num_rows


def filtered(dataset: str, path: str, schema: pa.Schema, where: Any) -> Iterator[pa.RecordBatch]:
    """The rows of a ledger for which an expression holds; row groups that cannot hold one are not read."""
    import pyarrow.dataset  # which imports pandas, for seconds: here only

    with open_file(dataset, path) as source:
        fragment = pyarrow.dataset.ParquetFileFormat().make_fragment(source)
        for batch in fragment.to_batches(LEDGER, columns=schema.names, filter=where, batch_size=BATCH_ROWS):
            if batch.num_rows:
                yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def take_rows(
    dataset: str, path: str, rows: Sequence[int], columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Some rows of a ledger, which ascend; only the row groups that hold one are read."""
    found: list[dict[str, Any]] = []
    with open_file(dataset, path) as source, pq.ParquetFile(source) as file:
        first = 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            inside = [row - first for row in rows if first <= row < last]
            if inside:
                table = file.read_row_group(group, columns=None if columns is None else list(columns))
                found += table.take(pa.array(inside, pa.int64())).to_pylist()
            first = last
    return found

"""The documents of a part as pack reads them: verdicts by position, final texts, and their seeded order."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from pipeline.ingest.part_columns import read_part, schema_of
from pipeline.pack.files import read_columns
from pipeline.pack.groups import PackPart
from pipeline.text.edits import apply_edits
from schemas.manifest import DatasetError

__all__ = ["bytes_column", "fixed_rows", "order_keys", "part_batches", "part_table", "read_verdicts", "texts_of"]


def read_verdicts(part: PackPart, columns: Sequence[str]) -> pa.Table:
    """Columns of the verdict over a part. Raises DatasetError when it has another number of rows than the part."""
    verdicts = read_columns(part.verdicts, columns)
    if verdicts.num_rows != part.rows:
        raise DatasetError(f"{part.verdicts}: {verdicts.num_rows} verdicts for {part.rows} rows of {part.uri}")
    return verdicts


def part_batches(part: PackPart, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Columns of a part as (first row, batch). Raises DatasetError for files that are not those of its receipts."""
    return read_part(part.uri, part.files, columns, part.rows)


def part_table(part: PackPart, columns: Sequence[str]) -> pa.Table:
    """Columns of a part, in memory, as one batch."""
    batches = [batch for _, batch in part_batches(part, columns)]
    if batches:
        return pa.Table.from_batches(batches).combine_chunks()
    fields = schema_of(part.uri, part.files)
    return pa.schema([fields.field(name) for name in columns]).empty_table()


def texts_of(batch: pa.RecordBatch, rows: NDArray[np.bool_], uri: str) -> pa.LargeStringArray:
    """The final texts of some rows of a batch: as extracted, with their edits applied.

    Raises DatasetError where a text is missing, or not as long as its part says it is.
    """
    mask = pa.array(rows)
    stored, edits = batch["text"].filter(mask), batch["edits"].filter(mask)
    if stored.null_count or edits.null_count:
        raise DatasetError(f"{uri}: a kept row has no text: the verdict is of another part; delete the work folder")
    texts = apply_edits(stored, edits)
    if not pc.binary_length(texts).cast("int64").equals(batch["num_bytes"].filter(mask)):
        raise DatasetError(f"{uri}: a text with its edits has another length than measured: delete this part")
    return texts


def order_keys(doc_ids: Sequence[bytes], seed: int) -> NDArray[np.uint64]:
    """Where documents stand in a shuffled order that needs no other document: xxh3_64 of the doc_id."""
    return np.fromiter((xxhash.xxh3_64_intdigest(doc_id, seed) for doc_id in doc_ids), np.uint64, len(doc_ids))


def fixed_rows(column: pa.Array | pa.ChunkedArray, width: int) -> NDArray[np.uint8]:
    """A fixed-width binary column as bytes (rows, width); null rows are zero, whatever lay there."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if len(column) == 0:
        return np.zeros((0, width), np.uint8)
    values = np.frombuffer(column.buffers()[1], np.uint8)
    rows = values[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)
    if not column.null_count:
        return rows
    return np.where(column.is_valid().to_numpy(zero_copy_only=False)[:, None], rows, 0).astype(np.uint8)


def bytes_column(rows: NDArray[np.uint8], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """A fixed-width binary column from bytes (rows, width)."""
    bitmap: Any = None
    if valid is not None and not valid.all():
        bitmap = pa.py_buffer(np.packbits(valid, bitorder="little").tobytes())
    data = pa.py_buffer(np.ascontiguousarray(rows).tobytes())
    return pa.Array.from_buffers(pa.binary(rows.shape[1]), len(rows), [bitmap, data])

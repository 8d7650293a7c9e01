"""Rows of columnar files (Parquet, Arrow) as records: which columns are read, and what their values mean."""

import datetime
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.ingest.formats.fields import MISSING, FieldNames, join_texts, value_at
from pipeline.ingest.records import Record, iso_millis

__all__ = ["RowDocuments", "columns_of"]


class Millis(int):
    """Milliseconds since 1970, told from other integers."""


def columns_of(schema: pa.Schema, names: FieldNames) -> list[str]:
    """Return those of the names that the schema has, by paths; the file's own order plays no part."""
    return [path for path in names.all if kind_at(schema, path) is not None]


def kind_at(schema: pa.Schema, path: str) -> pa.DataType | None:
    """Return the type of the field that a path leads to; None where the schema has none."""
    if path in schema.names:
        return _plain(schema.field(schema.get_field_index(path)).type) if schema.names.count(path) == 1 else None
    head, dot, rest = path.partition(".")
    if not dot or schema.names.count(head) != 1:
        return None
    kind = _plain(schema.field(head).type)
    return kind_at(pa.schema(list(kind)), rest) if pa.types.is_struct(kind) else None


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values behind extension and dictionary types."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _may_hold_text(kind: pa.DataType | None) -> bool:
    """Whether a column's type may hold texts: strings, their bytes, lists of either, or nothing but nulls."""
    if kind is None:
        return False
    is_list = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)
    )  # fmt: skip
    if is_list:
        kind = _plain(kind.value_type)
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind) or pa.types.is_null(kind)
    )  # fmt: skip


class RowDocuments:
    """Makes records of a file's rows; `counts` is that of the reader, and gains a document a row."""

    def __init__(self, name: str, schema: pa.Schema, names: FieldNames, max_bytes: int, counts: "Counter[str]") -> None:
        self._name, self._names, self._max_bytes, self._counts = name, names, max_bytes, counts
        self.columns = columns_of(schema, names)
        self._has_text = _may_hold_text(kind_at(schema, names.text))
        described = [f"{field.name} ({field.type})" if field.name == names.text else field.name for field in schema]
        names.note(described, lambda path: self._has_text if path == names.text else path in self.columns)

    def records(self, batch: pa.RecordBatch, first_row: int) -> Iterator[Record]:
        """Yield a record for each row of a batch, which holds at least the columns."""
        values = {name: _values(batch.column(name)) for name in batch.schema.names}
        for at in range(batch.num_rows):
            yield self._record(first_row + at, {name: column[at] for name, column in values.items()})

    def empty_records(self, first_row: int, num_rows: int) -> Iterator[Record]:
        """Yield a record for each row of a file that has none of the columns."""
        for row in range(first_row, first_row + num_rows):
            yield self._record(row, {})

    def _record(self, row: int, fields: dict[str, Any]) -> Record:
        self._counts["document"] += 1
        names = self._names
        record = Record("document", self._name, row, 0)
        record.record_id = _id_of(value_at(fields, names.id))
        record.url = _text(value_at(fields, names.url))
        record.date = _millis(value_at(fields, names.date))
        found = value_at(fields, names.text) if self._has_text else None
        text = found if isinstance(found, str) else _decoded(found)
        if text is None:
            # Bytes that are not UTF-8, under a type that promises it or not.
            record.rule = "read.damaged" if isinstance(found, bytes) or _has_bytes(found) else "read.no_text"
        elif len(text) * 4 > self._max_bytes and len(text.encode()) > self._max_bytes:
            record.rule, record.value, record.threshold = "read.too_long", len(text.encode()), self._max_bytes
        else:
            record.text = text
        return record


def _decoded(value: Any) -> str | None:
    """A text given as bytes or as a list of paragraphs; None where it is neither, or not UTF-8."""
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, list):
        parts = [None if part is None else _text(part) for part in value]
        return join_texts(parts) if [part is None for part in parts] == [part is None for part in value] else None
    return None


def _has_bytes(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(part, bytes) for part in value)


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value if isinstance(value, str) else None


def _values(column: pa.Array) -> list[Any]:
    """A column's values; a string that is not UTF-8 comes as bytes, a date too far off as None."""
    if pa.types.is_timestamp(column.type):
        # Nanoseconds and years beyond 9999 have no Python value; milliseconds are all that is kept.
        millis = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
        return [None if value is None else Millis(value) for value in millis.to_pylist()]
    if pa.types.is_struct(column.type):
        fields = [column.type.field(at).name for at in range(column.type.num_fields)]
        nested = [_values(column.field(at)) for at in range(len(fields))]
        valid = column.is_valid().to_pylist()
        rows = zip(*nested, strict=True) if nested else [()] * len(column)
        return [dict(zip(fields, row, strict=True)) if here else None for row, here in zip(rows, valid, strict=True)]
    try:
        return column.to_pylist()
    except ValueError:
        return [_value(item) for item in column]


def _value(item: pa.Scalar) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError:
        if isinstance(item, pa.DictionaryScalar):
            item = item.value
        return item.as_buffer().to_pybytes() if hasattr(item, "as_buffer") else [_value(part) for part in item.values]
    except ValueError:
        return None


def _id_of(value: Any) -> str | None:
    """An id as text: a string as it is, else as JSON would write it where it can."""
    if value is None or value is MISSING or isinstance(value, str):
        return value if isinstance(value, str) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _millis(value: Any) -> int | None:
    """Milliseconds since 1970 of a date column's value: a timestamp, a date, or ISO 8601 text."""
    if isinstance(value, (str, bytes)):
        text = _text(value)
        return iso_millis(text) if text is not None else None
    if isinstance(value, datetime.date):
        return (value.toordinal() - datetime.date(1970, 1, 1).toordinal()) * 86_400_000
    return int(value) if isinstance(value, Millis) else None

"""Parquet: one document a row, row group by row group, only the columns that are needed."""

import datetime
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ingest.receipts import Piece, PieceReceipt
from pipeline.ingest.records import ConservationError, Record, iso_millis
from schemas.recipe import Read, Source

__all__ = ["WHOLE", "ParquetRows", "row_group_bytes"]

WHOLE = -1  # a piece's end: all row groups, the file was not opened while planning
BATCH_BYTES = 8 << 20  # about, unpacked
MAX_BATCH_ROWS = 4096
BUFFER_BYTES = 1 << 20
FOOTER_BYTES = 8  # its length and the magic
READ_BYTES = 1 << 20
# What a damaged file makes pyarrow raise; failures of storage are told apart by HashedChunks.
DAMAGE = (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError)


def row_group_bytes(file: BinaryIO) -> list[int]:
    """Stored bytes of each row group, by the footer; none where that cannot be read."""
    try:
        metadata = pq.ParquetFile(file).metadata
    except (pa.ArrowException, ValueError):
        return []
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [sum(group.column(at).total_compressed_size for at in range(group.num_columns)) for group in groups]


class Millis(int):
    """Milliseconds since 1970, told from other integers."""


class HashedChunks(io.RawIOBase):
    """A file that digests the column chunks read through it, each once and in order, however reads interleave."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size
        self._position = 0
        self._chunks: list[list[Any]] = []  # [next byte to digest, end, digest]
        self.failure: OSError | None = None  # of storage, not of the content

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self.fetch(self._position, len(buffer))
        buffer[: len(data)] = data
        for chunk in self._chunks:
            start = chunk[0] - self._position
            if 0 <= start < len(data):
                piece = data[start : chunk[1] - self._position]
                chunk[2].update(piece)
                chunk[0] += len(piece)
        self._position += len(data)
        return len(data)

    def fetch(self, position: int, length: int) -> bytes:
        """Bytes as they are, fewer at the end of the file."""
        try:
            self._file.seek(position)
            return self._file.read(max(0, min(length, self.size - position)))
        except OSError as error:
            self.failure = error
            raise

    def begin(self, ranges: list[tuple[int, int]]) -> None:
        """Digest these [start, end) from now on."""
        self._chunks = [[max(0, start), min(end, self.size), hashlib.sha256()] for start, end in ranges]

    def end(self) -> list[bytes]:
        """The digests, what was not read included."""
        for chunk in self._chunks:
            while chunk[0] < chunk[1]:
                data = self.fetch(chunk[0], min(READ_BYTES, chunk[1] - chunk[0]))
                if not data:
                    break
                chunk[2].update(data)
                chunk[0] += len(data)
        return [chunk[2].digest() for chunk in self._chunks]


class ParquetRows:
    """The ledger records of a piece, one a row; a damaged row group gives one for the rows that are lost.

    The receipt's sha256 is taken over the sha256 of the footer and of each column chunk read, in order: chunks are
    read interleaved, and once.
    """

    def __init__(self, file: BinaryIO, piece: Piece, source: Source, read: Read) -> None:
        self._piece, self._source, self._read = piece, source, read
        self._file = HashedChunks(file, piece.size)
        self._digest = hashlib.sha256()
        self._end = piece.start
        self.counts: Counter[str] = Counter()
        self._lost = 0

    def __iter__(self) -> Iterator[Record]:
        table = self._open()
        if table is None:
            self.counts["damage"] += 1
            yield Record("damage", self._piece.name, 0, 0, rule="read.damaged")
            return
        metadata = table.metadata
        columns = self._columns(table.schema_arrow)
        self._end = metadata.num_row_groups if self._piece.end == WHOLE else self._piece.end
        row = sum(metadata.row_group(number).num_rows for number in range(self._piece.start))
        expected = 0
        for number in range(self._piece.start, self._end):
            rows = metadata.row_group(number).num_rows
            yield from self._row_group(table, number, row, columns)
            row += rows
            expected += rows
        if self.counts["document"] + self._lost != expected:
            read = self.counts["document"]
            raise ConservationError(f"{read} rows read and {self._lost} lost of {expected} by the footer")

    def receipt(self) -> PieceReceipt:
        """What was read, once iterated."""
        piece = self._piece
        return PieceReceipt(
            name=piece.name,
            start=piece.start,
            end=self._end,
            size=piece.size,
            covered_start=piece.start,
            covered_end=self._end,
            sha256=self._digest.hexdigest(),
            rows=self.counts["document"] + self.counts["damage"],
            records={kind: count for kind, count in sorted(self.counts.items()) if count},
        )

    def _open(self) -> pq.ParquetFile | None:
        """The file by its footer; None where that is damaged."""
        tail = self._file.fetch(max(0, self._piece.size - FOOTER_BYTES), FOOTER_BYTES)
        length = min(int.from_bytes(tail[:4], "little") + FOOTER_BYTES, self._piece.size)
        self._digest.update(hashlib.sha256(self._file.fetch(self._piece.size - length, length)).digest())
        try:
            return pq.ParquetFile(
                self._file, pre_buffer=False, buffer_size=BUFFER_BYTES, page_checksum_verification=True
            )
        except DAMAGE:
            if self._file.failure:
                raise self._file.failure from None
            return None

    def _columns(self, schema: pa.Schema) -> list[str]:
        """The fields of the recipe that the file has."""
        source = self._source
        if source.text_field not in schema.names:
            raise ValueError(
                f"{self._piece.uri}: no column {source.text_field!r} (text_field); it has {', '.join(schema.names)}"
            )
        kind = schema.field(source.text_field).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise ValueError(f"{self._piece.uri}: column {source.text_field!r} (text_field) holds {kind}, not strings")
        wanted = dict.fromkeys([source.text_field, source.id_field, source.url_field, source.date_field])
        return [name for name in wanted if name in schema.names]

    def _row_group(self, table: pq.ParquetFile, number: int, first_row: int, columns: list[str]) -> Iterator[Record]:
        group = table.metadata.row_group(number)
        self._file.begin(_chunk_ranges(group, columns))
        rows = max(0, group.num_rows)
        batch_rows = max(1, min(MAX_BATCH_ROWS, rows * BATCH_BYTES // max(1, group.total_byte_size)))
        done = 0
        for batch in self._batches(table, number, columns, batch_rows):
            batch = batch.slice(0, rows - done)
            for at, fields in enumerate(_rows(batch)):
                yield self._record(first_row + done + at, fields)
            done += batch.num_rows
        if done < rows:
            self._lost += rows - done
            self.counts["damage"] += 1
            yield Record("damage", self._piece.name, first_row + done, 0, rule="read.damaged", value=rows - done)
        for digest in self._file.end():
            self._digest.update(digest)

    def _batches(
        self, table: pq.ParquetFile, number: int, columns: list[str], batch_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """A row group's batches, up to where it is damaged."""
        try:
            yield from table.iter_batches(batch_rows, [number], columns, use_threads=False)
        except DAMAGE:
            if self._file.failure:
                raise self._file.failure from None

    def _record(self, row: int, fields: dict[str, Any]) -> Record:
        self.counts["document"] += 1
        source = self._source
        record = Record("document", self._piece.name, row, 0)
        record.record_id = _id_of(fields.get(source.id_field))
        url = fields.get(source.url_field)
        record.url = url if isinstance(url, str) else None
        record.date = _millis(fields.get(source.date_field))
        text = fields.get(source.text_field)
        if not isinstance(text, str):
            # Bytes that are not UTF-8 under a type that promises it.
            record.rule = "read.no_text" if text is None else "read.damaged"
        elif len(text) * 4 > self._read.max_record_bytes and len(text.encode()) > self._read.max_record_bytes:
            record.rule, record.value = "read.too_long", len(text.encode())
            record.threshold = self._read.max_record_bytes
        else:
            record.text = text
        return record


def _chunk_ranges(group: Any, columns: list[str]) -> list[tuple[int, int]]:
    """[start, end) of the column chunks that reading `columns` touches."""
    ranges = []
    for at in range(group.num_columns):
        chunk = group.column(at)
        if chunk.path_in_schema.split(".")[0] in columns:
            offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
            start = min(offset for offset in offsets if offset is not None)
            ranges.append((start, start + chunk.total_compressed_size))
    return ranges


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """A batch's rows as Python values."""
    columns = {name: _values(batch.column(name)) for name in batch.schema.names}
    for at in range(batch.num_rows):
        yield {name: values[at] for name, values in columns.items()}


def _values(column: pa.Array) -> list[Any]:
    """A column's values; a string that is not UTF-8 comes as bytes, a date too far off as None."""
    if pa.types.is_timestamp(column.type):
        # Nanoseconds and years beyond 9999 have no Python value; milliseconds are all that is kept.
        millis = column.cast(pa.timestamp("ms", column.type.tz), safe=False).cast(pa.int64())
        return [None if value is None else Millis(value) for value in millis.to_pylist()]
    try:
        return column.to_pylist()
    except ValueError:
        return [_value(item) for item in column]


def _value(item: pa.Scalar) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError:
        return item.as_buffer().to_pybytes()
    except ValueError:
        return None


def _id_of(value: Any) -> str | None:
    """An id as text: a string as it is, else as JSON would write it where it can."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _millis(value: Any) -> int | None:
    """Milliseconds since 1970 of a date column's value: a timestamp, a date, or ISO 8601 text."""
    if isinstance(value, str):
        return iso_millis(value)
    if isinstance(value, datetime.date):
        return (value.toordinal() - datetime.date(1970, 1, 1).toordinal()) * 86_400_000
    return int(value) if isinstance(value, Millis) else None

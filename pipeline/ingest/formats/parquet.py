"""Parquet: one document a row, row group by row group, only the columns that are needed."""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ingest.formats.fields import FieldNames
from pipeline.ingest.formats.rows import RowDocuments
from pipeline.ingest.receipts import Piece, PieceReceipt
from pipeline.ingest.records import ConservationError, Record
from schemas.recipe import Read

__all__ = ["WHOLE", "ParquetRows", "row_group_bytes"]

WHOLE = -1  # an input split's end: all row groups, the file was not opened while planning
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
    """The ledger records of an input split, one a row; a corrupt row group gives one for the rows that are lost.

    The receipt's sha256 is taken over the sha256 of the footer and of each column chunk read, in order: chunks are
    read interleaved, and once.
    """

    def __init__(self, file: BinaryIO, piece: Piece, names: FieldNames, read: Read) -> None:
        self._piece, self._names, self._read = piece, names, read
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
        rows_of = RowDocuments(
            self._piece.name, table.schema_arrow, self._names, self._read.max_record_bytes, self.counts
        )
        self._end = metadata.num_row_groups if self._piece.end == WHOLE else self._piece.end
        row = sum(metadata.row_group(number).num_rows for number in range(self._piece.start))
        expected = 0
        for number in range(self._piece.start, self._end):
            rows = metadata.row_group(number).num_rows
            yield from self._row_group(table, number, row, rows_of)
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

    def _row_group(self, table: pq.ParquetFile, number: int, first_row: int, rows_of: RowDocuments) -> Iterator[Record]:
        columns = rows_of.columns
        group = table.metadata.row_group(number)
        self._file.begin(_chunk_ranges(group, columns))
        rows = max(0, group.num_rows)
        batch_rows = max(1, min(MAX_BATCH_ROWS, rows * BATCH_BYTES // max(1, group.total_byte_size)))
        done = 0
        if not columns:
            yield from rows_of.empty_records(first_row, rows)
            done = rows
        for batch in self._batches(table, number, columns, batch_rows):
            batch = batch.slice(0, rows - done)
            yield from rows_of.records(batch, first_row + done)
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
            if columns:
                yield from table.iter_batches(batch_rows, [number], columns, use_threads=False)
        except DAMAGE:
            if self._file.failure:
                raise self._file.failure from None


def _chunk_ranges(group: Any, columns: list[str]) -> list[tuple[int, int]]:
    """[start, end) of the column chunks that reading `columns` touches."""
    ranges = []
    prefixes = tuple(f"{column}." for column in columns)
    for at in range(group.num_columns):
        chunk = group.column(at)
        if f"{chunk.path_in_schema}.".startswith(prefixes):
            offsets = (chunk.dictionary_page_offset, chunk.data_page_offset)
            start = min(offset for offset in offsets if offset is not None)
            ranges.append((start, start + chunk.total_compressed_size))
    return ranges

"""Arrow IPC: streams and files, such as the `data-00000-of-00001.arrow` of Hugging Face's `save_to_disk`.

A file is a stream with a magic before it and a footer behind it, so both are read from front to back, once.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.ingest.formats.fields import FieldNames
from pipeline.ingest.formats.rows import RowDocuments
from pipeline.ingest.receipts import Piece, PieceReceipt
from pipeline.ingest.records import Record
from schemas.recipe import Read

__all__ = ["ArrowRows"]

FILE_MAGIC = b"ARROW1\0\0"
READ_BYTES = 1 << 20
# What a corrupt file makes pyarrow raise; failures of storage are told apart by HashedFile.
DAMAGE = (pa.ArrowException, OSError, MemoryError, ValueError, OverflowError)


class HashedFile(io.RawIOBase):
    """A file read from front to back, with the digest of what was read."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._position = file, size, 0
        self._digest = hashlib.sha256()
        self.failure: OSError | None = None  # of storage, not of the content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(min(len(buffer), self._size - self._position))
        except OSError as error:
            self.failure = error
            raise
        buffer[: len(data)] = data
        self._digest.update(data)
        self._position += len(data)
        return len(data)

    def finish(self) -> str:
        """Read what is left and return the digest (hex)."""
        while self.read(READ_BYTES):
            pass
        return self._digest.hexdigest()


class ArrowRows:
    """The ledger records of a file, one a row; what is corrupt gives one for the rows that are lost with it."""

    def __init__(self, file: BinaryIO, piece: Piece, names: FieldNames, read: Read) -> None:
        self._piece, self._names, self._read = piece, names, read
        file.seek(0)
        head = file.read(len(FILE_MAGIC))
        file.seek(0)
        self._file = HashedFile(file, piece.size)
        self._is_file = head == FILE_MAGIC
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Record]:
        row = 0
        for batch in self._batches():
            if batch is None:
                yield self._damage(row, None)
                break
            rows_of = RowDocuments(
                self._piece.name, batch.schema, self._names, self._read.max_record_bytes, self.counts
            )
            columns = list(
                dict.fromkeys(
                    path if path in batch.schema.names else path.partition(".")[0] for path in rows_of.columns
                )
            )
            chosen = batch.select(columns)
            if not columns:
                yield from rows_of.empty_records(row, batch.num_rows)
            elif _is_valid(chosen):
                yield from rows_of.records(chosen, row)
            else:
                yield self._damage(row, batch.num_rows)
            row += batch.num_rows
        self._sha256 = self._file.finish()

    def receipt(self) -> PieceReceipt:
        """What was read, once iterated."""
        piece = self._piece
        return PieceReceipt(
            name=piece.name,
            start=piece.start,
            end=piece.end,
            size=piece.size,
            covered_start=piece.start,
            covered_end=piece.end,
            sha256=self._sha256,
            rows=self.counts["document"] + self.counts["damage"],
            records=dict(sorted(self.counts.items())),
        )

    def _batches(self) -> Iterator[pa.RecordBatch | None]:
        """The file's batches; None in place of what is corrupt and all behind it."""
        try:
            if self._is_file:
                self._file.read(len(FILE_MAGIC))
            yield from pa.ipc.open_stream(pa.PythonFile(self._file, "r"))
        except DAMAGE:
            if self._file.failure:
                raise self._file.failure from None
            yield None

    def _damage(self, row: int, rows: int | None) -> Record:
        self.counts["damage"] += 1
        return Record("damage", self._piece.name, row, 0, rule="read.damaged", value=rows)


def _is_valid(batch: pa.RecordBatch) -> bool:
    """Whether a batch's buffers are what its types ask for; strings that are not UTF-8 are single rows' fault."""
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        try:
            for column in batch.columns:
                bare = (
                    column.view(pa.large_binary() if pa.types.is_large_string(column.type) else pa.binary())
                    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
                    else column
                )
                bare.validate(full=True)
        except pa.ArrowException:
            return False
    return True

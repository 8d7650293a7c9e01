"""A part, or columns of one, as a file: Arrow IPC, written beside its place and given its name when it is whole."""

import contextlib
import hashlib
import os
import secrets
import tempfile
from pathlib import Path
from typing import IO

import pyarrow as pa

from schemas import local_files, storage

__all__ = ["PartFile"]

BATCH_BYTES = 16 << 20  # text of a record batch, about
BATCH_ROWS = 4096


class PartFile:
    """Takes batches of rows and writes them as record batches of a size that rows alone decide.

    A context manager: what was not published is removed.
    """

    def __init__(self, uri: str, schema: pa.Schema) -> None:
        self._uri, self._schema = uri, schema
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = self._pending_bytes = 0
        self._path = _scratch_path(uri)
        with self._faults():
            self._file = _HashedFile(self._path.open("xb"))
            self._writer = pa.ipc.new_file(pa.PythonFile(self._file, "w"), schema)

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)

    def write(self, batch: pa.RecordBatch, text_bytes: int) -> None:
        """Append rows that hold `text_bytes` of text."""
        rows, size = self._pending_rows + batch.num_rows, self._pending_bytes + text_bytes
        if self._pending and (rows > BATCH_ROWS or size > BATCH_BYTES):
            self._flush()
        self._pending.append(batch)
        self._pending_rows += batch.num_rows
        self._pending_bytes += text_bytes

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append rows as a record batch of their own."""
        self._flush()
        self._pending.append(batch)
        self._flush()

    def publish(self) -> tuple[int, str]:
        """Give the part its name; returns its bytes and sha256."""
        self._flush()
        with self._faults():
            self._writer.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
        path = storage.local_path(self._uri)
        if path is None:
            storage.write(self._uri, self._path)
        else:
            with self._faults():
                os.replace(self._path, path)
        return self._file.size, self._file.sha256.hexdigest()

    def _flush(self) -> None:
        """Write what is pending as one record batch of new buffers: a slice would carry its neighbours' bytes."""
        if not self._pending:
            return
        columns = [pa.concat_arrays(arrays) for arrays in zip(*(batch.columns for batch in self._pending), strict=True)]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0
        with self._faults():
            self._writer.write_batch(batch)

    def _faults(self) -> "contextlib.AbstractContextManager[None]":
        return local_files.faults(str(self._path))


class _HashedFile:
    """A file that knows the digest and number of the bytes written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.flush, self.fileno = file.flush, file.fileno

    @property
    def closed(self) -> bool:
        return self._file.closed

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()

    def tell(self) -> int:
        return self.size


def _scratch_path(uri: str) -> Path:
    """Where a part is written: beside its place, so that a rename is enough; for a bucket, a local folder."""
    path = storage.local_path(uri)
    token = secrets.token_hex(8)
    if path is None:
        return Path(tempfile.gettempdir()) / local_files.unfinished_name("gristmill-part", token)
    with local_files.faults(uri):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(local_files.unfinished_name(path.name, token))

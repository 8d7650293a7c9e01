"""Reading and writing the files of pack: Arrow files by URI, and files that are written once."""

from collections.abc import Iterable, Sequence

import pyarrow as pa

from pipeline.ingest.part_columns import open_arrow
from schemas import storage
from schemas.generation import FileRef
from schemas.manifest import DatasetError, file_digest

__all__ = ["arrow_bytes", "open_arrow", "read_columns", "write_once", "write_work"]


def read_columns(uri: str, columns: Sequence[str]) -> pa.Table:
    """Some columns of an Arrow file, in memory, as one batch."""
    with open_arrow(uri, columns) as reader:
        return reader.read_all().select(columns).combine_chunks()


def arrow_bytes(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> bytes:
    """An uncompressed Arrow file. Batches are built from values, never sliced: a slice leaks its neighbours' bytes."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def write_once(root: str, path: str, data: bytes) -> FileRef:
    """Write a file that is never overwritten; one that is there already must be equal.

    Raises DatasetError where a file of that name holds something else.
    """
    uri = storage.join(root, path)
    file = FileRef(path=path, bytes=len(data), sha256=file_digest(data))
    try:
        storage.write(uri, data, create_only=True)
    except FileExistsError:
        found = file_digest(storage.read(uri))
        if found != file.sha256:
            raise DatasetError(
                f"{uri}: holds sha256 {found}, this run made {file.sha256} for it: the file is damaged or not ours; "
                "delete it and run again"
            ) from None
    return file


def write_work(work: str, path: str, data: bytes) -> dict[str, str]:
    """Write a file of the work folder; returns its entry of a receipt's `in_work`."""
    storage.write(storage.join(work, path), data)
    return {path: file_digest(data)}

"""Reading and writing the files of pack: Arrow files by URI, receipts, and files that are written once."""

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from pipeline.ingest.part_columns import open_arrow
from schemas import storage
from schemas.checksummed_json import seal, unseal
from schemas.generation import FileRef
from schemas.manifest import DatasetError, file_digest

__all__ = ["arrow_bytes", "load_receipt", "open_arrow", "read_columns", "save_receipt", "write_once", "write_work"]


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


def load_receipt(work: str, name: str, dataset: str) -> dict[str, Any] | None:
    """The receipt of a step that is complete, None where it or one of its files is missing or another.

    Its `in_work` maps paths to sha256, `in_dataset` (which `gristmill verify` digests) paths to bytes.
    """
    try:
        receipt = unseal(storage.read(storage.join(work, "pack", name)))
        whole = all(
            file_digest(storage.read(storage.join(work, path))) == sha256 for path, sha256 in receipt["in_work"].items()
        ) and all(
            storage.stat(storage.join(dataset, path)).size == size for path, size in receipt["in_dataset"].items()
        )
    except (FileNotFoundError, ValueError, KeyError, AttributeError):
        return None
    return receipt if whole else None


def save_receipt(work: str, name: str, receipt: dict[str, Any]) -> None:
    """Vouch for a step, after all its files are written. Equal attempts write equal bytes, so any may win."""
    storage.write(storage.join(work, "pack", name), seal(receipt))

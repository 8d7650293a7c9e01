"""Files of a dataset: opened so that what cannot be read is named, and held against their digests."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas import storage
from schemas.generation import FileRef
from schemas.local_files import sha256_of
from schemas.manifest import COPY, DatasetError

__all__ = ["check_digest", "check_file", "open_file"]


@contextlib.contextmanager
def open_file(dataset: str, path: str) -> Iterator[Any]:
    """A file of a dataset as Arrow and Parquet take it: a local one memory-mapped, of a remote one ranges.

    Raises DatasetError, here and for what is read inside, where the file is missing or damaged.
    """
    uri = storage.join(dataset, path)
    local = storage.local_path(uri)
    try:
        with pa.memory_map(str(local)) if local is not None else storage.open_input(uri) as source:
            yield source
    except FileNotFoundError:
        raise DatasetError(f"{dataset}: {path} is missing; the dataset is not complete: {COPY}") from None
    except storage.StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{dataset}: {path} is damaged ({' '.join(str(error).split())}): {COPY}") from None


def check_file(dataset: str, file: FileRef) -> None:
    """Read a file once, in blocks. Raises DatasetError where its bytes are not those that the manifest lists."""
    uri = storage.join(dataset, file.path)
    local = storage.local_path(uri)
    if local is not None:
        check_digest(local, file.sha256, uri)
        return
    digest = hashlib.sha256()
    try:
        for block in storage.read_blocks(storage.stat(uri)):
            digest.update(block)
    except FileNotFoundError:
        raise DatasetError(f"{uri} is missing; the dataset is not complete: {COPY}") from None
    _compare(digest.hexdigest(), file.sha256, uri)


def check_digest(path: str | Path, sha256: str, name: str) -> None:
    """Raises DatasetError, calling the local file by `name`, for one that is not what the manifest says."""
    try:
        found = sha256_of(path)
    except OSError as error:  # a bad sector too, which would kill the process were the file first read as memory
        raise DatasetError(f"{name}: {error.strerror}: copy it again") from None
    _compare(found, sha256, name)


def _compare(found: str, sha256: str, name: str) -> None:
    if found != sha256:
        raise DatasetError(f"{name}: its sha256 is {found}, the manifest says {sha256}: copy it again")

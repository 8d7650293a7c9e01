"""Files by URI: a local path, s3://, gs://, az:// or http(s)://, all through the same few functions.

The one module that both packages use to read and write. Local files are plain Python, so that nothing but the
standard library stands between a laptop and its disk; buckets go through `schemas/object_stores.py`.

Every write is atomic: readers see the whole file or none. What a user can mend (a bucket that does not exist,
missing credentials, a full disk) is a StorageError with one line that names the URI, the cause and the cure.
"""

import hashlib
import io
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from schemas import local_files, object_stores
from schemas.object_stores import Refused, StorageError
from schemas.remote_file import RemoteFile

__all__ = [
    "Refused",
    "Stat",
    "StorageError",
    "check_output",
    "delete",
    "exists",
    "fetch",
    "join",
    "list_files",
    "local_path",
    "open_input",
    "read",
    "read_blocks",
    "read_range",
    "stat",
    "write",
]

BUFFER_BYTES = 128 << 10


@dataclass(frozen=True, order=True)
class Stat:
    """A file and what tells one version of it from the next: its ETag without quotes, locally its mtime in ns."""

    uri: str
    size: int
    tag: str


def join(root: str, *names: str) -> str:
    """`root` with `names` below it, one slash between each: join("s3://b/x/", "y", "z") is "s3://b/x/y/z"."""
    return "/".join([root.rstrip("/") if root.strip("/") else "", *(name.strip("/") for name in names)])


def local_path(uri: str) -> Path | None:
    """The path of a local URI (a plain path, ~ expanded, or file://); None for any other scheme.

    Raises ValueError for a scheme that nobody knows, and for a bucket without a name.
    """
    path = local_files.path_of(uri)
    if path is None:
        object_stores.check_uri(uri)
    return path


def check_output(uri: str) -> None:
    """Raise ValueError where nothing can ever be written: on a web server, or under a scheme that nobody knows."""
    if local_path(uri) is None:
        object_stores.check_uri(uri, writes=True)


def stat(uri: str) -> Stat:
    """Size and tag of a file. Raises FileNotFoundError."""
    path = local_path(uri)
    size, tag = local_files.stat(uri, path) if path is not None else object_stores.head(uri)
    return Stat(uri, size, tag)


def exists(uri: str) -> bool:
    """Whether there is such a file; a folder is none."""
    try:
        stat(uri)
    except FileNotFoundError:
        return False
    return True


def list_files(prefix: str) -> list[Stat]:
    """Every file below a folder or bucket prefix, at any depth, sorted by URI; none if there is no such folder.

    Buckets are listed in pages. Files that `write` has not finished are left out. HTTP has no listing: StorageError.
    """
    path = local_path(prefix)
    found = local_files.walk(prefix, path) if path is not None else object_stores.list_objects(prefix)
    return sorted(Stat(uri, size, tag) for uri, size, tag in found)


def read(uri: str) -> bytes:
    """The whole file in memory."""
    path = local_path(uri)
    if path is None:
        return object_stores.get(uri)
    with local_files.faults(uri):
        return path.read_bytes()


def read_range(uri: str, start: int, length: int) -> bytes:
    """`length` bytes from `start` on, fewer where the file ends."""
    if start < 0 or length < 0:
        raise ValueError(f"{uri}: range start={start} length={length}: neither may be negative")
    path = local_path(uri)
    if path is None:
        return object_stores.get_range(uri, start, length) if length else b""
    with local_files.faults(uri), path.open("rb") as file:
        file.seek(start)
        return file.read(length)


def open_input(uri: str) -> BinaryIO:
    """A binary file to read and seek in; pyarrow takes it too.

    A remote file is read in ranges that grow to 8 MiB while reading goes straight on, the next one fetched ahead.
    Its tag is held fast: a file that is replaced meanwhile is a StorageError, not a mixture of two.
    """
    path = local_path(uri)
    if path is None:
        found = stat(uri)
        return io.BufferedReader(RemoteFile(uri, found.size, found.tag), BUFFER_BYTES)  # type: ignore[return-value]
    with local_files.faults(uri):
        return path.open("rb", buffering=BUFFER_BYTES)


def write(uri: str, data: "bytes | Path", create_only: bool = False) -> None:
    """Write bytes, or a copy of a local file, in one atomic step.

    With `create_only` an existing file is left as it is and FileExistsError raised: of several writers one wins.
    A large local file goes to a bucket in parts of 8 MiB; with `create_only` it is held in memory.
    """
    path = local_path(uri)
    if path is None:
        object_stores.put(uri, data, create_only)
    else:
        local_files.write(uri, path, data, create_only)


def delete(uri: str) -> None:
    """Remove a file; one that is not there is no error, as on object stores."""
    path = local_path(uri)
    if path is None:
        object_stores.delete(uri)
        return
    with local_files.faults(uri):
        path.unlink(missing_ok=True)


def fetch(uri: str, directory: "str | Path") -> Path:
    """A local copy of a file, in `directory`; a local file is returned where it is.

    The copy's name holds a digest of URI and tag, so that it is fetched once and never stale.
    """
    path = local_path(uri)
    if path is not None:
        stat(uri)
        return path
    found = stat(uri)
    digest = hashlib.sha256(f"{uri}\0{found.size}\0{found.tag}".encode()).hexdigest()[:16]
    copy = Path(directory) / f"{digest}-{uri.split('?')[0].rpartition('/')[2]}"
    if not copy.exists():
        with local_files.faults(str(copy)):
            _download(uri, found, copy)
    return copy


def _download(uri: str, found: Stat, copy: Path) -> None:
    """Stream a remote file to `copy`, which appears when it is whole."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    unfinished = copy.with_name(local_files.unfinished_name(copy.name, secrets.token_hex(8)))
    try:
        with unfinished.open("wb") as file:
            for block in read_blocks(found):
                file.write(block)
        os.replace(unfinished, copy)
    finally:
        unfinished.unlink(missing_ok=True)


def read_blocks(found: Stat) -> Iterator[bytes]:
    """The bytes of a remote file that was looked up, in order, a few MiB at a time; never more than its size.

    Raises StorageError when it is replaced meanwhile, or ends before its size.
    """
    file = RemoteFile(found.uri, found.size, found.tag)
    with file:
        while block := file.read(8 << 20):
            yield block

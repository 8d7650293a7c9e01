"""One writer at a time in a local folder, a dataset's or a training's; on object stores create-only writes decide."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from schemas import storage

__all__ = ["writer_lock"]


@contextlib.contextmanager
def writer_lock(output: str) -> Iterator[None]:
    """Hold `OUTPUT/.lock` while a run works, and remove it at the end.

    The kernel frees it when the process dies, however it dies: a file that was left behind locks nobody out.
    Raises storage.StorageError when another run holds it.
    """
    folder = storage.local_path(output)
    if folder is None:
        yield
        return
    path = folder / ".lock"
    descriptor = _locked(output, path)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # Before it is freed, so that nobody else's is removed.
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _locked(output: str, path: Path) -> int:
    """The lock file's descriptor, with the lock held."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            in_the_way = isinstance(error, FileExistsError | NotADirectoryError)
            cause = "a file stands where its folder would be" if in_the_way else error.strerror
            raise storage.StorageError(f"{output}: cannot be written to: {cause}; choose another --output") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise storage.StorageError(
                f"{output}: another run (process {holder}) works there: wait for it, or stop it first"
            ) from None
        if _is_at(descriptor, path):
            return descriptor
        # Its holder removed it between our opening and locking it: what we hold is no lock any more.
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False

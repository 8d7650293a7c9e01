"""One writer at a time in a local folder, a dataset's or a training's; on object stores create-only writes decide."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from schemas import storage

__all__ = ["writer_lock"]


@contextlib.contextmanager
def writer_lock(output: str) -> Iterator[None]:
    """Hold `OUTPUT/.lock` while a run works; the kernel frees it when the process dies, however it dies.

    Raises storage.StorageError when another run holds it.
    """
    folder = storage.local_path(output)
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage.StorageError(
            f"{output}: nothing can be written there ({error.strerror}): choose another output"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise storage.StorageError(
                f"{output}: another run (process {holder}) works there: wait for it, or stop it first"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)

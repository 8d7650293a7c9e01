"""What killed workers leave on local disks is removed when the next driver starts: half-written files, lost attempts.

On object stores nothing is ever written unfinished, and `parts/` is not listed (contracts, section 2).
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.ingest.receipts import ColumnsReceipt, Receipt
from schemas import storage
from schemas.local_files import UNFINISHED

__all__ = ["swept_work"]

LOCK = ".lock"
# An attempt without a receipt may be about to get one from a worker that its driver has lost sight of.
ATTEMPT_SECONDS = 24 * 3600


@contextlib.contextmanager
def swept_work(work: str, output: str, dry: bool = False) -> Iterator[None]:
    """Tell other drivers that this one works in `work`; before that, sweep it if none does, and `output`.

    `output` is swept with it, so hold its lock; with `dry` neither is, and no folder is made. The kernel frees the
    lock when the process dies, however it dies. Raises StorageError where the work folder cannot be made.
    """
    folder, dataset = storage.local_path(work), storage.local_path(output)
    if folder is None or (dry and not folder.is_dir()):
        if dataset and not dry:
            _sweep_unfinished(dataset)
        yield
        return
    with _open_lock(folder) as lock:
        if not dry:
            if _taken(lock, fcntl.LOCK_EX | fcntl.LOCK_NB):
                _sweep_unfinished(folder)
                _sweep_attempts(folder)
                _sweep_columns(folder)
            if dataset:
                _sweep_unfinished(dataset, spared=folder)
        # Another driver holds it alone only while it sweeps.
        _taken(lock, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def _open_lock(folder: Path) -> Iterator[int]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise storage.StorageError(
            f"{folder}: no work folder can be made there ({error.strerror}): choose another --work"
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _taken(lock: int, how: int) -> bool:
    """Whether the lock was had: not while another holds it, nor on a file system without locks."""
    try:
        fcntl.flock(lock, how)
    except OSError:
        return False
    return True


def _sweep_unfinished(folder: Path, spared: Path | None = None) -> None:
    """Remove half-written files below `folder`. A worker that has outlived its driver fails when it renames one."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name) != spared]
        for name in names:
            if name.startswith(".") and name.endswith(UNFINISHED):
                Path(parent, name).unlink(missing_ok=True)


def _sweep_attempts(work: Path) -> None:
    """Remove parts that lost to another attempt of theirs, and old ones that nobody has vouched for."""
    attempts: dict[str, list[Path]] = {}
    for path in (work / "parts").glob("*.arrow"):
        attempts.setdefault(path.name.partition(".")[0], []).append(path)
    before = time.time() - ATTEMPT_SECONDS
    for name, paths in attempts.items():
        chosen = _chosen(work / "receipts" / f"{name}.json")
        if chosen is None:
            lost = [path for path in paths if path.stat().st_mtime < before]
        else:
            lost = [path for path in paths if path.name != chosen]
        for path in lost:
            path.unlink(missing_ok=True)


def _sweep_columns(work: Path) -> None:
    """Remove old files of measure columns that no receipt names."""
    chosen = set()
    for receipt in (work / "receipts" / "columns").glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            chosen.add(ColumnsReceipt.from_json(receipt.read_bytes()).path.rpartition("/")[2])
    before = time.time() - ATTEMPT_SECONDS
    for path in (work / "columns").glob("*.arrow"):
        if path.name not in chosen and path.stat().st_mtime < before:
            path.unlink(missing_ok=True)


def _chosen(receipt: Path) -> str | None:
    """The file name of the part that the receipt vouches for; None where there is no receipt, or a broken one."""
    try:
        return Receipt.from_json(receipt.read_bytes()).path.rpartition("/")[2]
    except (OSError, ValueError):
        return None

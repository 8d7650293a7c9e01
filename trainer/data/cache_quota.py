"""The bytes of a cache, counted: files that lie there and files that are reserved for, never above the limit."""

import os
import threading
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path

__all__ = ["OVERHEAD_BYTES", "Quota", "disk_bytes"]

BLOCK_BYTES = 4096
OVERHEAD_BYTES = 1 << 20  # of the limit, for folders, locks and error markers


def disk_bytes(size: int) -> int:
    """What a file of `size` bytes takes of a disk: whole blocks, as `du` counts."""
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES


class Quota:
    """For several threads. `limit` is in bytes and holds OVERHEAD_BYTES for what is not counted."""

    def __init__(self, limit: int, files: Iterable[Path]) -> None:
        self._limit = limit - OVERHEAD_BYTES
        self._files = {path: disk_bytes(path.stat().st_size) for path in files}
        self._reserved: dict[Hashable, int] = {}
        self._lock = threading.RLock()

    def __contains__(self, path: Path) -> bool:
        """Whether the file is there."""
        return path in self._files

    def reserve(self, key: Hashable, size: int) -> bool:
        """Keep room for a file of `size` bytes; False where there is none."""
        with self._lock:
            if not self.fits(size):
                return False
            self._reserved[key] = disk_bytes(size)
            return True

    def fits(self, size: int) -> bool:
        """Whether a file of `size` bytes more stays below the limit."""
        with self._lock:
            return sum(self._files.values()) + sum(self._reserved.values()) + disk_bytes(size) <= self._limit

    def release(self, key: Hashable) -> None:
        """Give up what was reserved and not used."""
        with self._lock:
            self._reserved.pop(key, None)

    def move(self, before: Path, after: Path, key: Hashable = None) -> None:
        """Rename a file that was reserved for as `key`, or that was counted as `before`."""
        with self._lock:
            size = disk_bytes(before.stat().st_size)
            os.replace(before, after)
            self._files.pop(before, None)
            self._reserved.pop(key, None)
            self._files[after] = size

    def quarantine(self, before: Path, after: Path) -> bool:
        """Rename an uncounted file where there is room for it beside all that is reserved."""
        with self._lock:
            fits = self.fits(before.stat().st_size)
            if fits:
                self.move(before, after)
            return fits

    def remove(self, path: Path) -> None:
        """Delete a file."""
        with self._lock:
            path.unlink(missing_ok=True)
            self._files.pop(path, None)

    def make_room(self, size: int, order: Callable[[Path], int | None]) -> bool:
        """Remove files until `size` bytes fit, those with the highest `order` first, those with None never.

        Nothing is removed where all of them would not make room enough.
        """
        with self._lock:
            evictable = sorted(
                ((rank, path) for path in self._files if (rank := order(path)) is not None), reverse=True
            )
            chosen, left = [], size
            for _, path in evictable:
                if self.fits(left):
                    break
                chosen.append(path)
                left -= self._files[path]
            if not self.fits(left):
                return False
            for path in chosen:
                self.remove(path)
            return True

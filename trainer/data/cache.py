"""The cache of remote shards on a node's disk: its folder, who reads from it, and the smallest that works.

    CACHE/fetcher.lock      held by the one process that fetches (shard_fetcher.py): its session and run
    CACHE/SESSION/SHA256    shards that were checked in this session: what readers open
    CACHE/unverified/SHA256 shards of earlier sessions, to be checked before they are used again
    CACHE/downloading/      unfinished files
    CACHE/quarantine/       files that were not what the manifest says
    CACHE/readers/          one file a reader, which it holds locked: how far it has come
    CACHE/errors/SHA256     why a shard cannot be had

Locks are the kernel's (`flock`): they end with their process, however it ends, so nothing that a killed process leaves
behind hinders the others or the next start. There is no shared memory.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schemas.recipe import canonical_json
from schemas.storage import StorageError
from trainer.data.batch_reader import ShardLost
from trainer.data.cache_quota import BLOCK_BYTES, OVERHEAD_BYTES
from trainer.data.shard_files import ShardFiles
from trainer.order.batch_order import Order, Phase
from trainer.order.mixture import normalised, parse_decimal
from trainer.order.phases import ShardTable
from trainer.order.source_order import window_shards

__all__ = ["Cache", "CacheReader", "ErrorMarker", "Session", "Stopped", "readers_of", "run_key", "smallest_cache"]

POLL_SECONDS = 0.02
ORPHANED_SECONDS = 60.0


@dataclass(frozen=True)
class Session:
    """The content of the fetcher's lock file."""

    name: str
    run: str  # `run_key`
    process: int


@dataclass(frozen=True)
class ErrorMarker:
    """Why a shard cannot be had in a session."""

    session: str
    kind: str  # lost: the shard is bad and stays bad; store: its store, or our disk, fails
    message: str


@dataclass(frozen=True)
class Cache:
    """A folder on a local disk, and its byte limit."""

    folder: Path
    max_bytes: int

    def place(self, *names: str) -> Path:
        """A path below the folder."""
        return self.folder.joinpath(*names)

    def session(self) -> Session | None:
        """The session of the lock file; it is current while somebody holds the lock."""
        try:
            return Session(**json.loads(self.place("fetcher.lock").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def error_marker(self, sha256: str) -> ErrorMarker | None:
        """Return why a shard cannot be had, or None."""
        try:
            return ErrorMarker(**json.loads(self.place("errors", sha256).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def enter(self, order: Order, start: int, stopped: Callable[[], bool]) -> "CacheReader":
        """Become a reader from batch `start` on, until `stopped` returns true."""
        return CacheReader(self, order, start, stopped)


class Stopped(Exception):
    """The reader was stopped while it waited."""


class CacheReader:
    """A process (or a thread of it) that opens shards of the cache. See batch_reader.ShardProvider."""

    def __init__(self, cache: Cache, order: Order, start: int, stopped: Callable[[], bool]) -> None:
        self._cache, self._digests, self._stopped = cache, order.shards.sha256_N, stopped
        self._run = run_key(order)
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._file = cache.place("readers", name)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        unlocked = self._file.with_name(f".{name}")
        self._descriptor = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        self._session = "-"
        self._publish(start)
        os.rename(unlocked, self._file)  # it is seen by others only with its lock on it

    def path(self, shard: int) -> str:
        """The shard's local file; waits until it is there. Raises ShardLost, or StorageError."""
        sha256 = self._digests[shard].tobytes().hex()
        orphaned_since: float | None = None
        while True:
            session = self._cache.session()
            if session is not None and session.run == self._run:
                if session.name != self._session:
                    self._session = session.name
                    self._publish(self._batch)
                place = self._cache.place(session.name, sha256)
                if place.exists():
                    return str(place)
                self._raise_marked_error(session, sha256)
            if self._stopped():
                raise Stopped
            if is_held(self._cache.place("fetcher.lock")):
                orphaned_since = None
                self._refuse_other_run()
            else:
                orphaned_since = orphaned_since or time.monotonic()
                if time.monotonic() - orphaned_since > ORPHANED_SECONDS:
                    raise StorageError(f"{self._cache.folder}: no process fetches shards into this cache any more")
            time.sleep(POLL_SECONDS)

    def advance_to(self, batch: int) -> None:
        """Nothing before `batch` is read any more, and no file that only earlier batches need is open."""
        if batch != self._batch:
            self._publish(batch)

    def close(self) -> None:
        """Stop being a reader."""
        self._file.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _publish(self, batch: int) -> None:
        self._batch = batch
        # One write of a fixed length: whoever reads meanwhile sees the old line or the new one.
        os.pwrite(self._descriptor, f"{self._session:>16} {batch:>20}\n".encode(), 0)

    def _raise_marked_error(self, session: Session, sha256: str) -> None:
        marker = self._cache.error_marker(sha256)
        if marker is not None and marker.session == session.name:
            raise ShardLost(marker.message) if marker.kind == "lost" else StorageError(marker.message)

    def _refuse_other_run(self) -> None:
        session = self._cache.session()
        if session is not None and session.run != self._run and is_held(self._cache.place("fetcher.lock")):
            raise StorageError(
                f"{self._cache.folder}: another training (process {session.process}) uses this cache: wait for it, or "
                "name another folder as data.cache.folder"
            )


def readers_of(cache: Cache) -> list[tuple[str, int]]:
    """Return (session, batch) of every living reader and remove the files of dead ones. For the holder of the lock."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for entry in list(os.scandir(cache.place("readers"))):
            if is_held(entry.path):
                with contextlib.suppress(OSError, ValueError):
                    session, batch = Path(entry.path).read_text().split()
                    if not entry.name.startswith("."):
                        found.append((session, int(batch)))
            elif not entry.name.startswith(".") or time.time() - entry.stat().st_mtime > ORPHANED_SECONDS:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(entry.path)
    return found


def is_held(path: Any) -> bool:
    """Whether a living process holds a lock on the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def run_key(order: Order) -> str:
    """Tells runs apart that need other shards at other times."""
    return hashlib.sha256(canonical_json([order.seed, order.plan(2**62)])).hexdigest()


def smallest_cache(table: ShardTable, phases: Sequence[Phase], files: ShardFiles) -> int:
    """The smallest limit in bytes that works: two windows of each remote source, of its largest shards.

    More windows where a batch reads more than one. 0 when nothing is remote.
    """
    remote_N = files.remote_N()
    disk_bytes_N = np.where(remote_N, -(-files.bytes_N // BLOCK_BYTES) * BLOCK_BYTES, 0)
    needs = [sum(_window_bytes(table, disk_bytes_N, phase)) for phase in phases]
    return max(needs) + OVERHEAD_BYTES if remote_N.any() else 0


def _window_bytes(table: ShardTable, disk_bytes_N: Any, phase: Phase) -> Iterator[int]:
    names = list(phase.weights)
    weights = normalised(
        [parse_decimal(phase.weights[name], f"weight of {name!r}", "give a decimal number above 0") for name in names]
    )
    rows_N = phase.shards.rows(phase.sequence_length, phase.packing)
    for name, weight in zip(names, weights, strict=True):
        rows = rows_N[phase.shards.source_N == phase.shards.sources.index(name)]
        count = int((rows > 0).sum())
        windows = -(-count // window_shards(weight))
        in_window = -(-count // max(windows, 1))
        a_batch = 1 + -(-float(weight) * phase.global_batch * windows // max(int(rows.sum()), 1))
        sizes = np.sort(disk_bytes_N[table.source_N == table.sources.index(name)])[::-1]
        yield int(sizes[: in_window * max(2, int(a_batch))].sum())

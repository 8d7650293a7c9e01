"""The one process of a node that fetches remote shards into the cache, ahead of the readers and in order of need.

Every process of the run has a Fetcher, a thread; the one that gets the lock works, the others wait to take over. Quota
is reserved before a byte is fetched, so the limit holds at every moment, unfinished files included.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from schemas import storage
from schemas.storage import Refused, StorageError
from trainer.data.batch_reader import Job
from trainer.data.cache import Cache, ErrorMarker, Session, readers_of, run_key
from trainer.data.cache_quota import Quota
from trainer.data.shard_files import ShardFiles
from trainer.order.batch_order import Window

__all__ = ["Fetcher"]

CYCLE_SECONDS = 0.02
FETCHES_AT_ONCE = 4
TRIES = 3
AGAIN_SECONDS = 0.5
MOST_WINDOWS = 1024  # planned ahead
NEVER = 2**62

log = logging.getLogger(__name__)


class Bad(Exception):
    """What came is not what the manifest names."""


class Cancelled(Exception):
    """The fetcher closes."""


class Fetcher:
    """Fetches for every reader of the node while it holds the lock. `start` and `close` it."""

    def __init__(self, cache: Cache, job: Job, start: int) -> None:
        self._cache, self._start = cache, start
        self._order = job.order()
        self._digests = self._order.shards.sha256_N
        self._files = ShardFiles(self._order.shards, job.datasets)
        self._remote_N = self._files.remote_N()
        self._lost = dict(job.lost)
        self._lock: int | None = None
        self._downloads: dict[int, threading.Thread] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shard-fetcher", daemon=True)

    def start(self) -> None:
        """Take the lock if it is free, so that readers find a session, and begin."""
        self._cache.folder.mkdir(parents=True, exist_ok=True)
        if self._take_lock():
            self._open_session()
        self._thread.start()

    def close(self) -> None:
        """Stop, and leave the lock to others as soon as no fetch of ours writes any more."""
        self._stopping.set()
        self._thread.join(5)

    def _run(self) -> None:
        try:
            while not self._stopping.wait(CYCLE_SECONDS):
                if self._lock is None and self._take_lock():
                    self._open_session()
                if self._lock is not None:
                    self._work()
        except Exception:
            log.exception("the fetcher of %s failed; another process takes over", self._cache.folder)
        finally:
            self._stopping.set()
            for thread in self._downloads.values():
                thread.join()
            if self._lock is not None:
                os.close(self._lock)

    # ------------------------------------------------------------ the lock and the session

    def _take_lock(self) -> bool:
        descriptor = os.open(self._cache.place("fetcher.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True

    def _open_session(self) -> None:
        """Go on with the session whose readers live, or begin one, in which nothing is trusted unchecked."""
        assert self._lock is not None
        before, run = self._cache.session(), run_key(self._order)
        attached = {session for session, _ in readers_of(self._cache)}
        if before is not None and before.run == run and before.name in attached:
            name = before.name
        else:
            os.ftruncate(self._lock, 0)  # at once: nobody may trust the old session's files
            name = secrets.token_hex(8)
        self._session = Session(name, run, os.getpid())
        for folder in (name, "unverified", "downloading", "quarantine", "errors"):
            self._cache.place(folder).mkdir(exist_ok=True)
        self._clean_up()
        counted = [
            path for folder in (name, "unverified", "quarantine") for path in self._cache.place(folder).iterdir()
        ]
        self._quota = Quota(self._cache.max_bytes, counted)
        self._quota.make_room(0, lambda path: path.parent.name != name)  # a limit lowered since holds at once
        self._windows: list[Window] = []
        self._ahead: Iterator[Window] = iter(())
        self._front, self._changes_at, self._idle = -1, 0, False
        text = json.dumps(asdict(self._session)).encode()
        os.pwrite(self._lock, text, 0)
        os.ftruncate(self._lock, len(text))

    def _clean_up(self) -> None:
        """Remove what is unfinished or of ended sessions, but for their shards."""
        for path in self._cache.place("downloading").iterdir():
            path.unlink()
        marked = [path.name for path in self._cache.place("errors").iterdir()]
        self._marked = {
            sha for sha in marked if (n := self._cache.error_marker(sha)) and n.session == self._session.name
        }
        for sha256 in set(marked) - self._marked:
            self._cache.place("errors", sha256).unlink()
        known = {self._session.name, "unverified", "downloading", "quarantine", "errors", "readers"}
        for folder in self._cache.folder.iterdir():
            if folder.is_dir() and folder.name not in known and len(folder.name) == 16:
                for path in folder.iterdir():
                    os.replace(path, self._cache.place("unverified", path.name))
                folder.rmdir()

    # ------------------------------------------------------------ one cycle

    def _work(self) -> None:
        """Start what is needed next and fits."""
        done = [shard for shard, thread in self._downloads.items() if not thread.is_alive()]
        for shard in done:
            del self._downloads[shard]
            self._quota.release(shard)
        front = min((batch for _, batch in readers_of(self._cache)), default=self._start)
        if self._idle and not done and self._front <= front < self._changes_at:
            return  # nothing to start, and nothing to evict that there was not before
        self._look_ahead(front)
        self._idle = self._start_fetches()

    def _look_ahead(self, front: int) -> None:
        """Windows from the readers' front on, twice as many as the cache can hold, to know what is needed latest."""
        if front < self._front or self._front < 0:
            self._windows, self._ahead = [], self._order.windows_from(front)
        self._front = front
        self._windows = [window for window in self._windows if window.last_batch >= front]
        total = sum(self._bytes(window) for window in self._windows)
        while total < 2 * self._cache.max_bytes and len(self._windows) < MOST_WINDOWS:
            window = next(self._ahead, None)
            if window is None:
                break
            self._windows.append(window)
            total += self._bytes(window)
        begins = [window.first_batch for window in self._windows if window.first_batch > front]
        self._changes_at = min([*begins, *(window.last_batch + 1 for window in self._windows)], default=NEVER)

    def _bytes(self, window: Window) -> int:
        return int(self._files.bytes_N[list(window.shards)].sum())

    def _start_fetches(self) -> bool:
        """Whether nothing more can be started before something changes."""
        use = self._next_use()
        for shard, needed in use.items():
            sha256 = self._hex(shard)
            if shard in self._downloads or self._ready(sha256) in self._quota or sha256 in self._marked:
                continue
            if len(self._downloads) >= FETCHES_AT_ONCE:
                return True
            if self._cache.place("unverified", sha256) not in self._quota and not self._reserve(shard, needed, use):
                if needed <= self._front and not self._downloads:
                    self._mark_error(shard, "store", self._too_small(shard))
                    return False
                return True
            thread = threading.Thread(target=self._obtain, args=(shard,), name="fetch", daemon=True)
            self._downloads[shard] = thread
            thread.start()
        return True

    def _next_use(self) -> dict[int, int]:
        """Remote shards in order of need, and the batch that needs each first."""
        use: dict[int, int] = {}
        for window in self._windows:
            needed = max(window.first_batch, self._front)
            for shard in window.shards:
                if self._remote_N[shard] and self._lost.get(shard, NEVER) > needed:
                    use.setdefault(shard, needed)
        return use

    def _reserve(self, shard: int, needed: int, use: dict[int, int]) -> bool:
        """Room for a shard: at the cost of what no reader needs, then of what is needed latest, if later than it."""
        size = int(self._files.bytes_N[shard])
        if self._quota.reserve(shard, size):
            return True
        busy = {self._hex(each) for each in self._downloads}
        by_name = {self._hex(each): batch for each, batch in use.items()}

        def order(path: Path) -> int | None:
            if path.parent.name == "quarantine":
                return NEVER
            batch = by_name.get(path.name, NEVER)
            return batch if batch > max(needed, self._front) and path.name not in busy else None

        return self._quota.make_room(size, order) and self._quota.reserve(shard, size)

    def _too_small(self, shard: int) -> str:
        return (
            f"cache.max_bytes={self._cache.max_bytes:,}: {self._files.uri(shard)} does not fit beside the other shards "
            "of the running windows: raise it"
        )

    # ------------------------------------------------------------ one shard, in a thread of its own

    def _obtain(self, shard: int) -> None:
        """Check the file of an earlier session, or fetch; a corrupt file is quarantined and fetched again."""
        try:
            unverified = self._cache.place("unverified", self._hex(shard))
            if unverified in self._quota:
                self._reuse_unverified(shard, unverified)
            else:
                self._try_fetches(shard, self._files.uri(shard))
        except Cancelled:
            return
        except OSError as error:  # our own disk
            message = f"{self._cache.folder}: {error.strerror or error}: free some space, or change data.cache"
            with contextlib.suppress(OSError):
                self._mark_error(shard, "store", message)

    def _reuse_unverified(self, shard: int, path: Path) -> None:
        """A shard of an earlier session, if it is still what the manifest says; else it is fetched next."""
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(8 << 20):
                self._raise_if_cancelled()
                digest.update(block)
        if digest.hexdigest() == self._hex(shard):
            self._quota.move(path, self._ready(self._hex(shard)))
        else:
            log.warning("%s is corrupt and is fetched again", path)
            self._quota.remove(path)

    def _try_fetches(self, shard: int, uri: str) -> None:
        bad, fault = False, ""
        for attempt in range(TRIES):
            if attempt:
                log.warning("%s; fetched again", fault)
                self._stopping.wait(AGAIN_SECONDS * attempt)
                self._raise_if_cancelled()
            try:
                return self._fetch(shard, uri)
            except Bad as error:
                bad, fault = True, f"{uri}: {error}"
            except FileNotFoundError:
                bad, fault = True, f"{uri}: it is missing"
            except Refused as error:
                return self._mark_error(shard, "store", str(error))
            except StorageError as error:
                bad, fault = False, str(error)
        self._mark_error(shard, "lost" if bad else "store", f"{fault}; so it was at {TRIES} tries")

    def _fetch(self, shard: int, uri: str) -> None:
        expected = int(self._files.bytes_N[shard])
        found = storage.stat(uri)
        if found.size != expected:
            raise Bad(f"it has {found.size:,} bytes, the manifest says {expected:,}")
        unfinished, digest = self._cache.place("downloading", self._hex(shard)), hashlib.sha256()
        try:
            with unfinished.open("wb") as file:
                for block in storage.read_blocks(found):
                    self._raise_if_cancelled()
                    digest.update(block)
                    file.write(block)
            if digest.hexdigest() != self._hex(shard):
                self._quota.quarantine(unfinished, self._cache.place("quarantine", self._hex(shard)))
                raise Bad(f"its sha256 is {digest.hexdigest()}, the manifest says {self._hex(shard)}")
            self._quota.move(unfinished, self._ready(self._hex(shard)), shard)
        finally:
            unfinished.unlink(missing_ok=True)

    def _mark_error(self, shard: int, kind: str, message: str) -> None:
        """Leave the readers the reason why they wait in vain."""
        if kind == "lost":  # for a store that fails the run ends, and says why
            log.warning("%s", message)
        unfinished = self._cache.place("downloading", f"error-{self._hex(shard)}")
        unfinished.write_bytes(json.dumps(asdict(ErrorMarker(self._session.name, kind, message))).encode())
        os.replace(unfinished, self._cache.place("errors", self._hex(shard)))
        self._marked.add(self._hex(shard))

    def _raise_if_cancelled(self) -> None:
        if self._stopping.is_set():
            raise Cancelled

    def _hex(self, shard: int) -> str:
        return self._digests[shard].tobytes().hex()

    def _ready(self, sha256: str) -> Path:
        return self._cache.place(self._session.name, sha256)

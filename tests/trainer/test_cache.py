"""Remote shards through the bounded cache: the limit, each shard once, damage, kills, another run, small limits."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from schemas.manifest import DatasetError
from schemas.storage import StorageError
from tests.made_dataset import MadeDataset, made
from tests.servers import ROOT, RangeHandler
from tests.trainer.cache_rank import digest, stream_of
from trainer.data.cache import smallest_cache
from trainer.data.cache_quota import OVERHEAD_BYTES, disk_bytes
from trainer.data.shard_files import ShardFiles
from trainer.data.shard_rows import IGNORED
from trainer.data.token_stream import TokenStream, one_phase
from trainer.data.train_split import open_train_split
from trainer.order.batch_order import Order

SHARDS = 150  # windows of 64 at most, so three of 50
SETTINGS: dict[str, Any] = {"sequence_length": 64, "global_batch": 48, "seed": 3}
EPOCH = SHARDS * 16 // 48


class HostileHandler(RangeHandler):
    """Counts what is fetched; gives other bytes for some paths, the first few times or always; may be slow."""

    protocol_version = "HTTP/1.1"

    def send_head(self):  # type: ignore[no-untyped-def]
        server: Any = self.server
        if "/shards/" not in self.path:
            return super().send_head()
        data = Path(self.translate_path(self.path)).read_bytes()
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        with server.lock:
            if self.command == "HEAD":
                server.tries[self.path] += 1
            elif wanted.startswith("0-") or not wanted:
                server.fetched[self.path] += 1
            spoil, times = server.faults.get(self.path, (None, 0))
            spoiled = spoil is not None and server.tries[self.path] <= times
        if spoiled:
            data = spoil(data)
        if self.command == "GET":
            time.sleep(server.delay)
        first, _, last = wanted.partition("-")
        start, stop = (int(first), min(int(last) + 1, len(data))) if wanted else (0, len(data))
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", f'"{len(data)}"')
        self.send_header("Last-Modified", self.date_time_string(1_700_000_000))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data[start:stop])
        return None


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    """150 shards of 1,024 tokens, one source."""
    return made(tmp_path_factory.mktemp("web") / "data", {"web": [1024] * SHARDS}, batch_documents=40)


@pytest.fixture
def web(data: MadeDataset) -> Iterator[Any]:
    """A server of the dataset, to be shown what to do wrong."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), partial(HostileHandler, directory=str(data.folder.parent)))
    server.lock, server.tries, server.fetched = threading.Lock(), Counter(), Counter()
    server.faults, server.delay = {}, 0.0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.uri = f"http://127.0.0.1:{server.server_port}/data"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def local(data: MadeDataset) -> dict[int, str]:
    """The batches of two epochs, read in place."""
    return {batch.batch: digest(batch) for batch in TokenStream(data.uri, max_epochs={"web": 2}, **SETTINGS)}


def smallest(data: MadeDataset) -> int:
    """The smallest limit, were the dataset remote."""
    dataset = open_train_split(data.uri)
    phase = one_phase([dataset], sequence_length=64, global_batch=48)
    order = Order(3, [phase])
    files = ShardFiles(order.shards, [dataset])
    files.remote_N = lambda: files.bytes_N > 0  # type: ignore[method-assign]
    return smallest_cache(order.shards, [phase], files)


def tight(limit: int) -> int:
    """What of a limit shards may take, and a few blocks for locks and readers."""
    return limit - OVERHEAD_BYTES + 16 * 4096


def path_of(data: MadeDataset, number: int) -> str:
    return f"/data/{data.shards[number].row['path']}"


WATCH = """
import os, sys, time
most = 0
print(flush=True)
while os.getppid() == int(sys.argv[2]) and not os.path.exists(sys.argv[1] + ".stop"):
    total = 0
    for folder, _, names in os.walk(sys.argv[1]):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    most = max(most, total)
    time.sleep(0.002)
print(most)
"""


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Callable[[], int]]:
    """A process of its own that looks at the folder all the time; the most bytes that it saw, after the block."""
    command = [sys.executable, "-S", "-c", WATCH, str(folder), str(os.getpid())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    most: list[int] = []
    yield lambda: most[0]
    Path(f"{folder}.stop").touch()
    most.append(int(process.communicate(timeout=20)[0]))


def batches_of(stream: TokenStream) -> dict[int, str]:
    return {batch.batch: digest(batch) for batch in stream}


# ---------------------------------------------------------------- the limit


@pytest.mark.slow
def test_two_epochs_from_s3_stay_below_the_smallest_limit(
    data: MadeDataset, local: dict[int, str], s3: Callable[[str], str], tmp_path: Path
) -> None:
    bucket = s3("cache-limit")
    subprocess.run(["cp", "-r", str(data.folder), str(_folder_of(bucket))], check=True)
    cache, limit = tmp_path / "cache", smallest(data)
    shared = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    with watched(cache) as most:
        settings = SETTINGS | {"max_epochs": {"web": 2}}
        stream = stream_of(f"{bucket}/data", str(cache), limit, **settings)
        assert batches_of(stream) == local
    assert limit - OVERHEAD_BYTES <= most() <= tight(limit)
    assert most() < sum(disk_bytes(shard.row["bytes"]) for shard in data.shards)  # so there were evictions
    assert not set(os.listdir("/dev/shm") if shared else ()) - shared


def _folder_of(bucket: str) -> Path:
    """The folder that the S3 server shows as a bucket: it is the one of that name that was made last."""
    import tempfile

    found = Path(tempfile.gettempdir()).glob(f"pytest-of-*/pytest-*/s3*/{bucket.removeprefix('s3://')}")
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def test_a_limit_below_two_windows_is_refused_with_the_figure(data: MadeDataset, web: Any, tmp_path: Path) -> None:
    least = smallest(data)
    with pytest.raises(ValueError, match=f"is less than the smallest cache that works, {least:,} bytes"):
        stream_of(web.uri, str(tmp_path), least - 1, **SETTINGS)


# ---------------------------------------------------------------- once a node and epoch


def test_each_shard_is_fetched_once_a_node_and_epoch(
    data: MadeDataset, web: Any, local: dict[int, str], tmp_path: Path
) -> None:
    with watched(tmp_path / "cache") as most:
        limit = smallest(data)
        ranks = [
            stream_of(web.uri, str(tmp_path / "cache"), limit, rank=rank, world=3, max_epochs={"web": 2}, **SETTINGS)
            for rank in range(3)
        ]
        numbers, begun = [], Counter[str]()
        for number, parts in enumerate(zip(*ranks, strict=True)):
            numbers += [part.batch for part in parts]
            if number == 0:
                begun = Counter(web.fetched)  # before the last rank was there, what it needs may have been evicted
            if number == EPOCH - 1:
                first = dict(web.fetched)
    assert numbers == [b for b in local for _ in range(3)]
    assert most() <= tight(limit)
    assert set(web.fetched) == {path_of(data, number) for number in range(SHARDS)}
    assert max((Counter(web.fetched) - begun).values()) <= 2
    assert min(web.fetched.values()) >= 1
    # Those of the second epoch that came early enough were still there.
    assert sum(first.values()) <= SHARDS + 100


def test_with_room_for_all_each_shard_is_fetched_once_for_all_epochs_and_workers(
    data: MadeDataset, web: Any, local: dict[int, str], tmp_path: Path
) -> None:
    stream = stream_of(web.uri, str(tmp_path), 64 << 20, workers=2, max_epochs={"web": 2}, **SETTINGS)
    assert batches_of(stream) == local
    assert set(web.fetched.values()) == {1}
    assert len(web.fetched) == SHARDS


# ---------------------------------------------------------------- damage


def flipped(data: bytes) -> bytes:
    return data[:700] + bytes([data[700] ^ 1]) + data[701:]


def truncated(data: bytes) -> bytes:
    return data[: len(data) // 2]


def error_page(data: bytes) -> bytes:
    return b"<html><body>503 Service Unavailable</body></html>"


def error_page_of_that_size(data: bytes) -> bytes:
    return error_page(data).ljust(len(data))


SPOILS = (flipped, truncated, error_page, error_page_of_that_size)


def test_damage_on_the_way_is_found_and_cured(
    data: MadeDataset, web: Any, local: dict[int, str], tmp_path: Path
) -> None:
    web.faults = {path_of(data, 11 * n): (spoil, 1 + n % 2) for n, spoil in enumerate(SPOILS)}
    with watched(tmp_path / "cache") as most:
        stream = stream_of(web.uri, str(tmp_path / "cache"), smallest(data), max_epochs={"web": 1}, **SETTINGS)
        assert batches_of(stream) == {b: local[b] for b in range(EPOCH)}
    assert most() <= tight(smallest(data))
    assert stream.lost() == {}
    for n in range(len(SPOILS)):
        assert web.tries[path_of(data, 11 * n)] >= 2 + n % 2
    assert list((tmp_path / "cache" / "downloading").iterdir()) == []


@pytest.mark.parametrize("spoil", [error_page, error_page_of_that_size])
def test_a_shard_that_stays_bad_stops_the_run_with_its_name(
    data: MadeDataset, web: Any, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    web.faults = {path_of(data, 20): (spoil, 99)}
    name = data.shards[20].row["path"]
    with pytest.raises(DatasetError, match=f"{name}: it"):
        batches_of(stream_of(web.uri, str(tmp_path), 64 << 20, max_epochs={"web": 1}, **SETTINGS))


def test_a_shard_that_stays_bad_may_be_skipped_and_is_recorded(
    data: MadeDataset, web: Any, local: dict[int, str], tmp_path: Path
) -> None:
    web.faults = {path_of(data, 20): (flipped, 99)}
    settings = SETTINGS | {"max_epochs": {"web": 1}, "on_lost_shard": "skip"}
    stream = stream_of(web.uri, str(tmp_path), 64 << 20, **settings)
    first = None
    for batch in stream:
        of_it = [stream.order.shards.sha256_N[s].tobytes() == data.sha256(20) for s in batch.samples.shard_G]
        assert [(targets == IGNORED).all().item() for targets in batch.targets_BT] == of_it
        if any(of_it):
            first = batch.batch if first is None else first
        else:
            assert digest(batch) == local[batch.batch]
    assert first is not None
    assert stream.lost() == {data.sha256(20).hex(): first}
    # Taken up again with what was lost, the shard is not asked for any more.
    web.tries.clear()
    again = stream_of(web.uri, str(tmp_path / "other"), 64 << 20, lost=stream.lost(), **settings)
    assert len(batches_of(again)) == EPOCH
    assert web.tries[path_of(data, 20)] == 0 or first > 0


@pytest.mark.slow
def test_a_store_that_fails_is_no_lost_shard(
    data: MadeDataset, web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.data.shard_fetcher.TRIES", 1)  # the store has patience of its own
    stream = stream_of(web.uri, str(tmp_path), 64 << 20, on_lost_shard="skip", **SETTINGS)
    web.faults = {path_of(data, 20): (error_page, 99)}
    web.shutdown()
    web.server_close()
    with pytest.raises(StorageError, match="was not reached"):
        next(iter(stream))
    stream.close()
    assert stream.lost() == {}


def test_a_web_server_without_byte_ranges_is_asked_once_and_named_once(
    data: MadeDataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(data.folder.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    uri = f"http://127.0.0.1:{server.server_port}/data"
    stream = stream_of(uri, str(tmp_path), 64 << 20, **SETTINGS)
    with pytest.raises(StorageError, match=r"the server gives no byte ranges: .*the local copy$") as shown:
        next(iter(stream))
    stream.close()
    server.shutdown()
    server.server_close()
    assert str(shown.value).count("http://") == 1
    gets = [line.split('"')[1] for line in capfd.readouterr().err.splitlines() if '"GET /data/shards/' in line]
    assert gets
    assert len(gets) == len(set(gets))


# ---------------------------------------------------------------- kills and starts


def rank_process(web: Any, folder: Path, limit: int, **settings: Any) -> "subprocess.Popen[str]":
    given = {"uri": web.uri, "folder": str(folder), "max_bytes": limit, **SETTINGS, **settings}
    command = [sys.executable, "-m", "tests.trainer.cache_rank", json.dumps(given)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def kill_after(process: "subprocess.Popen[str]", lines: int) -> list[str]:
    """Kill a rank after some of its batches, which are returned."""
    assert process.stdout is not None
    found = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    return found


@pytest.mark.slow
def test_another_rank_takes_over_from_a_killed_fetcher(
    data: MadeDataset, web: Any, local: dict[int, str], tmp_path: Path
) -> None:
    cache, limit = tmp_path / "cache", smallest(data)
    web.delay = 0.02
    with watched(cache) as most:
        fetching = rank_process(web, cache, limit, pause=0.05, max_epochs={"web": 1})
        found = kill_after(fetching, 1) if (lock := _wait_for_lock(cache, fetching.pid)) else []
        assert lock, "the process that started first must hold the lock"
        stream = stream_of(web.uri, str(cache), limit, max_epochs={"web": 1}, **SETTINGS)
        assert batches_of(stream) == {b: local[b] for b in range(EPOCH)}
    assert found == [f"0 {local[0]}\n"]
    assert most() <= tight(limit)
    assert list((cache / "downloading").iterdir()) == []
    assert list((cache / "readers").iterdir()) == []


@pytest.mark.slow
def test_a_living_rank_goes_on_when_the_fetching_one_is_killed(
    data: MadeDataset, web: Any, local: dict[int, str], tmp_path: Path
) -> None:
    cache, limit = tmp_path / "cache", smallest(data)
    web.delay = 0.02
    fetching = rank_process(web, cache, limit, pause=0.02, rank=0, world=2, max_epochs={"web": 1})
    assert _wait_for_lock(cache, fetching.pid)
    whole = TokenStream(data.uri, rank=1, world=2, max_epochs={"web": 1}, **SETTINGS)
    stream = stream_of(web.uri, str(cache), limit, rank=1, world=2, max_epochs={"web": 1}, **SETTINGS)
    found = {}
    for batch in stream:
        found[batch.batch] = digest(batch)
        if len(found) == 2:
            kill_after(fetching, 1)
    assert found == batches_of(whole)
    assert json.loads((cache / "fetcher.lock").read_bytes())["process"] == os.getpid()


def _wait_for_lock(cache: Path, process: int) -> bool:
    for _ in range(600):
        with contextlib.suppress(OSError, ValueError):
            return bool(json.loads((cache / "fetcher.lock").read_bytes())["process"] == process)
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_what_killed_runs_left_is_checked_and_used_again(
    data: MadeDataset, web: Any, local: dict[int, str], tmp_path: Path
) -> None:
    cache, limit = tmp_path / "cache", 64 << 20
    kill_after(rank_process(web, cache, limit, pause=0.2), 2)
    session = json.loads((cache / "fetcher.lock").read_bytes())["name"]
    left = sorted((cache / session).iterdir())
    assert len(left) > 10
    left[0].write_bytes(flipped(left[0].read_bytes()))
    left[1].write_bytes(b"")
    (cache / "downloading").mkdir(exist_ok=True)
    (cache / "downloading" / left[2].name).write_bytes(b"half a file")
    web.fetched.clear()
    stream = stream_of(web.uri, str(cache), limit, max_epochs={"web": 1}, start_batch=1, **SETTINGS)
    assert batches_of(stream) == {b: local[b] for b in range(1, EPOCH)}
    again = {path.rpartition("/")[2] for path in web.fetched}
    names = {data.sha256(n).hex(): Path(path_of(data, n)).name for n in range(SHARDS)}
    assert {names[path.name] for path in left} & again == {names[left[0].name], names[left[1].name]}


def test_a_cache_that_another_run_uses_is_refused(data: MadeDataset, web: Any, tmp_path: Path) -> None:
    first = stream_of(web.uri, str(tmp_path), 64 << 20, **SETTINGS)
    batches = iter(first)
    next(batches)
    other = stream_of(web.uri, str(tmp_path), 64 << 20, **(SETTINGS | {"seed": 4}))
    with pytest.raises(StorageError, match=f"another training \\(process {os.getpid()}\\) uses this cache"):
        next(iter(other))
    first.close()
    assert next(iter(other)).batch == 0  # and free when it has ended
    other.close()


def test_a_lower_limit_holds_at_the_next_start(data: MadeDataset, web: Any, tmp_path: Path) -> None:
    cache, limit = tmp_path / "cache", smallest(data)
    batches_of(stream_of(web.uri, str(cache), 64 << 20, max_epochs={"web": 1}, **SETTINGS))
    assert sum(512 * path.stat().st_blocks for path in cache.rglob("*") if path.is_file()) > tight(limit)
    stream = stream_of(web.uri, str(cache), limit, max_epochs={"web": 1}, **SETTINGS)
    batches = iter(stream)
    next(batches)
    with watched(cache) as most:
        for _ in batches:
            pass
    assert most() <= tight(limit)

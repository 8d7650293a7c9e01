"""The storage interface on a local folder, a real S3 server, fake-gcs-server and a web server."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import local_files, object_stores, remote_file, storage
from schemas.storage import StorageError
from tests.servers import ROOT, web_server

BIG = bytes(range(256)) * (20 << 12)  # 20 MiB: several windows of a remote file, several parts of an upload


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place to write to."""
    if request.param == "local":
        return str(tmp_path / "place")
    return str(request.getfixturevalue("s3")(f"place{time.monotonic_ns()}"))


def test_names_are_joined_by_one_slash() -> None:
    assert storage.join("s3://b/x/", "y", "/z/") == "s3://b/x/y/z"
    assert storage.join("folder", "a/b") == "folder/a/b"
    assert storage.join("/", "tmp") == "/tmp"


def test_only_paths_and_file_uris_are_local() -> None:
    assert storage.local_path("a b/c") == Path("a b/c")
    assert storage.local_path("~/x") == Path.home() / "x"
    assert storage.local_path("file:///a%20b/c") == Path("/a b/c")
    assert storage.local_path("s3://bucket/x") is None
    with pytest.raises(ValueError, match="names no host"):
        storage.local_path("file://host/x")


def test_an_unknown_scheme_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"ftp://x/y: unknown scheme ftp://: use a path, s3://, gs://"):
        storage.read("ftp://x/y")


@pytest.mark.parametrize("name", ["plain", "deep/er/file", "a b#c?d%20é&+.txt", "日本.warc.gz"])
def test_what_is_written_is_read(root: str, name: str) -> None:
    uri = storage.join(root, name)
    storage.write(uri, b"0123456789")
    assert storage.read(uri) == b"0123456789"
    assert storage.read_range(uri, 2, 3) == b"234"
    assert storage.read_range(uri, 8, 100) == b"89"
    assert storage.read_range(uri, 10, 5) == b""
    assert storage.read_range(uri, 3, 0) == b""
    assert storage.exists(uri)
    assert storage.stat(uri).size == 10
    assert storage.list_files(root) == [storage.stat(uri)]


def test_a_file_is_replaced_whole_and_its_tag_changes(root: str) -> None:
    uri = storage.join(root, "x")
    storage.write(uri, b"first")
    before = storage.stat(uri)
    time.sleep(0.01)
    storage.write(uri, b"other")
    assert storage.read(uri) == b"other"
    assert storage.stat(uri).tag != before.tag


def test_an_empty_file_is_a_file(root: str) -> None:
    uri = storage.join(root, "empty")
    storage.write(uri, b"")
    assert (storage.read(uri), storage.stat(uri).size, storage.open_input(uri).read()) == (b"", 0, b"")


def test_a_local_file_is_written_under_its_new_name(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(BIG)
    uri = storage.join(root, "copy")
    storage.write(uri, source)
    assert storage.read(uri) == BIG
    storage.write(storage.join(root, "once"), source, create_only=True)
    assert storage.stat(storage.join(root, "once")).size == len(BIG)
    assert source.read_bytes() == BIG


def test_files_are_listed_at_any_depth_in_order_and_by_whole_folder_names(root: str) -> None:
    for name in ("b/2", "a/z/1", "b/10", "bb/1"):
        storage.write(storage.join(root, name), name.encode())
    listed = [stat.uri.removeprefix(root + "/") for stat in storage.list_files(root)]
    assert listed == ["a/z/1", "b/10", "b/2", "bb/1"]
    assert [stat.size for stat in storage.list_files(storage.join(root, "b"))] == [4, 3]
    assert storage.list_files(storage.join(root, "c")) == []


def test_more_files_than_a_page_are_listed(s3: Callable[[str], str], s3_buckets: tuple[dict[str, str], Path]) -> None:
    folder = s3_buckets[1] / "many"
    folder.mkdir()
    for number in range(1203):
        (folder / f"{number:04}").touch()
    listed = storage.list_files(s3("many"))
    assert [stat.uri for stat in listed] == [f"s3://many/{number:04}" for number in range(1203)]


def test_of_many_writers_of_a_new_file_one_wins(root: str) -> None:
    uri = storage.join(root, "once")
    gate = threading.Barrier(8)

    def attempt(number: int) -> bool:
        gate.wait()
        try:
            storage.write(uri, b"%d" % number, create_only=True)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(8)))
    assert won.count(True) == 1
    assert storage.read(uri) == b"%d" % won.index(True)
    with pytest.raises(FileExistsError, match=f"written only once: '{uri}'"):
        storage.write(uri, b"late", create_only=True)


def test_a_deleted_file_is_gone_and_deleting_it_again_is_no_error(root: str) -> None:
    uri = storage.join(root, "x")
    storage.write(uri, b"x")
    storage.delete(uri)
    assert not storage.exists(uri)
    storage.delete(uri)


def test_a_missing_file_is_named(root: str) -> None:
    uri = storage.join(root, "folder", "nothing")
    for function in (storage.read, storage.stat, storage.open_input):
        with pytest.raises(FileNotFoundError, match="nothing"):
            function(uri)
    assert not storage.exists(uri)
    with pytest.raises(FileNotFoundError):
        storage.fetch(uri, "elsewhere")


def test_an_opened_file_is_read_and_sought(root: str) -> None:
    uri = storage.join(root, "big")
    storage.write(uri, BIG)
    with storage.open_input(uri) as file:
        assert file.seekable()
        assert b"".join(iter(lambda: file.read(1_000_003), b"")) == BIG
        assert file.seek(-5, os.SEEK_END) == len(BIG) - 5
        assert file.read() == BIG[-5:]
        file.seek(7_654_321)
        assert (file.read(10), file.tell()) == (BIG[7_654_321:7_654_331], 7_654_331)
        assert file.read(0) == b""


def test_pyarrow_reads_from_an_opened_file(root: str, tmp_path: Path) -> None:
    table = pa.table({"n": range(100_000), "text": ["x" * 20] * 100_000})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=10_000)
    uri = storage.join(root, "t.parquet")
    storage.write(uri, tmp_path / "t.parquet")
    with storage.open_input(uri) as file:
        assert pq.ParquetFile(file).read_row_group(3, ["n"]).column("n")[0].as_py() == 30_000


@given(
    moves=st.lists(st.tuples(st.integers(0, 1100), st.integers(0, 300)), max_size=12),
    first=st.integers(1, 50),
    window=st.integers(50, 200),
)
def test_a_remote_file_reads_as_its_bytes_do(moves: list[tuple[int, int]], first: int, window: int) -> None:
    content = bytes(i % 251 for i in range(1000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_file, "FIRST_BYTES", first)
        patch.setattr(remote_file, "WINDOW_BYTES", window)
        patch.setattr(object_stores, "get_range", lambda uri, start, length, tag: content[start : start + length])
        file = remote_file.RemoteFile("s3://b/x", len(content), "tag")
        for position, length in moves:
            file.seek(position)
            given_bytes = b""
            while piece := file.read(length - len(given_bytes)):
                given_bytes += piece
            assert given_bytes == content[position : position + length]


def test_a_footer_costs_kilobytes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def get_range(uri: str, start: int, length: int, tag: str) -> bytes:
        asked.append((start, length))
        return bytes(length)

    monkeypatch.setattr(object_stores, "get_range", get_range)
    file = remote_file.RemoteFile("s3://b/x", 1 << 30, "tag")
    file.seek(-8, os.SEEK_END)
    file.read(8)
    assert asked == [((1 << 30) - 8, 8)]
    file.seek(1 << 20)
    file.read(100)
    assert asked[1:] == [(1 << 20, 256 << 10)]


def test_a_file_replaced_while_it_is_read_is_an_error(s3: Callable[[str], str]) -> None:
    uri = s3("replaced") + "/x"
    storage.write(uri, BIG)
    with storage.open_input(uri) as file:
        file.read(1)
        storage.write(uri, BIG[::-1])
        with pytest.raises(StorageError, match="replaced while it was read: run again"):
            file.read()


def test_a_remote_file_is_fetched_once_for_each_version(s3: Callable[[str], str], tmp_path: Path) -> None:
    uri = s3("fetched") + "/folder/model.bin"
    storage.write(uri, BIG)
    copy = storage.fetch(uri, tmp_path / "cache")
    assert copy.read_bytes() == BIG
    assert copy.name.endswith("-model.bin")
    first = copy.stat().st_mtime_ns
    assert storage.fetch(uri, tmp_path / "cache").stat().st_mtime_ns == first
    storage.write(uri, b"new")
    assert storage.fetch(uri, tmp_path / "cache").read_bytes() == b"new"
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_local_file_is_fetched_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    assert storage.fetch(str(tmp_path / "x"), tmp_path / "cache") == tmp_path / "x"
    assert not (tmp_path / "cache").exists()


# Local files


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "x")
    storage.write(uri, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(local_files.os, "fsync", full)
    with pytest.raises(StorageError, match=rf"{uri}: the disk is full \(1,000 bytes to write\): free some space"):
        storage.write(uri, bytes(1000))
    assert storage.read(uri) == b"old"
    assert os.listdir(tmp_path) == ["x"]


def test_a_writer_killed_in_the_middle_leaves_no_listed_file(tmp_path: Path) -> None:
    # The fsync never returns: what is on disk then is what a kill leaves.
    script = (
        "import os, sys; from schemas import local_files, storage\n"
        "local_files.os.fsync = lambda descriptor: os._exit(9)\n"
        "storage.write(sys.argv[1], b'half')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], cwd=ROOT)
    assert done.returncode == 9
    assert len(os.listdir(tmp_path)) == 1
    assert storage.list_files(str(tmp_path)) == []


def test_folders_and_files_in_each_others_place_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    assert not storage.exists(str(tmp_path / "folder"))
    with pytest.raises(StorageError, match="a folder, where a file is expected"):
        storage.read(str(tmp_path / "folder"))
    with pytest.raises(StorageError, match="a file stands where a folder is expected"):
        storage.write(str(tmp_path / "file" / "x"), b"")


def test_links_are_followed_and_their_circles_are_not(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(b"x")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b" / "x")
    listed = [stat.uri for stat in storage.list_files(str(tmp_path))]
    assert listed == [str(tmp_path / "a" / "b" / "x"), str(tmp_path / "link")]


# Object stores: what goes wrong


def test_a_missing_bucket_is_named(s3: Callable[[str], str]) -> None:
    s3("present")
    for act in (storage.read, storage.list_files, lambda uri: storage.write(uri, b"")):
        with pytest.raises(StorageError, match=r"^s3://absent/x: no such bucket 'absent': create it or mend the name$"):
            act("s3://absent/x")


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_name_the_variables(
    s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    uri = s3("locked") + "/x"
    monkeypatch.setenv(variable, "wrong")
    with pytest.raises(StorageError, match=r"^s3://locked/x: access denied \(\w+\): set AWS_ACCESS_KEY_ID and"):
        storage.write(uri, b"x")


def test_a_store_without_credentials_says_which_to_set(
    s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3("locked")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with pytest.raises(StorageError, match=r"access denied \(AccessDenied\): set AWS_ACCESS_KEY_ID"):
        storage.read("s3://locked/x")


def test_keys_are_taken_from_the_profile_of_the_credentials_file(
    s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri = s3("profiled") + "/x"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    keys = "[other]\naws_access_key_id = test\naws_secret_access_key = testsecret\n"
    (tmp_path / "credentials").write_text(keys)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "other")
    storage.write(uri, b"x")
    assert storage.read(uri) == b"x"
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(StorageError, match="AWS_PROFILE=absent: no such profile"):
        storage.read(uri)


def test_a_dead_endpoint_is_told_soon(s3: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(StorageError, match=r"http://127\.0\.0\.1:9 was not reached: is AWS_ENDPOINT_URL right"):
        storage.list_files("s3://bucket/x")
    assert time.monotonic() - started < 30


def test_storage_used_before_a_fork_is_refused_after_it(s3: Callable[[str], str]) -> None:
    uri = s3("forked") + "/x"
    script = (
        "import os, sys; from schemas import storage\n"
        "storage.write(sys.argv[1], b'x')\n"
        "if os.fork() == 0:\n"
        "    try: storage.read(sys.argv[1])\n"
        "    except storage.StorageError as error: print(error, flush=True); os._exit(0)\n"
        "os.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", script, uri], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "was used before this process was forked: start worker processes with spawn" in done.stdout


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_a_large_file_is_sent_without_holding_it(s3: Callable[[str], str], tmp_path: Path) -> None:
    source = tmp_path / "large"
    with source.open("wb") as file:
        file.truncate(200 << 20)
    script = (
        "import sys, pathlib; from schemas import storage\n"
        "status = pathlib.Path('/proc/self/status')\n"
        "peak = lambda: int(status.read_text().split('VmHWM:')[1].split()[0]) >> 10\n"
        "storage.write(sys.argv[2] + '/small', b'x'); before = peak()\n"
        "storage.write(sys.argv[2] + '/large', pathlib.Path(sys.argv[1])); print(peak() - before)\n"
    )
    command = [sys.executable, "-c", script, str(source), s3("large")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100
    assert storage.stat("s3://large/large").size == 200 << 20


# Google Cloud Storage: fake-gcs-server has no XML upload, so writing stays untried here.


def test_a_google_bucket_is_read_and_listed(gcs: tuple[str, Path]) -> None:
    uri = gcs[0] + "/a.txt"
    assert storage.read(uri) == b"hello world"
    assert storage.read_range(uri, 6, 3) == b"wor"
    assert storage.list_files(gcs[0]) == [storage.stat(uri)]
    assert storage.open_input(uri).read() == b"hello world"
    with pytest.raises(FileNotFoundError):
        storage.read(gcs[0] + "/absent")


# The web


def test_a_web_file_is_read_in_ranges(tmp_path: Path) -> None:
    (tmp_path / "a b.bin").write_bytes(BIG)
    with web_server(tmp_path) as address:
        for uri in (f"{address}/a%20b.bin", f"{address}/a%20b.bin?token=x%2Fy"):
            assert storage.stat(uri).size == len(BIG)
            assert storage.read(uri) == BIG
            assert storage.read_range(uri, 1000, 3) == BIG[1000:1003]
            assert storage.open_input(uri).read() == BIG
            assert storage.fetch(uri, tmp_path / "cache").read_bytes() == BIG


def test_what_the_web_cannot_do_is_said(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"xyz")
    with web_server(tmp_path, ranges=False) as address:
        assert storage.read(f"{address}/x") == b"xyz"
        with pytest.raises(StorageError, match="gives no byte ranges: download the file"):
            storage.read_range(f"{address}/x", 1, 1)
        with pytest.raises(FileNotFoundError):
            storage.read(f"{address}/absent")
        with pytest.raises(StorageError, match="does not list its files: name them, as inputs"):
            storage.list_files(address)
        with pytest.raises(ValueError, match="only read from: write to a folder or a bucket"):
            storage.write(f"{address}/y", b"")

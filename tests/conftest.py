"""Fixtures that several folders of tests share."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from pipeline.runtime.quiet import quiet_beam
from tests.servers import free_port, s3_server, serve, tool

quiet_beam()
# A first call compiles a kernel, and a shared machine is slow at times: time is for benchmarks.
settings.register_profile("gristmill", deadline=None)
settings.load_profile("gristmill")

# What `make quick` leaves out (`-m "not process"`): tests that start a process or a server, or run a whole job. A
# module, or a module::test, or a fixture whose users do. A test that starts a process and is not listed fails there.
PROCESS_FIXTURES = {"s3", "s3_buckets", "gcs"}
PROCESS_TESTS: tuple[str, ...] = (
    "tests/ingest/test_extract.py",
    "tests/ingest/test_parts.py",
    "tests/ingest/test_sandbox.py",
    "tests/ingest/test_work_cleanup.py",
    "tests/pack/test_pack.py",
    "tests/pack/test_pack_s3.py",
    "tests/runtime/test_interrupt.py",
    "tests/runtime/test_runners.py",
    "tests/runtime/test_worker_pool.py",
    "tests/schemas/test_dataset.py",
    "tests/schemas/test_lock.py",
    "tests/schemas/test_storage.py",
    "tests/select/test_decision_on_runners.py",
    "tests/select/test_pipelines.py",
    "tests/test_command_line.py",
    "tests/test_curate.py",
    "tests/test_kernel_cache.py",
    "tests/test_numba_kernels.py",
    "tests/test_parts_without_rows.py",
    "tests/trainer/test_cache.py",
    "tests/trainer/test_checkpoint.py",
    "tests/trainer/test_launch.py",
    "tests/trainer/test_other_trainers.py",
    "tests/trainer/test_ranks.py",
    "tests/trainer/test_run_ends.py",
    "tests/trainer/test_start_from.py",
    "tests/trainer/test_stream.py",
    "tests/trainer/test_train.py",
    "tests/trainer/test_watchdog.py",
)
PROCESS_EVENTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "os.exec"}
_running_quick_test: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that start processes."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if item.nodeid.split("[")[0].startswith(PROCESS_TESTS) or not PROCESS_FIXTURES.isdisjoint(names):
            item.add_marker("process")


def pytest_configure(config: pytest.Config) -> None:
    """Watch for processes where only tests that start none are wanted."""
    if "not process" in config.getoption("markexpr"):
        sys.addaudithook(_refuse_processes)


def _refuse_processes(event: str, arguments: tuple[Any, ...]) -> None:
    if event in PROCESS_EVENTS and _running_quick_test:
        raise AssertionError(f"{_running_quick_test[0]} starts a process: list it in tests/conftest.py ({event})")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Name the test that runs, for a refusal's message."""
    _running_quick_test[:] = [item.nodeid]
    try:
        return (yield)
    finally:
        _running_quick_test.clear()


@pytest.fixture(scope="session")
def s3_buckets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    """A real S3 server: the environment that names it, and the folder whose folders are its buckets."""
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder) as environment:
        yield environment, folder


@pytest.fixture
def s3(s3_buckets: tuple[dict[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """`s3(name)` makes a bucket and gives its URI; the environment holds the credentials."""
    environment, folder = s3_buckets
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def bucket(name: str) -> str:
        (folder / name).mkdir(exist_ok=True)
        return f"s3://{name}"

    return bucket


@pytest.fixture
def gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """A bucket of fake-gcs-server: its URI, and the folder of its objects, which must be there from the start."""
    binary, port = tool("fake-gcs-server"), free_port()
    folder = tmp_path / "gcs" / "bucket"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"hello world")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    command = [binary, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-data", str(folder.parent)]
    command += ["-filesystem-root", str(tmp_path / "state"), "-public-host", f"127.0.0.1:{port}"]
    with serve(command, port, tmp_path / "gcs.log"):
        yield "gs://bucket", folder

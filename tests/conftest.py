"""Fixtures that several folders of tests share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.runtime.quiet import quiet_beam
from tests.servers import free_port, s3_server, serve, tool

quiet_beam()
# A first call compiles a kernel, and a shared machine is slow at times: time is for benchmarks.
settings.register_profile("gristmill", deadline=None)
settings.load_profile("gristmill")


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

"""Real servers for tests, each on a free port of 127.0.0.1; `make tools` builds them into .cache/bin."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".cache" / "bin"


def need(found: object, what: str) -> None:
    """Skip the test with one line where a tool is missing; fail it where all must be there, as in CI."""
    if found:
        return
    if os.environ.get("GRISTMILL_REQUIRE") == "1":
        pytest.fail(f"{what} is missing and GRISTMILL_REQUIRE=1: run `make tools`", pytrace=False)
    pytest.skip(f"{what} is missing: run `make tools`")


def tool(name: str) -> str:
    """The path of a built server."""
    path = BIN / name
    need(path.exists(), f"{name} (.cache/bin)")
    return str(path)


def flink_jar() -> Path:
    """The jar that starts Flink; skips where it or Java is missing."""
    jar = ROOT / ".cache" / "flink" / "job-server.jar"
    need(jar.exists(), "Flink (.cache/flink)")
    need(shutil.which("java"), "Java")
    return jar


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve(
    command: list[str], port: int, log: Path, environment: dict[str, str] | None = None, seconds: int = 20
) -> Iterator[int]:
    """Run a server until the block ends; yields its process id, fails with its log when it does not listen in time."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})}
        )
    try:
        for _ in range(10 * seconds):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            process.kill()
        if process.poll() is not None:
            pytest.fail(f"{command[0]} did not start:\n{log.read_text(errors='replace')[-2000:]}", pytrace=False)
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """A real S3 server (versitygw) whose buckets are the folders of `folder`: the environment that its users set."""
    keys = {"ROOT_ACCESS_KEY": "test", "ROOT_SECRET_KEY": "testsecret"}
    port = free_port()
    command = [tool("versitygw"), "--port", f"127.0.0.1:{port}", "posix", str(folder)]
    with serve(command, port, folder.with_suffix(".log"), keys):
        yield {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "testsecret",
            "AWS_REGION": "us-east-1",
        }


class RangeHandler(SimpleHTTPRequestHandler):
    """Python's file server with what it lacks: byte ranges and a strong ETag."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: pytest's output is for tests."""

    def send_head(self):  # type: ignore[no-untyped-def]
        path = Path(self.translate_path(self.path))
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if not path.is_file() or not getattr(self.server, "ranges", True):
            return super().send_head()
        data = path.read_bytes()
        start, stop = 0, len(data)
        if wanted:
            first, _, last = wanted.partition("-")
            start, stop = int(first), min(int(last) + 1 if last else stop, stop)
        if start >= stop and wanted:
            self.send_error(416)
            return None
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[start:stop])
        return None


@contextlib.contextmanager
def web_server(folder: Path, ranges: bool = True) -> Iterator[str]:
    """A web server of a folder; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=str(folder)))
    server.ranges = ranges  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()

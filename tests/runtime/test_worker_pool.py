"""The pool of workers, under a TaskManager's requests, from servers that speak Beam's API: no Java."""

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import psutil
import pytest
from apache_beam.portability.api import beam_fn_api_pb2 as api
from apache_beam.portability.api import beam_fn_api_pb2_grpc, endpoints_pb2

from tests.runtime.test_runners import runs, wait_for
from tests.servers import ROOT, free_port, serve

POOL = str(ROOT / "deploy" / "flink" / "worker_pool.py")


class TaskManager(beam_fn_api_pb2_grpc.BeamFnControlServicer):
    """Takes the calls of workers, and holds each until it is ended."""

    def __init__(self) -> None:
        self.calls: queue.Queue[str] = queue.Queue()
        self._end = threading.Event()
        self._server = grpc.server(futures.ThreadPoolExecutor(8))
        beam_fn_api_pb2_grpc.add_BeamFnControlServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Control(self, responses: Iterator[api.InstructionResponse], context: grpc.ServicerContext) -> Iterator:
        self.calls.put(dict(context.invocation_metadata())["worker_id"])
        while not self._end.wait(0.05) and context.is_active():
            pass
        return iter(())

    def end(self, grace: float) -> None:
        self._end.set()
        self._server.stop(grace).wait()


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Port and process id."""
    port = free_port()
    with start_pool(port, tmp_path_factory.mktemp("pool")) as pid:
        yield port, pid


def start_pool(port: int, folder: Path):  # type: ignore[no-untyped-def]
    return serve(
        [sys.executable, POOL, f"--port={port}"],
        port,
        folder / "pool.log",
        {"PYTHONPATH": str(ROOT)},
        seconds=60,
    )


@pytest.fixture
def two() -> Iterator[tuple[TaskManager, TaskManager]]:
    both = TaskManager(), TaskManager()
    yield both
    for each in both:
        each.end(0)


class Asking:
    """A TaskManager's connection to the pool: each has one for each worker."""

    def __init__(self, port: int) -> None:
        # A channel of its own: gRPC shares connections between equal ones.
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)])
        self._pool = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(self._channel)

    def start(self, worker: str, control: str) -> None:
        endpoint = endpoints_pb2.ApiServiceDescriptor(url=control)
        answer = self._pool.StartWorker(api.StartWorkerRequest(worker_id=worker, control_endpoint=endpoint))
        assert answer.error == ""

    def stop(self, worker: str) -> None:
        self._pool.StopWorker(api.StopWorkerRequest(worker_id=worker))


def workers(pool: tuple[int, int]) -> list[int]:
    """Process ids of the workers; the first child listens."""
    children = sorted(psutil.Process(pool[1]).children(), key=lambda child: (child.create_time(), child.pid))
    return [child.pid for child in children[1:] if runs(child.pid)]


def test_a_worker_calls_its_taskmanager_and_ends_with_it(pool: tuple[int, int]) -> None:
    taskmanager = TaskManager()
    Asking(pool[0]).start("1-1", taskmanager.address)
    assert taskmanager.calls.get(timeout=20) == "1-1"
    assert len(workers(pool)) == 1
    taskmanager.end(0)
    wait_for(lambda: workers(pool) == [], seconds=20)


def test_stopping_a_worker_spares_one_of_equal_id_on_another_taskmanager(
    pool: tuple[int, int], two: tuple[TaskManager, TaskManager]
) -> None:
    first, second = Asking(pool[0]), Asking(pool[0])
    first.start("1-1", two[0].address)
    assert two[0].calls.get(timeout=20) == "1-1"
    kept = workers(pool)
    second.start("1-1", two[1].address)
    assert two[1].calls.get(timeout=20) == "1-1"
    second.stop("1-1")
    wait_for(lambda: workers(pool) == kept, seconds=20)
    second.stop("1-1")
    Asking(pool[0]).stop("1-1")
    assert workers(pool) == kept
    first.stop("1-1")
    wait_for(lambda: workers(pool) == [], seconds=20)


def test_a_killed_worker_is_replaced_until_it_is_stopped(
    pool: tuple[int, int], two: tuple[TaskManager, TaskManager]
) -> None:
    asking = Asking(pool[0])
    asking.start("7", two[0].address)
    for _ in range(3):
        assert two[0].calls.get(timeout=20) == "7"
        os.kill(workers(pool)[0], signal.SIGKILL)
    assert two[0].calls.get(timeout=20) == "7"
    asking.stop("7")
    wait_for(lambda: workers(pool) == [], seconds=20)
    with pytest.raises(queue.Empty):
        two[0].calls.get(timeout=1)


def test_the_pool_has_one_thread_to_fork_from(pool: tuple[int, int]) -> None:
    names = [path.read_text().strip() for path in Path(f"/proc/{pool[1]}/task").glob("*/comm")]
    # Arrow's allocator has one of its own, which knows of forks.
    assert len([name for name in names if name != "jemalloc_bg_thd"]) == 1


def test_workers_and_listener_end_when_the_pool_is_killed(tmp_path: Path) -> None:
    port, taskmanager = free_port(), TaskManager()
    command = [sys.executable, POOL, f"--port={port}"]
    with (tmp_path / "log").open("wb") as log:
        pool = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    wait_for(lambda: b"listens" in (tmp_path / "log").read_bytes(), lambda: pool.poll() is None)
    Asking(port).start("1", taskmanager.address)
    taskmanager.calls.get(timeout=20)
    children = [child.pid for child in psutil.Process(pool.pid).children()]
    assert len(children) == 2
    pool.kill()
    pool.wait()
    wait_for(lambda: not any(map(runs, children)), seconds=20)
    taskmanager.end(0)

"""One small pipeline on every runner: the same files come out, and the work is spread."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deploy.flink.cluster import Cluster
from pipeline.runtime.options import runner
from tests.runtime import sample_pipeline
from tests.servers import ROOT, flink_jar, free_port, serve, tool


def test_in_this_process(tmp_path: Path) -> None:
    sample_pipeline.run(runner(workers=1), str(tmp_path))
    assert sample_pipeline.written(str(tmp_path)) == sample_pipeline.expected()


def test_two_local_processes_share_the_tasks(tmp_path: Path) -> None:
    sample_pipeline.run(runner(workers=2), str(tmp_path))
    assert sample_pipeline.written(str(tmp_path)) == sample_pipeline.expected()
    assert list(sample_pipeline.processes(str(tmp_path)).values()) == [4, 4]


def test_local_processes_write_to_a_bucket(s3) -> None:  # type: ignore[no-untyped-def]
    bucket = s3("processes")
    sample_pipeline.run(runner(workers=2), bucket)
    assert sample_pipeline.written(bucket) == sample_pipeline.expected()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_in_a_worker_reaches_the_driver_with_its_message(workers: int, capfd: pytest.CaptureFixture) -> None:
    with pytest.raises((ValueError, RuntimeError), match=r"ftp://x/tasks/\d+-\d+: unknown scheme ftp://"):
        sample_pipeline.run(runner(workers=workers), "ftp://x")
    if workers > 1:
        assert "Traceback" not in capfd.readouterr().err


def test_local_processes_end_when_their_driver_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys; from pipeline.runtime.options import runner; from tests.runtime import sample_pipeline\n"
        "sample_pipeline.run(runner(workers=2), sys.argv[1], num_tasks=1000, seconds=0.1)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    try:
        wait_for(lambda: len(sample_pipeline.processes(str(tmp_path))) == 2, lambda: driver.poll() is None)
        workers = list(sample_pipeline.processes(str(tmp_path)))
    finally:
        driver.kill()
        driver.wait()
    wait_for(lambda: not any(map(runs, workers)), seconds=30)


def test_prism(tmp_path: Path) -> None:
    port = free_port()
    command = [tool("prism"), f"--job_port={port}", f"--web_port={free_port()}", "--serve_http=false"]
    with serve(command, port, tmp_path / "log"):
        sample_pipeline.run(runner(["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}"]), str(tmp_path))
    assert sample_pipeline.written(str(tmp_path)) == sample_pipeline.expected()


@pytest.mark.slow
def test_flink_in_one_java_process(tmp_path: Path) -> None:
    flink_jar()
    sample_pipeline.run(runner(["--runner=FlinkRunner"], workers=2), str(tmp_path))
    assert sample_pipeline.written(str(tmp_path)) == sample_pipeline.expected()


@pytest.fixture(scope="module")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    flink_jar()
    cluster = Cluster(tmp_path_factory.mktemp("flink"))
    cluster.start(taskmanagers=2)
    yield cluster
    cluster.stop()


@pytest.mark.slow
def test_a_flink_cluster_that_loses_a_taskmanager_and_a_worker_finishes(flink: Cluster, tmp_path: Path) -> None:
    output = str(tmp_path)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            sample_pipeline.run(runner(flink.options(2)), output, num_tasks=24, seconds=0.7)
        except BaseException as error:
            errors.append(error)

    job = threading.Thread(target=work, daemon=True)
    job.start()
    for harm in (lose_taskmanager, lose_worker, None):
        before = set(sample_pipeline.processes(output))
        # A process that was not there before has done a task: the job runs, or runs again.
        wait_for(lambda known=before: set(sample_pipeline.processes(output)) > known, job.is_alive)
        if harm:
            harm(flink)
    job.join(400)
    assert not job.is_alive()
    assert errors == []
    assert sample_pipeline.written(output) == sample_pipeline.expected(24)


def lose_taskmanager(flink: Cluster) -> None:
    flink.kill_taskmanager()
    flink.add_taskmanager()


def lose_worker(flink: Cluster) -> None:
    flink.kill_worker()


def runs(pid: int) -> bool:
    """A dead process that nobody has asked about is dead."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], bool], goes_on: Callable[[], bool] = lambda: True, seconds: float = 120) -> None:
    """Until something has happened in a job that goes on."""
    end = time.monotonic() + seconds
    while not condition():
        assert goes_on(), "the job ended first"
        assert time.monotonic() < end
        time.sleep(0.1)

"""Which runner a command line means, and the message when it means none."""

import json
import os
import socket
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import DirectOptions, PortableOptions, SetupOptions
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.portability.portable_runner import PortableRunner

from pipeline.runtime import options
from pipeline.runtime.options import SMALL_BYTES, runner
from tests.runtime import sample_pipeline
from tests.servers import free_port, need

DATAFLOW = ["--runner=DataflowRunner", "--project=a-project", "--region=us-central1", "--temp_location=gs://bucket/tmp"]


def processes(beam_options: list[str], workers: int | None = None, num_bytes: int = 0) -> int:
    """How many local processes a pipeline would have."""
    pipeline = runner(beam_options, workers)(num_bytes)
    assert type(pipeline.runner) is FnApiRunner
    return int(pipeline._options.view_as(DirectOptions).direct_num_workers)


def test_small_jobs_run_in_this_process_and_large_ones_on_every_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "cores", lambda: 6)
    assert processes([]) == 1
    assert processes([], None, SMALL_BYTES - 1) == 1
    assert processes([], None, SMALL_BYTES) == 6


def test_a_number_of_workers_holds_for_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "cores", lambda: 6)
    assert processes([], 3, 0) == 3
    assert processes([], 1, SMALL_BYTES) == 1
    assert processes(["--direct_num_workers=2"], None, 0) == 2
    assert processes(["--direct_num_workers=0"], None, 0) == 6


@pytest.mark.parametrize("name", ["DirectRunner", "direct", "FnApiRunner", "fnapirunner"])
def test_local_runners_are_the_one_that_downloads_nothing(name: str) -> None:
    assert processes([f"--runner={name}"]) == 1


def test_workers_find_the_package_wherever_the_command_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    runner()
    runner()
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(options.ROOT), "/somewhere"]


def test_the_main_module_is_not_pickled() -> None:
    assert runner()()._options.view_as(SetupOptions).save_main_session is False


@pytest.mark.parametrize(
    ("beam_options", "workers", "message"),
    [
        ([], 0, "--workers 0: give at least 1"),
        ([], 100_000, "--workers 100000: this machine has "),
        (["--runner=Flnk"], None, "--runner=Flnk: no such runner; did you mean FlinkRunner?"),
        (["--direct_num_worker=2"], None, "did you mean --direct_num_workers?"),
        (["--worker", "2"], None, "--worker: neither Gristmill nor Beam knows it; did you mean --workers?"),
        (["--direct_num_workers=two"], None, "argument --direct_num_workers: invalid int value: 'two'"),
        (["--direct_num_workers=2"], 2, "--workers 2 and --direct_* both say how many processes: give one"),
        (["stray"], None, "stray: neither Gristmill nor Beam knows it"),
        (["--runner=PortableRunner"], None, "give --job_endpoint=HOST:PORT of a job server"),
        (["--runner=PortableRunner", "--job_endpoint=here"], None, "--job_endpoint=here: no job server answers there"),
        (["--runner=PrismRunner"], None, "give --prism_location=.cache/bin/prism"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(beam_options: list[str], workers: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]*$") as caught:
        runner(beam_options, workers)
    assert message in str(caught.value)


def test_a_job_server_that_is_not_there_is_named() -> None:
    port = free_port()
    with pytest.raises(ValueError, match=f"--job_endpoint=127.0.0.1:{port}: no job server answers there"):
        runner(["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}"])


def test_flink_without_its_jar_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRISTMILL_FLINK_JAR", str(tmp_path / "none.jar"))
    with pytest.raises(ValueError, match=r"none\.jar is not there: get it with `python deploy/flink/jars\.py`"):
        runner(["--runner=FlinkRunner"])


def test_flink_runs_embedded_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    jar = tmp_path / "job-server.jar"
    jar.touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch(mode=0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("GRISTMILL_FLINK_JAR", str(jar))
    pipeline = runner(["--runner=flink"], workers=3)()
    given = pipeline._options.get_all_options()
    assert isinstance(pipeline.runner, FlinkRunner)
    assert (given["flink_job_server_jar"], given["flink_version"]) == (str(jar), "1.19")
    assert (given["environment_type"], given["parallelism"]) == ("LOOPBACK", 3)
    chosen = ["--runner=flink", "--flink_version=1.20", "--environment_type=DOCKER", "--parallelism=8"]
    given = runner(chosen)()._options.get_all_options()
    assert (given["flink_version"], given["environment_type"], given["parallelism"]) == ("1.20", "DOCKER", 8)
    with pytest.raises(ValueError, match="--workers 3 and --parallelism both say how many"):
        runner(chosen, workers=3)


def test_workers_of_a_job_server_on_this_machine_run_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.socket, "create_connection", lambda *_, **__: socket.socket())
    for endpoint, environment in (("127.0.0.1:8099", "LOOPBACK"), ("jobs.example:8099", None)):
        pipeline = runner(["--runner=PortableRunner", f"--job_endpoint={endpoint}"])()
        assert isinstance(pipeline.runner, PortableRunner)
        assert pipeline._options.view_as(PortableOptions).environment_type == environment


# Dataflow: without an account a job can be translated into what would be submitted, no further.


@pytest.fixture
def google_clients() -> None:
    try:
        from apache_beam.runners.dataflow.internal import apiclient
    except ImportError:
        apiclient = None
    need(apiclient, "google-cloud-dataflow-client")


@pytest.mark.usefixtures("google_clients")
@pytest.mark.parametrize(
    ("beam_options", "work", "message"),
    [
        (DATAFLOW[:2], "gs://bucket/work", "give --region, --temp_location too"),
        (DATAFLOW, "gs://bucket/work", "its workers lack this package: give --sdk_container_image=IMAGE"),
        ([*DATAFLOW, "--extra_package=x.whl"], "work", "its workers cannot see the folder work: give --work gs://"),
    ],
)
def test_what_dataflow_would_refuse_late_is_told_at_once(beam_options: list[str], work: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runner(beam_options, work=work)


def test_dataflow_without_its_clients_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam.runners.dataflow.internal.apiclient", None)
    monkeypatch.setitem(sys.modules, "apache_beam.runners.dataflow.internal", None)
    with pytest.raises(ValueError, match=r"needs Google's clients: pip install 'gristmill\[gcp\]'"):
        runner(DATAFLOW)


@pytest.mark.usefixtures("google_clients")
def test_a_pipeline_becomes_a_dataflow_job(monkeypatch: pytest.MonkeyPatch) -> None:
    staged = translate_for_dataflow(
        monkeypatch, lambda new_pipeline: sample_pipeline.run(new_pipeline, "gs://bucket/out")
    )
    job = json.loads(staged["job.json"])
    pool = job["environment"]["workerPools"][0]
    assert job["type"] == "JOB_TYPE_BATCH"
    assert pool["workerHarnessContainerImage"] == "example/gristmill:0.1.0"
    # Keys are grouped as bytes of known coders; the task list is not unpickled on workers.
    assert b"GroupNumbers" in staged["pipeline.pb"]
    assert "pickled_main_session" not in staged
    assert len(staged["job.json"]) < 10 << 20


def translate_for_dataflow(monkeypatch: pytest.MonkeyPatch, run) -> dict[str, bytes]:  # type: ignore[no-untyped-def]
    """What Beam would upload for a job: its description and the pipeline. Needs no network and no credentials."""
    from apache_beam.options.pipeline_options import GoogleCloudOptions
    from apache_beam.runners.dataflow.internal import apiclient

    staged: dict[str, bytes] = {}

    def keep(self: object, folder: str, name: str, content, **_: object) -> None:  # type: ignore[no-untyped-def]
        staged[name] = content.read() if hasattr(content, "read") else Path(content).read_bytes()

    monkeypatch.setattr(apiclient.DataflowApplicationClient, "stage_file", keep)
    monkeypatch.setattr(apiclient.DataflowApplicationClient, "stage_file_with_retry", keep)
    # Asks the bucket for its settings, only to advise.
    monkeypatch.setattr(GoogleCloudOptions, "_warn_if_soft_delete_policy_enabled", lambda *_: None)
    image = "--sdk_container_image=example/gristmill:0.1.0"
    run(runner([*DATAFLOW, image, "--no_auth", "--template_location=/template/job.json"], work="gs://bucket/work"))
    return staged

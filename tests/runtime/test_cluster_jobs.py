"""A job that a killed driver left behind is cancelled by the next one, by Beam's API or by Flink's."""

import json
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.portability.api import beam_job_api_pb2_grpc
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.runtime.cluster_jobs import RecordedPipeline, cancel_recorded_job


class JobService(beam_job_api_pb2_grpc.JobServiceServicer):
    """Knows one job, `live`, and one that is done."""

    def __init__(self) -> None:
        self.states = {"live": api.JobState.RUNNING, "done": api.JobState.DONE}

    def GetState(self, request: api.GetJobStateRequest, context: grpc.ServicerContext) -> api.JobStateEvent:
        if request.job_id not in self.states:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such job")
        return api.JobStateEvent(state=self.states[request.job_id])

    def Cancel(self, request: api.CancelJobRequest, context: grpc.ServicerContext) -> api.CancelJobResponse:
        self.states[request.job_id] = api.JobState.CANCELLED
        return api.CancelJobResponse(state=api.JobState.CANCELLED)


@pytest.fixture
def service() -> Iterator[tuple[JobService, str]]:
    jobs, server = JobService(), grpc.server(futures.ThreadPoolExecutor(2))
    beam_job_api_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield jobs, f"127.0.0.1:{port}"
    server.stop(0).wait()


def record(work: Path, endpoint: str, job: str) -> None:
    (work / "job.json").write_text(json.dumps({"endpoint": endpoint, "job": job}))


def test_a_job_that_lives_is_cancelled_and_forgotten(service: tuple[JobService, str], tmp_path: Path) -> None:
    jobs, endpoint = service
    record(tmp_path, endpoint, "live")
    assert cancel_recorded_job(str(tmp_path)) == "cancelled job live, which a killed driver had left running"
    assert jobs.states["live"] == api.JobState.CANCELLED
    assert cancel_recorded_job(str(tmp_path)) is None


def test_a_job_that_ended_is_left_alone(service: tuple[JobService, str], tmp_path: Path) -> None:
    jobs, endpoint = service
    record(tmp_path, endpoint, "done")
    assert cancel_recorded_job(str(tmp_path)) is None
    assert jobs.states["done"] == api.JobState.DONE
    assert not (tmp_path / "job.json").exists()


def test_a_job_server_that_knows_the_job_no_more_does_not_stop_the_run(
    service: tuple[JobService, str], tmp_path: Path
) -> None:
    record(tmp_path, service[1], "gone")
    assert "knows it no more (not_found); going on" in str(cancel_recorded_job(str(tmp_path)))


@pytest.mark.parametrize("text", ["", "[]", '{"job": 1}', "{"])
def test_a_broken_record_does_not_stop_the_run(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.json").write_text(text)
    assert cancel_recorded_job(str(tmp_path)) is None


def test_without_a_record_nothing_is_done(tmp_path: Path) -> None:
    assert cancel_recorded_job(str(tmp_path)) is None


class Flink(BaseHTTPRequestHandler):
    """The two calls of Flink's REST API that are made."""

    jobs: list[dict[str, str]]

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: pytest's output is for tests."""

    def do_GET(self) -> None:
        assert self.path == "/jobs/overview"
        self._answer({"jobs": self.jobs})

    def do_PATCH(self) -> None:
        for job in self.jobs:
            if self.path == f"/jobs/{job['jid']}?mode=cancel":
                job["state"] = "CANCELED"
        self._answer({})

    def _answer(self, content: object) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


@pytest.fixture
def flink() -> Iterator[tuple[list[dict[str, str]], str]]:
    names = ("gristmill-1", "gristmill-1", "gristmill-2")
    states = ("FAILED", "RUNNING", "RUNNING")
    jobs = [{"jid": f"j{n}", "name": names[n], "state": states[n]} for n in range(3)]
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Flink,), {"jobs": jobs}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield jobs, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_job_on_flink_is_cancelled_by_its_name(flink: tuple[list[dict[str, str]], str], tmp_path: Path) -> None:
    jobs, master = flink
    (tmp_path / "job.json").write_text(json.dumps({"flink": master, "name": "gristmill-1"}))
    assert cancel_recorded_job(str(tmp_path)) == "cancelled job gristmill-1, which a killed driver had left running"
    assert [job["state"] for job in jobs] == ["FAILED", "CANCELED", "RUNNING"]
    assert not (tmp_path / "job.json").exists()


def test_a_job_that_ended_on_flink_is_left_alone(flink: tuple[list[dict[str, str]], str], tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"flink": flink[1], "name": "gristmill-3"}))
    assert cancel_recorded_job(str(tmp_path)) is None
    assert [job["state"] for job in flink[0]] == ["FAILED", "RUNNING", "RUNNING"]


def test_a_flink_that_is_gone_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps({"flink": "http://127.0.0.1:9", "name": "gristmill-3"}))
    assert "http://127.0.0.1:9 does not answer" in str(cancel_recorded_job(str(tmp_path)))


class Interrupted(FnApiRunner):
    """Takes a job and is gone."""

    def run_pipeline(self, pipeline: object, options: PipelineOptions) -> None:
        raise KeyboardInterrupt(options.get_all_options()["job_name"])


def test_a_job_for_flink_is_on_record_by_a_name_of_its_own_before_it_is_submitted(tmp_path: Path) -> None:
    names = set()
    for flags, begin in (([], "gristmill-"), (["--job_name=mine"], "mine-"), (["--job_name=mine"], "mine-")):
        options = PipelineOptions(["--flink_master=host:8081", *flags])
        with pytest.raises(KeyboardInterrupt) as submitted:
            RecordedPipeline(Interrupted(), options, str(tmp_path)).run(False)
        recorded = json.loads((tmp_path / "job.json").read_text())
        assert recorded == {"flink": "http://host:8081", "name": str(submitted.value)}
        assert recorded["name"].startswith(begin)
        names.add(recorded["name"])
    assert len(names) == 3


def test_a_job_in_this_java_process_is_not_on_record(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        RecordedPipeline(Interrupted(), PipelineOptions([]), str(tmp_path)).run(False)
    assert not (tmp_path / "job.json").exists()

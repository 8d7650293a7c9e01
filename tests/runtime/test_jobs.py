"""A job that a killed driver left behind is cancelled by the next one, against a job service that speaks Beam's API."""

import json
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2 as api
from apache_beam.portability.api import beam_job_api_pb2_grpc

from pipeline.runtime.jobs import cancel_recorded_job


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

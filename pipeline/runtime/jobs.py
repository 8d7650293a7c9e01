"""Jobs on a cluster outlive a driver that is killed: what was submitted is on record, and a rerun cancels it first.

A job left alone would do no harm (its files have names that nothing refers to), but it would take the cluster's
slots from the run that replaces it.
"""

import contextlib
import json
import time
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.runner import PipelineRunner

from schemas import storage

__all__ = ["RecordedPipeline", "cancel_recorded_job"]

RECORD = "job.json"
ANSWER_SECONDS = 10
CANCEL_SECONDS = 60
State = beam_job_api_pb2.JobState
ENDED = {State.STOPPED, State.DONE, State.FAILED, State.CANCELLED, State.DRAINED}


class RecordedPipeline(beam.Pipeline):
    """A pipeline whose job, where a job server takes it, is on record in WORK/job.json while it runs."""

    def __init__(self, runner: PipelineRunner, options: PipelineOptions, work: str | None) -> None:
        super().__init__(runner, options)
        endpoint = options.view_as(PortableOptions).job_endpoint
        self._endpoint: str | None = endpoint if work else None
        self._record = storage.join(work or "", RECORD)

    def run(self, test_runner_api: Any = "AUTO") -> Any:
        """Submit the job and put it on record."""
        result = super().run(test_runner_api)
        job = getattr(result, "_job_id", None)
        if self._endpoint and job:
            storage.write(self._record, json.dumps({"endpoint": self._endpoint, "job": job}).encode())
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._endpoint:
            # Only after a good end: a job that failed, or that an interrupt left behind, stays on record.
            _forget(self._record)


def cancel_recorded_job(work: str) -> str | None:
    """Cancel the job that a killed driver left running, and wait for its end; returns what was done, for the user."""
    record = storage.join(work, RECORD)
    try:
        job = json.loads(storage.read(record))
        endpoint, name = str(job["endpoint"]), str(job["job"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    said = _cancel(endpoint, name)
    _forget(record)
    return said


def _cancel(endpoint: str, job: str) -> str | None:
    with grpc.insecure_channel(endpoint) as channel:
        service = beam_job_api_pb2_grpc.JobServiceStub(channel)
        try:
            state = service.GetState(beam_job_api_pb2.GetJobStateRequest(job_id=job), timeout=ANSWER_SECONDS).state
            if state in ENDED:
                return None
            service.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job), timeout=CANCEL_SECONDS)
            end = time.monotonic() + CANCEL_SECONDS
            while state not in ENDED and time.monotonic() < end:
                time.sleep(0.5)
                state = service.GetState(beam_job_api_pb2.GetJobStateRequest(job_id=job), timeout=ANSWER_SECONDS).state
        except grpc.RpcError as error:
            return f"job {job} of a killed driver: {endpoint} knows it no more ({error.code().name.lower()}); going on"
    if state not in ENDED:
        return f"job {job} of a killed driver did not end within {CANCEL_SECONDS} s; going on, its files are ignored"
    return f"cancelled job {job}, which a killed driver had left running"


def _forget(record: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        storage.delete(record)

"""Jobs on a cluster outlive a driver that is killed: what was submitted is on record, and a rerun cancels it first.

A job left alone would do no harm (its files have names that nothing refers to), but it would take the cluster's
slots from the run that replaces it. A job server that lives on is queried by Beam's API; where the driver brings its
own (--runner=FlinkRunner --flink_master=HOST:PORT), Flink is, by its REST API.
"""

import contextlib
import json
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
)
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
from apache_beam.runners.runner import PipelineRunner

from schemas import storage

__all__ = ["RecordedPipeline", "cancel_recorded_job"]

RECORD = "job.json"
ANSWER_SECONDS = 10
CANCEL_SECONDS = 60
State = beam_job_api_pb2.JobState
ENDED = {State.STOPPED, State.DONE, State.FAILED, State.CANCELLED, State.DRAINED}
FLINK_ENDED = {"FINISHED", "FAILED", "CANCELED"}


class RecordedPipeline(beam.Pipeline):
    """A pipeline whose job, where a cluster takes it, is on record in WORK/job.json while it runs."""

    def __init__(self, runner: PipelineRunner, options: PipelineOptions, work: str | None) -> None:
        self._record = storage.join(work, RECORD) if work else None
        self._endpoint: str | None = options.view_as(PortableOptions).job_endpoint
        self._flink: dict[str, str] | None = None
        master = options.view_as(FlinkRunnerOptions).flink_master
        if not self._endpoint and not master.startswith("["):
            # The job server dies with this driver, so the job is known by a name that no other has.
            named = options.view_as(GoogleCloudOptions)
            named.job_name = f"{named.job_name or 'gristmill'}-{secrets.token_hex(8)}"
            self._flink = {"flink": master if "://" in master else f"http://{master}", "name": named.job_name}
        super().__init__(runner, options)  # which takes a copy of the options

    def run(self, test_runner_api: Any = "AUTO") -> Any:
        """Submit the job and put it on record."""
        if self._record and self._flink:
            storage.write(self._record, json.dumps(self._flink).encode())
        result = super().run(test_runner_api)
        job = getattr(result, "_job_id", None)
        if self._record and self._endpoint and job:
            storage.write(self._record, json.dumps({"endpoint": self._endpoint, "job": job}).encode())
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._record and (self._endpoint or self._flink):
            # Only after a good end: a job that failed, or that an interrupt left behind, stays on record.
            _forget(self._record)


def cancel_recorded_job(work: str) -> str | None:
    """Cancel the job that a killed driver left running, and wait for its end; returns what was done, for the user."""
    record = storage.join(work, RECORD)
    try:
        job = json.loads(storage.read(record))
        flink = "flink" in job
        where, name = (str(job[key]) for key in (("flink", "name") if flink else ("endpoint", "job")))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    said = _cancel_on_flink(where, name) if flink else _cancel(where, name)
    _forget(record)
    return said


def _cancel(endpoint: str, job: str) -> str | None:
    with grpc.insecure_channel(endpoint) as channel:
        service = beam_job_api_pb2_grpc.JobServiceStub(channel)

        def ended() -> bool:
            request = beam_job_api_pb2.GetJobStateRequest(job_id=job)
            return service.GetState(request, timeout=ANSWER_SECONDS).state in ENDED

        try:
            if ended():
                return None
            service.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job), timeout=CANCEL_SECONDS)
            return _wait(job, ended)
        except grpc.RpcError as error:
            return f"job {job} of a killed driver: {endpoint} knows it no more ({error.code().name.lower()}); going on"


def _cancel_on_flink(master: str, name: str) -> str | None:
    def running() -> Iterator[str]:
        for job in _query_flink(f"{master}/jobs/overview")["jobs"]:
            if job["name"] == name and job["state"] not in FLINK_ENDED:
                yield job["jid"]

    try:
        found = list(running())
        for job in found:
            _query_flink(f"{master}/jobs/{job}?mode=cancel", "PATCH")
        return _wait(name, lambda: not any(running())) if found else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"job {name} of a killed driver: {master} does not answer ({error}); going on"


def _query_flink(url: str, method: str = "GET") -> Any:
    """What Flink's REST API answers. Raises OSError, or ValueError for what is not JSON."""
    # Never through a proxy for web pages: a cluster is near.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, method=method), timeout=ANSWER_SECONDS) as answer:
        return json.load(answer)


def _wait(job: str, ended: Callable[[], bool]) -> str:
    """Until a cancelled job has ended; returns the line for the user."""
    end = time.monotonic() + CANCEL_SECONDS
    while not ended():
        if time.monotonic() > end:
            return (
                f"job {job} of a killed driver did not end within {CANCEL_SECONDS} s; going on, its files are ignored"
            )
        time.sleep(0.5)
    return f"cancelled job {job}, which a killed driver had left running"


def _forget(record: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        storage.delete(record)

"""A pool of Python workers for Flink: each is a fork of one process that has imported everything.

    python deploy/flink/worker_pool.py --port 50000

Flink ends its Python workers whenever no stage of a job runs on a TaskManager, and requests new ones at the next; a
new interpreter spends seconds on imports each time, a fork some hundredths. What else this pool does otherwise than
Beam's `worker_pool_main`:

- TaskManagers that share a pool give their workers equal ids. Here a worker is known by the connection that requested
  it as well, so that stopping one never ends another's.
- A worker that is killed before it has called Flink would be waited for without end. Here it is replaced, under its id.
- A worker ends with the TaskManager that it works for, and with this pool, however those ended.
"""

import argparse
import contextlib
import gc
import itertools
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from pipeline.runtime.quiet import import_beam

__all__ = ["main"]

LOOK_SECONDS = 0.2  # between two looks for workers that have ended
REPLACEMENTS = 5  # of one worker that is killed again and again
MESSAGE_BYTES = 1 << 16


def main(arguments: list[str] | None = None) -> None:
    """Serve until a signal ends this process; its first child listens, all others are workers."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--port", type=int, required=True, help="where TaskManagers request workers")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine's own)")
    options = parser.parse_args(arguments)
    # There is a worker for each core: libraries with a thread for each core on top would only slow it.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    _import_all()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        _in_child(lambda: _listen(theirs, f"{options.host}:{options.port}"))
    theirs.close()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    WorkerForker(ours).serve()


def _import_all() -> None:
    """Import all that a worker needs, so that forks share it; nothing here starts a thread or opens a connection."""
    import_beam()
    import pyarrow
    from apache_beam.runners.worker import sdk_worker  # noqa: F401

    import pipeline.curate  # noqa: F401

    pyarrow.set_cpu_count(1)
    # A collection in a worker would write to every object that it shares, and so copy it.
    gc.collect()
    gc.freeze()


@dataclass
class Worker:
    """What a worker was started for, and how often it was replaced."""

    ticket: int  # its name here: ids are equal on two TaskManagers, process ids change
    id: str
    control: str  # address of its TaskManager
    replaced: int = 0


class WorkerForker:
    """Fork workers on request and replace those that are killed. It has one thread: with more it could not fork."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._workers: dict[int, Worker] = {}  # by process id
        self._tickets = itertools.count(1)

    def serve(self) -> None:
        """Serve until the listener ends."""
        try:
            while True:
                ready, _, _ = select.select([self._listener], [], [], LOOK_SECONDS)
                if ready:
                    message = self._listener.recv(MESSAGE_BYTES)
                    if not message:
                        return
                    self._listener.send(json.dumps(self._answer(json.loads(message))).encode())
                self._reap()
        finally:
            for pid in self._workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"start": id, "control": address} -> {"ticket": number} or {"error": text}; {"stop": ticket} -> {}."""
        if "stop" in request:
            for pid in [pid for pid, worker in self._workers.items() if worker.ticket == request["stop"]]:
                # Still our child until it is reaped, so its number cannot be another's.
                del self._workers[pid]
                os.kill(pid, signal.SIGKILL)
            return {}
        worker = Worker(next(self._tickets), request["start"], request["control"])
        try:
            self._fork(worker)
        except OSError as error:
            return {"error": f"the pool of workers cannot start one: {error}"}
        return {"ticket": worker.ticket}

    def _fork(self, worker: Worker) -> None:
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._listener.close()
            _in_child(lambda: _work(worker))
        self._workers[pid] = worker

    def _reap(self) -> None:
        """Forget workers that have ended; replace those that a signal ended: Flink may be waiting for their call.

        One that had called is replaced for nothing: the next idles until Flink, which fails its task, lets go of it.
        """
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                worker = self._workers.pop(pid, None)
                if worker and os.WIFSIGNALED(status) and worker.replaced < REPLACEMENTS:
                    print(f"worker {worker.id} ended by signal {os.WTERMSIG(status)}: replaced", file=sys.stderr)
                    self._fork(replace(worker, replaced=worker.replaced + 1))


def _in_child(work: Callable[[], None]) -> NoReturn:
    """Run `work` in this forked process and end; never return into the parent's code."""
    code = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        parent = os.getppid()
        threading.Thread(target=_end_with, args=(parent,), name="end-with-pool", daemon=True).start()
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_with(parent: int) -> None:
    """End this process soon after its parent's, however that ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _work(worker: Worker) -> None:
    """Run Beam's worker until the TaskManager ends the stream of work."""
    import grpc
    from apache_beam.runners.worker.sdk_worker import SdkHarness

    try:
        SdkHarness(worker.control, worker_id=worker.id).run()
    except (grpc.FutureTimeoutError, grpc.RpcError) as error:
        # The TaskManager is gone, or has let this job go; Flink reports why to the user, where it matters.
        print(f"worker {worker.id}: {worker.control} has gone ({type(error).__name__})", file=sys.stderr)


def _listen(forker: socket.socket, address: str) -> None:
    """Answer Beam's requests for workers, until this process is ended."""
    import grpc
    from apache_beam.portability.api import beam_fn_api_pb2_grpc

    server = grpc.server(futures.ThreadPoolExecutor(8, "requests"))
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(Requests(forker), server)
    server.add_insecure_port(address)
    server.start()
    print(f"pool of workers listens at {address}", file=sys.stderr, flush=True)
    server.wait_for_termination()


class Requests:
    """Beam's BeamFnExternalWorkerPool service. The method names are the protocol's."""

    def __init__(self, forker: socket.socket) -> None:
        self._forker, self._lock = forker, threading.Lock()
        self._tickets: dict[tuple[str, str], int] = {}  # by connection and worker id

    def StartWorker(self, request: Any, context: Any) -> Any:
        """Fork a worker."""
        from apache_beam.portability.api import beam_fn_api_pb2

        answer = self._request({"start": request.worker_id, "control": request.control_endpoint.url})
        if "ticket" in answer:
            self._tickets[context.peer(), request.worker_id] = answer["ticket"]
        return beam_fn_api_pb2.StartWorkerResponse(error=answer.get("error", ""))

    def StopWorker(self, request: Any, context: Any) -> Any:
        """End the worker that this connection requested; one of another connection ends by itself."""
        from apache_beam.portability.api import beam_fn_api_pb2

        ticket = self._tickets.pop((context.peer(), request.worker_id), None)
        if ticket is not None:
            self._request({"stop": ticket})
        return beam_fn_api_pb2.StopWorkerResponse()

    def _request(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._forker.send(json.dumps(request).encode())
            answer: dict[str, Any] = json.loads(self._forker.recv(MESSAGE_BYTES))
            return answer


if __name__ == "__main__":
    main()

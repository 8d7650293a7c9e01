"""A process that reads every W-th batch of a rank and sends it through a pipe.

It is no fork of the training process and shares no memory with it: it takes its job from standard input, holds no
state, and ends when its pipe is closed, however the training process ended.
"""

import fcntl
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from schemas.manifest import DatasetError
from schemas.storage import StorageError
from trainer.data.batch_reader import Job, ReadBatch, Reader
from trainer.data.cache import Stopped

__all__ = ["Worker", "main"]

PIPE_BYTES = 1 << 20
SET_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", None)


class Worker:
    """The training process's end of a worker that reads batches start, start + step, ..."""

    def __init__(self, job: Job, start: int, step: int) -> None:
        # By this process's own path: `-m` would look into the current folder first, where a trainer.py may lie.
        path = [place or os.getcwd() for place in sys.path]
        code = f"import sys; sys.path[:] = {path!r}; from trainer.data.reader_process import main; main()"
        self._process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._output: Any = self._process.stdout
        if SET_PIPE_SIZE is not None:
            fcntl.fcntl(self._output, SET_PIPE_SIZE, PIPE_BYTES)
        self._send_job(self._process.stdin, (job, start, step))

    def receive(self) -> ReadBatch | None:
        """The next batch; None after the last. Raises what the worker raised, EOFError when it is gone."""
        try:
            kind, content = pickle.load(self._output)
        except pickle.UnpicklingError:  # it was killed in the middle of a frame
            raise EOFError from None
        if kind == "error":
            raise content
        if kind == "end":
            return None
        batch: ReadBatch = content
        targets_BT = np.empty(batch.narrow.targets_BT, kind)  # its shape came in its place
        view = _bytes(targets_BT)
        while len(view):
            count = self._output.readinto(view)
            if not count:
                raise EOFError
            view = view[count:]
        batch.narrow.targets_BT = targets_BT
        return batch

    def exit_code(self) -> int:
        """Of a worker that is gone."""
        return self._process.wait()

    def close(self) -> None:
        """End the worker at once: it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        self._output.close()

    @staticmethod
    def _send_job(stdin: Any, job: tuple[Job, int, int]) -> None:
        try:
            with stdin:
                pickle.dump(job, stdin, protocol=pickle.HIGHEST_PROTOCOL)
        except BrokenPipeError:  # it died at its start; `receive` finds out
            return


def main() -> None:
    """Read the job, send its batches."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # meant for the training process, which still needs its batches
    # What a library prints must not end up among the batches.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job, start, step = pickle.load(sys.stdin.buffer)
    try:
        _serve(job, start, step, output)
    except (BrokenPipeError, Stopped):
        os._exit(0)  # the training process is gone


def _serve(job: Job, start: int, step: int, output: BinaryIO) -> None:
    try:
        parent = os.getppid()
        reader = Reader(job, start, lambda: os.getppid() != parent)
        for batch in reader.batches(start, step):
            _send(output, batch)
        _frame(output, "end", None)
    except BrokenPipeError:
        raise
    except (DatasetError, StorageError, FileNotFoundError, ValueError) as error:
        _frame(output, "error", error)


def _send(output: BinaryIO, batch: ReadBatch) -> None:
    """The batch without its tokens, then those as they lie in memory."""
    targets_BT = batch.narrow.targets_BT
    shape: Any = targets_BT.shape
    _frame(output, targets_BT.dtype.str, replace(batch, narrow=replace(batch.narrow, targets_BT=shape)))
    output.write(_bytes(targets_BT))
    output.flush()


def _bytes(array: Any) -> memoryview:
    """An array's memory; an empty one has none to cast."""
    return memoryview(array.reshape(-1).view(np.uint8))


def _frame(output: BinaryIO, kind: str, content: Any) -> None:
    pickle.dump((kind, content), output, protocol=pickle.HIGHEST_PROTOCOL)
    output.flush()

"""A rank's batches, finished ahead of their consumer: by a thread of this process, and workers behind it if wanted."""

import atexit
import queue
import threading
from collections.abc import Generator
from typing import Any

import torch

from trainer.data.batch import TokenBatch
from trainer.data.batch_reader import Job, ReadBatch, Reader
from trainer.data.reader_process import Worker
from trainer.data.shard_fetcher import Fetcher
from trainer.data.shard_rows import widen

__all__ = ["Prefetcher"]

AHEAD = 2  # finished batches that wait for the consumer
END = object()


class Prefetcher:
    """Reads ahead in a thread of its own, AHEAD finished batches at most."""

    def __init__(self, job: Job, start: int, workers: int, mask: bool) -> None:
        self._job, self._start, self._mask = job, start, mask
        self._stopping = threading.Event()
        # Of C, for a tenth of queue.Queue's time; `_room` holds a token for each batch that may still wait.
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(AHEAD):
            self._room.put(None)
        self._fetcher = Fetcher(job.provider, job, start) if job.provider is not None else None
        if self._fetcher is not None:
            self._fetcher.start()
        self._handover = start + workers  # the workers' first batch: they take a second or two to start
        self._workers = [Worker(job, self._handover + w, workers) for w in range(workers)]
        self._thread = threading.Thread(target=self._run, name="token-stream", daemon=True)
        self._thread.start()
        # A thread that is still at work when the interpreter ends may bring down the process with it.
        atexit.register(self.close)

    def take(self) -> tuple[TokenBatch, dict[int, int]] | None:
        """The next batch, and the shards that it was the first to miss; None after the last."""
        found = self._queue.get()
        self._room.put(None)
        if isinstance(found, BaseException):
            raise found
        return None if found is END else found

    def close(self) -> None:
        """End the thread, the workers and the fetcher."""
        atexit.unregister(self.close)
        self._stopping.set()
        for worker in self._workers:
            worker.close()
        self._room.put(None)  # the thread may wait for room
        self._thread.join()
        if self._fetcher is not None:
            self._fetcher.close()

    def _run(self) -> None:
        batches = self._from_workers() if self._workers else self._read_here()
        try:
            for read in batches:
                finished = (self._finish(read), read.lost)
                self._room.get()
                if self._stopping.is_set():
                    return
                self._queue.put(finished)
            self._queue.put(END)
        except BaseException as error:  # the consumer raises it, where it can be handled
            if not self._stopping.is_set():
                self._queue.put(error)
        finally:
            batches.close()

    def _read_here(self, until: int | None = None) -> Generator[ReadBatch, None, None]:
        reader = Reader(self._job, self._start, self._stopping.is_set)
        try:
            yield from reader.batches(self._start, until=until)
        finally:
            reader.close()

    def _from_workers(self) -> Generator[ReadBatch, None, None]:
        """Yield batches in order: while the workers start, this process reads the first ones itself.

        It counts as a reader of the cache all the time, for workers that have yet to start.
        """
        order, b = self._job.order(), self._handover
        provider = self._job.provider and self._job.provider.enter(order, b, self._stopping.is_set)
        try:
            yield from self._read_here(until=b)
            while True:
                if order.step_of_batch(b) is not None:
                    found = self._receive(b)
                    if found is None:
                        return
                    yield found
                b += 1
                if provider:
                    provider.advance_to(b)
        finally:
            if provider:
                provider.close()

    def _receive(self, b: int) -> ReadBatch | None:
        """Batch b from its worker; one that was killed is started again, unless it has just been."""
        place, step = (b - self._start) % len(self._workers), len(self._workers)
        for last_try in (False, True):
            try:
                return self._workers[place].receive()
            except (EOFError, OSError, ValueError) as error:
                if self._stopping.is_set():
                    return None
                if not isinstance(error, EOFError):
                    raise
            code = self._workers[place].exit_code()
            if last_try:
                raise RuntimeError(
                    f"the worker for batch {b} ended twice, now with exit code {code}: see its messages above; a "
                    "negative code is a signal, -9 often a machine out of memory: lower data.workers"
                )
            self._workers[place].close()
            self._workers[place] = Worker(self._job, b, step)
        raise AssertionError

    def _finish(self, read: ReadBatch) -> TokenBatch:
        wide = widen(read.narrow, self._job.datasets[0].end_of_text, self._mask)
        return TokenBatch(
            tokens_BT=torch.from_numpy(wide.tokens_BT),
            targets_BT=torch.from_numpy(wide.targets_BT),
            positions_BT=None if wide.positions_BT is None else torch.from_numpy(wide.positions_BT),
            documents_BT=None if wide.documents_BT is None else torch.from_numpy(wide.documents_BT),
            batch=read.samples.number,
            samples=read.samples,
        )

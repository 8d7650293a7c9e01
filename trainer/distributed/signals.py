"""The signals that end a run after its step, with a checkpoint, and its return to Slurm's queue."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

__all__ = ["Signals", "requeue", "stop_signals"]

# A terminal that closes, Slurm's `--signal=USR1@300` before the time limit, and USR2 to be queued again.
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PATIENCE_SECONDS = 5.0  # after a signal, before another one ends the run at once


@dataclass
class Signals:
    """What this process was asked by signals; the ranks agree on the step after which they stop."""

    stop: bool = False
    requeue: bool = False  # by SIGUSR2


@contextlib.contextmanager
def stop_signals() -> Iterator[Signals]:
    """Take note of STOPPING signals; one that is ignored (`nohup`) stays so.

    Another signal, some seconds later, ends a step that does not end: one that waits for a store that is silent.
    (A Ctrl-C under torchrun comes twice at once, from the terminal and from torchrun.)
    """
    signals, times = Signals(), list[float]()

    def handle(number: int, _: object) -> None:
        if times and time.monotonic() - times[0] > PATIENCE_SECONDS and number in (signal.SIGTERM, signal.SIGINT):
            raise KeyboardInterrupt
        signals.stop = True
        signals.requeue |= number == signal.SIGUSR2
        times.append(time.monotonic())

    taken = [number for number in STOPPING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in taken}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def requeue(environ: Mapping[str, str] = os.environ) -> str:
    """Put this job into Slurm's queue again; returns what to log."""
    job = environ.get("SLURM_JOB_ID")
    if job is None:
        return "SIGUSR2: not a job of Slurm (SLURM_JOB_ID is not set): run the same command again to go on"
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"SIGUSR2: job {job} is not queued again: scontrol: {error}"
    if done.returncode:
        return f"SIGUSR2: job {job} is not queued again: {done.stderr.strip() or done.stdout.strip()}"
    return f"SIGUSR2: job {job} is queued again"

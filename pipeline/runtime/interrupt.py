"""Ctrl-C: one line from the driver, whatever its threads and workers were doing.

A terminal sends the signal to every process of the run. Workers end at once, as if they were killed, which every
part of a run stands; the driver must not report it as a failure.
"""

import signal
import threading
import time
from types import FrameType

__all__ = ["interrupt_quietly"]

SETTLE_SECONDS = 0.5  # until the driver has heard of a Ctrl-C that ended a worker first


def interrupt_quietly() -> None:
    """Raise KeyboardInterrupt at the first Ctrl-C, with no word from other threads; a second one ends at once."""
    interrupted = threading.Event()

    def handle(_: int, __: FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    def report(failure: threading.ExceptHookArgs) -> None:
        # Beam's thread that waits for a worker fails when the worker ends.
        time.sleep(SETTLE_SECONDS)
        if not interrupted.is_set():
            threading.__excepthook__(failure)

    signal.signal(signal.SIGINT, handle)
    threading.excepthook = report

"""How far a job has come: workers on this machine leave small files, the driver adds them up and reports.

For the user's eyes only: nothing here changes a dataset, and nothing here may fail a job. Beam's counters would not
do: they arrive when a bundle ends, which for one large file is the end of the job.
"""

import contextlib
import json
import os
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TextIO

from schemas.text_format import plural

__all__ = ["ProgressLine", "Reporter"]

WRITE_SECONDS = 0.5
LINE_SECONDS = 10.0
TERMINAL_SECONDS = 0.5
RATE_SECONDS = 30.0  # the rate is that of about the last half minute


# The sums of each thread that counts: a thread works on many tasks, and leaves one file.
_sums: dict[tuple[str, int, int], dict[str, Counter[str]]] = {}


class Reporter:
    """A worker thread's side: counts, and leaves the sums in a file of its own at most twice a second.

    Without a directory it counts nothing. Call `close` at the end, so that the last half second is counted.
    """

    def __init__(self, directory: str | None) -> None:
        self._path: Path | None = None
        self._written = 0.0
        if directory is not None:
            process, thread = os.getpid(), threading.get_ident()
            self._sums = _sums.setdefault((directory, process, thread), {})
            self._path = Path(directory) / f"{process}-{thread}.json"

    def add(self, stage: str, items: int = 0, bytes: int = 0, records: int = 0) -> None:
        """Count what was done for `stage`: items of its plan, bytes of its input, records."""
        if self._path is None:
            return
        self._sums.setdefault(stage, Counter()).update(items=items, bytes=bytes, records=records)
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self.close()

    def close(self) -> None:
        """Leave the sums as they are now."""
        if self._path is None:
            return
        self._written = time.monotonic()
        scratch = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            scratch.write_text(json.dumps(self._sums))
            scratch.replace(self._path)


class ProgressLine:
    """The driver's side: while the context lasts, reports how much of a stage is done, how fast, and what is left.

    On a terminal one line is written over and over; elsewhere a line every ten seconds. `total_bytes` and
    `total_items` are what 100 % means.
    """

    def __init__(
        self, directory: str | None, stage: str, total_bytes: int, total_items: int, stream: TextIO | None
    ) -> None:
        self._directory, self._stage, self._stream = directory, stage, stream
        self._total_bytes, self._total_items = total_bytes, total_items
        self._is_terminal = False
        self._width = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._history: list[tuple[float, int, int]] = []  # time, bytes, records

    def __enter__(self) -> "ProgressLine":
        if self._directory is None or self._stream is None:
            return self
        with contextlib.suppress(Exception):
            self._is_terminal = self._stream.isatty()
        self._history = [self._sample()[0]]
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        if self._is_terminal:
            # The line stands when the stage is done, and makes room for the message when it failed.
            self._show(self._line() + "\n" if error is None else "", over=True)

    def _run(self) -> None:
        interval = TERMINAL_SECONDS if self._is_terminal else LINE_SECONDS
        while not self._stop.wait(interval):
            self._show(self._line() + ("" if self._is_terminal else "\n"), over=self._is_terminal)

    def _show(self, text: str, over: bool) -> None:
        """Write, and let a stream that is gone be gone."""
        assert self._stream is not None
        if over:
            bare = text.rstrip("\n")
            padding = " " * max(0, self._width - len(bare))
            self._width = len(bare)
            text = f"\r{bare}{padding}" + ("\n" if text.endswith("\n") else "" if bare else "\r")
        with contextlib.suppress(Exception):
            self._stream.write(text)
            self._stream.flush()

    def _line(self) -> str:
        sample, items = self._sample()
        self._history.append(sample)
        while len(self._history) > 2 and sample[0] - self._history[1][0] > RATE_SECONDS:
            del self._history[0]
        then = self._history[0]
        seconds = max(sample[0] - then[0], 1e-3)
        return progress_text(
            self._stage,
            (sample[1], self._total_bytes),
            (items, self._total_items),
            (sample[1] - then[1]) / seconds,
            (sample[2] - then[2]) / seconds,
        )

    def _sample(self) -> tuple[tuple[float, int, int], int]:
        """((now, bytes, records), items) of the stage, over all workers."""
        total: Counter[str] = Counter()
        with contextlib.suppress(OSError):
            for path in Path(self._directory or ".").glob("*.json"):
                with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
                    sums = json.loads(path.read_text()).get(self._stage, {})
                    total.update({name: int(count) for name, count in sums.items()})
        return (time.monotonic(), total["bytes"], total["records"]), total["items"]


def progress_text(
    stage: str, num_bytes: tuple[int, int], items: tuple[int, int], bytes_per_second: float, records_per_second: float
) -> str:
    """`ingest   42 %   3.1 of 7.4 GB   12 of 40 tasks   85 MB/s   1,210 records/s   50 s left`, of (done, total)."""
    done, total = num_bytes
    done = min(done, total)
    share = done / total if total else (items[0] / items[1] if items[1] else 1.0)
    parts = [f"{stage:<7} {100 * share:3.0f} %"]
    if total:
        parts.append(f"{_amount(done, total)} of {_amount(total, total)} {_unit(total)[0]}")
    if items[1]:
        parts.append(f"{items[0]:,} of {plural(items[1], 'task')}")
    if bytes_per_second > 0:
        parts.append(f"{_amount(bytes_per_second, bytes_per_second)} {_unit(bytes_per_second)[0]}/s")
    if records_per_second > 0:
        parts.append(f"{records_per_second:,.0f} records/s")
    if 0 < done < total and bytes_per_second > 0:
        parts.append(f"{_duration((total - done) / bytes_per_second)} left")
    return "   ".join(parts)


def _unit(num_bytes: float) -> tuple[str, float]:
    for name, size in (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20)):
        if num_bytes >= size:
            return name, size
    return "kB", 1 << 10


def _amount(num_bytes: float, like: float) -> str:
    """A number of bytes in the unit that suits `like`."""
    amount = num_bytes / _unit(like)[1]
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.1f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"

"""Speed between two log lines: tokens a second, the share of the time spent waiting for data, MFU, time left."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Meter"]


class Meter:
    """Adds up tokens, FLOPs, time and time waiting for data between two log lines.

    `peak_flops`: FLOP/s of all devices together, None where a device is unknown: then there is no MFU.
    """

    def __init__(self, peak_flops: float | None, now: Callable[[], float] = time.perf_counter) -> None:
        self.peak_flops, self.now = peak_flops, now
        self.tokens, self.flops, self.steps, self.waited, self.away = 0, 0, 0, 0.0, 0.0
        self.began = now()
        self.pace: tuple[float, int] | None = None  # time and steps of all intervals but the first

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Measure the call that gets the next batch."""
        before = self.now()
        yield
        self.waited += self.now() - before

    @contextmanager
    def other_work(self) -> Iterator[None]:
        """Measure what is not training (evaluation, samples): it counts for the time left and for nothing else."""
        before = self.now()
        yield
        self.away += self.now() - before

    def add(self, tokens: int, flops_per_token: int) -> None:
        """Count one step of so many tokens of the global batch; FLOPs a token differ between phases."""
        self.tokens += tokens
        self.flops += tokens * flops_per_token
        self.steps += 1

    def read(self, steps_to_go: int) -> dict[str, float | int]:
        """Return tokens, tokens_per_second, data_wait, seconds_left, and mfu where known; begin the next interval.

        The first interval holds compilation and does not enter the time left once there is another.
        """
        elapsed = self.now() - self.began
        busy = max(elapsed - self.away, 1e-9)
        values: dict[str, float | int] = {
            "tokens": self.tokens,
            "tokens_per_second": self.tokens / busy,
            "data_wait": min(self.waited / busy, 1.0),
        }
        if self.peak_flops is not None:
            values["mfu"] = self.flops / busy / self.peak_flops
        pace = elapsed / max(self.steps, 1)
        if self.pace is not None:
            self.pace = (self.pace[0] + elapsed, self.pace[1] + self.steps)
            pace = self.pace[0] / max(self.pace[1], 1)
        else:
            self.pace = (0.0, 0)
        values["seconds_left"] = pace * steps_to_go
        self.began += elapsed
        self.tokens, self.flops, self.steps, self.waited, self.away = 0, 0, 0, 0.0, 0.0
        return values

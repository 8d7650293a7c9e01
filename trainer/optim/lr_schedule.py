"""The learning rate of a step: warmup with cosine, or warmup, stable, decay."""

import math
from dataclasses import dataclass

__all__ = ["Schedule"]


@dataclass(frozen=True)
class Schedule:
    """Rates of `steps` steps, counted from 0. Raises ValueError for parts that do not fit into the steps."""

    kind: str  # "cosine" or "wsd"
    peak: float
    steps: int
    warmup_steps: int
    decay_steps: int = 0  # wsd: the last ones
    decay: str = "linear"  # wsd: "linear" is 1 - p, "sqrt" is 1 - sqrt(p) (Hägele et al. 2024)
    final: float = 0.1  # cosine: the last rate over the peak

    def __post_init__(self) -> None:
        """Refuse what cannot be laid out."""
        after = self.decay_steps if self.kind == "wsd" else 0
        if self.warmup_steps + after > self.steps:
            what = f" and decay_steps={after} exceed" if after else " exceeds"
            raise ValueError(
                f"schedule: warmup_steps={self.warmup_steps}{what} steps={self.steps}: shorten or train longer"
            )

    @property
    def decay_start(self) -> int | None:
        """Steps done when the decay begins, before which a run can be prolonged or branched; None without one."""
        return self.steps - self.decay_steps if self.kind == "wsd" and self.decay_steps else None

    def rate(self, step: int) -> float:
        """The learning rate of a step.

        Warmup is (step + 1) / warmup_steps of the peak. The cosine falls from the peak at the end of warmup to
        `final` of it at the last step; wsd holds the peak and falls to 0 just past the last step.
        """
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        if self.kind == "cosine":
            done = (step - self.warmup_steps) / max(1, self.steps - 1 - self.warmup_steps)
            low = self.final * self.peak
            return low + 0.5 * (1 + math.cos(math.pi * min(1.0, done))) * (self.peak - low)
        first = self.steps - self.decay_steps
        if step < first:
            return self.peak
        done = min(1.0, (step - first + 1) / (self.decay_steps + 1))
        return self.peak * (1 - (math.sqrt(done) if self.decay == "sqrt" else done))

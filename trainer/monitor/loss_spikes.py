"""When a step's loss or gradient norm stands out from the steps before it: a robust z-score.

z = (value - trend) / (1.4826 MAD), over the last accepted steps. Trend and MAD (the median absolute deviation from the
trend; 1.4826 makes it the standard deviation of normal noise) are made of medians, which the outliers that they are to
find do not move. Without the trend the fall of a young loss would count as noise and hide what stands out of it. A
falling loss is no spike: only values above the trend count. A norm is judged by its logarithm, for its noise is in
proportion to it and has a long tail upwards.

Other data, a longer sequence or another batch size may lift the loss for good, at a step that is known. A spike in the
first steps of a phase is therefore reported, but not refused, and the history begins anew with it.
"""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

__all__ = ["SpikeRule", "Verdict"]

NORMAL = 1.4826
# Noise below this share of the value is none: a loss that stands still has a MAD of 0.
LEAST_SPREAD = {"loss": 0.005, "norm": 0.1}
TINY = 1e-12


@dataclass(frozen=True)
class Verdict:
    """What the rule makes of a step."""

    spike: bool
    refused: bool  # the update must not be made
    score: float  # the larger robust z-score; inf for a value that is not finite
    reason: str  # "" where there is no spike
    loss: float
    norm: float


class SpikeRule:
    """Judges steps by those accepted before; a function of its history alone, so that a resumed run judges alike."""

    def __init__(self, window: int, warmup: int, threshold: float, action: str) -> None:
        self._window, self._warmup, self._threshold, self._action = window, warmup, threshold, action
        self._history: dict[str, deque[float]] = {name: deque(maxlen=window) for name in LEAST_SPREAD}

    def judge(self, loss: float, norm: float, since_change: int | None = None) -> Verdict:
        """The verdict over a step, which joins the history unless its update is refused.

        `since_change`: batches since the phase began that changed what a loss is of; None in a run's first phase. Less
        than `warmup`, a spike is the phase's new level. A value that is not finite is refused whatever the action: it
        would stay in the weights. The first `warmup` accepted steps are judged by that alone.
        """
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return Verdict(True, True, math.inf, f"loss {loss}, gradient norm {norm}: not finite", loss, norm)
        values = {"loss": loss, "norm": norm}
        scores = {name: self._score(name, value) for name, value in values.items()}
        name = max(scores, key=lambda each: scores[each])
        spike = scores[name] > self._threshold
        reason = self._reason(name, values[name], scores[name]) if spike else ""
        changed = since_change is not None and since_change < self._warmup
        refused = spike and self._action != "log" and not changed
        if spike and changed:
            reason += f"; {since_change} batches into a phase that is its level, and the history begins anew"
            self.load_state_dict({})
        if not refused:
            for each, value in values.items():
                self._history[each].append(value)
        return Verdict(spike, refused, scores[name], reason, loss, norm)

    def _reason(self, name: str, value: float, score: float) -> str:
        history = self._history[name]
        what = "loss" if name == "loss" else "gradient norm"
        return (
            f"{what} {value:.4g}, {score:.1f} robust deviations above the trend of {len(history)} steps, "
            f"whose median is {median(history):.4g}"
        )

    def _score(self, name: str, value: float) -> float:
        history = list(self._history[name])
        if len(history) < self._warmup:
            return 0.0
        least = LEAST_SPREAD[name]
        if name == "norm":
            history, value = [math.log(max(each, TINY)) for each in history], math.log(max(value, TINY))
        else:
            least *= abs(median(history))
        slope = _slope(history)
        level = [each - slope * place for place, each in enumerate(history)]
        middle = median(level)
        spread = NORMAL * median(abs(each - middle) for each in level)
        return (value - middle - slope * len(history)) / max(spread, least, TINY)

    def state_dict(self) -> dict[str, Sequence[float]]:
        """The history, as JSON keeps it to the last bit."""
        return {name: list(values) for name, values in self._history.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Judge on as the rule did that gave `state`."""
        for name, values in self._history.items():
            values.clear()
            values.extend(state.get(name, ()))


def _slope(values: Sequence[float]) -> float:
    """Change a step: between the medians of the earlier and the later half."""
    half = len(values) // 2
    return (median(values[-half:]) - median(values[:half])) / (len(values) - half)

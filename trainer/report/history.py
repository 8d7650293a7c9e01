"""The history of a run, from the events of its metrics.jsonl, for the report."""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from trainer.report.charts import Line

__all__ = ["History", "build_history"]

COLUMNS = ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "mfu", "data_wait")


@dataclass
class History:
    """Curves and events; those of steps that a rewind took back are left out, as the run itself forgot them."""

    run: dict[str, Any] = field(default_factory=dict)
    # Quoted: array cannot be subscripted at run time before Python 3.12.
    steps: "array[float]" = field(default_factory=lambda: array("d"))
    columns: "dict[str, array[float]]" = field(default_factory=lambda: {name: array("d") for name in COLUMNS})
    norms: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    events: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    taken_back: int = 0  # steps that a rewind took back

    def of(self, event: str) -> list[dict[str, Any]]:
        """All events of a kind, in order."""
        return self.events.get(event, [])

    def line(self, column: str) -> Line:
        """A column as a curve; steps are shown as their number plus one: so many were done with it."""
        return Line(
            column.replace("_", " "),
            [(step + 1, value) for step, value in zip(self.steps, self.columns[column], strict=True) if value == value],
        )

    @property
    def done(self) -> int:
        """Steps done."""
        return int(self.steps[-1]) + 1 if self.steps else 0


def build_history(events: Iterable[dict[str, Any]]) -> History:
    """Build the history of the events; steps become columns of numbers, so that a million of them are some 60 MB."""
    history = History()
    for event in events:
        kind = event["event"]
        if kind == "run":
            history.run = event
        elif kind == "step":
            history.steps.append(event["step"])
            for name, column in history.columns.items():
                column.append(float(event.get(name, math.nan)))
            if event.get("layer_norms"):
                norms = {name: float(value) for name, value in event["layer_norms"].items()}
                history.norms.append((event["step"] + 1, norms))
        else:
            if kind == "rewind":
                _take_back(history, event["to"])
            history.events.setdefault(kind, []).append(event)
    return history


def _take_back(history: History, done: int) -> None:
    while history.steps and history.steps[-1] >= done:
        history.steps.pop()
        history.taken_back += 1
        for column in history.columns.values():
            column.pop()
    history.norms = [(step, norms) for step, norms in history.norms if step <= done]
    for kind in ("eval", "mixture", "sample"):
        history.events[kind] = [event for event in history.of(kind) if event["step"] <= done]

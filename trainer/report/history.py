"""What the events of a metrics.jsonl come to, for the report."""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from trainer.report.charts import Line

__all__ = ["Story", "gather"]

COLUMNS = ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "mfu", "data_wait")


@dataclass
class Story:
    """What the events come to: those of steps that a rewind took back are left out, as the run itself forgot them."""

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


def gather(events: Iterable[dict[str, Any]]) -> Story:
    """The story of the events; steps become columns of numbers, so that a million of them are some 60 MB."""
    story = Story()
    for event in events:
        kind = event["event"]
        if kind == "run":
            story.run = event
        elif kind == "step":
            story.steps.append(event["step"])
            for name, column in story.columns.items():
                column.append(float(event.get(name, math.nan)))
            if event.get("layer_norms"):
                norms = {name: float(value) for name, value in event["layer_norms"].items()}
                story.norms.append((event["step"] + 1, norms))
        else:
            if kind == "rewind":
                _take_back(story, event["to"])
            story.events.setdefault(kind, []).append(event)
    return story


def _take_back(story: Story, done: int) -> None:
    while story.steps and story.steps[-1] >= done:
        story.steps.pop()
        story.taken_back += 1
        for column in story.columns.values():
            column.pop()
    story.norms = [(step, norms) for step, norms in story.norms if step <= done]
    for kind in ("eval", "mixture", "sample"):
        story.events[kind] = [event for event in story.of(kind) if event["step"] <= done]

"""metrics.jsonl, the record of a run: written by the run's logger, read by its report.

It is the run's only record: one JSON object a line, with `event` and `step`, in the order in which things
happened; report.html is written from it alone. `step` is the number of the step that an event is about (`step`,
`spike`, `skip`, `lost`), or how many steps were done when it happened (all others). The events and their fields:

- run: name, seed, steps, parameters, flops_per_token, world, device (as named by the driver), config (text), datasets
  [{name, uri, generation, order_digest}], sources {name: {weight (share), tokens (in the shards)}}. One a start.
- step: loss, learning_rate, gradient_norm, tokens (targets of the step); on logging steps tokens_per_second, data_wait
  (share of the time), mfu (share; only on a known device), seconds_left; at intervals layer_norms {name: norm}.
- eval: sets {name: {loss, perplexity, bits_per_byte}}.
- mixture: sources {name: {tokens (trained so far), epochs}}.
- spike: batch, loss, gradient_norm, score, reason, action (log, skip, rewind), documents [{url, source, id}],
  num_documents.
- skip: batch, reason. rewind: to (steps done there), checkpoint, batches (skipped from now on). lost: shard, source,
  reason. checkpoint: path, seconds, bytes. resume: checkpoint, world, note. sample: prompt, text.
- end: reason ("finished" or "stopped"), cause (steps, data or signal: what ended it).

Numbers that are not finite are the strings "nan", "inf", "-inf", because JSON has none; `float` reads them.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["METRICS", "Metrics", "cut_back", "read_events"]

METRICS = "metrics.jsonl"
EVENTS = (
    "run", "step", "eval", "mixture", "spike", "skip", "rewind", "lost", "checkpoint", "resume", "sample", "end",
)  # fmt: skip


class Metrics:
    """The record of a run in its folder; only rank 0 has one.

    `done`: how many steps the state has trained that the run goes on from, 0 for a new run. What the file holds beyond
    that point is cut off first, so that no curve doubles back.
    """

    def __init__(self, folder: str | Path, done: int = 0) -> None:
        self.path = Path(folder) / METRICS
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_back(self.path, done)
        self._file = self.path.open("ab", buffering=0)

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one event; it is with the operating system when this returns, so a killed run keeps it.

        Raises ValueError for an event that the head of this file does not name.
        """
        if event not in EVENTS:
            raise ValueError(f"{event!r}: an event of metrics.jsonl is one of {', '.join(EVENTS)}")
        line = {"event": event, "step": step, "time": round(time.time(), 3), **values}
        # One write of one line: a kill leaves whole lines and at most one torn end.
        self._file.write(json.dumps(_as_json(line), ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


# ---------------------------------------------------------------- the file


def read_events(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a metrics.jsonl in order. A torn last line (the run was killed) is left out.

    Raises ValueError for any other line that is no event, naming file and line.
    """
    for _, event in _lines(Path(path)):
        yield event


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(bytes up to the end of the line, event)."""
    end = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            end += len(line)
            try:
                event = json.loads(line)
                if event["event"] not in EVENTS or not isinstance(event["step"], int):
                    raise KeyError(event["event"])
            except (ValueError, KeyError, TypeError):
                raise ValueError(
                    f"{path}:{number}: not an event of a training run: move the file away to start a new record"
                ) from None
            yield end, event


def cut_back(path: str | Path, done: int) -> None:
    """Cut the file after the last point at which the run had done `done` steps (or fewer, between log lines).

    The last one, because a rewind passes the same point again, and its history (the spike, what is skipped) is then
    part of the state that the run goes on from. Nothing happens where there is no file.
    """
    path = Path(path)
    if not path.exists():
        return
    keep, now, place = 0, 0, {"step": lambda e: e["step"] + 1, "rewind": lambda e: e["to"]}
    for end, event in _lines(path):
        now = place[event["event"]](event) if event["event"] in place else now
        if now <= done:
            keep = end
    if keep < path.stat().st_size:
        os.truncate(path, keep)


def _as_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): _as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(entry) for entry in value]
    return value

"""What a run says while it trains: a line on the terminal, metrics.jsonl, TensorBoard files.

metrics.jsonl is the run's only record: one JSON object a line, with `event` and `step`, in the order in which things
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
- end: reason ("finished" or "stopped").

Numbers that are not finite are the strings "nan", "inf", "-inf", because JSON has none; `float` reads them.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from schemas.text_format import brief, duration

__all__ = ["Meter", "Metrics", "cut_back", "log_line", "read_events"]

METRICS = "metrics.jsonl"
EVENTS = (
    "run", "step", "eval", "mixture", "spike", "skip", "rewind", "lost", "checkpoint", "resume", "sample", "end",
)  # fmt: skip


class Metrics:
    """The record of a run in its folder; only rank 0 has one.

    `done`: how many steps the state has trained that the run goes on from, 0 for a new run. What the file holds beyond
    that point is cut off first, so that no curve doubles back.
    """

    def __init__(self, folder: str | Path, done: int = 0, tensorboard: bool = True) -> None:
        self.path = Path(folder) / METRICS
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_back(self.path, done)
        self._file = self.path.open("ab", buffering=0)
        self._board = _Board(self.path.parent / "tensorboard", done) if tensorboard else None

    def write(self, event: str, step: int, **values: Any) -> None:
        """Append one event; it is with the operating system when this returns, so a killed run keeps it.

        Raises ValueError for an event that the head of this file does not name.
        """
        if event not in EVENTS:
            raise ValueError(f"{event!r}: an event of metrics.jsonl is one of {', '.join(EVENTS)}")
        line = {"event": event, "step": step, "time": round(time.time(), 3), **values}
        # One write of one line: a kill leaves whole lines and at most one torn end.
        self._file.write(json.dumps(_as_json(line), ensure_ascii=False, allow_nan=False).encode() + b"\n")
        if self._board is not None:
            self._board.write(event, step, values)

    def close(self) -> None:
        """Close the file and flush TensorBoard's."""
        self._file.close()
        if self._board is not None:
            self._board.close()


class _Board:
    """The same numbers as TensorBoard files."""

    def __init__(self, folder: Path, done: int) -> None:
        self.folder = folder
        self._open(done)

    def _open(self, done: int) -> None:
        # Imported here: it takes a second, and a run without TensorBoard need not have it installed.
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard then leaves out what earlier files of this folder hold from that step on.
        self.writer = SummaryWriter(str(self.folder), purge_step=done)  # type: ignore[no-untyped-call]

    def write(self, event: str, step: int, values: Mapping[str, Any]) -> None:
        if event == "rewind":
            self.close()
            self._open(values["to"])
        for name, value in _scalars(event, values):
            self.writer.add_scalar(name, value, step)  # type: ignore[no-untyped-call]
        if event == "sample":
            text = f"**{values['prompt']}**{values['text']}"
            self.writer.add_text("sample", text, step)  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self.writer.close()  # type: ignore[no-untyped-call]


def _scalars(event: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    if event == "step":
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "seconds_left":
                yield f"train/{name}", value
        for name, norm in values.get("layer_norms", {}).items():
            yield f"layer_norms/{name}", norm
    for kind, column in (("eval", "sets"), ("mixture", "sources")):
        if event == kind:
            for name, numbers in values[column].items():
                yield from ((f"{kind}/{name}/{key}", value) for key, value in numbers.items() if value is not None)


# ---------------------------------------------------------------- the file


def read_events(path: str | Path) -> Iterator[dict[str, Any]]:
    """The events of a metrics.jsonl in order. A torn last line (the run was killed) is left out.

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

    The last one, because a rewind passes the same point again, and its story (the spike, what is skipped) is then
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


# ---------------------------------------------------------------- speed, and the line


class Meter:
    """Adds up tokens, time and time waiting for data between two log lines.

    `peak_flops`: FLOP/s of all devices together, None where a device is unknown: then there is no MFU.
    """

    def __init__(
        self, flops_per_token: int, peak_flops: float | None, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self.flops_per_token, self.peak_flops, self.now = flops_per_token, peak_flops, now
        self.tokens, self.steps, self.waited, self.away = 0, 0, 0.0, 0.0
        self.began = now()
        self.pace: tuple[float, int] | None = None  # time and steps of all intervals but the first

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the call that gets the next batch."""
        before = self.now()
        yield
        self.waited += self.now() - before

    @contextmanager
    def other_work(self) -> Iterator[None]:
        """Around what is no training (evaluation, samples): tokens a second and MFU leave it out, the time left not."""
        before = self.now()
        yield
        self.away += self.now() - before

    def add(self, tokens: int) -> None:
        """One step is done, with this many tokens of the global batch."""
        self.tokens += tokens
        self.steps += 1

    def read(self, steps_to_go: int) -> dict[str, float | int]:
        """tokens, tokens_per_second, data_wait, seconds_left, and mfu where known; begins the next interval.

        The first interval holds compilation and does not enter the time left once there is another.
        """
        elapsed = self.now() - self.began
        busy = max(elapsed - self.away, 1e-9)
        speed = self.tokens / busy
        values: dict[str, float | int] = {
            "tokens": self.tokens, "tokens_per_second": speed, "data_wait": min(self.waited / busy, 1.0),
        }  # fmt: skip
        if self.peak_flops is not None:
            values["mfu"] = speed * self.flops_per_token / self.peak_flops
        pace = elapsed / max(self.steps, 1)
        if self.pace is not None:
            self.pace = (self.pace[0] + elapsed, self.pace[1] + self.steps)
            pace = self.pace[0] / max(self.pace[1], 1)
        else:
            self.pace = (0.0, 0)
        values["seconds_left"] = pace * steps_to_go
        self.began += elapsed
        self.tokens, self.steps, self.waited, self.away = 0, 0, 0.0, 0.0
        return values


def log_line(step: int, steps: int | None, values: Mapping[str, Any]) -> str:
    """The line of a logging step, of the fields of a `step` event: what is not there is not shown."""
    total = f"/{steps:,}" if steps is not None else ""
    parts = [f"step {f'{step:,}':>{len(f'{steps or 0:,}')}}{total}"]
    for name, write in LINE:
        if values.get(name) is not None:
            parts.append(write(values[name]))
    return "  ".join(parts)


LINE: tuple[tuple[str, Callable[[Any], str]], ...] = (
    ("loss", lambda value: f"loss {value:.4f}"),
    ("learning_rate", lambda value: f"lr {value:.2e}"),
    ("gradient_norm", lambda value: f"norm {value:.3f}"),
    ("tokens_per_second", lambda value: f"{brief(value)} tok/s"),
    ("mfu", lambda value: f"MFU {100 * value:.1f}%"),
    ("data_wait", lambda value: f"data {100 * value:.1f}%"),
    ("seconds_left", lambda value: f"{duration(value)} left"),
)

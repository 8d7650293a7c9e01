"""What a run logs, and where it is written: the terminal, metrics.jsonl, TensorBoard; by rank 0 alone.

Every rank has a RunLogger, so that the loop does not ask which rank it is; those of the others have no sinks. A sink
takes every event of report/metrics.py: an experiment tracker is one more class with `write`
and `close`, and a line in `open_sinks`.
"""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch

from schemas.text_format import brief, duration
from trainer.checkpoint.checkpointer import Loaded, Saved
from trainer.checkpoint.run_state import RunState, differences
from trainer.distributed.mesh import World
from trainer.evaluate.perplexity import Score
from trainer.lineage.document_steps import documents_of_rows
from trainer.model.transformer import flops_per_token, num_parameters
from trainer.monitor.loss_spikes import Verdict
from trainer.monitor.tensorboard import TensorBoard
from trainer.monitor.watchdog import shutdown_warning
from trainer.order.batch_order import Order
from trainer.report.html import write_report
from trainer.report.metrics import Metrics
from trainer.resolve import Resolved

__all__ = ["RunLogger", "Sink", "log_line"]

NAMED_DOCUMENTS = 40


class Sink(Protocol):
    """Where events are written."""

    def write(self, event: str, step: int, **values: Any) -> None:
        """Write one event."""

    def close(self) -> None:
        """Write what is still held back."""


def open_sinks(run: Resolved, done: int) -> list[Sink]:
    """Open the places of a run's events; `done`: steps of the state that it goes on from."""
    config = run.config
    board = [TensorBoard(f"{config.output}/tensorboard", done)] if config.log.tensorboard else []
    return [Metrics(config.output, done), *board]


class RunLogger:
    """Logs what happens; see the head of this file."""

    def __init__(self, run: Resolved, world: World) -> None:
        self._run, self._world = run, world
        self._sinks: list[Sink] = []
        self._without_validation = False  # reported once

    def close(self) -> None:
        """Close the sinks and write the report."""
        for sink in self._sinks:
            sink.close()
        if self._sinks:
            self.report()
        self._sinks = []

    def line(self, text: str) -> None:
        """Print one line on the terminal."""
        if self._world.is_main:
            print(text, file=sys.stderr, flush=True)

    def event(self, event: str, step: int, **values: Any) -> None:
        """Write one event to every sink."""
        for sink in self._sinks:
            sink.write(event, step, **values)

    def report(self) -> None:
        """Write report.html of what is known so far."""
        if self._world.is_main:
            write_report(self._run.config.output)

    # ------------------------------------------------------------ the run

    def started(self, state: RunState, order: Order) -> None:
        """Open the sinks: the run begins, or goes on, from a state."""
        run, config = self._run, self._run.config
        if self._world.is_main:
            self._sinks = open_sinks(run, state.step)
        name = torch.cuda.get_device_name(self._world.device) if self._world.device.type == "cuda" else "cpu"
        self.event(
            "run",
            state.step,
            name=config.name,
            seed=config.seed,
            steps=run.steps,
            parameters=num_parameters(run.model),
            flops_per_token=flops_per_token(run.model, config.data.sequence_length),
            world=self._world.size,
            device=name,
            config=config.model_dump_json(),
            datasets=[
                {"name": d.name, "uri": d.uri, "generation": d.generation, "order_digest": d.order_digest}
                for d in run.datasets
            ],
            sources=_sources(run),
        )
        size = run.phases[0].global_batch * run.phases[0].sequence_length
        self.line(
            f"{config.name}: {num_parameters(run.model):,} parameters, {run.steps:,} steps of {size:,} tokens, "
            f"{self._world.size} x {name}"
        )
        for key, rule in run.rules.items():
            self.line(f"  {key}: {rule}")
        for each in order.left_out():
            if each.batch < run.steps:
                self.line(f"  {each.line()}")

    def resumed(self, state: RunState, found: Loaded) -> None:
        """A checkpoint was loaded."""
        for line in found.skipped:
            self.line(f"skipped {line}")
        ranks = f"{found.world} process{'es' * (found.world > 1)}"
        self.line(f"resumed after {state.step:,} steps from {found.path}, written by {ranks}")
        changed = differences("", dict(found.extra["settings"]), dict(state.settings))
        for line in changed:
            self.line(f"  {line}")
        notes = "; ".join([*found.skipped, *changed])
        self.event("resume", state.step, checkpoint=found.path, world=found.world, note=notes)

    def saved(self, checkpoints: Sequence[Saved]) -> None:
        """Checkpoints were completed."""
        for each in checkpoints:
            self.event("checkpoint", each.step, path=each.path, seconds=each.seconds, bytes=each.bytes)
            if (warning := shutdown_warning(each.seconds)) is not None:
                self.line(warning)

    def ended(self, state: RunState, cause: str) -> None:
        """The run ends, by its `steps`, its `data` or a `signal`."""
        reason = "stopped" if cause == "signal" else "finished"
        self.event("end", state.step, reason=reason, cause=cause)
        words = {"steps": "finished", "data": "finished (the data ended)", "signal": "stopped by a signal"}
        self.line(f"{words[cause]} after {state.step:,} steps; report: {self._run.config.output}/report.html")

    # ------------------------------------------------------------ a step

    def step(self, step: int, values: Mapping[str, Any]) -> None:
        """A step is done: its numbers, and at logging steps the line with speed and time left."""
        if "tokens_per_second" in values:
            self.line(log_line(step, self._run.steps, values))
        self.event("step", step, **values)

    def evaluated(
        self, state: RunState, order: Order, scores: Mapping[str, Score], samples: Iterable[tuple[str, str]]
    ) -> None:
        """The model was measured: validation loss, samples of text, the mixture so far."""
        sets = {
            name: {
                "loss": score.loss,
                "perplexity": score.perplexity_without_stride,
                "bits_per_byte": score.bits_per_byte,
            }
            for name, score in scores.items()
        }
        if sets:
            self.event("eval", state.step, sets=sets)
        elif not self._without_validation:
            self._without_validation = True
            self.line("  no validation: the dataset has no validation documents, and evaluate.files names none")
        for name, score in scores.items():
            self.line(f"  validation {name}: loss {score.loss:.4f}, {score.bits_per_byte:.4f} bits a byte")
        for prompt, text in samples:
            self.event("sample", state.step, prompt=prompt, text=text)
            self.line(f"  | {prompt}{' '.join(text.split())[:160]}")
        sources = {
            name: {"tokens": state.tokens.get(name, 0), "epochs": each.epochs}
            for name, each in order.consumed(state.batch).items()
        }
        self.event("mixture", state.step, sources=sources)
        self.report()

    # ------------------------------------------------------------ what goes wrong

    def spike(self, step: int, batch: int, order: Order, sequences: Sequence[int], verdict: Verdict) -> None:
        """Name the documents behind a spike: those of the sequences with the highest loss."""
        self.line(f"spike at step {step:,}, batch {batch:,}: {verdict.reason}")
        if not self._world.is_main:
            return
        found = documents_of_rows(self._run.datasets, order, order.batch(batch), sequences)
        documents = [{"url": each.url, "source": each.source, "id": each.doc_id} for each in found[:NAMED_DOCUMENTS]]
        for each in documents[:5]:
            self.line(f"  {each['source']}  {each['url'] or each['id']}")
        self.event(
            "spike",
            step,
            batch=batch,
            loss=verdict.loss,
            gradient_norm=verdict.norm,
            score=verdict.score,
            reason=verdict.reason,
            action=self._run.config.spikes.action if verdict.refused else "log",
            documents=documents,
            num_documents=len(found),
        )

    def skipped(self, step: int, batch: int, reason: str) -> None:
        """A batch was skipped."""
        self.line(f"batch {batch:,} is skipped")
        self.event("skip", step, batch=batch, reason=reason)

    def rewound(self, state: RunState, found: Loaded, batches: Sequence[int]) -> None:
        """The run went back."""
        self.line(f"back to step {state.step:,} ({found.path}), past batches {batches[0]:,} to {batches[-1]:,}")
        self.event("rewind", state.step, to=state.step, checkpoint=found.path, batches=list(batches))

    def lost(self, step: int, digests: Iterable[str], order: Order) -> None:
        """Shards, by their sha256, stay bad, and the run goes on without them."""
        for sha256 in digests:
            source = order.shards.source_of(sha256)
            self.line(f"shard {sha256[:16]} of {source} is lost: its samples have no targets from here on")
            self.event("lost", step, shard=sha256, source=source)


def _sources(run: Resolved) -> dict[str, dict[str, float]]:
    """The weight of each source in the first phase, and the tokens that its shards hold."""
    phase = run.phases[0]
    shards, total = phase.shards, sum(float(weight) for weight in phase.weights.values())
    held = {name: int(shards.tokens_N[shards.source_N == n].sum()) for n, name in enumerate(shards.sources)}
    return {name: {"weight": float(weight) / total, "tokens": held[name]} for name, weight in phase.weights.items()}


def log_line(step: int, steps: int | None, values: Mapping[str, Any]) -> str:
    """Format the line of a logging step from the fields of a `step` event: what is not there is not shown."""
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

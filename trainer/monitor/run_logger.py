"""What a run tells: on the terminal, in metrics.jsonl and TensorBoard, to the watchdog; and what it measures for it.

Every rank has a Teller, because layer norms, a spike's rows, validation and samples are computed by all ranks; only
rank 0 writes. B rows of this rank's batch, T positions.
"""

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainer.checkpoint.checkpointer import Loaded, Saved
from trainer.checkpoint.run_state import RunState, differences
from trainer.data.token_stream import TokenBatch
from trainer.distributed.parallelize import World, inference, local_part
from trainer.estimate.accelerators import find_device
from trainer.evaluate.perplexity import Score, Text, Windows, evaluate, file_texts, validation_texts
from trainer.evaluate.sampling import Sampling, generate_text, load_tokenizer
from trainer.lineage.document_steps import documents_of_rows
from trainer.model.transformer import IGNORED, flops_per_token, num_parameters, parameter_name
from trainer.monitor.loss_spikes import Verdict
from trainer.monitor.watchdog import Watchdog, connect_store, shutdown_warning
from trainer.order.batch_order import Batch, Order
from trainer.report.html import write_report
from trainer.report.metrics import Meter, Metrics, log_line
from trainer.resolve import Resolved

__all__ = ["Teller", "validation_sets"]

NAMED_ROWS = 8  # rows of a spike whose documents are named: those with the highest loss
NAMED_DOCUMENTS = 40


class Teller:
    """Tells what happens; see the head of this file and of report/metrics.py."""

    def __init__(self, run: Resolved, world: World) -> None:
        self._run, self._world = run, world
        options, folder = run.config.log, run.config.output
        self._metrics: Metrics | None = None
        device = find_device(torch.cuda.get_device_name(world.device)) if world.device.type == "cuda" else None
        peak = device.flops_per_second * world.size if device else None
        self._meter = Meter(flops_per_token(run.model, run.config.data.sequence_length), peak)
        self._watchdog = Watchdog(options.hang_seconds, folder, world.rank, world.size, connect_store())
        self._copies = tempfile.TemporaryDirectory(prefix="gristmill-validation-")
        self._sets: tuple[list[Text], Windows] | None = None

    def close(self) -> None:
        """Stop looking on, close what is written."""
        self._watchdog.close()
        self._copies.cleanup()
        if self._metrics is not None:
            self._metrics.close()
            self.report()

    def say(self, line: str) -> None:
        """One line on the terminal."""
        if self._world.leads:
            print(line, file=sys.stderr, flush=True)

    def _event(self, event: str, step: int, **values: Any) -> None:
        if self._metrics is not None:
            self._metrics.write(event, step, **values)

    def report(self) -> None:
        """Write report.html of what is known so far."""
        if self._world.leads:
            write_report(self._run.config.output)

    # ------------------------------------------------------------ the run

    def start(self, state: RunState, order: Order) -> None:
        """The run begins, or goes on, from a state."""
        run, config = self._run, self._run.config
        if self._world.leads:
            self._metrics = Metrics(config.output, state.step, config.log.tensorboard)
        weights = _shares(run.phases[0].weights)
        shards = run.phases[0].shards
        held = {name: int(shards.tokens_N[shards.source_N == n].sum()) for n, name in enumerate(shards.sources)}
        name = torch.cuda.get_device_name(self._world.device) if self._world.device.type == "cuda" else "cpu"
        self._event(
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
            sources={name: {"weight": share, "tokens": held[name]} for name, share in weights.items()},
        )
        size = run.phases[0].global_batch * run.phases[0].sequence_length
        self.say(
            f"{config.name}: {num_parameters(run.model):,} parameters, {run.steps:,} steps of {size:,} tokens, "
            f"{self._world.size} x {name}"
        )
        for key, rule in run.rules.items():
            self.say(f"  {key}: {rule}")
        for each in order.left_out():
            if each.batch < run.steps:
                self.say(f"  {each.line()}")

    def resumed(self, state: RunState, found: Loaded) -> None:
        """A checkpoint was taken up."""
        for line in found.passed_over:
            self.say(f"passed over {line}")
        ranks = f"{found.world} process{'es' * (found.world > 1)}"
        self.say(f"goes on after {state.step:,} steps from {found.path}, written by {ranks}")
        changed = differences("", dict(found.extra["settings"]), dict(state.settings))
        for line in changed:
            self.say(f"  {line}")
        notes = "; ".join([*found.passed_over, *changed])
        self._event("resume", state.step, checkpoint=found.path, world=found.world, note=notes)

    def saved(self, checkpoints: Sequence[Saved]) -> None:
        """Checkpoints were completed."""
        for each in checkpoints:
            self._event("checkpoint", each.step, path=each.path, seconds=each.seconds, bytes=each.bytes)
            if (warning := shutdown_warning(each.seconds)) is not None:
                self.say(warning)

    def ended(self, state: RunState, reason: str) -> None:
        """The run stops."""
        self._event("end", state.step, reason="finished" if state.step >= self._run.steps else "stopped")
        self.say(f"{reason} after {state.step:,} steps; report: {self._run.config.output}/report.html")

    # ------------------------------------------------------------ a step

    @contextlib.contextmanager
    def waiting(self, step: int) -> Iterator[None]:
        """Around the call that gets the next batch."""
        self._watchdog.beat(step, "data")
        with self._meter.waiting():
            yield

    def phase(self, step: int, name: str) -> None:
        """The step comes to its next part."""
        self._watchdog.beat(step, name)

    def step(
        self, state: RunState, loss: float, norm: float, rate: float, tokens: int, norms: dict[str, float]
    ) -> None:
        """A step is done: its numbers, and at logging steps the line with speed and time left."""
        self._meter.add(tokens)
        step, every = state.step - 1, self._run.config.log.every
        values: dict[str, Any] = {"loss": loss, "learning_rate": rate, "gradient_norm": norm}
        # Steps count from 0 here as in `documents --step` and in metrics.jsonl.
        if step % every == 0 or state.step == self._run.steps:
            values |= self._meter.read(self._run.steps - state.step)
            self.say(log_line(step, self._run.steps, values))
        if norms:
            values["layer_norms"] = norms
        self._event("step", step, **(values | {"tokens": tokens}))

    def layer_norms(self, model: nn.Module, step: int) -> dict[str, float]:
        """The norm of each layer's gradient, where it is due; {} elsewhere."""
        every = self._run.config.log.layer_norms_every
        if every is None or step % every:
            return {}
        squares: dict[str, Tensor] = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                layer = _layer(parameter_name(name))
                squares[layer] = squares.get(layer, 0) + _square(parameter.grad)  # type: ignore[operator]
        total = self._world.total(torch.stack(list(squares.values())))
        copies = self._run.config.parallel.replicas
        return dict(zip(squares, (total / copies).sqrt().tolist(), strict=True))

    # ------------------------------------------------------------ what goes wrong

    def spike(
        self, model: nn.Module, batch: TokenBatch, whole: Batch, order: Order, step: int, verdict: Verdict
    ) -> None:
        """Name the documents behind a spike: those of the rows with the highest loss."""
        rows = self._worst_rows(model, batch)
        action = self._run.config.spikes.action if verdict.refused else "log"
        self.say(f"spike at step {step:,}, batch {batch.batch:,}: {verdict.reason}")
        if not self._world.leads:
            return
        found = documents_of_rows(self._run.datasets, order, whole, rows)
        documents = [{"url": each.url, "source": each.source, "id": each.doc_id} for each in found[:NAMED_DOCUMENTS]]
        for each in documents[:5]:
            self.say(f"  {each['source']}  {each['url'] or each['id']}")
        self._event(
            "spike",
            step,
            batch=batch.batch,
            loss=verdict.loss,
            gradient_norm=verdict.norm,
            score=verdict.score,
            reason=verdict.reason,
            action=action,
            documents=documents,
            num_documents=len(found),
        )

    def _worst_rows(self, model: nn.Module, batch: TokenBatch) -> list[int]:
        """Rows of the whole batch with the highest mean loss a token, found by one more forward pass."""
        losses: list[float] = []
        with inference(model):
            for part in batch.split(self._run.micro_batch):
                part = part.to(self._world.device)
                nats_BT = model(part.tokens_BT, part.targets_BT, part.positions_BT, part.documents_BT, each=True)
                counted_B = (part.targets_BT != IGNORED).sum(dim=1).clamp(min=1)
                losses += (nats_BT.sum(dim=1) / counted_B).nan_to_num(nan=float("inf")).tolist()
        every = [loss for part in self._world.gather(losses) for loss in part]
        return sorted(range(len(every)), key=lambda row: -every[row])[:NAMED_ROWS]

    def skipped(self, step: int, batch: int, reason: str) -> None:
        """A batch was passed over."""
        self.say(f"batch {batch:,} is skipped")
        self._event("skip", step, batch=batch, reason=reason)

    def rewound(self, state: RunState, found: Loaded, batches: Sequence[int]) -> None:
        """The run went back."""
        self.say(f"back to step {state.step:,} ({found.path}), past batches {batches[0]:,} to {batches[-1]:,}")
        self._event("rewind", state.step, to=state.step, checkpoint=found.path, batches=list(batches))

    def lost(self, step: int, digests: Iterable[str], order: Order) -> None:
        """Shards, by their sha256, stay bad, and the run goes on without them."""
        for sha256 in digests:
            source = order.shards.source_of(sha256)
            self.say(f"shard {sha256[:16]} of {source} is lost: its rows have no targets from here on")
            self._event("lost", step, shard=sha256, source=source)

    # ------------------------------------------------------------ evaluation

    def evaluate(self, model: Any, order: Order, state: RunState) -> dict[str, Score]:
        """Validation loss, samples of text, the mixture so far; all ranks take part."""
        beat = partial(self._watchdog.beat, state.step, "evaluate")
        beat()
        with self._meter.other_work():
            if self._sets is None:
                self._sets = validation_sets(self._run, self._copies.name)
            texts, windows = self._sets
            scores = evaluate(model, texts, self._world, windows, beat)
            self._tell_scores(state.step, scores)
            self._tell_samples(model, state.step, beat)
            consumed = order.consumed(state.batch)
            self._event(
                "mixture",
                state.step,
                sources={
                    name: {"tokens": state.tokens.get(name, 0), "epochs": each.epochs}
                    for name, each in consumed.items()
                },
            )
            self.report()
        return scores

    def _tell_scores(self, step: int, scores: Mapping[str, Score]) -> None:
        sets = {
            name: {
                "loss": score.loss,
                "perplexity": score.perplexity_without_stride,
                "bits_per_byte": score.bits_per_byte,
            }
            for name, score in scores.items()
        }
        self._event("eval", step, sets=sets)
        for name, score in scores.items():
            self.say(f"  validation {name}: loss {score.loss:.4f}, {score.bits_per_byte:.4f} bits a byte")

    def _tell_samples(self, model: Any, step: int, beat: Callable[[], None]) -> None:
        options, dataset = self._run.config.evaluate, self._run.datasets[0]
        if not options.prompts:
            return
        texts = generate_text(
            model,
            load_tokenizer(dataset.tokenizer),
            options.prompts,
            dataset.end_of_text,
            Sampling(max_tokens=options.new_tokens, temperature=options.temperature),
            seed=self._run.config.seed,
            step=step,
            beat=beat,
        )
        for prompt, text in zip(options.prompts, texts, strict=True):
            self._event("sample", step, prompt=prompt, text=text)
            self.say(f"  | {prompt}{' '.join(text.split())[:160]}")


def validation_sets(run: Resolved, copies: str) -> tuple[list[Text], Windows]:
    """What a run is measured on, and how it is cut; remote shards are copied into the folder `copies`."""
    config, first = run.config, run.datasets[0]
    texts = []
    for dataset in {each.name: each for each in reversed(run.datasets)}.values():
        found = validation_texts(dataset.dataset, config.evaluate.max_tokens, copies)
        texts += [_named(text, dataset.name) for text in found]
    if config.evaluate.files:
        texts += file_texts(config.evaluate.files, load_tokenizer(first.tokenizer), first.end_of_text)
    batch = run.micro_batch or max(1, min(8, 8192 // config.data.sequence_length))
    windows = Windows(config.data.sequence_length, batch, first.end_of_text, first.special_ids, config.data.mask)
    return texts, windows


def _named(text: Text, dataset: str) -> Text:
    """A source's text under the name that it has in a run of several datasets."""
    return Text(f"{dataset}:{text.name}", text.num_tokens, text.num_bytes, text.pieces) if dataset else text


def _shares(weights: Mapping[str, str]) -> dict[str, float]:
    total = sum(float(weight) for weight in weights.values())
    return {name: float(weight) / total for name, weight in weights.items()}


def _layer(name: str) -> str:
    """`layers.3` of `layers.3.mlp.up_proj.weight`; the module of any other parameter."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "layers" else parts[0]


def _square(gradient: Tensor) -> Tensor:
    """The sum of squares of this rank's part."""
    local = local_part(gradient)
    return local.float().square().sum()

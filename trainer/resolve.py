"""What a configuration and its datasets come to: phases, model, steps, rates; every open choice made by a stated rule.

`train` runs what is resolved here and `plan` prints it, so that both speak of the same run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from schemas.config_model import ConfigError, file_of
from schemas.manifest import DatasetError
from trainer.config import Config, Data, PhaseChange
from trainer.data.packed_row_counts import with_packed_rows
from trainer.data.train_split import TrainSplit, open_train_split
from trainer.evaluate.perplexity import read_text
from trainer.evaluate.sampling import load_tokenizer
from trainer.model.huggingface import read_config
from trainer.model.start_from import check_tokenizer, started_model
from trainer.model.transformer import ModelConfig, flops_per_token
from trainer.optim.lr_schedule import Schedule
from trainer.optim.optimizers import default_batch_tokens, default_learning_rate
from trainer.order.batch_order import Order, Phase
from trainer.order.shard_table import Shards, concatenate

__all__ = ["Resolved", "check_files", "resolve"]

WHOLE = 64  # a vocabulary and a feed-forward are rounded up to a multiple of this, which matrix units like


@dataclass(frozen=True)
class Resolved:
    """A run with nothing left open."""

    config: Config
    world: int
    datasets: tuple[TrainSplit, ...]  # every generation that a phase reads, those of the first phase first
    phases: tuple[Phase, ...]
    model: ModelConfig
    schedule: Schedule
    rules: Mapping[str, str] = field(default_factory=dict)  # key: what was chosen, and why
    chosen: Mapping[str, Any] = field(default_factory=dict)  # key: value, of rules that depend on the run's length

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.schedule.steps

    @property
    def micro_batch(self) -> int | None:
        """Sequences a process takes at once; None: all its own."""
        return self.config.parallel.micro_batch

    @cached_property
    def evaluate_every(self) -> int:
        """Steps between evaluations."""
        return self.config.evaluate.every or max(1, self.steps // 20)

    def evaluation_due(self, step: int) -> bool:
        """Whether the model is measured after `step` steps."""
        return step % self.evaluate_every == 0 or step == self.steps

    def checkpoint_due(self, step: int) -> bool:
        """Whether a checkpoint is begun after `step` steps; the last one is written when the run ends."""
        due = step % self.config.checkpoint.every == 0 or step == self.schedule.decay_start
        return due and step < self.steps

    def dtype(self, device: torch.device) -> torch.dtype:
        """What is computed in."""
        name = self.config.parallel.dtype or ("bfloat16" if device.type == "cuda" else "float32")
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]

    def order(self, skipped: tuple[int, ...] = ()) -> Order:
        """The order of samples."""
        return Order(self.config.seed, self.phases, skipped)


def resolve(config: Config, world: int = 1, known: Mapping[str, Any] | None = None) -> Resolved:
    """Open the datasets and decide what the configuration leaves open.

    `known`: the model in the run's newest checkpoint, which takes the place of the one in `model.start_from`.
    Raises ConfigError for a configuration that cannot be trained, DatasetError or StorageError for its data.
    """
    try:
        return _resolve(config, world, known)
    except DatasetError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from None


def check_files(run: Resolved, resumed: bool) -> None:
    """Open the files that a run starts from and is measured on, before its first step.

    Raises ConfigError, StorageError.
    """
    model = run.config.model
    if model.start_from is not None and model.check_tokenizer and not resumed:
        check_tokenizer(model.start_from, run.datasets[0].tokenizer)
    for name, uri in run.config.evaluate.files.items():
        with file_of(f"evaluate.files.{name}"):
            if any(name in phase.shards.sources for phase in run.phases):
                raise ValueError("this is the name of a source, which is measured too: choose another")
            read_text(uri)


def _resolve(config: Config, world: int, known: Mapping[str, Any] | None) -> Resolved:
    rules: dict[str, str] = {}
    opened: dict[tuple[str, int | None], TrainSplit] = {}
    shards = _shards(config.data, config.data.generation, opened)
    first = tuple(opened.values())
    model = _model(config, first, rules, known)
    batch = config.data.global_batch or _batch(config, model, shards, rules)
    _check_prompts(config, first[0], model)
    phases = _phases(config.data, batch, shards, opened, rules)
    _check_world(phases, world)
    steps = _steps(config, phases, rules)
    order = Order(config.seed, phases)  # which refuses weights and phases that cannot be
    if config.data.max_epochs and (last := order.last_batch()) is not None:
        steps = min(steps, last + 1)
    tokens = _tokens_until(phases, steps)
    peak = config.optimizer.learning_rate or _rate(model, phases, tokens, rules)
    schedule = _schedule(config, steps, peak, rules)
    values = {
        "data.global_batch": batch,
        "optimizer.learning_rate": peak,
        "schedule.warmup_steps": schedule.warmup_steps,
    }
    chosen = {key: value for key, value in values.items() if key in rules}
    return Resolved(config, world, tuple(opened.values()), phases, model, schedule, rules, chosen)


# ---------------------------------------------------------------- data


def _shards(data: Data, generation: Any, opened: dict[tuple[str, int | None], TrainSplit]) -> Shards:
    """The train shards of all datasets at a generation (a number, or one a dataset)."""
    named = data.datasets or {"": str(data.dataset)}
    if isinstance(generation, Mapping) and (unknown := set(generation) - set(named)):
        raise ValueError(f"data.generation names {sorted(unknown)[0]!r}, which is no dataset of data.datasets")
    found = []
    for name, uri in named.items():
        number = generation.get(name) if isinstance(generation, Mapping) else generation
        if (name, number) not in opened:
            dataset = open_train_split(uri, number, name or None)
            for length in _packed_lengths(data):
                dataset = with_packed_rows(dataset, length, data.cache.folder)
            opened[name, number] = dataset
        found.append(opened[name, number])
    tokenizers = {dataset.tokenizer_sha256 for dataset in found}
    if len(tokenizers) > 1:
        raise ValueError(
            f"data.datasets: {', '.join(named)} were encoded by different tokenizers: pack them with one tokenizer"
        )
    return found[0].shards if len(found) == 1 else concatenate([dataset.shards for dataset in found])


def _packed_lengths(data: Data) -> list[int]:
    """The sequence lengths at which any phase packs whole documents."""
    length, packing = data.sequence_length, data.packing
    found = {length} if packing == "documents" else set()
    for change in data.phases:
        length, packing = change.sequence_length or length, change.packing or packing
        found |= {length} if packing == "documents" else set()
    return sorted(found)


def _phases(
    data: Data, batch: int, shards: Shards, opened: dict[tuple[str, int | None], TrainSplit], rules: dict[str, str]
) -> tuple[Phase, ...]:
    first = Phase(
        start=0,
        global_batch=batch,
        sequence_length=data.sequence_length,
        packing=data.packing,
        weights=_texts(data.weights) or _by_tokens(shards, data.sequence_length, data.packing, rules),
        shards=shards,
        max_epochs=_texts(data.max_epochs),
        at_cap=data.at_cap,
    )
    phases = [first]
    for change in data.phases:
        phases.append(_changed(phases[-1], change, data, opened))
    return tuple(phases)


def _changed(before: Phase, change: PhaseChange, data: Data, opened: dict[tuple[str, int | None], TrainSplit]) -> Phase:
    return Phase(
        start=change.batch,
        global_batch=change.global_batch or before.global_batch,
        sequence_length=change.sequence_length or before.sequence_length,
        packing=change.packing or before.packing,
        weights=before.weights if change.weights is None else _texts(change.weights),
        shards=before.shards if change.generation is None else _shards(data, change.generation, opened),
        max_epochs=before.max_epochs if change.max_epochs is None else _texts(change.max_epochs),
        at_cap=change.at_cap or before.at_cap,
    )


def _texts(values: Mapping[str, float | int | str]) -> dict[str, str]:
    """Decimal texts: a number of YAML is taken by the digits that stand in the file."""
    return {name: value if isinstance(value, str) else repr(value) for name, value in values.items()}


def _by_tokens(shards: Shards, sequence_length: int, packing: str, rules: dict[str, str]) -> dict[str, str]:
    """Each source by its tokens, so that all of it is seen equally often."""
    counts = np.bincount(shards.source_N, shards.rows(sequence_length, packing), len(shards.sources)).astype(np.int64)
    weights = {name: str(count) for name, count in zip(shards.sources, counts.tolist(), strict=True) if count}
    if not weights:
        raise ValueError(
            f"data.sequence_length={sequence_length}: no shard of split train holds that many tokens: shorten it"
        )
    rules["data.weights"] = "by the sources' tokens"
    return weights


def _check_world(phases: tuple[Phase, ...], world: int) -> None:
    for phase in phases:
        if phase.global_batch % world:
            raise ValueError(
                f"global_batch={phase.global_batch} (from batch {phase.start} on) is not divided by the {world} "
                "processes: choose a multiple, or another number of processes"
            )


# ---------------------------------------------------------------- model


def _model(
    config: Config, datasets: tuple[TrainSplit, ...], rules: dict[str, str], known: Mapping[str, Any] | None
) -> ModelConfig:
    shape, vocabulary = config.model, max(dataset.vocab_size for dataset in datasets)
    longest = max([config.data.sequence_length, *(change.sequence_length or 0 for change in config.data.phases)])
    if shape.start_from is not None:
        base = ModelConfig(**{**known, "attention": shape.attention}) if known else None
        model = started_model(shape, base or read_config(shape.start_from, shape.attention), longest)
        vocab_size = model.vocab_size
    else:
        vocab_size = shape.vocab_size or _round_up(vocabulary, rules, "model.vocab_size", "the dataset's")
        model = ModelConfig(
            vocab_size=vocab_size,
            dim=shape.dim,
            layers=shape.layers,
            heads=shape.heads,
            kv_heads=shape.kv_heads or 0,
            head_dim=shape.head_dim or 0,
            ffn_dim=shape.ffn_dim or _round_up(math.ceil(8 * shape.dim / 3), rules, "model.ffn_dim", "8/3 dim"),
            rope_theta=shape.rope_theta,
            rope_scaling=shape.rope_scaling,
            norm_eps=shape.norm_eps,
            qk_norm=shape.qk_norm,
            tied=shape.tied,
            max_positions=longest,
            attention=shape.attention,
        )
    if vocabulary > vocab_size:
        raise ValueError(
            f"model.vocab_size={vocab_size}, but the dataset's tokens go up to {vocabulary - 1}: raise it to "
            f"{vocabulary} or more, or leave it out"
        )
    return model


def _check_prompts(config: Config, dataset: TrainSplit, model: ModelConfig) -> None:
    """Samples of text must fit into a sequence: found out here, not at the first evaluation."""
    if not config.evaluate.prompts:
        return
    tokenizer = load_tokenizer(dataset.tokenizer)
    for prompt in config.evaluate.prompts:
        tokens = 1 + len(tokenizer.encode(prompt, add_special_tokens=False).ids)
        if tokens + config.evaluate.new_tokens > model.max_positions:
            raise ValueError(
                f"evaluate.prompts: {prompt[:40]!r} has {tokens} tokens, and with evaluate.new_tokens="
                f"{config.evaluate.new_tokens} it exceeds the sequence of {model.max_positions}: shorten one of them"
            )


def _round_up(number: int, rules: dict[str, str], key: str, what: str) -> int:
    chosen = -(-number // WHOLE) * WHOLE
    rules[key] = f"{chosen}: {what}, up to a multiple of {WHOLE}"
    return chosen


# ---------------------------------------------------------------- how much, and how fast


def _one_epoch(config: Config, shards: Shards) -> int:
    return int(shards.rows(config.data.sequence_length, config.data.packing).sum()) * config.data.sequence_length


def _compute(config: Config, model: ModelConfig, tokens: float) -> float:
    return flops_per_token(model, config.data.sequence_length) * tokens


def _batch(config: Config, model: ModelConfig, shards: Shards, rules: dict[str, str]) -> int:
    """A power of two, so that it does not depend on the number of processes and most of them divide it."""
    compute = _compute(config, model, config.schedule.tokens or _one_epoch(config, shards))
    wanted = max(1.0, default_batch_tokens(compute) / config.data.sequence_length)
    chosen = 1 << round(math.log2(wanted))
    rules["data.global_batch"] = f"{chosen}: 0.2920 C^0.3271 tokens (DeepSeek LLM), as a power of two"
    return chosen


def _steps(config: Config, phases: tuple[Phase, ...], rules: dict[str, str]) -> int:
    if config.schedule.steps is not None:
        return config.schedule.steps
    tokens = config.schedule.tokens
    if tokens is None:
        tokens = _one_epoch(config, phases[0].shards)
        rules["schedule.steps"] = f"one epoch of the data, {tokens:,} tokens"
    done, step = 0, 0
    for number, phase in enumerate(phases):
        size = phase.global_batch * phase.sequence_length
        until = phases[number + 1].start if number + 1 < len(phases) else None
        needed = math.floor((tokens - done) / size)
        step = phase.start + needed if until is None else min(until, phase.start + needed)
        done += (step - phase.start) * size
        if until is None or step < until:
            break
    return max(1, step)


def _tokens_until(phases: tuple[Phase, ...], steps: int) -> int:
    """Tokens of the first `steps` batches."""
    ends = [*(phase.start for phase in phases[1:]), steps]
    return sum(
        max(0, min(end, steps) - phase.start) * phase.global_batch * phase.sequence_length
        for phase, end in zip(phases, ends, strict=True)
    )


def _rate(model: ModelConfig, phases: tuple[Phase, ...], tokens: int, rules: dict[str, str]) -> float:
    chosen = default_learning_rate(flops_per_token(model, phases[0].sequence_length) * tokens)
    rules["optimizer.learning_rate"] = f"{chosen:.2e}: 0.3118 C^-0.125 (DeepSeek LLM), at most 0.003"
    return chosen


def _schedule(config: Config, steps: int, peak: float, rules: dict[str, str]) -> Schedule:
    given = config.schedule
    warmup, decay = given.warmup_steps, given.decay_steps
    if warmup is None:
        warmup = min(steps // 2, max(10, steps // 100))
        rules["schedule.warmup_steps"] = f"{warmup}: a hundredth of the steps, at least 10"
    if decay is None:
        decay = max(0, steps - warmup) // 5 if given.kind == "wsd" else 0
    return Schedule(given.kind, peak, steps, warmup, decay, given.decay, given.final)

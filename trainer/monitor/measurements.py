"""What is measured beside the steps, on all ranks alike: speed, layer norms, the worst sequences, validation, samples.

Parameters and sequences are spread over the ranks, so that each measurement is a collective call: all ranks make it,
and all get the result. `run_logger.py` writes it, on one of them. B sequences of this rank's batch, T positions.
"""

import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainer.data.token_stream import TokenBatch
from trainer.distributed.mesh import World, local_part
from trainer.distributed.parallelize import inference
from trainer.estimate.accelerators import find_device
from trainer.evaluate.perplexity import Score, Text, Windows, evaluate, file_texts, validation_texts
from trainer.evaluate.sampling import Sampling, generate_text, load_tokenizer
from trainer.model.transformer import IGNORED, Transformer, flops_per_token, parameter_name
from trainer.monitor.throughput import Meter
from trainer.resolve import Resolved

__all__ = ["Measurements", "validation_sets"]

NAMED_SEQUENCES = 8  # of a spike: those with the highest loss, whose documents are named


class Measurements:
    """Measures for a run; `close` it, for copies of remote validation shards lie on the disk."""

    def __init__(self, run: Resolved, world: World) -> None:
        self._run, self._world = run, world
        device = find_device(torch.cuda.get_device_name(world.device)) if world.device.type == "cuda" else None
        self.speed = Meter(device.flops_per_second * world.size if device else None)
        self._copies = tempfile.TemporaryDirectory(prefix="gristmill-validation-")
        self._sets: tuple[list[Text], Windows] | None = None

    def close(self) -> None:
        """Delete the copies."""
        self._copies.cleanup()

    def step(self, done: int, tokens: int, sequence_length: int) -> dict[str, Any]:
        """Count a step of so many target tokens; returns the speed since the last line at logging steps, else {}."""
        self.speed.add(tokens, flops_per_token(self._run.model, sequence_length))
        # Steps count from 0 here as in `documents --step` and in metrics.jsonl.
        if (done - 1) % self._run.config.log.every and done != self._run.steps:
            return {}
        return dict(self.speed.read(self._run.steps - done))

    def layer_norms(self, model: nn.Module, step: int) -> dict[str, float]:
        """Return the norm of each layer's gradient, where it is due; {} elsewhere."""
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

    def worst_sequences(self, model: nn.Module, batch: TokenBatch) -> list[int]:
        """Return the sequences of the whole batch with the highest mean loss a token, by one more forward pass."""
        losses: list[float] = []
        with inference(model):
            for part in batch.split(self._run.micro_batch):
                part = part.to(self._world.device)
                nats_BT = model(part.tokens_BT, part.targets_BT, part.positions_BT, part.documents_BT, reduction="none")
                counted_B = (part.targets_BT != IGNORED).sum(dim=1).clamp(min=1)
                losses += (nats_BT.sum(dim=1) / counted_B).nan_to_num(nan=float("inf")).tolist()
        every = [loss for part in self._world.gather(losses) for loss in part]
        return sorted(range(len(every)), key=lambda sequence: -every[sequence])[:NAMED_SEQUENCES]

    def validation(self, model: Transformer, heartbeat: Callable[[], None]) -> Mapping[str, Score]:
        """Return the score of every validation set; {} where the dataset has none and no file is named."""
        if self._sets is None:
            self._sets = validation_sets(self._run, self._copies.name)
        texts, windows = self._sets
        return evaluate(model, texts, self._world, windows, heartbeat)

    def samples(self, model: Transformer, step: int, heartbeat: Callable[[], None]) -> list[tuple[str, str]]:
        """Return how the model goes on from each prompt."""
        options, dataset = self._run.config.evaluate, self._run.datasets[0]
        if not options.prompts:
            return []
        texts = generate_text(
            model,
            load_tokenizer(dataset.tokenizer),
            options.prompts,
            dataset.end_of_text,
            Sampling(max_tokens=options.new_tokens, temperature=options.temperature),
            seed=self._run.config.seed,
            step=step,
            heartbeat=heartbeat,
        )
        return list(zip(options.prompts, texts, strict=True))


def validation_sets(run: Resolved, copies: str) -> tuple[list[Text], Windows]:
    """Return what a run is measured on, and how it is cut; remote shards are copied into the folder `copies`."""
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


def _layer(name: str) -> str:
    """`layers.3` of `layers.3.mlp.up_proj.weight`; the module of any other parameter."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "layers" else parts[0]


def _square(gradient: Tensor) -> Tensor:
    """The sum of squares of this rank's part."""
    local = local_part(gradient)
    return local.float().square().sum()

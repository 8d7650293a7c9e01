"""Queries and commands on a run: its plan, its documents, the quality and text of its checkpoints, an export."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from schemas.config_model import ConfigError
from trainer.build import build_model, tensors_of
from trainer.checkpoint.checkpointer import Checkpoints
from trainer.checkpoint.run_state import RunState, check_order, first_state
from trainer.config import Config
from trainer.distributed.mesh import World, join_world
from trainer.estimate.run_estimate import plan_summary
from trainer.evaluate.perplexity import evaluate
from trainer.evaluate.sampling import Sampling, generate_text, load_tokenizer
from trainer.lineage.document_steps import documents_of_rows, steps_of_document
from trainer.model.huggingface import Words, check_free, export
from trainer.model.transformer import Transformer
from trainer.monitor.measurements import validation_sets
from trainer.order.batch_order import Order, slice_of
from trainer.pinned_config import pinned
from trainer.resolve import Resolved, check_files, resolve

__all__ = ["documents_of_step", "evaluated", "exported", "generated", "planned", "steps_of"]


def _order(config: Config) -> tuple[Resolved, Order, RunState | None]:
    config, state = pinned(config)
    run = resolve(config, known=state.model if state else None)
    order = run.order(state.skipped if state else ())
    if state:
        check_order(state, first_state(run), order, run.config.checkpoints_uri)
    return run, order, state


def planned(config: Config, world: int, gpu: str | None, mfu: float) -> dict[str, Any]:
    """Return the summary that `plan` prints of a run on `world` processes: on the named device, or the one here."""
    config, state = pinned(config)
    run = resolve(config, world, state.model if state else None)
    check_files(run, resumed=state is not None)
    if gpu is None and config.device != "cpu" and torch.cuda.is_available():
        gpu = torch.cuda.get_device_name()
    return plan_summary(run, gpu, mfu)


def documents_of_step(
    config: Config, step: int, rank: int | None = None, world: int | None = None, as_json: bool = False
) -> Iterator[str]:
    """Yield a line for each document behind a step, by (sequence of the batch, place in it); nothing is replayed.

    Batches that the run has skipped are those of its newest checkpoint; a step to come is given as it will be.
    Raises ConfigError for a step that the run has not, and for a rank without the number of ranks.
    """
    if (rank is None) != (world is None):
        raise ConfigError("--rank and --world go together: a rank's share depends on how many there are")
    run, order, _ = _order(config)
    if not 0 <= step < run.steps:
        raise ConfigError(f"--step {step}: the run has {run.steps:,} steps, counted from 0")
    batch = order.batch(order.batch_of_step(step))
    if rank is not None and world is not None:
        if not 0 <= rank < world:
            raise ConfigError(f"--rank {rank}: of {world} ranks, counted from 0, there is none")
        batch = slice_of(batch, rank, world)
    for document in documents_of_rows(run.datasets, order, batch):
        yield json.dumps(document.to_dict(), ensure_ascii=False) if as_json else document.line()


def steps_of(config: Config, document: str, until: int | None = None, as_json: bool = False) -> Iterator[str]:
    """Yield a line for each step before `until` that saw a document; default: the steps done, or planned."""
    run, order, state = _order(config)
    last = until if until is not None else state.step if state else run.steps
    for seen in steps_of_document(run.datasets, order, document, last):
        yield json.dumps(seen.to_dict(), ensure_ascii=False) if as_json else seen.line()


# ---------------------------------------------------------------- checkpoints


@contextmanager
def _loaded(config: Config, step: int | None) -> Iterator[tuple[Resolved, World, Transformer, int]]:
    """Load the model of a checkpoint (the newest valid one, or that of a step); yields the steps it has done too."""
    with join_world(config.parallel, config.device) as world:
        config, state = pinned(config)
        run = resolve(config, 1, state.model if state else None)
        model = build_model(run, world)
        model.init_weights(config.seed)  # fills what no checkpoint holds
        found = Checkpoints(run.config.checkpoints_uri).load_newest(tensors_of(model), step=step)
        if found is None:
            raise ValueError(f"{run.config.checkpoints_uri}: no checkpoint there: train first")
        yield run, world, model, found.step


def evaluated(config: Config, step: int | None = None) -> Iterator[str]:
    """Yield validation loss, perplexity and bits per byte of a checkpoint, a line a source or file."""
    with _loaded(config, step) as (run, world, model, done):
        yield f"after {done:,} steps"
        with TemporaryDirectory(prefix="gristmill-validation-") as copies:
            texts, windows = validation_sets(run, copies)
            if not texts:
                raise ValueError("the dataset has no validation documents and evaluate.files names none: give a file")
            scores = evaluate(model, texts, world, windows)
        for name, score in scores.items():
            yield (
                f"{name:<24} loss {score.loss:.4f}  perplexity {score.perplexity_without_stride:.2f} (no stride)  "
                f"{score.bits_per_byte:.4f} bits a byte  {score.num_tokens:,} tokens"
            )


def generated(
    config: Config, prompts: Sequence[str], tokens: int | None = None, step: int | None = None
) -> Iterator[str]:
    """Yield how a checkpoint goes on from each prompt."""
    with _loaded(config, step) as (run, _, model, done):
        first, options = run.datasets[0], config.evaluate
        sampling = Sampling(max_tokens=tokens or options.new_tokens, temperature=options.temperature)
        words = load_tokenizer(first.tokenizer)
        texts = generate_text(model, words, prompts, first.end_of_text, sampling, seed=config.seed, step=done)
        yield from (prompt + text for prompt, text in zip(prompts, texts, strict=True))


def exported(config: Config, folder: str, step: int | None = None, dtype: str | None = None) -> str:
    """Write a checkpoint as a folder that Hugging Face's `from_pretrained` opens; returns what was done.

    `dtype`: of the weights, whatever this machine computes in; default: parallel.dtype, or bfloat16.
    """
    check_free(folder)  # before the model is read
    with _loaded(config, step) as (run, _, model, done):
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        whole = {
            name: value
            for name, value in get_model_state_dict(model, options=options).items()
            if torch.is_tensor(value)
        }
        first = run.datasets[0]
        words = Words(first.tokenizer, first.dataset.manifest.tokenizer.end_of_text.token, first.end_of_text)
        written = dtype or config.parallel.dtype or "bfloat16"
        export(whole, run.model, words, folder, getattr(torch, written))
        return f"{folder}: the model after {done:,} steps, in {written}"

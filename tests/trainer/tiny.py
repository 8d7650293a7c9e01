"""Small runs: a dataset whose text can be learned, a model that learns it in seconds, a run in this process."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from schemas.config_model import load_model
from tests.made_dataset import END_OF_TEXT, MadeDataset
from trainer.checkpoint.checkpointer import find_checkpoints
from trainer.config import Config
from trainer.train import train

VOCABULARY = 64


def counting(num_tokens: int, seed: int, garbage: bool = False) -> list[list[int]]:
    """Documents that count up from somewhere in steps of one, which a model learns soon; garbage is drawn at random."""
    random = np.random.default_rng(seed)
    documents: list[list[int]] = []
    while num_tokens > 0:
        length = min(num_tokens, int(random.integers(8, 40)))
        if garbage:
            tokens = random.integers(1, VOCABULARY, length - 1)
        else:
            tokens = (random.integers(1, VOCABULARY) + np.arange(length - 1)) % (VOCABULARY - 1) + 1
        documents.append([*tokens.tolist(), END_OF_TEXT])
        num_tokens -= length
    return documents


def learnable(folder: Path, sources: dict[str, int] | None = None) -> MadeDataset:
    """A dataset of documents that count: tokens a source (in shards of 1,000), and a validation shard each."""
    dataset = MadeDataset(folder, vocab_size=VOCABULARY, sequence_lengths=[32])
    for name, tokens in (sources or {"web": 12_000, "wiki": 4_000}).items():
        for first in range(0, tokens, 1000):
            dataset.add(name, counting(min(1000, tokens - first), seed=len(dataset.shards)))
        dataset.add(name, counting(400, seed=900 + len(dataset.shards)), split="validation")
    dataset.commit()
    return dataset


def config(dataset: MadeDataset, output: Path, **changes: Any) -> Config:
    """A run of 20 steps of 8 x 32 tokens; changes by `section__key=value`."""
    data: dict[str, Any] = {
        "output": str(output),
        "device": "cpu",
        "seed": 3,
        "data": {"dataset": dataset.uri, "sequence_length": 32, "global_batch": 8, "workers": 0},
        "model": {"dim": 32, "layers": 2, "heads": 4, "kv_heads": 2},
        "optimizer": {"learning_rate": 0.01},
        "schedule": {"steps": 20, "warmup_steps": 4},
        "parallel": {"threads": 1},
        "checkpoint": {"every": 5},
        "evaluate": {"every": 10},
        "log": {"every": 5, "tensorboard": False, "layer_norms_every": 10},
    }
    for key, value in changes.items():
        section, _, name = key.partition("__")
        if name:
            data.setdefault(section, {})[name] = value
        else:
            data[section] = value
    return Config.model_validate(data)


def written(path: Path, configuration: Config) -> Path:
    """The configuration as a file, for the command line."""
    import yaml

    path.write_text(yaml.safe_dump(configuration.model_dump(mode="json", exclude_unset=True)))
    assert load_model(str(path), Config) == configuration
    return path


def events(output: Path, kind: str) -> list[dict[str, Any]]:
    """The events of a run, of one kind."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def losses(output: Path) -> list[float]:
    """The loss of every step."""
    return [event["loss"] for event in events(output, "step")]


def run(configuration: Config) -> list[float]:
    """Train in this process; the losses that its record holds."""
    assert train(configuration) == 0
    return losses(Path(configuration.output))


def final_state(output: Path) -> dict[str, Any]:
    """The state in the newest checkpoint, without what may differ between runs that are equal."""
    newest = find_checkpoints(str(output / "checkpoints"))[0]
    content = json.loads((Path(newest.path) / "complete.json").read_bytes())
    return dict(content["extra"])


def final_weights(output: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the newest checkpoint."""
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    newest = find_checkpoints(str(output / "checkpoints"))[0]
    whole = output / "whole.pt"
    dcp_to_torch_save(newest.path, whole)
    return dict(torch.load(whole))

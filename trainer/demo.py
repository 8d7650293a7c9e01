"""The last part of `make demo`: a small model on the shards that the demo has made, and the documents of a step."""

import itertools
import json
import sys
import time

from trainer.cli import main as trainer
from trainer.commands import documents_of_step
from trainer.config import load_config

CONFIG = "trainer/configs/demo.yaml"
STEP = 123


def main() -> int:
    """Train by the demo's configuration, show what became of the loss and what one step has read."""
    started = time.monotonic()
    _say("A small model learns from the shards", f"python -m trainer {CONFIG}")
    code = trainer([CONFIG])
    if code:
        return code
    config = load_config(CONFIG)
    losses, validation = _losses(f"{config.output}/metrics.jsonl")
    print(f"\ntraining loss    {losses[0]:.3f} -> {sum(losses[-20:]) / 20:.3f} (mean of the last 20 steps)")
    for name, (first, last) in validation.items():
        print(f"validation {name:<5} {first:.3f} -> {last:.3f}")
    _say(f"Which documents did step {STEP} see?", f"python -m trainer documents {CONFIG} --step {STEP}")
    for line in itertools.islice(documents_of_step(config, STEP), 12):
        print(line)
    print("...")
    _say(f"Trained in {time.monotonic() - started:.0f} s. Open {config.output}/report.html, and try", None)
    for advice, what in (
        (
            f"plan {CONFIG} --gpu 'H100 SXM' model.dim=1024 model.layers=16",
            "memory, time and energy before a step is run",
        ),
        (f"{CONFIG} schedule.steps=400", "goes on from the last checkpoint"),
        (f"export {CONFIG} --to demo/model", "a folder for transformers and lm-evaluation-harness"),
    ):
        print(f".venv/bin/python -m trainer {advice:<90} # {what}")
    return 0


def _losses(path: str) -> tuple[list[float], dict[str, tuple[float, float]]]:
    """Training losses by step; the first and last validation loss of each source."""
    losses: list[float] = []
    validation: dict[str, tuple[float, float]] = {}
    with open(path, encoding="utf-8") as file:
        for event in map(json.loads, file):
            if event["event"] == "step":
                losses.append(event["loss"])
            elif event["event"] == "eval":
                for name, scores in event["sets"].items():
                    validation[name] = (validation.get(name, (scores["loss"], 0.0))[0], scores["loss"])
    return losses, validation


def _say(title: str, command: str | None) -> None:
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n== {title}")
    if command:
        print(f"$ {command}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

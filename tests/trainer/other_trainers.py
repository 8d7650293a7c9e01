"""The lines of trainer/README.md as code, and one rank of Hugging Face's Trainer: `python -m ... URI FOLDER`."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from tests.servers import ROOT
from trainer.data.token_stream import TokenStream

__all__ = ["SETTINGS", "lines_of", "read_by_hugging_face", "tiny_llama"]

SETTINGS: dict[str, Any] = {"sequence_length": 32, "global_batch": 6, "seed": 5}


def lines_of(heading: str, **names: Any) -> dict[str, Any]:
    """What the code below a heading of the README defines; `names` are its imports."""
    text = (ROOT / "trainer" / "README.md").read_text()
    code = re.search(rf"## [^\n]*{heading}.*?```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    lines = [line for line in code[1].splitlines() if line.strip()]
    assert len(lines) <= 13, "few lines are enough"
    exec(compile(code[1], f"README.md, {heading}", "exec"), names)
    return names


def tiny_llama() -> transformers.LlamaForCausalLM:
    """A model that sees everything a large one does."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=1000, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    return transformers.LlamaForCausalLM(config)


def read_by_hugging_face(uri: str, folder: str, rank: int, world: int, steps: int, naive: bool = False) -> list[Any]:
    """The inputs of every forward pass of a rank, as lists; `naive`: the loader goes through accelerate."""
    seen: list[Any] = []
    defined = lines_of("Hugging Face", transformers=transformers)
    arguments = transformers.TrainingArguments(
        output_dir=folder, max_steps=steps, report_to=[], use_cpu=True, save_strategy="no", disable_tqdm=True
    )
    model = tiny_llama()
    model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append([kwargs["input_ids"].tolist(), kwargs["labels"].tolist()]),
        with_kwargs=True,
    )
    stream = TokenStream(uri, rank=rank, world=world, **SETTINGS)
    trainer = defined["StreamTrainer"](model=model, args=arguments, train_dataset=stream)
    if naive:
        loader = torch.utils.data.DataLoader(_Dicts(stream), batch_size=None)
        trainer.get_train_dataloader = lambda: trainer.accelerator.prepare(loader)
    trainer.train()
    stream.close()
    return seen


class _Dicts(torch.utils.data.IterableDataset[Any]):
    """What one would try first."""

    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream

    def __iter__(self) -> Any:
        for batch in self.stream:
            yield {"input_ids": batch.tokens_BT, "labels": batch.targets_BT}


def main() -> None:
    """Train a few steps as the rank that the environment names, by the lines and naively; write what was seen."""
    uri, folder = sys.argv[1:]
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for kind in ("lines", "naive"):
        seen = read_by_hugging_face(uri, folder, rank, world, 3, kind == "naive")
        Path(folder, f"{kind}-{rank}.json").write_text(json.dumps(seen))
    torch.distributed.destroy_process_group()
    # What was to be seen is written. The reducer of accelerate's model outlives its group, and torch has been seen to
    # abort while the interpreter ended with it ("terminate called without an active exception", once in 100 runs).
    os._exit(0)


if __name__ == "__main__":
    main()

"""What a step holds: checked against what a model really keeps; and runs that are refused for it."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from schemas.config_model import ConfigError
from tests.trainer.test_run_estimate import LLAMA_2_7B, run_config
from tests.trainer.tiny import config, learnable, written
from trainer.cli import main
from trainer.estimate.accelerators import host_memory
from trainer.estimate.memory import activation_bytes, check_memory, memory_of_device, memory_of_run
from trainer.model.transformer import ModelConfig, Transformer
from trainer.resolve import Resolved, resolve

SMALL = ModelConfig(vocab_size=128, dim=64, layers=1, heads=4, kv_heads=2, ffn_dim=192)


def test_state_of_a_7b_model_is_16_bytes_a_parameter_shared_by_the_shards() -> None:
    memory = memory_of_device(LLAMA_2_7B, shards=8, rows=1, sequence_length=4096, compute_bytes=2)
    assert memory["parameters"] == memory["gradients"] == 6_738_415_616 * 4 // 8
    assert memory["optimizer"] == 6_738_415_616
    # Embedding, head and all norms in bf16; two blocks of 202,375,168, a gradient of one in bf16 and in fp32.
    assert memory["gathered"] == 2 * (2 * 32_000 * 4096 + 65 * 4096) + (4 + 6) * 202_375_168
    # 2,097 tokens of logits at once, not 4,096: their fp32 and softmax, and bf16 of it; the head; the hidden states.
    assert memory["loss"] == (1 << 26) * 10 + 32_000 * 4096 * 8 + 2 * 4096 * 4096
    assert memory["total"] == sum(value for name, value in memory.items() if name != "total")


def test_muon_keeps_one_number_a_weight_of_the_blocks_matrices() -> None:
    adamw = memory_of_device(LLAMA_2_7B, shards=1, rows=1, sequence_length=128, compute_bytes=2)
    muon = memory_of_device(LLAMA_2_7B, shards=1, rows=1, sequence_length=128, compute_bytes=2, muon=True)
    assert adamw["optimizer"] - muon["optimizer"] == 4 * 32 * (4 * 4096 * 4096 + 3 * 4096 * 11_008)


def test_checkpointing_keeps_less_and_computes_one_block_again() -> None:
    block = activation_bytes(dataclasses.replace(LLAMA_2_7B, layers=1), 1, 4096, 2, "none")
    # 4 d + q, k, v and the output (4 d) + 4 F in bf16; 32 sums of the softmax and 2 roots in fp32.
    assert block == 4096 * (2 * (8 * 4096 + 4 * 11_008) + 4 * 34)
    assert activation_bytes(LLAMA_2_7B, 1, 4096, 2, "none") == 32 * block
    assert activation_bytes(LLAMA_2_7B, 1, 4096, 2, "full") == 32 * 4096 * 2 * 4096 + block
    selective = 4096 * (2 * (5 * 4096 + 11_008) + 4 * 32)
    assert activation_bytes(LLAMA_2_7B, 1, 4096, 2, "selective") == 32 * selective + block
    with pytest.raises(ValueError, match="activation_checkpointing='some': it must be one of none, selective, full"):
        activation_bytes(LLAMA_2_7B, 1, 4096, 2, "some")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_activations_are_those_that_a_block_really_keeps(qk_norm: bool, masked: bool) -> None:
    rows, length = 2, 32
    model = dataclasses.replace(SMALL, qk_norm=qk_norm)
    kept = [_kept_bytes(dataclasses.replace(model, layers=layers), rows, length, masked) for layers in (1, 2)]
    # Here, on the CPU, the norms are not one kernel: each also keeps its input over its root, and attention's output
    # is copied once. On CUDA neither is so.
    normed = 2 * 64 + (4 * 16 + 2 * 16 if qk_norm else 0)
    here_only = 4 * rows * length * (normed + 64)
    assert kept[1] - kept[0] == activation_bytes(model, rows, length, 4, "none", masked) + here_only


def _kept_bytes(config: ModelConfig, rows: int, length: int, masked: bool) -> int:
    """Bytes of all tensors that the forward pass of a model keeps, each storage once, parameters left out."""
    model = Transformer(config)
    model.init_weights(0)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address comes twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage
        return tensor

    tokens_BT = torch.randint(0, config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    documents_BT = torch.arange(length)[None].expand(rows, length) // 7 if masked else None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(tokens_BT, tokens_BT, documents_BT=documents_BT)
    assert loss.requires_grad
    return sum(storage.nbytes() for storage in storages.values())


# ---------------------------------------------------------------- what is refused

CPU = torch.device("cpu")


@dataclasses.dataclass
class Node:
    """What is looked at of a world."""

    local_size: int = 1
    device: torch.device = CPU


def a_run(folder: Path, **parallel: Any) -> Resolved:
    return resolve(run_config(folder, parallel=parallel))


def surely_needed(run: Resolved) -> int:
    """Of two numbers a parameter, the parameter, and what is kept for the backward pass."""
    return 3 * 4 * 86_176 + activation_bytes(run.model, 8, 64, 4, "none")


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_is_refused_below_what_it_surely_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int
) -> None:
    run, node = a_run(tmp_path), Node(ranks)
    monkeypatch.setattr("trainer.estimate.memory.host_memory", lambda: ranks * surely_needed(run))
    check_memory(run, node)  # type: ignore[arg-type]
    monkeypatch.setattr("trainer.estimate.memory.host_memory", lambda: ranks * surely_needed(run) - 1)
    with pytest.raises(ConfigError, match="a step needs at least") as shown:
        check_memory(run, node)  # type: ignore[arg-type]
    assert str(shown.value).replace("\u202f", " ") == (
        "data.sequence_length=64 with parallel.micro_batch=8: a step needs at least 3.0 MB a process (parameters "
        "337 kB, optimizer 673 kB, activations 2.0 MB), and there are 3.0 MB: try parallel.activation_checkpointing: "
        "full, a smaller parallel.micro_batch, a shorter data.sequence_length, more processes or a smaller model "
        "(`plan` shows what each gives), or parallel.check_memory: false"
    )


@pytest.mark.parametrize("parallel", [{"check_memory": False}, {"compile": True}, {"micro_batch": 4}])
def test_what_may_run_is_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: dict[str, Any]) -> None:
    run = a_run(tmp_path, **parallel)
    monkeypatch.setattr("trainer.estimate.memory.host_memory", lambda: surely_needed(run) - 1)
    check_memory(run, Node())  # type: ignore[arg-type]


def test_a_phase_that_never_begins_needs_no_memory(tmp_path: Path) -> None:
    for batch, length in ((14, 512), (15, 64)):  # of 15 steps
        data = {"phases": [{"batch": batch, "sequence_length": 512, "global_batch": 4}]}
        folder = tmp_path / str(batch)
        assert memory_of_run(resolve(run_config(folder, data=data)), on_gpu=False)["sequence_length"] == length


def test_too_long_a_sequence_ends_with_2_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(written(tmp_path / "run.yaml", config(learnable(tmp_path / "data"), tmp_path / "run")))
    monkeypatch.setattr("trainer.estimate.memory.host_memory", lambda: 1 << 20)
    assert main([path, "data.sequence_length=512", "data.global_batch=4", "data.weights={web: 1}"]) == 2
    assert capsys.readouterr().err.startswith("trainer: data.sequence_length=512 with parallel.micro_batch=4: a step")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("groups", "limits", "least"),
    [
        ("0::/job/step\n", {"job/memory.max": "5000", "job/step/memory.max": "max"}, 5000),  # Slurm, version 2
        ("0::/\n", {"memory.max": "7000"}, 7000),  # in a container
        ("4:cpu:/x\n3:memory:/x/y\n", {"memory/x/memory.limit_in_bytes": "3000", "x/memory.max": "1"}, 3000),
        ("0::/\n", {}, None),
    ],
)
def test_the_least_limit_of_the_control_groups_counts(
    tmp_path: Path, groups: str, limits: dict[str, str], least: int | None
) -> None:
    (tmp_path / "cgroup").write_text(groups)
    for name, text in limits.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(f"{text}\n")
    found = host_memory(str(tmp_path / "cgroup"), str(tmp_path / "root"))
    assert found == least if least else found > 1 << 28

"""What `plan` says: exact where it counts, and checked against what a model really keeps where it estimates."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.made_dataset import made
from trainer.config import Config
from trainer.estimate.accelerators import find_device
from trainer.estimate.run_estimate import compute_optimal, plan_lines, plan_summary
from trainer.model.transformer import ModelConfig
from trainer.resolve import resolve

LLAMA_2_7B = ModelConfig(vocab_size=32_000, dim=4096, layers=32, heads=32, ffn_dim=11_008)


def run_config(folder: Path, **changes: Any) -> Config:
    made(folder / "data", {"web": [4000, 4000], "wiki": [2000]})
    data = {"dataset": str(folder / "data"), "sequence_length": 64, "global_batch": 8, **changes.pop("data", {})}
    model = {"dim": 32, "layers": 2, "heads": 2, "vocab_size": 1024, "ffn_dim": 64}
    schedule = {"steps": 15, "warmup_steps": 2}
    return Config.model_validate(
        {"output": str(folder / "run"), "data": data, "model": model, "schedule": schedule, **changes}
    )


# ---------------------------------------------------------------- devices


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("NVIDIA H100 80GB HBM3", ("H100 SXM", 989e12, 700)),
        ("NVIDIA H100 NVL", ("H100 NVL", 835e12, 400)),
        ("NVIDIA H100 PCIe", ("H100 PCIe", 756e12, 350)),
        ("NVIDIA H200", ("H200", 989e12, 700)),
        ("NVIDIA B200", ("B200", 2250e12, 1000)),
        ("NVIDIA A100-SXM4-80GB", ("A100 SXM 80GB", 312e12, 400)),
        ("NVIDIA A100 80GB PCIe", ("A100 PCIe 80GB", 312e12, 300)),
        ("NVIDIA A100-PCIE-40GB", ("A100 PCIe 40GB", 312e12, 250)),
        ("AMD Instinct MI300X", ("MI300X", 1307e12, 750)),
        ("h100 sxm", ("H100 SXM", 989e12, 700)),
    ],
)
def test_a_device_is_known_by_the_drivers_name_or_a_persons(name: str, device: tuple[str, float, float]) -> None:
    found = find_device(name)
    assert found is not None
    assert (found.name, found.flops_per_second, found.watts) == device


@pytest.mark.parametrize(
    "name",
    ["NVIDIA H20", "NVIDIA H200 NVL", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", "NVIDIA GH200 480GB", "NVIDIA A800", "cpu",
     "NVIDIA GeForce RTX 4090", "NVIDIA H100 64GB HBM2", ""],
)  # fmt: skip
def test_a_device_that_only_looks_like_one_of_the_table_is_unknown(name: str) -> None:
    assert find_device(name) is None


# ---------------------------------------------------------------- arithmetic


def test_compute_optimal_size_is_that_of_the_refit() -> None:
    parameters, tokens = compute_optimal(1e21)
    assert f"{parameters:.3e}" == "2.778e+09"
    assert f"{tokens:.3e}" == "5.999e+10"
    assert 6 * parameters * tokens == pytest.approx(1e21)


# ---------------------------------------------------------------- the whole


def test_the_plan_of_a_small_run(tmp_path: Path) -> None:
    config = run_config(tmp_path, data={"weights": {"web": "0.75", "wiki": "0.25"}})
    summary = json.loads(json.dumps(plan_summary(resolve(config, 2), "NVIDIA H100 80GB HBM3", mfu=0.5)))
    # 2 V d + L (4 d d + 3 d F + 2 d) + d, and 6 (V d + L (4 d d + 3 d F + 2 d) + d) + 12 L d T.
    assert summary["parameters"] == 2 * 1024 * 32 + 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32) + 32 == 86_176
    assert summary["flops_per_token"] == 6 * (86_176 - 1024 * 32) + 12 * 2 * 32 * 64 == 369_600
    assert summary["tokens"] == 15 * 8 * 64 == 7680
    assert summary["flops"] == 7680 * 369_600
    assert summary["tokens_per_parameter"] == 7680 / 86_176
    assert summary["time"]["seconds"] == pytest.approx(7680 * 369_600 / (2 * 989e12 * 0.5))
    assert summary["time"]["kwh"] == pytest.approx(summary["time"]["seconds"] * 2 * 700 / 3.6e6)
    assert summary["memory"]["dtype"] == "bfloat16"
    assert (summary["memory"]["shards"], summary["memory"]["rows"], summary["memory"]["fits"]) == (2, 4, True)
    assert summary["data"]["sources"]["web"] == {"weight": 0.75, "tokens": 90 * 64, "epochs": pytest.approx(90 / 124)}
    assert summary["data"]["sources"]["wiki"] == {"weight": 0.25, "tokens": 30 * 64, "epochs": pytest.approx(30 / 31)}
    assert summary["data"]["smallest_cache_bytes"] == 0
    assert summary["data"]["left_out"] == []


def test_phases_are_added_up_and_their_left_out_rows_named(tmp_path: Path) -> None:
    change = {"batch": 5, "sequence_length": 32, "global_batch": 4}
    summary = plan_summary(resolve(run_config(tmp_path, data={"phases": [change]})))
    assert summary["tokens"] == 5 * 8 * 64 + 10 * 4 * 32
    assert summary["flops"] == 5 * 8 * 64 * 369_600 + 10 * 4 * 32 * (369_600 - 12 * 2 * 32 * 32)
    assert (summary["memory"]["rows"], summary["memory"]["sequence_length"]) == (8, 64)
    left_out = summary["data"]["left_out"]
    assert [(each["batch"], each["source"]) for each in left_out] == [(5, "web"), (5, "wiki")]
    # One window a source here, so that the change drops what 40 of 155 rows have left.
    assert sum(each["rows"] for each in left_out) == 155 - 40
    assert f"the phase at batch 5 leaves out {left_out[0]['rows']} unread rows of web" in "\n".join(plan_lines(summary))


def test_an_unknown_device_gets_no_time_and_no_energy(tmp_path: Path) -> None:
    run = resolve(run_config(tmp_path))
    named, none = plan_summary(run, "NVIDIA H20"), plan_summary(run)
    assert (named["time"]["seconds"], named["time"]["kwh"], named["memory"]["fits"]) == (None, None, None)
    assert named["memory"]["dtype"] == "bfloat16"
    assert none["memory"]["dtype"] == "float32"
    start = "time       not estimated: no peak is known for NVIDIA H20, only for A100 SXM 40GB, A100 SXM 80GB, "
    assert any(line.startswith(start) for line in plan_lines(named))
    assert "time       not estimated: no GPU is named (--gpu)" in plan_lines(none)
    assert not any("energy" in line for line in plan_lines(named))


def test_what_does_not_fit_is_said_with_the_cure(tmp_path: Path) -> None:
    run = resolve(run_config(tmp_path))
    huge = dataclasses.replace(run, model=LLAMA_2_7B)
    lines = "\n".join(plan_lines(plan_summary(huge, "H100 SXM")))
    assert "that is more than the device's 80.0\u202fGB: lower parallel.micro_batch" in lines


def test_the_lines_of_a_plan(tmp_path: Path) -> None:
    config = run_config(tmp_path, data={"weights": {"web": "0.75", "wiki": "0.25"}}, optimizer={"learning_rate": 1e-3})
    lines = plan_lines(plan_summary(resolve(config), "H100", mfu=0.4))
    assert [line.replace("\u202f", "_") for line in lines] == [
        "model      86,176 parameters, 370k FLOP a token",
        "run        15 steps, 7.68k tokens (0.0891 a parameter), 2.84e+09 FLOP",
        "           compute-optimal for that: 3.35k parameters, 141k tokens",
        "           batch 512 tokens, peak learning rate 1.00e-03",
        "memory     7.8_MB a device: bfloat16, 1 shard, 8 rows of 64 at once, activation checkpointing none",
        "           parameters 337_kB, gradients 337_kB, optimizer 673_kB, gathered 228_kB, activations 1.0_MB, "
        "loss 5.3_MB",
        "time       under a second on 1 x H100 SXM at an assumed MFU of 40%: 1.07G tokens/s",
        "energy     at most 1.4e-09 kWh, the devices alone at their power limit",
        "data       web: weight 75.0%, 5.76k tokens, 0.73 epochs",
        "data       wiki: weight 25.0%, 1.92k tokens, 0.97 epochs",
        "cache      not needed, all shards are local",
    ]


@pytest.mark.parametrize("mfu", [0, 1.1])
def test_an_mfu_that_is_no_share_is_refused(mfu: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"mfu={mfu}: a share of the device's peak, above 0 and at most 1"):
        plan_summary(resolve(run_config(tmp_path)), "H100", mfu)

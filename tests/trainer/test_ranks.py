"""Runs of several processes: equal to one, ended by a signal, killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.made_dataset import MadeDataset
from tests.trainer.tiny import config, events, final_state, final_weights, learnable, losses, run, written

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return learnable(tmp_path_factory.mktemp("learnable"))


def start(folder: Path, configuration: Any, ranks: int) -> "subprocess.Popen[str]":
    """`torchrun --nproc-per-node RANKS -m trainer CONFIG`, in a process group of its own."""
    path = written(folder / "config.yaml", configuration)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", "0"]
    command = [*command, "--standalone"] if ranks > 1 else [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "-m", "trainer", str(path)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]", code: int = 0) -> str:
    """Wait for the end; what was printed."""
    said, _ = process.communicate(timeout=400)
    assert process.returncode == code, said[-3000:]
    return said


def wait_for_steps(output: Path, steps: int, process: "subprocess.Popen[str]") -> None:
    """Until the record holds so many steps."""
    while not (output / "metrics.jsonl").exists() or len(losses(output)) < steps:
        assert process.poll() is None, process.stdout and process.stdout.read()[-3000:]
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_two_processes_train_as_one_does(dataset: MadeDataset, tmp_path: Path, kind: str) -> None:
    options = {"optimizer__kind": kind, "data__packing": "documents", "data__mask": "documents"}
    one = run(config(dataset, tmp_path / "one", **options))
    finish(start(tmp_path, config(dataset, tmp_path / "two", **options), ranks=2))
    assert losses(tmp_path / "two") == pytest.approx(one, rel=2e-5)
    ours, theirs = final_state(tmp_path / "two"), final_state(tmp_path / "one")
    assert {**ours, "spikes": 0} == {**theirs, "spikes": 0}  # the rolling digest too: the same rows in the same order
    evaluated = [event["sets"]["web"]["loss"] for event in events(tmp_path / "two", "eval")]
    assert evaluated == pytest.approx([e["sets"]["web"]["loss"] for e in events(tmp_path / "one", "eval")], rel=2e-5)


def test_a_batch_of_32_is_32_micro_batches_and_is_4_ranks(dataset: MadeDataset, tmp_path: Path) -> None:
    ragged = {"data__packing": "documents", "data__mask": "documents"}
    options = {**ragged, "data__global_batch": 32, "schedule__steps": 6}
    whole = run(config(dataset, tmp_path / "whole", **options))
    parts = run(config(dataset, tmp_path / "parts", parallel__micro_batch=1, **options))
    finish(start(tmp_path, config(dataset, tmp_path / "ranks", **options), ranks=4))
    assert parts == pytest.approx(whole, rel=2e-6)
    assert losses(tmp_path / "ranks") == pytest.approx(whole, rel=2e-6)


def test_a_term_signal_writes_a_checkpoint_and_another_number_of_ranks_goes_on(
    dataset: MadeDataset, tmp_path: Path
) -> None:
    long = {"schedule__steps": 400, "checkpoint__every": 1000, "evaluate__every": 400}
    process = start(tmp_path, config(dataset, tmp_path / "run", **long), ranks=2)
    wait_for_steps(tmp_path / "run", 10, process)
    ranks = [child for child in _children(process.pid) if "-m trainer" in child[1]]
    assert len(ranks) == 2
    for pid, _ in ranks:
        os.kill(pid, signal.SIGTERM)
    said = finish(process)  # each rank ended with 0, or torchrun would not
    assert "stopped by a signal" in said
    done = len(losses(tmp_path / "run"))
    assert 10 <= done < 400
    whole = run(config(dataset, tmp_path / "whole", **long))
    assert run(config(dataset, tmp_path / "run", **long)) == pytest.approx(whole, rel=1e-3)
    assert events(tmp_path / "run", "resume")[0]["step"] == done


def _children(pid: int) -> list[tuple[int, str]]:
    """Processes below one, with their command lines."""
    return [(child.pid, " ".join(child.cmdline())) for child in psutil.Process(pid).children(recursive=True)]


def test_a_killed_run_ends_with_the_weights_of_one_that_was_never_killed(dataset: MadeDataset, tmp_path: Path) -> None:
    options = {"schedule__steps": 60, "checkpoint__every": 4, "evaluate__every": 60}
    whole = run(config(dataset, tmp_path / "whole", **options))
    for steps in (6, 25):
        process = start(tmp_path, config(dataset, tmp_path / "killed", **options), ranks=1)
        wait_for_steps(tmp_path / "killed", steps, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert run(config(dataset, tmp_path / "killed", **options)) == whole
    ours, theirs = final_weights(tmp_path / "killed"), final_weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_ends_the_others_with_a_word_and_no_traceback(
    dataset: MadeDataset, tmp_path: Path, killed: int
) -> None:
    long = {"schedule__steps": 4000, "evaluate__every": 4000}
    process = start(tmp_path, config(dataset, tmp_path / "run", **long), ranks=2)
    wait_for_steps(tmp_path / "run", 5, process)
    ranks = [psutil.Process(pid) for pid, command in _children(process.pid) if "-m trainer" in command]
    (lost,) = (each for each in ranks if each.environ()["RANK"] == str(killed))
    lost.kill()
    said, _ = process.communicate(timeout=400)
    assert process.returncode != 0
    assert f"rank {1 - killed}: another rank has ended or does not answer" in said
    assert "in accumulate_gradients" not in said
    assert "in agree" not in said


def test_a_second_run_in_the_same_folder_is_refused(dataset: MadeDataset, tmp_path: Path) -> None:
    long = {"schedule__steps": 400, "evaluate__every": 400}
    first = start(tmp_path, config(dataset, tmp_path / "run", **long), ranks=1)
    wait_for_steps(tmp_path / "run", 1, first)
    second = start(tmp_path, config(dataset, tmp_path / "run", **long), ranks=1)
    assert "another run (process" in finish(second, code=1)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()


def test_ranks_that_do_not_divide_the_batch_are_refused(dataset: MadeDataset, tmp_path: Path) -> None:
    process = start(tmp_path, config(dataset, tmp_path / "run", data__global_batch=7), ranks=2)
    said, _ = process.communicate(timeout=400)
    assert process.returncode != 0
    assert "global_batch=7 (from batch 0 on) is not divided by the 2 processes" in said

"""How processes are started: by the command, by torchrun with restarts, by srun; and which code they run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.made_dataset import MadeDataset
from tests.trainer.tiny import config, events, learnable, losses, run, written
from trainer.distributed.launch import adopt_slurm, first_node, tasks_per_node

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
COMMAND = [sys.executable, str(ROOT / "gristmill.py")]  # as the installed command: its own folder comes first


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return learnable(tmp_path_factory.mktemp("learnable"))


def start(command: list[str], folder: Path, log: str = "log", **environment: str) -> "subprocess.Popen[bytes]":
    """A command in a folder, with its own process group; what it prints goes to `log` there."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with (folder / log).open("wb") as out:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**kept, "OMP_NUM_THREADS": "1", **environment},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(process: "subprocess.Popen[bytes]", log: Path, code: int = 0) -> str:
    """What was printed, when it has ended."""
    process.wait(timeout=300)
    said = log.read_text()
    assert process.returncode == code, said[-4000:]
    return said


def kill_rank(agents: list["subprocess.Popen[bytes]"], rank: int) -> None:
    """End a rank as the kernel does that is out of memory."""
    for agent in agents:
        for child in psutil.Process(agent.pid).children(recursive=True):
            if child.environ().get("RANK") == str(rank) and "train" in " ".join(child.cmdline()):
                child.kill()
                return
    raise AssertionError(f"no rank {rank}")


def wait_for_steps(output: Path, steps: int, agents: list["subprocess.Popen[bytes]"]) -> None:
    until = time.monotonic() + 200
    while not (output / "metrics.jsonl").exists() or len(losses(output)) < steps:
        assert all(agent.poll() is None for agent in agents)
        assert time.monotonic() < until
        time.sleep(0.05)


# ---------------------------------------------------------------- which code runs


@pytest.mark.parametrize("launcher", [[], [*TORCHRUN, "--standalone", "--no-python"]])
def test_a_trainer_of_the_users_own_does_not_run_in_place_of_ours(
    dataset: MadeDataset, tmp_path: Path, launcher: list[str]
) -> None:
    for name in ("trainer.py", "schemas.py", "gristmill.py"):
        (tmp_path / name).write_text(f"raise SystemExit('{name} of the user has run')\n")
    options = {"schedule__steps": 4, "schedule__warmup_steps": 1, "data__workers": 1}
    path = written(tmp_path / "run.yaml", config(dataset, tmp_path / "run", **options))
    process = start([*launcher, *COMMAND, "train", str(path)], tmp_path)
    assert "of the user has run" not in end(process, tmp_path / "log")
    assert len(losses(tmp_path / "run")) == 4


def test_one_help_names_both_halves_and_the_trainers_names_its_commands(tmp_path: Path) -> None:
    whole = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    assert "gristmill train CONFIG" in whole
    assert "make the dataset" in whole
    ours = subprocess.run([*COMMAND, "train", "--help"], capture_output=True, text=True, check=True).stdout
    assert ours.startswith("usage: gristmill train [COMMAND] CONFIG")
    assert "torchrun --nproc-per-node N --no-python gristmill train CONFIG" in ours


def imported(code: str) -> set[str]:
    """The top modules that a fresh interpreter has after some code."""
    ask = f"import sys; {code}; print(' '.join(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_command_imports_only_the_half_that_is_asked_for() -> None:
    assert not imported("import gristmill") & {"torch", "pipeline", "trainer", "apache_beam"}
    assert not imported("import trainer, trainer.data.reader_process, trainer.config") & {"torch", "pipeline"}


def test_the_public_names_are_there_whatever_was_imported_before() -> None:
    before = "from trainer import TokenStream, TokenBatch, load_config, train; assert callable(train)"
    assert "torch" in imported(f"{before}; import trainer.train; from trainer import train; assert callable(train)")
    module = "import trainer.train; from trainer.train import train as f, loop; assert trainer.train.train is f"
    imported(f"{module}; from trainer import train; assert train is trainer.train")
    with pytest.raises(subprocess.CalledProcessError):
        imported("from trainer import nothing")


# ---------------------------------------------------------------- restarts


STEPS = 150


def long(dataset: MadeDataset, output: Path, every: int = 5) -> Any:
    return config(dataset, output, schedule__steps=STEPS, checkpoint__every=every, evaluate__every=STEPS)


def test_torchrun_goes_on_by_itself_when_ranks_are_killed(dataset: MadeDataset, tmp_path: Path) -> None:
    path = written(tmp_path / "run.yaml", long(dataset, tmp_path / "run"))
    options = ["--standalone", "--nproc-per-node", "2", "--max-restarts", "2", "--no-python"]
    agent = start([*TORCHRUN, *options, *COMMAND, "train", str(path)], tmp_path)
    for rank, steps in ((1, 12), (0, 40)):
        wait_for_steps(tmp_path / "run", steps, [agent])
        kill_rank([agent], rank)
    said = end(agent, tmp_path / "log")
    assert len(events(tmp_path / "run", "resume")) == 2
    assert "Traceback" not in said  # of ours; and what is not written is not resumed from
    paths = [event["checkpoint"] for event in events(tmp_path / "run", "resume")]
    assert not [path for path in paths if f"{path}: the checkpoint of step" in said]
    assert losses(tmp_path / "run") == pytest.approx(run(long(dataset, tmp_path / "whole", every=1000)), rel=1e-2)


def test_two_agents_go_on_when_a_rank_of_one_is_killed(dataset: MadeDataset, tmp_path: Path) -> None:
    path = written(tmp_path / "run.yaml", long(dataset, tmp_path / "run"))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3", "--rdzv-backend", "c10d"]
    place = ["--rdzv-endpoint", f"localhost:{port}", "--rdzv-id", "7", "--no-python"]
    command = [*TORCHRUN, *options, *place, *COMMAND, "train", str(path)]
    agents = [start(command, tmp_path, f"log-{number}") for number in range(2)]
    try:
        wait_for_steps(tmp_path / "run", 12, agents)
        kill_rank(agents, 1)
        for number, agent in enumerate(agents):
            end(agent, tmp_path / f"log-{number}")
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
    assert len(events(tmp_path / "run", "resume")) == 1
    assert len(losses(tmp_path / "run")) == STEPS


# ---------------------------------------------------------------- srun


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu7", "gpu7"), ("gpu7,gpu9", "gpu7"), ("gpu[07-12,15],cpu3", "gpu07"), ("a-b[3,5]-ib,c", "a-b3-ib")],
)
def test_the_first_node_of_a_list(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_tasks_of_each_node() -> None:
    assert tasks_per_node("4(x2),3") == [4, 4, 3]
    with pytest.raises(ValueError, match="expected numbers of tasks"):
        tasks_per_node("four")


STEP = {
    "SLURM_STEP_NUM_TASKS": "7", "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "3", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_STEP_TASKS_PER_NODE": "4,3",
}  # fmt: skip


def test_a_task_of_srun_is_a_rank() -> None:
    environ = dict(STEP)
    adopt_slurm(environ)
    assert environ == STEP | {
        "RANK": "5", "WORLD_SIZE": "7", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3", "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "20099",
    }  # fmt: skip


@pytest.mark.parametrize(
    "environ",
    [
        STEP | {"RANK": "0", "WORLD_SIZE": "1"},  # torchrun has said it already
        {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "gpu7"},  # the batch script, no task
        STEP | {"SLURM_STEP_NUM_TASKS": "1"},  # an interactive shell
        {},
    ],
)
def test_what_is_no_task_of_several_is_left_as_it_is(environ: dict[str, str]) -> None:
    given = dict(environ)
    adopt_slurm(given)
    assert given == environ


def test_two_tasks_of_srun_train_together(dataset: MadeDataset, tmp_path: Path) -> None:
    path = written(tmp_path / "run.yaml", config(dataset, tmp_path / "run"))
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0"}
    step |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2"}
    tasks = [
        start([*COMMAND, "train", str(path)], tmp_path, f"log-{n}", SLURM_PROCID=str(n), SLURM_LOCALID=str(n), **step)
        for n in range(2)
    ]
    for number, task in enumerate(tasks):
        end(task, tmp_path / f"log-{number}")
    (line,) = [json.loads(each) for each in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[:1]]
    assert line["world"] == 2
    assert losses(tmp_path / "run") == pytest.approx(run(config(dataset, tmp_path / "one")), rel=2e-5)

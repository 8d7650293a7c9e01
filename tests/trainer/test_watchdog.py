"""The hang watchdog: real processes that hang, and what is said of them."""

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.monitor.watchdog import Heartbeat, Watchdog, shutdown_warning, who_is_behind

SECONDS = 1.0
RANK = Path(__file__).with_name("hanging_rank.py")


def heartbeat(step: int, phase: str, count: int) -> Heartbeat:
    return Heartbeat(step, phase, count, 31.4, 7)


@pytest.fixture
def start(tmp_path: Path) -> Iterator:
    """Start three ranks; they are killed in the end."""
    ranks: list[subprocess.Popen[str]] = []

    def start(kind: str) -> list[subprocess.Popen[str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        for rank in range(3):
            env = {
                **os.environ, "RANK": str(rank), "WORLD_SIZE": "3", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2]),
            }  # fmt: skip
            log = (tmp_path / f"log-{rank}").open("w")
            command = [sys.executable, str(RANK), str(tmp_path), str(SECONDS), kind]
            ranks.append(
                subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
            )
        for rank in ranks:
            assert rank.stdout is not None
            assert rank.stdout.readline() == "ready\n"
        for rank in ranks:
            assert rank.stdin is not None
            rank.stdin.write("go\n")
            rank.stdin.flush()
        return ranks

    yield start
    for rank in ranks:
        rank.kill()
        rank.wait()


def wait_for(path: Path, *texts: str) -> str:
    """What a file says once it has all of the texts."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        said = path.read_text() if path.exists() else ""
        if all(text in said for text in texts):
            return said
        time.sleep(0.05)
    raise AssertionError(f"{path} never said {texts}: {said}")


def test_a_rank_whose_data_never_comes_is_named_and_every_rank_shows_its_stacks(start, tmp_path: Path) -> None:
    start("data")
    named = "hang: rank 1 is behind: step 2, data, for "
    said = wait_for(tmp_path / "hang" / "rank-00000.txt", named)
    assert "the others: 2 at step 2, backward" in said
    assert said.count("hang: rank 1 is behind: step 2") == 1  # a slow start may have been taken for one before
    assert named in wait_for(tmp_path / "log-0", named)
    for rank in range(3):
        stacks = wait_for(tmp_path / "hang" / f"rank-{rank:05}.txt", "hanging_rank.py")
        assert f"rank {rank} (process " in stacks
        assert f"standing at step 2, {'data' if rank == 1 else 'backward'}" in stacks
        assert ("load_a_batch_that_never_comes" in stacks) == (rank == 1)
        assert stacks in (tmp_path / f"log-{rank}").read_text()


def test_code_that_holds_the_interpreter_still_shows_its_stack_and_is_named_silent(start, tmp_path: Path) -> None:
    start("interpreter")
    assert "hanging_rank.py" in wait_for(tmp_path / "log-1", "Timeout (0:00:01", "in main")
    said = wait_for(tmp_path / "log-0", "rank 1 is behind: step 2, data", "rank 1 is silent")
    assert "or C code holds its interpreter; it last reported step 2, data\n" in said


def test_a_stopped_process_is_named_silent(start, tmp_path: Path) -> None:
    start("stopped")
    wait_for(tmp_path / "log-0", "rank 1 is behind", "rank 1 is silent: its process is stopped or gone")


def test_slow_steps_are_no_hang_and_nothing_is_left(start, tmp_path: Path) -> None:
    ranks = start("fine")
    for rank in ranks:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "done\n"
    for rank in ranks:
        assert rank.stdin is not None
        rank.stdin.write("go\n")
        rank.stdin.flush()
        assert rank.wait(timeout=60) == 0
    assert not (tmp_path / "hang").exists()
    assert [(tmp_path / f"log-{rank}").read_text() for rank in range(3)] == ["", "", ""]


def test_the_rank_with_the_fewest_beats_is_behind_not_the_one_that_waits_longest() -> None:
    heartbeats = {0: heartbeat(7, "forward", 5), 1: heartbeat(7, "forward", 3), 2: heartbeat(7, "backward", 6)}
    assert who_is_behind(heartbeats, set()) == [
        "rank 1 is behind: step 7, forward, for 31 s; the others: 1 at step 7, backward, 1 at step 7, forward"
    ]


def test_an_earlier_step_is_behind_whatever_its_phase() -> None:
    heartbeats = {0: heartbeat(8, "data", 0), 1: heartbeat(7, "optimizer", 9), 2: heartbeat(7, "optimizer", 9)}
    assert who_is_behind(heartbeats, set()) == [
        "2 ranks (1, 2) are behind: step 7, optimizer, for 31 s; the others: 1 at step 8, data"
    ]


def test_ranks_that_stand_at_one_place_are_not_called_slow() -> None:
    heartbeats = {0: heartbeat(7, "backward", 2), 1: heartbeat(7, "backward", 2)}
    assert who_is_behind(heartbeats, set()) == [
        "no rank is behind, all 2 stand at step 7, backward: their stacks show what they wait for"
    ]


def test_ranks_that_never_reported_or_have_ended_are_named() -> None:
    heartbeats = {0: heartbeat(7, "backward", 2), 1: None, 2: heartbeat(6, "end", 4)}
    assert who_is_behind(heartbeats, {1, 2}) == [
        "rank 1 never reported anything: not started, or ended before the first look",
        "rank 2 ended, the others wait",
    ]


def test_many_ranks_are_counted_and_the_first_named() -> None:
    heartbeats = {rank: heartbeat(3, "data", 0) for rank in range(20)} | {20: heartbeat(3, "forward", 1)}
    assert who_is_behind(heartbeats, set())[0].startswith(
        "20 ranks (0, 1, 2, 3, 4, 5, 6, 7, ...) are behind: step 3, data"
    )


def test_no_seconds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hang_seconds=0: it must be above 0"):
        Watchdog(0, tmp_path)


def test_a_save_that_torchrun_would_not_wait_for_is_warned_of() -> None:
    torchrun = {"TORCHELASTIC_RUN_ID": "x"}
    assert shutdown_warning(40.0, torchrun) == (
        "a checkpoint took 40 s, and torchrun kills its ranks 30 s after SIGTERM: "
        "export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=80 before it starts"
    )
    assert shutdown_warning(24.0, torchrun) is not None
    assert shutdown_warning(23.9, torchrun) is None
    assert shutdown_warning(40.0, torchrun | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600"}) is None
    assert shutdown_warning(1000.0, {}) is None


def test_a_checkpoint_may_take_ten_times_as_long(tmp_path: Path) -> None:
    watchdog = Watchdog(0.3, tmp_path, out=io.StringIO())
    watchdog.heartbeat(7, "checkpoint")
    text = wait_for(tmp_path / "hang" / "rank-00000.txt", "standing at step 7, checkpoint")
    watchdog.close()
    assert int(text.partition("no step in ")[2].split()[0]) >= 3

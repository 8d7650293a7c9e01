"""The log line, the speed meter, metrics.jsonl and its cutting back, TensorBoard files."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.monitor.run_logger import log_line
from trainer.monitor.tensorboard import TensorBoard
from trainer.monitor.throughput import Meter
from trainer.report.metrics import Metrics, cut_back, read_events


def trained(metrics: Metrics | TensorBoard, first: int, last: int) -> None:
    for step in range(first, last):
        metrics.write("step", step, loss=10.0 / (step + 1))


def shown(folder: Path) -> list[tuple[str, int]]:
    return [(event["event"], event["step"]) for event in read_events(folder / "metrics.jsonl")]


def steps(first: int, last: int) -> list[tuple[str, int]]:
    return [("step", step) for step in range(first, last)]


# ---------------------------------------------------------------- the file


def test_an_event_is_a_line_that_any_json_reader_reads_at_once(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write("step", 3, loss=2.5, gradient_norm=math.inf, layer_norms={"norm": math.nan}, worst=[-math.inf])
    # Not closed: what was written must be there.
    [line] = (tmp_path / "metrics.jsonl").read_text().splitlines()
    event = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert isinstance(event.pop("time"), float)
    assert event == {
        "event": "step", "step": 3, "loss": 2.5, "gradient_norm": "inf", "layer_norms": {"norm": "nan"},
        "worst": ["-inf"],
    }  # fmt: skip
    assert float(event["gradient_norm"]) == math.inf


def test_a_misspelt_event_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'stepp': an event of metrics.jsonl is one of run, step, eval"):
        Metrics(tmp_path).write("stepp", 0)


def test_a_resumed_run_cuts_off_what_lies_beyond_its_checkpoint(tmp_path: Path) -> None:
    first = Metrics(tmp_path)
    first.write("run", 0)
    trained(first, 0, 10)
    first.write("eval", 10, sets={})
    trained(first, 10, 15)
    first.write("checkpoint", 10, path="c")  # written behind the run
    first.write("spike", 15, batch=15)
    first.close()
    second = Metrics(tmp_path, done=10)
    second.write("resume", 10, checkpoint="c")
    trained(second, 10, 12)
    second.close()
    assert shown(tmp_path) == [("run", 0), *steps(0, 10), ("eval", 10), ("resume", 10), *steps(10, 12)]


def test_a_run_without_a_checkpoint_starts_its_record_anew(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    metrics.write("run", 0, name="a")
    trained(metrics, 0, 5)
    metrics.close()
    Metrics(tmp_path, done=0).close()
    assert shown(tmp_path) == [("run", 0)]


def test_the_story_of_a_rewind_stays_when_the_run_goes_on_from_behind_it(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    trained(metrics, 0, 8)
    metrics.write("spike", 8, batch=8)
    metrics.write("rewind", 5, to=5, batches=[8])
    trained(metrics, 5, 7)
    metrics.close()
    Metrics(tmp_path, done=5).close()
    assert shown(tmp_path) == [*steps(0, 8), ("spike", 8), ("rewind", 5)]
    Metrics(tmp_path, done=4).close()
    assert shown(tmp_path) == steps(0, 4)


def test_with_a_line_every_ten_steps_those_before_the_checkpoint_stay(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path)
    for step in (9, 19, 29):
        metrics.write("step", step, loss=1.0)
    metrics.close()
    Metrics(tmp_path, done=25).close()
    assert shown(tmp_path) == [("step", 9), ("step", 19)]


@given(st.integers(1, 200))
def test_a_torn_last_line_is_left_out_and_then_cut_off(lost: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        metrics = Metrics(folder)
        trained(metrics, 0, 6)
        metrics.close()
        path = Path(folder) / "metrics.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole[:-lost])
        left = path.read_bytes().count(b"\n")
        assert shown(Path(folder)) == steps(0, left)
        cut_back(path, 100)
        assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:left])


def test_a_line_that_is_no_event_is_named_and_nothing_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "step", "step": 0}\nnot an event\n{"event": "step", "step": 1}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl:2: not an event of a training run: move the file away"):
        Metrics(tmp_path, done=1)
    assert len(path.read_text().splitlines()) == 3


def test_tensorboard_shows_no_step_twice_after_a_resume_and_a_rewind(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path / "tensorboard", 0)
    trained(first, 0, 6)
    first.close()
    second = TensorBoard(tmp_path / "tensorboard", 4)
    trained(second, 4, 9)
    second.write("rewind", 7, to=7, checkpoint="c", batches=[9])
    second.write("step", 7, loss=1.25, layer_norms={"norm": 0.5})
    second.write("eval", 8, sets={"web": {"loss": 3.5, "perplexity": 33.1, "bits_per_byte": None}})
    second.write("sample", 8, prompt="The ", text="cat")
    second.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("train/loss")] == [0, 1, 2, 3, 4, 5, 6, 7]
    assert board.Scalars("train/loss")[-1].value == 1.25
    assert board.Scalars("eval/web/loss")[0].value == 3.5
    assert sorted(board.Tags()["scalars"]) == [
        "eval/web/loss", "eval/web/perplexity", "layer_norms/norm", "train/loss",
    ]  # fmt: skip


# ---------------------------------------------------------------- speed


class Clock:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_speed_is_that_of_training_alone_and_the_wait_its_share() -> None:
    clock = Clock()
    meter = Meter(peak_flops=1e6, now=clock)
    with meter.waiting():
        clock.seconds += 2
    clock.seconds += 6
    with meter.other_work():
        clock.seconds += 12
    meter.add(2000, flops_per_token=1000)
    assert meter.read(10) == {
        "tokens": 2000, "tokens_per_second": 250.0, "mfu": 0.25, "data_wait": 0.25, "seconds_left": 200.0,
    }  # fmt: skip


def test_mfu_counts_each_phase_with_its_own_flops_a_token() -> None:
    clock = Clock()
    meter = Meter(peak_flops=1000.0, now=clock)
    meter.add(100, flops_per_token=1)
    meter.add(100, flops_per_token=3)
    clock.seconds += 1
    assert meter.read(0)["mfu"] == pytest.approx(0.4)
    meter.add(100, flops_per_token=3)
    clock.seconds += 1
    assert meter.read(0)["mfu"] == pytest.approx(0.3)


def test_time_left_forgets_the_first_interval_which_compiles() -> None:
    clock = Clock()
    meter = Meter(None, clock)
    for seconds in (1000, 3, 5):
        clock.seconds += seconds
        meter.add(10, 1)
        values = meter.read(100)
    assert values["seconds_left"] == 400.0
    assert values["tokens_per_second"] == 2.0


def test_an_unknown_device_has_no_mfu() -> None:
    clock = Clock()
    meter = Meter(None, clock)
    clock.seconds += 1
    meter.add(5, 1000)
    assert "mfu" not in meter.read(1)


def test_the_line_of_a_step_says_what_is_known() -> None:
    values = {
        "loss": 2.91304, "learning_rate": 6.1e-5, "gradient_norm": 0.3804, "tokens": 524288, "mfu": 0.4123,
        "tokens_per_second": 1.62e6, "data_wait": 0.003, "seconds_left": 8000.0,
    }  # fmt: skip
    assert log_line(90, 4000, values) == (
        "step    90/4,000  loss 2.9130  lr 6.10e-05  norm 0.380  1.62M tok/s  MFU 41.2%  data 0.3%  2h13m left"
    )
    assert log_line(90, None, {"loss": math.nan}) == "step 90  loss nan"

"""How runs end, and from where they go on: data, signals, branches, folders that belong to another run."""

import json
import os
import signal
import stat
from pathlib import Path

import pytest

import trainer.train
from schemas.config_model import ConfigError
from schemas.storage import StorageError
from tests.made_dataset import MadeDataset
from tests.trainer.tiny import VOCABULARY, config, counting, events, final_state, learnable, losses, run, written
from trainer.cli import main
from trainer.distributed.signals import requeue
from trainer.report.html import write_report
from trainer.train import Training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return learnable(tmp_path_factory.mktemp("learnable"))


def signal_after(steps: int, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process a signal in the step after so many."""
    advance = trainer.train.advance

    def then(t: Training, *rest: object) -> None:
        advance(t, *rest)  # type: ignore[arg-type]
        if t.state.step == steps - 1:  # the ranks agree on it in the next step
            os.kill(os.getpid(), number)

    monkeypatch.setattr(trainer.train, "advance", then)


def checkpoints(output: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in (output / "checkpoints").glob("step-*"))


# ---------------------------------------------------------------- data


def test_a_dataset_without_validation_documents_is_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = MadeDataset(tmp_path / "data", vocab_size=VOCABULARY)
    data.add("web", counting(8000, seed=1))
    data.commit()
    settings = config(data, tmp_path / "run")
    assert len(run(settings)) == 20
    assert capsys.readouterr().err.count("no validation: the dataset has no validation documents") == 1
    assert events(tmp_path / "run", "eval") == []
    assert len(events(tmp_path / "run", "mixture")) == 2
    write_report(tmp_path / "run")
    path = str(written(tmp_path / "run.yaml", settings))
    assert main(["evaluate", path]) == 1
    assert "has no validation documents" in capsys.readouterr().err


def test_a_run_that_its_data_end_is_finished_and_measured(
    dataset: MadeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"data__max_epochs": {"web": 1, "wiki": 1}, "schedule__steps": 400, "evaluate__every": 1000}
    whole = run(config(dataset, tmp_path / "whole", **options))
    assert events(tmp_path / "whole", "end")[-1]["cause"] == "steps"  # the data are known to end there
    skip = {"spikes__action": "skip", "spikes__warmup": 8, "spikes__window": 16, "spikes__threshold": 1e-6}
    found = run(config(dataset, tmp_path / "run", **options, **skip, spikes__most=len(whole)))
    assert 8 <= len(found) < len(whole)
    (end,) = events(tmp_path / "run", "end")
    assert (end["reason"], end["cause"], end["step"]) == ("finished", "data", len(found))
    assert events(tmp_path / "run", "eval")[-1]["step"] == len(found)
    assert f"finished (the data ended) after {len(found)} steps" in capsys.readouterr().err
    assert "The run is finished." in (tmp_path / "run" / "report.html").read_text()


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_ends_a_run_with_a_checkpoint(
    dataset: MadeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    with monkeypatch.context() as patched:
        signal_after(7, number, patched)
        patched.delenv("SLURM_JOB_ID", raising=False)
        assert len(run(config(dataset, tmp_path))) == 7
    assert checkpoints(tmp_path)[-1] == 7
    assert events(tmp_path, "end")[-1] | {"time": 0} == {
        "event": "end", "step": 7, "time": 0, "reason": "stopped", "cause": "signal",
    }  # fmt: skip


def test_a_hangup_that_is_ignored_stays_so(
    dataset: MadeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        with monkeypatch.context() as patched:
            signal_after(7, signal.SIGHUP, patched)
            assert len(run(config(dataset, tmp_path))) == 20
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("code", "line"), [(0, "job 41 is queued again"), (1, "not queued again: no such job")])
def test_usr2_puts_the_job_into_slurms_queue_again(
    dataset: MadeDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    line: str,
) -> None:
    script = tmp_path / "bin" / "scontrol"
    script.parent.mkdir()
    script.write_text(
        f"#!/bin/sh\nls {tmp_path}/run/checkpoints/*/complete.json > {tmp_path}/seen\n"
        f'echo "$@" >> {tmp_path}/seen\n[ {code} = 0 ] || echo no such job >&2\nexit {code}\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    signal_after(7, signal.SIGUSR2, monkeypatch)
    run(config(dataset, tmp_path / "run"))
    assert line in capsys.readouterr().err
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen[-1] == "requeue 41"
    assert any("step-00000007-" in each for each in seen)  # the checkpoint was there before


def test_a_requeue_without_slurm_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "not a job of Slurm" in requeue({})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "job 5 is not queued again: scontrol" in requeue({"SLURM_JOB_ID": "5"})


# ---------------------------------------------------------------- whose checkpoints


def test_two_runs_never_share_a_place_of_checkpoints(dataset: MadeDataset, tmp_path: Path) -> None:
    place = {"checkpoint__uri": str(tmp_path / "shared"), "schedule__steps": 6, "schedule__warmup_steps": 1}
    run(config(dataset, tmp_path / "one", **place))
    with pytest.raises(
        StorageError, match=r"are of the run 'run' with output=.*/one, this is 'run' with output=.*/two"
    ):
        run(config(dataset, tmp_path / "two", **place))
    with pytest.raises(StorageError, match=r"this is 'other' with"):
        run(config(dataset, tmp_path / "one", name="other", **place))
    assert not (tmp_path / "two" / "metrics.jsonl").exists()
    longer = {**place, "schedule__steps": 8}
    assert len(run(config(dataset, tmp_path / "one", **longer))) == 8
    (tmp_path / "shared" / "owner.json").unlink()  # as the message says: to go on from them
    run(config(dataset, tmp_path / "two", **longer))
    assert losses(tmp_path / "two") == []


def test_an_output_that_was_moved_as_a_whole_goes_on(dataset: MadeDataset, tmp_path: Path) -> None:
    run(config(dataset, tmp_path / "one", schedule__steps=6, schedule__warmup_steps=1))
    (tmp_path / "one").rename(tmp_path / "two")
    assert len(run(config(dataset, tmp_path / "two", schedule__steps=8, schedule__warmup_steps=1))) == 8


# ---------------------------------------------------------------- going on


WSD = {"schedule__kind": "wsd", "schedule__decay_steps": 6, "checkpoint__every": 4, "checkpoint__keep_last": 1}


def test_the_last_checkpoint_before_the_decay_is_kept_and_a_run_branches_there(
    dataset: MadeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config(dataset, tmp_path, **WSD))
    assert checkpoints(tmp_path) == [14, 20]
    longer = config(dataset, tmp_path, **{**WSD, "schedule__steps": 30})
    path = str(written(tmp_path / "run.yaml", longer))
    assert main([path, "--step", "14"]) == 0
    assert "the checkpoints after step 14 are abandoned" in capsys.readouterr().err
    assert checkpoints(tmp_path) == [24, 30]
    rates = [event["learning_rate"] for event in events(tmp_path, "step")]
    assert rates[4:24] == [0.01] * 20
    assert losses(tmp_path) == run(config(dataset, tmp_path / "whole", **{**WSD, "schedule__steps": 30}))


def test_a_branched_run_that_is_started_again_goes_on_along_its_branch(
    dataset: MadeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config(dataset, tmp_path, **WSD))
    path = str(written(tmp_path / "run.yaml", config(dataset, tmp_path, **{**WSD, "schedule__steps": 30})))
    with monkeypatch.context() as patched:
        signal_after(17, signal.SIGTERM, patched)
        assert main([path, "--step", "14"]) == 0
    assert main([path, "--step", "14"]) == 0
    assert "resumed after 17 steps" in capsys.readouterr().err
    assert len(losses(tmp_path)) == 30
    assert final_state(tmp_path)["branched_from"] == 14


def test_a_branch_from_a_checkpoint_that_is_not_there_is_refused(
    dataset: MadeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config(dataset, tmp_path))
    path = str(written(tmp_path / "run.yaml", config(dataset, tmp_path)))
    assert main([path, "--step", "7"]) == 1
    assert "no checkpoint of step 7: there are [10, 15, 20]" in capsys.readouterr().err
    assert checkpoints(tmp_path) == [10, 15, 20]
    assert not list(tmp_path.glob("checkpoints/*/abandoned.json"))


def test_what_a_rule_chose_stays_when_a_run_is_prolonged(dataset: MadeDataset, tmp_path: Path) -> None:
    by_rule = {
        "data": {"dataset": dataset.uri, "sequence_length": 32, "workers": 0},
        "optimizer": {},
        "schedule": {"tokens": 1e5},
        "evaluate__every": 1000,
    }
    run(config(dataset, tmp_path, **by_rule))
    first, before = events(tmp_path, "run")[0], losses(tmp_path)
    prolonged = run(config(dataset, tmp_path, **{**by_rule, "schedule": {"tokens": 1.3e5}}))
    assert prolonged[: len(before)] == before
    assert len(prolonged) > len(before)
    assert events(tmp_path, "resume")[0]["note"].count("in the checkpoint") == 1  # the steps, and no rate or warmup
    assert first["steps"] == len(before)


def test_a_batch_size_that_is_changed_is_named_with_both_values(dataset: MadeDataset, tmp_path: Path) -> None:
    run(config(dataset, tmp_path))
    with pytest.raises(ConfigError, match=r"data\.phases\.0\.global_batch: 8 in the checkpoint, 4 now"):
        run(config(dataset, tmp_path, data__global_batch=4, schedule__steps=40))


def test_checkpoints_of_the_version_before_are_resumed(dataset: MadeDataset, tmp_path: Path) -> None:
    for name in ("whole", "run"):
        run(config(dataset, tmp_path / name, schedule__steps=10, checkpoint__keep_last=1))
    (place,) = (tmp_path / "run" / "checkpoints").glob("step-*/complete.json")
    content = json.loads(place.read_bytes())
    for name in ("chosen", "phases", "branched_from"):
        del content["extra"][name]
    place.write_text(json.dumps(content))
    assert run(config(dataset, tmp_path / "run")) == run(config(dataset, tmp_path / "whole"))
    assert len(losses(tmp_path / "run")) == 20


# ---------------------------------------------------------------- a home that cannot be written


def test_a_cache_folder_that_cannot_be_written_costs_a_scan_and_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = MadeDataset(tmp_path / "data", vocab_size=VOCABULARY)  # whose manifest counts no packed rows
    for seed in range(8):
        data.add("web", counting(1000, seed=seed))
    data.commit()
    (tmp_path / "home").write_text("a file, so that no folder can be made below it, even by root")
    options = {"data__packing": "documents", "schedule__steps": 4, "schedule__warmup_steps": 1}
    assert (
        len(run(config(data, tmp_path / "run", data__cache={"folder": str(tmp_path / "home" / "c")}, **options))) == 4
    )
    assert "data.cache.folder=" in caplog.text
    assert "packed rows are counted at every start" in caplog.text

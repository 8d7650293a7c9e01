"""The trainer's command line: what is given to a command, and how it ends."""

import errno
import json
from pathlib import Path

import pytest

from tests.trainer.tiny import config, learnable, losses, written
from trainer.checkpoint.checkpointer import Checkpoints
from trainer.cli import main


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cli")
    return str(written(folder / "run.yaml", config(learnable(folder / "data"), folder / "run")))


@pytest.mark.parametrize(
    "words",
    [
        "plan CONFIG schedule.steps=7 data.sequence_length=16 --json",
        "plan --json CONFIG schedule.steps=7 --world 1 data.sequence_length=16",
        "plan schedule.steps=7 CONFIG --json data.sequence_length=16",
        "plan CONFIG --set schedule.steps=7 --json --set data.sequence_length=16",
        "plan --set schedule.steps=7 CONFIG data.sequence_length=16 --json",
    ],
)
def test_a_change_may_stand_anywhere_and_be_spelled_as_the_pipeline_does(
    path: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.replace("CONFIG", path).split()) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["steps"], shown["tokens"]) == (7, 7 * 8 * 16)


def test_a_change_may_stand_before_the_configuration_of_a_training(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--set", "schedule.setps=7", path], ["schedule.setps=7", path]):
        assert main(words) == 2
        assert "schedule.setps: unknown key; did you mean steps?" in capsys.readouterr().err


def test_a_word_that_is_no_command_is_answered_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as shown:
        main(["frobnicate"])
    assert shown.value.code == 2
    assert "frobnicate is neither a configuration file nor a command: train, plan, documents" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["documents", "--step", "1", "--rank", "4", "--world", "4"], "--rank 4: of 4 ranks, counted from 0"),
        (["plan", "optimizer.betas=[0.9, 1]"], "optimizer.betas.1=1: expected less than 1"),
        (["plan", "schedule.tokens=1.0e+300"], "schedule.tokens=1e+300: expected at most"),
        (["plan", "data.weights={webb: 1}"], "weights name source 'webb', which has no shard"),
    ],
)
def test_wrong_usage_ends_with_2(path: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([words[0], path, *words[1:]]) == 2
    assert message in capsys.readouterr().err


def test_a_document_that_no_step_saw_is_told_so(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["steps", path, "--document", "http://web.test/web-0-1", "--until", "0"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "trainer: none of the steps saw it; --until STEP looks further\n")


def test_other_words_are_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", path, "--json", "steps"]) == 2
    assert "steps: write key.path=value" in capsys.readouterr().err
    with pytest.raises(SystemExit) as shown:
        main(["plan", path, "--wrold", "2"])
    assert shown.value.code == 2
    assert "unknown option --wrold" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_be_written_is_told_once_and_ends_the_run_soon(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Checkpoints, "_dump", fill_the_disk)
    output = Path(path).parent / "full"
    assert main([path, f"output={output}", "schedule.steps=400", "checkpoint.every=5", "evaluate.every=400"]) == 1
    shown = [line for line in capsys.readouterr().err.splitlines() if "disk is full" in line]
    assert len(shown) == 1
    assert "the checkpoint of step 5 was not written" in shown[0]
    assert 5 <= len(losses(output)) < 400


def test_an_export_to_a_folder_that_holds_a_model_ends_with_2(
    path: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert main(["export", path, "--to", str(tmp_path)]) == 2
    assert "a model is there already: give another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("output=s3://bucket/run", "output: expected a local folder"),
        ("output=s4://bucket/run", "output: s4://bucket/run: unknown scheme"),
        ("checkpoint.uri=https://host/run", "checkpoint.uri: https://host/run: a web server is only read from"),
    ],
)
def test_a_place_that_nothing_can_be_written_to_is_a_wrong_configuration(
    path: str, change: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([path, change]) == 2
    assert message in capsys.readouterr().err

"""Whole runs on one process: resumed, in pieces, with spikes, with what users get wrong."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

import trainer.train
from schemas.config_model import ConfigError
from schemas.manifest import DatasetError
from schemas.packing import packed_rows
from tests.made_dataset import END_OF_TEXT, MadeDataset
from tests.trainer.tiny import (
    VOCABULARY,
    config,
    counting,
    events,
    final_state,
    final_weights,
    learnable,
    losses,
    run,
)
from trainer.commands import documents_of_step
from trainer.data.train_split import open_train_split
from trainer.distributed.signals import Signals, stop_signals
from trainer.lineage.document_steps import documents_of_rows
from trainer.monitor.watchdog import Watchdog
from trainer.order.batch_order import Order
from trainer.resolve import resolve
from trainer.train import Training

# Every tenth loss of a hundred steps, with torch 2.15 on x86-64.
GOLDEN = [4.16138, 2.77009, 1.75338, 1.01925, 0.75294, 0.54001, 0.64133, 0.47415, 0.58831, 0.55024]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return learnable(tmp_path_factory.mktemp("learnable"))


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is asked to stop in the step after so many."""
    advance = trainer.train.advance

    def advance_and_ask(t: Training, *rest: object) -> None:
        advance(t, *rest)  # type: ignore[arg-type]
        if t.state.step == steps - 1:
            t.signals.stop = True

    monkeypatch.setattr(trainer.train, "advance", advance_and_ask)


def test_the_loss_falls_from_ln_v_and_the_validation_loss_with_it(dataset: MadeDataset, tmp_path: Path) -> None:
    found = run(config(dataset, tmp_path, schedule__steps=60))
    assert abs(found[0] - 4.16) < 0.1  # ln 64
    assert found[-1] < 0.6 * found[0]
    evals = events(tmp_path, "eval")
    assert evals[-1]["sets"]["web"]["loss"] < 0.7 * evals[0]["sets"]["web"]["loss"]
    assert set(evals[-1]["sets"]) == {"web", "wiki"}


def test_a_hundred_steps_follow_the_golden_curve(dataset: MadeDataset, tmp_path: Path) -> None:
    options = {"schedule__steps": 100, "optimizer__learning_rate": 0.005, "evaluate__every": 100}
    assert run(config(dataset, tmp_path, **options))[::10] == pytest.approx(GOLDEN, rel=5e-3)


@pytest.mark.parametrize("at", [2, 7, 10, 19])
def test_a_resumed_run_equals_the_uninterrupted_bit_by_bit(
    dataset: MadeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    options = {"optimizer__kind": "muon", "data__packing": "documents", "data__mask": "documents"}
    whole = run(config(dataset, tmp_path / "whole", **options))
    with monkeypatch.context() as patched:
        stop_after(at, patched)
        run(config(dataset, tmp_path / "parts", **options))
    assert len(losses(tmp_path / "parts")) == at
    assert run(config(dataset, tmp_path / "parts", **options)) == whole
    ours, theirs = final_weights(tmp_path / "parts"), final_weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert final_state(tmp_path / "parts") == final_state(tmp_path / "whole")


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_activation_checkpointing_changes_no_loss(dataset: MadeDataset, tmp_path: Path, mode: str) -> None:
    whole = run(config(dataset, tmp_path / "none", schedule__steps=6))
    found = run(config(dataset, tmp_path / mode, schedule__steps=6, parallel__activation_checkpointing=mode))
    assert found == pytest.approx(whole, rel=1e-6)


def test_a_run_that_is_finished_is_left_as_it_is(dataset: MadeDataset, tmp_path: Path) -> None:
    run(config(dataset, tmp_path))
    before = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    run(config(dataset, tmp_path))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == before
    assert len(losses(tmp_path)) == 20


def test_only_the_last_checkpoints_stay_and_those_to_keep(dataset: MadeDataset, tmp_path: Path) -> None:
    run(config(dataset, tmp_path, checkpoint__every=2, checkpoint__keep_last=2, checkpoint__keep_every=8))
    steps = sorted(int(path.name.split("-")[1]) for path in (tmp_path / "checkpoints").iterdir())
    assert steps == [8, 16, 18, 20]


def test_a_corrupt_checkpoint_is_skipped_for_the_one_before(
    dataset: MadeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run(config(dataset, tmp_path))
    newest = max((tmp_path / "checkpoints").iterdir())
    file = next(newest.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    assert run(config(dataset, tmp_path)) == whole
    assert "has another digest than when it was written" in capsys.readouterr().err
    assert events(tmp_path, "resume")[-1]["step"] == 15


def test_the_watchdog_sees_every_batch_of_an_evaluation_and_every_wait_for_a_checkpoint(
    dataset: MadeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heartbeats: list[tuple[int, str]] = []
    monkeypatch.setattr(Watchdog, "heartbeat", lambda _, step, phase: heartbeats.append((step, phase)))
    run(config(dataset, tmp_path, evaluate__every=20))
    assert heartbeats[0] == (0, "checkpoint")  # one may have to be fetched
    assert heartbeats.count((20, "evaluate")) == 1 + 4  # 2 sources of 400 tokens, 256 a batch
    assert heartbeats.count((20, "checkpoint")) == 2


# ---------------------------------------------------------------- spikes


WATCHFUL = {
    "data__global_batch": 16,
    "data__verify_shards": False,
    "schedule__steps": 80,
    "spikes__warmup": 16,
    "spikes__window": 16,
    "optimizer__learning_rate": 0.005,
}
PLANTED = [60, 61]  # batches


def mostly_clean(folder: Path) -> MadeDataset:
    """More of one source than 80 batches read, and a shard of garbage as another."""
    dataset = MadeDataset(folder, vocab_size=VOCABULARY)
    for number in range(48):
        dataset.add("clean", counting(1000, seed=number))
    dataset.add("garbage", counting(1000, seed=99, garbage=True))
    dataset.add("clean", counting(400, seed=98), split="validation")
    dataset.commit()
    return dataset


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return mostly_clean(tmp_path_factory.mktemp("clean"))


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    """The same shards after a disk went bad: garbage in every second row of two batches in a row."""
    dataset = mostly_clean(tmp_path_factory.mktemp("poisoned"))
    order = watched_order(dataset)
    for shard in {s for batch in PLANTED for s in order.batch(batch).shard_G[::2].tolist()}:
        number = [dataset.sha256(n) for n in range(48)].index(order.shards.sha256_N[shard].tobytes())
        tokens = dataset.stream_of(number)
        for batch in map(order.batch, PLANTED):
            for row in batch.row_G[::2][batch.shard_G[::2] == shard].tolist():
                here = tokens[row * 32 : (row + 1) * 32]
                here[here != END_OF_TEXT] = np.random.default_rng(row).integers(1, VOCABULARY, (here != 0).sum())
        lengths = np.cumsum([len(document) for document in dataset.shards[number].documents])[:-1]
        documents = [document.tolist() for document in np.split(tokens, lengths)]
        data = dataset.shard_bytes("clean", "train", documents, dataset.shards[number].names)
        assert dataset.path(number).stat().st_size == len(data)
        dataset.path(number).write_bytes(data)
    return dataset


def watched_order(dataset: MadeDataset) -> Order:
    return resolve(config(dataset, Path("unused"), data__weights={"clean": 1}, **WATCHFUL)).order()


def watched(dataset: MadeDataset, output: Path, **options: object) -> list[float]:
    return run(config(dataset, output, **{"data__weights": {"clean": 1}} | WATCHFUL | options))


@pytest.mark.parametrize("action", ["skip", "rewind"])
def test_a_planted_run_of_garbage_is_named_and_skipped(
    clean: MadeDataset, poisoned: MadeDataset, tmp_path: Path, action: str
) -> None:
    healthy = watched(clean, tmp_path / "clean")
    assert events(tmp_path / "clean", "spike") == []
    found = watched(poisoned, tmp_path / action, spikes__action=action, checkpoint__every=20)
    spikes, order = events(tmp_path / action, "spike"), watched_order(poisoned)
    assert [event["batch"] for event in spikes] == PLANTED
    for event in spikes:
        planted = documents_of_rows(
            [open_train_split(poisoned.uri)], order, order.batch(event["batch"]), range(0, 16, 2)
        )
        assert {each["url"] for each in event["documents"]} == {each.url for each in planted}
    assert final_state(tmp_path / action)["skipped"] == PLANTED
    assert len(found) == 80
    assert sum(found[-8:]) / 8 == pytest.approx(sum(healthy[-8:]) / 8, rel=0.1)
    ours, theirs = (events(tmp_path / name, "eval")[-1]["sets"]["clean"]["loss"] for name in (action, "clean"))
    assert ours == pytest.approx(theirs, rel=0.005)  # other seeds differ by 0.001; trained on, the garbage costs 0.016
    if action == "rewind":
        assert [event["to"] for event in events(tmp_path / action, "rewind")] == [60, 60]


def test_a_spike_that_is_only_logged_changes_nothing(poisoned: MadeDataset, tmp_path: Path) -> None:
    watched(poisoned, tmp_path, schedule__steps=64)
    assert [event["action"] for event in events(tmp_path, "spike")][:2] == ["log", "log"]
    assert final_state(tmp_path)["skipped"] == []


def test_more_spikes_than_allowed_stop_the_run(poisoned: MadeDataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 batches were skipped already \(spikes\.most=1\)"):
        watched(poisoned, tmp_path, spikes__action="skip", spikes__most=1)


@pytest.mark.parametrize("action", ["skip", "rewind"])
def test_a_phase_that_lifts_the_loss_is_told_and_trained(clean: MadeDataset, tmp_path: Path, action: str) -> None:
    phases = [{"batch": 40, "weights": {"clean": 0.5, "garbage": 0.5}}]
    found = watched(clean, tmp_path, schedule__steps=60, spikes__action=action, spikes__most=1, data__phases=phases)
    assert found[40] > found[39] + 1
    assert len(found) == 60
    (shown,) = events(tmp_path, "spike")
    assert (shown["batch"], shown["action"]) == (40, "log")
    assert final_state(tmp_path)["skipped"] == []


def test_local_shards_are_checked_unless_that_is_switched_off(poisoned: MadeDataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"its sha256 is .*, the manifest says .*: copy it again"):
        watched(poisoned, tmp_path, data__verify_shards=True)


def test_a_run_goes_on_without_a_lost_shard_and_says_so(
    poisoned: MadeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"data__verify_shards": True, "data__on_lost_shard": "skip", "schedule__steps": 20}
    assert len(watched(poisoned, tmp_path, **options)) == 20
    lost = events(tmp_path, "lost")
    assert {event["shard"] for event in lost} == final_state(tmp_path)["lost"].keys() != set()
    assert {event["source"] for event in lost} == {"clean"}
    assert f"shard {lost[0]['shard'][:16]} of clean is lost" in capsys.readouterr().err


def test_packed_rows_that_nobody_has_counted_are_counted_once(dataset: MadeDataset, tmp_path: Path) -> None:
    options = {"data__packing": "documents", "data__mask": "documents", "data__cache": {"folder": str(tmp_path / "c")}}
    with_counts = run(config(dataset, tmp_path / "32", **options))
    assert not (tmp_path / "c").exists()  # 32 is in the manifest
    assert len(run(config(dataset, tmp_path / "24", data__sequence_length=24, **options))) == len(with_counts)
    (counts,) = (tmp_path / "c").iterdir()
    lengths = [np.array([len(document) for document in shard.documents]) for shard in dataset.shards]
    train = [number for number, shard in enumerate(dataset.shards) if shard.row["split"] == "train"]
    assert np.load(counts).tolist() == [packed_rows(lengths[number], 24) for number in train]


def test_a_step_that_the_run_has_not_is_refused(dataset: MadeDataset, tmp_path: Path) -> None:
    for step in (-1, 20):
        with pytest.raises(ConfigError, match=rf"--step {step}: the run has 20 steps, counted from 0"):
            list(documents_of_step(config(dataset, tmp_path), step))
    assert any("http://web.test/" in line for line in documents_of_step(config(dataset, tmp_path), 19))


def test_documents_are_told_of_the_run_that_was_and_of_no_other(dataset: MadeDataset, tmp_path: Path) -> None:
    run(config(dataset, tmp_path))
    shown = list(documents_of_step(config(dataset, tmp_path), 3))
    assert shown == list(documents_of_step(config(dataset, tmp_path, schedule__steps=40), 3))
    for changes in ({"data__global_batch": 4}, {"data__weights": {"web": 1}}, {"seed": 9}):
        with pytest.raises(ConfigError, match=r"phases that began before batch|is of another run: seed"):
            list(documents_of_step(config(dataset, tmp_path, **changes), 3))


def test_a_resumed_run_says_what_was_changed(
    dataset: MadeDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config(dataset, tmp_path))
    run(config(dataset, tmp_path, schedule__steps=24, optimizer__learning_rate=0.001))
    assert "optimizer.learning_rate: 0.01 in the checkpoint, 0.001 now" in capsys.readouterr().err
    assert "schedule.steps: 20 in the checkpoint, 24 now" in events(tmp_path, "resume")[-1]["note"]
    run(config(dataset, tmp_path, schedule__steps=28, optimizer__learning_rate=0.001))
    assert "learning_rate" not in events(tmp_path, "resume")[-1]["note"]


def test_a_second_signal_ends_a_run_that_does_not_stop_by_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("trainer.distributed.signals.time.monotonic", lambda: now[0])
    with stop_signals() as signals:
        signal.raise_signal(signal.SIGINT)
        now[0] += 0.1  # torchrun hands on what the terminal has sent already
        signal.raise_signal(signal.SIGTERM)
        assert signals == Signals(stop=True)
        now[0] += 6
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_no_checkpoint_is_written_of_weights_that_are_not_finite(
    dataset: MadeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance = trainer.train.advance

    def spoil(t: Training, *rest: object) -> None:
        advance(t, *rest)  # type: ignore[arg-type]
        if t.state.step == 10:
            with torch.no_grad():
                next(t.model.parameters()).fill_(float("inf"))

    with monkeypatch.context() as patched:
        patched.setattr(trainer.train, "advance", spoil)
        with pytest.raises(trainer.train.TrainingFailed, match="after 10 steps there are weights that are not finite"):
            run(config(dataset, tmp_path, checkpoint__every=5))
    whole = run(config(dataset, tmp_path / "whole", checkpoint__every=5))
    assert run(config(dataset, tmp_path, checkpoint__every=5)) == whole
    assert events(tmp_path, "resume")[-1]["step"] == 5


# ---------------------------------------------------------------- what users get wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__global_batch": 100_000}, r"source 'web' has \d+ rows .* lower global_batch"),
        ({"data__sequence_length": 5_000}, r"no shard of split train holds that many tokens"),
        ({"model__vocab_size": 10}, r"model\.vocab_size=10, but the dataset's tokens go up to 63"),
        (
            {"data__weights": {"wbe": 1}},
            r"weights name source 'wbe', which has no shard; the data's sources: web, wiki",
        ),
        ({"model__heads": 3}, r"heads"),
        ({"schedule__warmup_steps": 50}, r"warmup_steps=50 exceeds steps=20"),
        ({"evaluate__files": {"web": "README.md"}}, r"evaluate\.files\.web: this is the name of a source"),
        ({"evaluate__files": {"mine": "/nope.txt"}}, r"evaluate\.files\.mine: /nope\.txt: no such file"),
        ({"evaluate__files": {"mine": "/dev/null"}}, r"evaluate\.files\.mine: /dev/null: the file is empty"),
        ({"evaluate__files": {"mine": "pipeline/assets/lid.176.ftz"}}, r"lid\.176\.ftz: not UTF-8 text"),
        ({"parallel__replicas": 2}, r"parallel\.replicas=2 does not divide the 1 processes"),
    ],
)
def test_what_cannot_be_trained_is_said_before_a_step(
    dataset: MadeDataset, tmp_path: Path, changes: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run(config(dataset, tmp_path, **changes))
    assert not (tmp_path / "metrics.jsonl").exists()


def test_no_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset there"):
        run(config(MadeDataset(tmp_path / "nothing"), tmp_path / "run"))


def test_a_checkpoint_of_another_model_is_refused_with_the_difference(dataset: MadeDataset, tmp_path: Path) -> None:
    run(config(dataset, tmp_path))
    with pytest.raises(ValueError, match=r"model\.dim: 32 in the checkpoint, 64 now"):
        run(config(dataset, tmp_path, model__dim=64))
    with pytest.raises(ValueError, match="phases that began before batch 20"):
        run(config(dataset, tmp_path, data__global_batch=4, schedule__steps=40))
    assert len(losses(tmp_path)) == 20


def test_a_dataset_that_has_grown_since_changes_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = learnable(tmp_path / "data")
    whole = run(config(dataset, tmp_path / "whole"))
    with monkeypatch.context() as patched:
        stop_after(8, patched)
        run(config(dataset, tmp_path / "parts"))
    dataset.add("web", counting(1000, seed=77))
    dataset.commit()
    assert run(config(dataset, tmp_path / "parts")) == whole


def test_a_generation_joins_at_a_batch(tmp_path: Path) -> None:
    dataset = learnable(tmp_path / "data")
    dataset.add("web", counting(1000, seed=77))
    dataset.commit()
    phases = [{"batch": 10, "generation": 2}]
    assert len(run(config(dataset, tmp_path / "run", data__generation=1, data__phases=phases))) == 20

"""Checkpoints: complete or not there, whatever happens, and readable by any number of processes."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from schemas import storage
from tests.trainer.made_world import differences, made_world, on_ranks, small_training, started, state_of, train_steps
from trainer.build import tensors_of
from trainer.checkpoint import layout
from trainer.checkpoint.checkpointer import CheckpointError, Checkpoints, Saved, find_checkpoints, newest_extra
from trainer.distributed.mesh import World

EXTRA = {"step": 3, "spikes": {"loss": [1.1, 0.1 + 0.2]}, "digest": "00"}


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[World]:
    """A world of this process."""
    with made_world(0, 1, tmp_path / "meeting") as world:
        yield world


def numbers(step: int) -> dict[str, Tensor]:
    """Tensors that tell the step that they are of."""
    return {"model.a": torch.full((1000,), float(step)), "optimizer.a.step": torch.tensor(float(step))}


def save(checkpoints: Checkpoints, step: int) -> str:
    """Save `numbers(step)`; the path."""
    checkpoints.save(step, numbers(step), {"step": step})
    return checkpoints.wait()[0].path


def loaded(uri: "Path | str", **options: Any) -> tuple[int, float, list[str]]:
    """(step of the state, number in the tensors, what was skipped) of the newest valid checkpoint."""
    tensors = numbers(-1)
    found = Checkpoints(str(uri)).load_newest(tensors, **options)
    assert found is not None
    assert tensors["optimizer.a.step"] == tensors["model.a"][999]
    return found.extra["step"], tensors["model.a"][0].item(), list(found.skipped)


def steps_at(uri: "Path | str") -> list[int]:
    return [each.step for each in find_checkpoints(str(uri))]


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_what_is_loaded_is_bit_equal_and_the_run_goes_on_as_if_never_stopped(
    alone: World, tmp_path: Path, kind: str
) -> None:
    model, optimizers = small_training(alone, kind)
    train_steps(alone, model, optimizers, range(3))
    checkpoints = Checkpoints(str(tmp_path / "c"))
    checkpoints.save(3, tensors_of(model, optimizers), EXTRA)
    before = state_of(model, optimizers)
    # Goes on while the checkpoint is written: what is written is the state at the call.
    after = train_steps(alone, model, optimizers, range(3, 6))
    assert [saved.step for saved in checkpoints.wait()] == [3]

    model, optimizers = small_training(alone, kind, seed=2)
    found = Checkpoints(str(tmp_path / "c")).load_newest(tensors_of(model, optimizers))
    assert found is not None
    assert (found.step, found.world, found.extra, found.skipped) == (3, 1, EXTRA, [])
    assert differences(before, state_of(model, optimizers)) == []
    assert train_steps(alone, model, optimizers, range(3, 6)) == after


def saved_by(world: World, uri: str, kind: str) -> dict[str, Tensor]:
    model, optimizers = small_training(world, kind)
    train_steps(world, model, optimizers, range(2))
    checkpoints = Checkpoints(uri)
    checkpoints.save(2, tensors_of(model, optimizers), EXTRA)
    checkpoints.wait()
    return state_of(model, optimizers)


def loaded_by(world: World, uri: str, kind: str) -> tuple[int, dict[str, Tensor]]:
    model, optimizers = small_training(world, kind, seed=9)
    found = Checkpoints(uri).load_newest(tensors_of(model, optimizers))
    assert found is not None
    return found.world, state_of(model, optimizers)


@pytest.mark.parametrize(("kind", "sizes"), [("adamw", [1, 2, 3]), ("muon", [3])])
def test_a_checkpoint_of_four_processes_is_loaded_by_fewer(tmp_path: Path, kind: str, sizes: list[int]) -> None:
    saved = on_ranks(4, saved_by, str(tmp_path / "c"), kind)[0]
    assert len(saved) == (84 if kind == "adamw" else 56)
    for size in sizes:
        for world, tensors in on_ranks(size, loaded_by, str(tmp_path / "c"), kind):
            assert world == 4
            assert differences(saved, tensors) == []


def test_copies_of_a_sharded_model_are_saved_once(tmp_path: Path) -> None:
    saved = on_ranks(4, saved_by, str(tmp_path / "c"), "adamw", replicas=2)[0]
    assert differences(saved, on_ranks(1, loaded_by, str(tmp_path / "c"), "adamw")[0][1]) == []
    size = sum(file.size for file in storage.list_files(str(tmp_path / "c")))
    assert size < 2 * sum(tensor.nbytes for tensor in saved.values()) + (200 << 10)


# ---------------------------------------------------------------- complete or not there


def test_complete_json_names_every_file_with_size_and_digest(alone: World, tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    checkpoints.save(1200, numbers(1200), EXTRA)
    (saved,) = checkpoints.wait()
    folder = Path(saved.path)
    assert folder.name.startswith("step-00001200-")
    content = json.loads((folder / "complete.json").read_bytes())
    assert (content["step"], content["world"], content["extra"]) == (1200, 1, EXTRA)
    assert [file["name"] for file in content["files"]] == [".metadata", "__0_0.distcp"]
    assert {path.name for path in folder.iterdir()} == {"complete.json", ".metadata", "__0_0.distcp"}
    for file in content["files"]:
        assert file["bytes"] == (folder / file["name"]).stat().st_size
        assert file["sha256"] == layout.sha256_of(folder / file["name"])
    assert saved == Saved(1200, saved.path, saved.seconds, sum(file["bytes"] for file in content["files"]))
    assert newest_extra(str(tmp_path / "c")) == EXTRA


def test_no_folder_and_no_complete_checkpoint_are_none(alone: World, tmp_path: Path) -> None:
    assert Checkpoints(str(tmp_path / "c")).load_newest(numbers(0)) is None
    assert newest_extra(str(tmp_path / "c")) is None
    path = save(Checkpoints(str(tmp_path / "c")), 1)
    (Path(path) / "complete.json").unlink()
    assert Checkpoints(str(tmp_path / "c")).load_newest(numbers(0)) is None
    assert newest_extra(str(tmp_path / "c")) is None


def test_a_step_saved_again_leaves_the_first_as_it_is_and_the_later_counts(alone: World, tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    paths = [save(checkpoints, 5) for _ in range(3)]
    assert len(set(paths)) == 3
    assert [each.path for each in find_checkpoints(str(tmp_path))] == paths[::-1]


def test_an_extra_that_json_cannot_keep_is_refused_at_once(alone: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Checkpoints(str(tmp_path / "c")).save(1, numbers(1), {"loss": float("nan")})


def truncate(path: Path) -> None:
    os.truncate(path / "__0_0.distcp", (path / "__0_0.distcp").stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray((path / "__0_0.distcp").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "__0_0.distcp").write_bytes(data)


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (truncate, "__0_0.distcp has "),
    (flip, "__0_0.distcp has another digest"),
    (lambda path: (path / ".metadata").unlink(), ".metadata is missing"),
    (lambda path: (path / "complete.json").write_bytes(b'{"step": 2'), "complete.json cannot be read"),
    (
        lambda path: (path / "complete.json").write_bytes(b"{}"),
        "complete.json lacks ['extra', 'files', 'step', 'world']",
    ),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGE)
def test_a_corrupt_checkpoint_is_skipped_for_the_one_before_and_reported(
    alone: World, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    save(checkpoints, 1)
    newest = save(checkpoints, 2)
    damage(Path(newest))
    step, number, skipped = loaded(tmp_path / "c")
    assert (step, number) == (1, 1.0)
    assert len(skipped) == 1
    assert skipped[0].startswith(f"{newest}: {reason}")


def test_only_damaged_checkpoints_stop_the_run_instead_of_beginning_anew(alone: World, tmp_path: Path) -> None:
    flip(Path(save(Checkpoints(str(tmp_path / "c")), 1)))
    with pytest.raises(CheckpointError, match=r"no checkpoint is valid: .*another digest.*choose another output"):
        loaded(tmp_path / "c")


def test_a_checkpoint_that_does_not_fit_is_refused_and_not_skipped(alone: World, tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    save(checkpoints, 1)
    newest = save(checkpoints, 2)

    def fits(extra: Any, path: str) -> None:
        assert path == newest
        raise ValueError("of another model")

    with pytest.raises(ValueError, match="of another model"):
        loaded(tmp_path / "c", fits=fits)


def test_a_checkpoint_without_a_tensor_that_is_wanted_is_one_message(alone: World, tmp_path: Path) -> None:
    save(Checkpoints(str(tmp_path / "c")), 1)
    with pytest.raises(CheckpointError, match=r"could not be loaded: .*model\.b") as refusal:
        Checkpoints(str(tmp_path / "c")).load_newest({"model.b": torch.zeros(2)})
    assert "\n" not in str(refusal.value)


def test_a_named_step_is_loaded_or_missed_by_name(alone: World, tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    save(checkpoints, 1)
    save(checkpoints, 2)
    assert loaded(tmp_path / "c", step=1)[0] == 1
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 3: there are \[1, 2\]"):
        loaded(tmp_path / "c", step=3)


# ---------------------------------------------------------------- kept, abandoned, deleted


def test_the_last_and_every_nth_are_kept(alone: World, tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"), keep_last=2, keep_every=30)
    for step in range(10, 80, 10):
        save(checkpoints, step)
    assert steps_at(tmp_path / "c") == [70, 60, 30]
    assert len(list((tmp_path / "c").iterdir())) == 3


def test_deleting_takes_complete_json_first(alone: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"), keep_last=1)
    old = save(checkpoints, 1)
    deleted: list[str] = []
    monkeypatch.setattr(storage, "delete", deleted.append)
    save(checkpoints, 2)
    assert deleted[0] == f"{old}/complete.json"


def test_a_rewind_abandons_the_later_ones_which_go_with_the_next_save(alone: World, tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"), keep_last=3)
    for step in (10, 20, 30):
        save(checkpoints, step)
    checkpoints.abandon(10)
    assert loaded(tmp_path / "c") == (10, 10.0, [])
    assert newest_extra(str(tmp_path / "c")) == {"step": 10}
    save(checkpoints, 20)
    assert steps_at(tmp_path / "c") == [20, 10]
    assert loaded(tmp_path / "c") == (20, 20.0, [])


def test_a_damaged_later_checkpoint_does_not_push_out_what_is_written_after_it(alone: World, tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"), keep_last=1)
    flip(Path(save(checkpoints, 30)))
    save(checkpoints, 20)
    assert steps_at(tmp_path / "c") == [30, 20]
    assert loaded(tmp_path / "c")[:2] == (20, 20.0)


def test_a_failure_to_delete_old_ones_does_not_touch_the_new_one(
    alone: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"), keep_last=1)
    save(checkpoints, 1)

    def refuse(uri: str) -> None:
        raise storage.StorageError(f"{uri}: permission denied")

    monkeypatch.setattr(storage, "delete", refuse)
    save(checkpoints, 2)
    assert "an old checkpoint was not deleted" in capfd.readouterr().err
    assert loaded(tmp_path / "c") == (2, 2.0, [])


def test_a_clean_up_deletes_what_was_left_unfinished_and_nothing_else(alone: World, tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"), staging=str(tmp_path / "staging"))
    save(checkpoints, 1)
    half = Path(save(checkpoints, 2))
    (half / "complete.json").unlink()
    (half / ".__0_1.distcp.123.unfinished").write_bytes(b"x")
    (tmp_path / "c" / "notes.txt").write_text("kept")
    checkpoints.clean_up()
    assert sorted(path.name[:13] for path in (tmp_path / "c").iterdir()) == ["notes.txt", "step-00000001"]


# ---------------------------------------------------------------- what can fail


def test_a_file_that_may_not_grow_is_one_clear_message_and_loses_nothing(
    alone: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"))
    save(checkpoints, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        checkpoints.save(2, {"model.a": torch.zeros(1 << 20)}, {"step": 2})
        with pytest.raises(CheckpointError, match="step 2 was not written: a file would exceed the largest") as shown:
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capfd.readouterr().err == ""  # it is reported once, by whoever catches it
    assert "\n" not in str(shown.value)
    assert len(list((tmp_path / "c").iterdir())) == 1
    assert loaded(tmp_path / "c") == (1, 1.0, [])
    save(checkpoints, 3)  # and the run can go on
    assert loaded(tmp_path / "c") == (3, 3.0, [])


def test_a_full_disk_is_one_clear_message_and_loses_nothing(alone: World, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    try:
        checkpoints = Checkpoints(str(small / "c"))
        save(checkpoints, 1)
        checkpoints.save(2, {"model.a": torch.zeros(1 << 20)}, {"step": 2})
        with pytest.raises(CheckpointError, match="step 2 was not written: the disk is full: free some space"):
            checkpoints.wait()
        assert loaded(small / "c") == (1, 1.0, [])
        assert len(list((small / "c").iterdir())) == 1
    finally:
        subprocess.run(["umount", str(small)], check=True)


def failing_on_one_rank(world: World, folder: str) -> list[str]:
    """What each rank raises when rank 1 cannot do its part, at each point of a save."""
    shown = []
    for number, point in enumerate(["_dump", "_publish", "_complete"]):
        checkpoints = Checkpoints(f"{folder}/{number}")
        if world.rank == (0 if point == "_complete" else 1):

            def broken(*_: Any, **__: Any) -> None:
                raise OSError("the cable was cut")

            if point == "_dump":
                # Inside torch's own writer, of which it tells all ranks.
                import trainer.checkpoint.checkpointer

                trainer.checkpoint.checkpointer._Writer.prepare_local_plan = broken  # type: ignore[method-assign,assignment]
            else:
                setattr(checkpoints, point, broken)
        checkpoints.save(7, numbers(7), {})
        try:
            checkpoints.wait()
            shown.append("nothing")
        except CheckpointError as error:
            shown.append(str(error).partition("was not written: ")[2])
        if world.rank == 1 and point == "_dump":
            del trainer.checkpoint.checkpointer._Writer.prepare_local_plan
        world.barrier()
        shown.append(str(len(list(Path(f"{folder}/{number}").iterdir()))))
    return shown


def test_what_fails_on_one_rank_is_told_by_all_and_hangs_none(tmp_path: Path) -> None:
    cut = "the cable was cut"
    want = [f"rank 1: {cut}", "0", f"rank 1: {cut}", "0", f"rank 0: {cut}", "0"]
    assert on_ranks(3, failing_on_one_rank, str(tmp_path)) == [want] * 3


def dying(world: World, folder: str) -> str:
    """Rank 1 is killed while the others wait for it in a save."""
    checkpoints = Checkpoints(folder)
    if world.rank == 1:
        checkpoints._publish = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment,return-value]
    checkpoints.save(7, numbers(7), {})
    try:
        checkpoints.wait()
    except CheckpointError as error:
        Path(f"{folder}.{world.rank}").write_text(str(error))
    os._exit(0)


def test_a_rank_that_dies_in_a_save_is_an_error_of_the_others_and_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="it died"):
        on_ranks(3, dying, str(tmp_path / "c"))
    for rank in (0, 2):
        assert "the checkpoint of step 7 was not written" in (tmp_path / f"c.{rank}").read_text()
    assert steps_at(tmp_path / "c") == []


def saving_for_ever(world: World, folder: str, ready: Any) -> None:
    """Go on from the newest checkpoint, counting up in the tensors and saving all the time."""
    checkpoints = Checkpoints(folder, keep_last=2)
    tensors = big(0)
    found = checkpoints.load_newest(tensors)
    step = found.step if found else 0
    assert all(bool((each == step).all()) for each in tensors.values())
    checkpoints.clean_up()
    ready.send("ready")
    while True:
        step += 1
        for tensor in tensors.values():
            tensor += 1
        checkpoints.save(step, tensors, {"step": step})


def big(number: int) -> dict[str, Tensor]:
    return {"model.a": torch.full((1 << 18,), float(number)), "optimizer.a.step": torch.tensor(float(number))}


def test_a_kill_at_any_moment_leaves_a_good_checkpoint_and_what_it_left_is_swept(alone: World, tmp_path: Path) -> None:
    moments, before = random.Random(7), 0
    for _ in range(12):
        with started(saving_for_ever, str(tmp_path / "c")) as (process, pipe):
            assert pipe.recv() == "ready"
            time.sleep(moments.random() * 0.3)
            process.kill()
            process.join()
        tensors = big(-1)
        found = Checkpoints(str(tmp_path / "c")).load_newest(tensors)
        assert found is None or found.skipped == []
        step = found.step if found else 0
        if found:
            assert [each.unique().tolist() for each in tensors.values()] == [[step], [step]]
            assert found.extra == {"step": step}
        assert step >= before
        before = step
    assert before > 5
    # Kills between a commit and the deletion of old ones leave more than two, until a save is left alone.
    checkpoints = Checkpoints(str(tmp_path / "c"), keep_last=2)
    checkpoints.clean_up()
    checkpoints.save(before + 1, big(before + 1), {"step": before + 1})
    checkpoints.wait()
    assert len(list((tmp_path / "c").iterdir())) == len(steps_at(tmp_path / "c")) == 2


# ---------------------------------------------------------------- buckets


@pytest.mark.slow
def test_a_bucket_holds_checkpoints_as_a_folder_does(alone: World, tmp_path: Path, s3: Callable[[str], str]) -> None:
    uri = f"{s3('checkpoints')}/run"
    checkpoints = Checkpoints(uri, keep_last=2, staging=str(tmp_path / "staging"))
    for step in (1, 2, 3):
        save(checkpoints, step)
    assert steps_at(uri) == [3, 2]
    assert newest_extra(uri) == {"step": 3}
    tensors = numbers(0)
    found = checkpoints.load_newest(tensors)
    assert found is not None
    assert (found.step, tensors["model.a"][0].item()) == (3, 3.0)
    assert [path for path in (tmp_path / "staging").rglob("*") if path.is_file()] == []

    file = next(file.uri for file in storage.list_files(found.path) if file.uri.endswith(".distcp"))
    storage.write(file, storage.read(file)[:-1])
    found = checkpoints.load_newest(tensors)
    assert found is not None
    assert (found.step, tensors["model.a"][0].item()) == (2, 2.0)
    assert "__0_0.distcp has " in found.skipped[0]

    storage.write(f"{uri}/step-00000009-0/__0_0.distcp", b"left by a killed run")
    (left,) = (tmp_path / "staging").iterdir()
    (left / "step-00000009-0").mkdir()
    checkpoints.clean_up()
    assert not any("step-00000009" in file.uri for file in storage.list_files(uri))
    assert list(left.iterdir()) == []


@pytest.mark.slow
def test_a_bucket_that_is_not_there_is_an_error_of_the_save(
    alone: World, tmp_path: Path, s3: Callable[[str], str]
) -> None:
    s3("another")
    checkpoints = Checkpoints("s3://nowhere/run", staging=str(tmp_path / "staging"))
    checkpoints.save(1, numbers(1), {})
    with pytest.raises(CheckpointError, match=r"step 1 was not written: .*no such bucket 'nowhere'"):
        checkpoints.wait()
    assert [path for path in (tmp_path / "staging").rglob("*") if path.is_file()] == []


def test_staging_is_in_the_temporary_folder_unless_named(alone: World) -> None:
    assert Checkpoints("s3://bucket/run")._staging.parent == Path(tempfile.gettempdir())

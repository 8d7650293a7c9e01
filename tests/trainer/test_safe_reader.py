"""trainer.checkpoint.safe_reader: nothing in a checkpoint can run code."""

import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, Metadata

from tests.made_dataset import MadeDataset
from tests.trainer.tiny import config, learnable, losses, run, written
from trainer.cli import main


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return learnable(tmp_path_factory.mktemp("learnable"))


class Command:
    """What a pickle makes of it when it is read: the file `place`."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.place),)


def replace(folder: Path, name: str, data: bytes) -> None:
    """Put another file into a checkpoint, with its size and digest in complete.json."""
    (folder / name).write_bytes(data)
    complete = json.loads((folder / "complete.json").read_bytes())
    (entry,) = (file for file in complete["files"] if file["name"] == name)
    entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "complete.json").write_text(json.dumps(complete))


def the_metadata_itself(folder: Path, place: Path) -> None:
    replace(folder, ".metadata", pickle.dumps(Command(place)))


def in_the_metadata(folder: Path, place: Path) -> None:
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    metadata.planner_data = Command(place)
    replace(folder, ".metadata", pickle.dumps(metadata))


def an_entry_that_is_no_tensor(folder: Path, place: Path) -> None:
    metadata: Metadata = pickle.loads((folder / ".metadata").read_bytes())
    name = next(name for name in metadata.state_dict_metadata if name.startswith("model."))
    metadata.state_dict_metadata[name] = BytesStorageMetadata()
    replace(folder, ".metadata", pickle.dumps(metadata))


def a_file_outside_of_the_folder(folder: Path, place: Path) -> None:
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    for info in metadata.storage_data.values():
        info.relative_path = f"../{folder.name}/{info.relative_path}"
    replace(folder, ".metadata", pickle.dumps(metadata))


def the_tensors(folder: Path, place: Path) -> None:
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    crafted = io.BytesIO()
    torch.save({"weights": Command(place)}, crafted)
    for info in metadata.storage_data.values():
        info.offset, info.length = 0, len(crafted.getvalue())
    (file,) = folder.glob("*.distcp")
    replace(folder, file.name, crafted.getvalue())
    replace(folder, ".metadata", pickle.dumps(metadata))


CRAFTED = [the_metadata_itself, in_the_metadata, an_entry_that_is_no_tensor, a_file_outside_of_the_folder, the_tensors]


@pytest.mark.parametrize("craft", CRAFTED)
def test_a_crafted_checkpoint_runs_nothing_and_is_refused(
    dataset: MadeDataset, tmp_path: Path, craft: Callable[[Path, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(dataset, tmp_path / "run", schedule__steps=5, schedule__warmup_steps=2, evaluate__every=5)
    run(settings)
    (folder,) = (tmp_path / "run" / "checkpoints").iterdir()
    craft(folder, tmp_path / "ran")
    path = str(written(tmp_path / "run.yaml", settings))
    for words in ([path, "schedule.steps=7"], ["export", path, "--to", str(tmp_path / "model")], ["evaluate", path]):
        assert main(words) == 1
        assert "the checkpoint could not be loaded" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert len(losses(tmp_path / "run")) == 5


def test_the_commands_of_these_tests_would_run(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Command(tmp_path / "ran")))
    assert (tmp_path / "ran").is_dir()

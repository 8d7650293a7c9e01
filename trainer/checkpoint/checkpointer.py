"""Checkpoints that a run can be resumed from, whatever happened: written beside the training, complete or not there.

A checkpoint directory (`layout.py`) is filled by torch.distributed.checkpoint; complete.json, with every file's size
and sha256 and the run's state, is its last file. torch's own file writer deletes an existing `.metadata` before it
renames the new one, so that saving a step again in its folder would destroy the good one: no directory is reused.
"""

import contextlib
import functools
import hashlib
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from schemas import storage
from schemas.local_files import sha256_of
from trainer.checkpoint import layout
from trainer.checkpoint.layout import COMPLETE, fault_of, find_checkpoints, is_of_rank, newest_extra
from trainer.checkpoint.safe_reader import SafeReader
from trainer.distributed.collectives import CheckpointError, Collectives, cause_of, with_cause

__all__ = ["CheckpointError", "Checkpoints", "Loaded", "Saved", "find_checkpoints", "newest_extra"]

LOOKS = 10  # for the other ranks' files, a second apart: a network file system may show them late
STALE_SECONDS = 86400  # age of a copy that no reader can still be using


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is complete."""

    step: int
    path: str
    seconds: float  # from the call of `save` on
    bytes: int


@dataclass(frozen=True)
class Loaded:
    """The checkpoint that was loaded, and why newer ones were not."""

    step: int
    path: str
    world: int  # ranks that wrote it
    extra: Mapping[str, Any]
    skipped: Sequence[str]


class Checkpoints:
    """The checkpoints of a run below `uri` (a folder or bucket prefix). All ranks make one and call alike.

    Between `save` and its end the run goes on; `failed` says when it went wrong, and the next `save` or `wait` raises
    it. `staging` is a folder on a local disk, for buckets only.
    """

    def __init__(
        self,
        uri: str,
        *,
        keep_last: int = 3,
        keep_every: int | None = None,
        keep_before: int | None = None,
        staging: str | None = None,
    ):
        self.uri, self._keep = uri, (keep_last, keep_every, keep_before)
        key = hashlib.sha256(uri.encode()).hexdigest()[:12]
        self._staging = Path(staging or tempfile.gettempdir()).expanduser() / f"gristmill-checkpoints-{key}"
        self._collectives = Collectives()
        self._meshes: dict[int, DeviceMesh] = {}
        self._thread: threading.Thread | None = None
        self._failure: str | None = None
        self._saved: list[Saved] = []
        self.newest_step: int | None = None  # that was saved or loaded

    # ------------------------------------------------------------ writing

    def save(self, step: int, tensors: Mapping[str, Tensor], extra: Mapping[str, Any]) -> None:
        """Copy the tensors to memory and write them from a thread; `extra` is JSON, equal on all ranks.

        Waits for the save before. Raises CheckpointError when that one failed, ValueError for an `extra` that JSON
        cannot keep.
        """
        self.wait()
        began = time.monotonic()
        state = json.loads(json.dumps(extra, allow_nan=False))
        name = self._collectives.on_main(lambda: layout.new_directory_name(step))
        staged = {each: self._staged(tensor) for each, tensor in tensors.items()}
        self.newest_step = step
        arguments = (step, name, staged, state, began)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint")
        self._thread.start()

    def wait(self) -> list[Saved]:
        """Wait for the save in hand; the checkpoints that were completed since the last call.

        Raises CheckpointError when it failed; what was written before is as it was.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise CheckpointError(failure)
        saved, self._saved = self._saved, []
        return saved

    @property
    def failed(self) -> bool:
        """Whether the save in hand has gone wrong here, so that `wait` would raise."""
        return self._failure is not None

    def close(self) -> None:
        """Let the save in hand end, however it ends: to be called before the process group is destroyed."""
        try:
            self.wait()
        except CheckpointError as error:  # something else has ended the run
            if self._collectives.rank == 0:
                print(f"trainer: {error}", file=sys.stderr, flush=True)

    def _staged(self, tensor: Tensor) -> Tensor:
        """A copy on the CPU, laid out as the tensor is."""
        if not isinstance(tensor, DTensor):
            return tensor.detach().to("cpu", copy=True)
        mesh = tensor.device_mesh
        if id(mesh) not in self._meshes:
            self._meshes[id(mesh)] = init_device_mesh("cpu", tuple(mesh.shape), mesh_dim_names=mesh.mesh_dim_names)
        local = tensor.to_local().detach().to("cpu", copy=True)
        return DTensor.from_local(
            local,
            self._meshes[id(mesh)],
            tensor.placements,
            shape=tensor.shape,
            stride=tensor.stride(),
            run_check=False,
        )

    def _write(self, step: int, name: str, staged: dict[str, Tensor], extra: dict[str, Any], began: float) -> None:
        """Write in the thread: a checkpoint of all ranks, or none."""
        place = storage.join(self.uri, name)
        local = storage.local_path(place)
        folder = local or self._staging / name
        try:
            self._collectives.on_all(lambda: folder.mkdir(parents=True, exist_ok=True))
            self._collectives.on_all(lambda: self._dump(staged, folder))
            files = self._collectives.on_all(lambda: self._publish(folder, place, upload=local is None))
            content = {"step": step, "world": self._collectives.size, "torch": torch.__version__, "extra": extra}
            self._collectives.on_main(lambda: self._complete(place, content | {"files": list(chain(*files))}, began))
        except CheckpointError as error:
            self._failure = _not_written(step, place, error)
            # Agreed by all ranks, so that no rank still writes; its bytes may be what the disk lacks.
            if not (folder / COMPLETE).exists():
                shutil.rmtree(folder, ignore_errors=True)
        except BaseException as error:  # the other ranks cannot be reached
            # One that was killed meanwhile takes nothing from a checkpoint that is complete.
            self._failure = None if _is_complete(place) else _not_written(step, place, error)
        else:
            if local is None:
                shutil.rmtree(folder, ignore_errors=True)
            if self._collectives.rank == 0:
                self._retire(step)

    def _dump(self, staged: dict[str, Tensor], folder: Path) -> None:
        dcp.save(staged, storage_writer=_Writer(folder), process_group=self._collectives.group)

    def _publish(self, folder: Path, place: str, upload: bool) -> list[dict[str, Any]]:
        """Digest this rank's files, and send them where they belong."""
        files = []
        for path in sorted(folder.iterdir()):
            if is_of_rank(path.name, self._collectives.rank):
                files.append({"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)})
                if upload:
                    storage.write(storage.join(place, path.name), path)
        return files

    def _complete(self, place: str, content: dict[str, Any], began: float) -> None:
        """Rank 0: the checkpoint is there from this write on."""
        wanted = {storage.join(place, file["name"]): file["bytes"] for file in content["files"]}
        for _ in range(LOOKS):
            seen = {file.uri: file.size for file in storage.list_files(place)}
            hidden = sorted(uri for uri, size in wanted.items() if seen.get(uri) != size)
            if not hidden:
                break
            time.sleep(1)
        else:
            raise CheckpointError(
                f"{hidden[0]} is not to be seen from rank 0's node: name a folder that all nodes share, or a bucket"
            )
        storage.write(storage.join(place, COMPLETE), json.dumps(content).encode(), create_only=True)
        self._saved.append(Saved(content["step"], place, time.monotonic() - began, sum(wanted.values())))

    def _retire(self, step: int) -> None:
        """The new checkpoint stands, whether the old ones can be deleted or not."""
        try:
            layout.retire(self.uri, step, *self._keep)
        except OSError as error:
            print(f"trainer: an old checkpoint was not deleted: {cause_of(error)}", file=sys.stderr, flush=True)

    # ------------------------------------------------------------ reading

    def load_newest(
        self,
        tensors: Mapping[str, Tensor],
        fits: Callable[[Mapping[str, Any], str], None] = lambda extra, place: None,
        step: int | None = None,
    ) -> Loaded | None:
        """Fill the tensors, in place, from the newest valid checkpoint (or that of `step`); None: there is none.

        `fits(extra, path)` raises ValueError for a checkpoint of another run. A corrupt one is skipped for the one
        before. Raises CheckpointError when there are some, and none of them is valid.
        """
        candidates = self._collectives.on_main(
            lambda: [each for each in find_checkpoints(self.uri) if not each.abandoned]
        )
        if step is not None:
            steps = sorted({each.step for each in candidates})
            candidates = [each for each in candidates if each.step == step]
            if not candidates:
                raise CheckpointError(f"{self.uri}: no checkpoint of step {step}: there are {steps}")
        skipped: list[str] = []
        for each in candidates:
            content = self._collectives.on_main(functools.partial(layout.read_complete, each.path))
            if isinstance(content, dict):
                fits(content["extra"], each.path)
                content = self._fill(tensors, each.path, content)
            if isinstance(content, dict):
                self.newest_step = each.step
                return Loaded(each.step, each.path, content["world"], content["extra"], skipped)
            skipped.append(f"{each.path}: {content}")
        if skipped:
            raise CheckpointError(
                f"{self.uri}: no checkpoint is valid: {'; '.join(skipped)}: restore one, or choose another output"
            )
        return None

    def _fill(self, tensors: Mapping[str, Tensor], path: str, content: dict[str, Any]) -> dict[str, Any] | str:
        """Load the tensors from a checkpoint; returns its content, or what is wrong with it."""
        local = storage.local_path(path)
        name = self._collectives.on_main(lambda: layout.new_directory_name(content["step"]))
        folder = local or self._staging / f"load-{name}"
        try:
            if local is None:
                self._collectives.on_all(lambda: self._fetch(path, content["files"], folder))
            faults = self._collectives.on_all(
                lambda: fault_of(folder, content["files"][self._collectives.rank :: self._collectives.size])
            )
            fault = next((fault for fault in faults if fault is not None), None)
            if fault is None:
                self._collectives.on_all(lambda: self._read(tensors, folder))
            return content if fault is None else fault
        except CheckpointError as error:
            raise CheckpointError(f"{path}: the checkpoint could not be loaded: {error}") from None
        finally:
            if local is None:
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        dcp.load(dict(tensors), storage_reader=SafeReader(folder), process_group=self._collectives.group)

    def _fetch(self, path: str, files: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Once a node, a local copy of a remote checkpoint."""
        if self._collectives.is_node_main:
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                try:
                    storage.fetch(storage.join(path, file["name"]), folder).rename(folder / file["name"])
                except FileNotFoundError:
                    continue  # found later, as a fault of this checkpoint

    def abandon(self, step: int) -> None:
        """Mark the checkpoints after `step` as abandoned: a rewind or a branch went back before them."""
        self._collectives.on_main(lambda: layout.abandon_after(self.uri, step))

    def clean_up(self) -> None:
        """Delete what killed runs left unfinished, here and in staging; only while no other run writes here."""
        self._collectives.on_all(self._clean_up)

    def _clean_up(self) -> None:
        if self._collectives.rank == 0:
            layout.delete_unfinished(self.uri)
        if self._collectives.is_node_main and self._staging.is_dir():
            for folder in self._staging.iterdir():
                old = time.time() - folder.stat().st_mtime > STALE_SECONDS
                if old or not folder.name.startswith("load-"):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_complete(place: str) -> bool:
    with contextlib.suppress(storage.StorageError, OSError):
        return storage.exists(storage.join(place, COMPLETE))
    return False


def _not_written(step: int, place: str, error: BaseException) -> str:
    return f"{place}: the checkpoint of step {step} was not written: {cause_of(error)}"


class _Writer(FileSystemWriter):
    """torch's writer; an error of the disk stays one, where torch's serializer covers it with its own."""

    def write_data(self, *arguments: Any, **named: Any) -> Any:
        """Write this rank's tensors."""
        with with_cause():
            return super().write_data(*arguments, **named)

    def finish(self, *arguments: Any, **named: Any) -> None:
        """Write the metadata."""
        with with_cause():
            super().finish(*arguments, **named)

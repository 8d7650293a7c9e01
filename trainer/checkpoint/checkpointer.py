"""Checkpoints that a run can be taken up from, whatever happened: written beside the training, complete or not there.

An attempt's folder (`layout.py`) is filled by torch.distributed.checkpoint; complete.json, with every file's size and
sha256 and the run's state, is its last file. torch's own file writer deletes an existing `.metadata` before it renames
the new one, so that saving a step again in its folder would destroy the good one: no attempt is reused.
"""

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
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from schemas import storage
from schemas.local_files import sha256_of
from trainer.checkpoint import layout
from trainer.checkpoint.layout import COMPLETE, fault_of, find_checkpoints, is_of_rank, newest_extra
from trainer.distributed.collectives import CheckpointError, Ranks, cause_of, errors_in_words

__all__ = ["CheckpointError", "Checkpoints", "Loaded", "Saved", "find_checkpoints", "newest_extra"]

LOOKS = 10  # for the other ranks' files, a second apart: a network file system may show them late
LEFTOVER_SECONDS = 86400  # age of a copy that no reader can still be using


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is complete."""

    step: int
    path: str
    seconds: float  # from the call of `save` on
    bytes: int


@dataclass(frozen=True)
class Loaded:
    """The checkpoint that was taken up, and why newer ones were not."""

    step: int
    path: str
    world: int  # ranks that wrote it
    extra: Mapping[str, Any]
    passed_over: Sequence[str]


class Checkpoints:
    """The checkpoints of a run below `uri` (a folder or bucket prefix). All ranks make one and call alike.

    Between `save` and its end the run goes on; `failed` says when it went wrong, and the next `save` or `wait` raises
    it. `staging` is a folder on a local disk, for buckets only.
    """

    def __init__(self, uri: str, *, keep_last: int = 3, keep_every: int | None = None, staging: str | None = None):
        self.uri, self._keep_last, self._keep_every = uri, keep_last, keep_every
        key = hashlib.sha256(uri.encode()).hexdigest()[:12]
        self._staging = Path(staging or tempfile.gettempdir()).expanduser() / f"gristmill-checkpoints-{key}"
        self._ranks = Ranks()
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
        frozen = json.loads(json.dumps(extra, allow_nan=False))
        name = self._ranks.by_leader(lambda: layout.attempt_name(step))
        staged = {each: self._staged(tensor) for each, tensor in tensors.items()}
        self.newest_step = step
        arguments = (step, name, staged, frozen, began)
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
            if self._ranks.rank == 0:
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
        """The thread: an attempt on all ranks, or on none."""
        place = storage.join(self.uri, name)
        local = storage.local_path(place)
        folder = local or self._staging / name
        try:
            self._ranks.together(lambda: folder.mkdir(parents=True, exist_ok=True))
            self._ranks.together(lambda: self._dump(staged, folder))
            files = self._ranks.together(lambda: self._publish(folder, place, upload=local is None))
            content = {"step": step, "world": self._ranks.size, "torch": torch.__version__, "extra": extra}
            self._ranks.by_leader(lambda: self._complete(place, content | {"files": list(chain(*files))}, began))
        except CheckpointError as error:
            self._failure = _not_written(step, place, error)
            # Agreed by all ranks, so that no rank still writes; its bytes may be what the disk lacks.
            if not (folder / COMPLETE).exists():
                shutil.rmtree(folder, ignore_errors=True)
        except BaseException as error:  # the other ranks cannot be reached
            self._failure = _not_written(step, place, error)
        else:
            if local is None:
                shutil.rmtree(folder, ignore_errors=True)
            if self._ranks.rank == 0:
                self._retire(step)

    def _dump(self, staged: dict[str, Tensor], folder: Path) -> None:
        dcp.save(staged, storage_writer=_Writer(folder), process_group=self._ranks.group)

    def _publish(self, folder: Path, place: str, upload: bool) -> list[dict[str, Any]]:
        """Digest this rank's files, and send them where they belong."""
        files = []
        for path in sorted(folder.iterdir()):
            if is_of_rank(path.name, self._ranks.rank):
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
            layout.retire(self.uri, step, self._keep_last, self._keep_every)
        except OSError as error:
            print(f"trainer: an old checkpoint was not deleted: {cause_of(error)}", file=sys.stderr, flush=True)

    # ------------------------------------------------------------ reading

    def load_newest(
        self,
        tensors: Mapping[str, Tensor],
        fits: Callable[[Mapping[str, Any], str], None] = lambda extra, place: None,
        step: int | None = None,
    ) -> Loaded | None:
        """Fill the tensors, in place, from the newest checkpoint that checks (or that of `step`); None: there is none.

        `fits(extra, path)` raises ValueError for a checkpoint of another run. One that is damaged is passed over for
        the one before. Raises CheckpointError when there are some, and none of them checks.
        """
        candidates = self._ranks.by_leader(lambda: [each for each in find_checkpoints(self.uri) if not each.abandoned])
        if step is not None:
            steps = sorted({each.step for each in candidates})
            candidates = [each for each in candidates if each.step == step]
            if not candidates:
                raise CheckpointError(f"{self.uri}: no checkpoint of step {step}: there are {steps}")
        passed_over: list[str] = []
        for each in candidates:
            content = self._ranks.by_leader(functools.partial(layout.read_complete, each.path))
            if isinstance(content, dict):
                fits(content["extra"], each.path)
                content = self._fill(tensors, each.path, content)
            if isinstance(content, dict):
                self.newest_step = each.step
                return Loaded(each.step, each.path, content["world"], content["extra"], passed_over)
            passed_over.append(f"{each.path}: {content}")
        if passed_over:
            raise CheckpointError(
                f"{self.uri}: no checkpoint is sound: {'; '.join(passed_over)}: restore one, or choose another output"
            )
        return None

    def _fill(self, tensors: Mapping[str, Tensor], path: str, content: dict[str, Any]) -> dict[str, Any] | str:
        """Load the tensors from a checkpoint; its content, or what is wrong with it."""
        local = storage.local_path(path)
        name = self._ranks.by_leader(lambda: layout.attempt_name(content["step"]))
        folder = local or self._staging / f"load-{name}"
        try:
            if local is None:
                self._ranks.together(lambda: self._fetch(path, content["files"], folder))
            faults = self._ranks.together(
                lambda: fault_of(folder, content["files"][self._ranks.rank :: self._ranks.size])
            )
            fault = next((fault for fault in faults if fault is not None), None)
            if fault is None:
                self._ranks.together(lambda: self._read(tensors, folder))
            return content if fault is None else fault
        except CheckpointError as error:
            raise CheckpointError(f"{path}: the checkpoint could not be loaded: {error}") from None
        finally:
            if local is None:
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self, tensors: Mapping[str, Tensor], folder: Path) -> None:
        dcp.load(dict(tensors), storage_reader=FileSystemReader(folder), process_group=self._ranks.group)

    def _fetch(self, path: str, files: Sequence[Mapping[str, Any]], folder: Path) -> None:
        """Once a node, a local copy of a remote checkpoint."""
        if self._ranks.lead_node:
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                try:
                    storage.fetch(storage.join(path, file["name"]), folder).rename(folder / file["name"])
                except FileNotFoundError:
                    continue  # found later, as a fault of this checkpoint

    def abandon(self, step: int) -> None:
        """Mark the checkpoints after `step` as of a past that is no more: a rewind went back before them."""
        self._ranks.by_leader(lambda: layout.abandon_after(self.uri, step))

    def sweep(self) -> None:
        """Delete what killed runs left unfinished, here and in staging; only while no other run writes here."""
        self._ranks.together(self._sweep)

    def _sweep(self) -> None:
        if self._ranks.rank == 0:
            layout.sweep_unfinished(self.uri)
        if self._ranks.lead_node and self._staging.is_dir():
            for folder in self._staging.iterdir():
                old = time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS
                if old or not folder.name.startswith("load-"):
                    shutil.rmtree(folder, ignore_errors=True)


def _not_written(step: int, place: str, error: BaseException) -> str:
    return f"{place}: the checkpoint of step {step} was not written: {cause_of(error)}"


class _Writer(FileSystemWriter):
    """torch's writer; an error of the disk stays one, where torch's serializer covers it with its own."""

    def write_data(self, *arguments: Any, **named: Any) -> Any:
        """Write this rank's tensors."""
        with errors_in_words():
            return super().write_data(*arguments, **named)

    def finish(self, *arguments: Any, **named: Any) -> None:
        """Write the metadata."""
        with errors_in_words():
            super().finish(*arguments, **named)

"""The folders of checkpoints at their place, a local folder or a bucket: found, retired, abandoned, cleaned up.

CHECKPOINTS/step-00001200-019ab3f0c1d23f9c/     its name is never used twice and rises with time
    __0_0.distcp ... .metadata                  torch.distributed.checkpoint's files
    complete.json                               last, in one create-only write; without it this is no checkpoint
    abandoned.json                              a rewind or a branch went back before this step
CHECKPOINTS/owner.json                          the run whose they are, where checkpoint.uri names their place
"""

import json
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas import storage
from schemas.local_files import sha256_of

__all__ = [
    "COMPLETE",
    "Found",
    "abandon_after",
    "claim",
    "delete_unfinished",
    "fault_of",
    "find_checkpoints",
    "is_of_rank",
    "new_directory_name",
    "newest_extra",
    "read_complete",
    "retire",
]

COMPLETE, ABANDONED, OWNER = "complete.json", "abandoned.json", "owner.json"
FIELDS = {"step", "world", "files", "extra"}


@dataclass(frozen=True)
class Found:
    """A complete checkpoint."""

    step: int
    path: str
    abandoned: bool


def new_directory_name(step: int) -> str:
    """Name a new checkpoint directory: of one step the one that was begun last sorts last, in any store."""
    return f"step-{step:08d}-{time.time_ns() // 1_000_000:012x}{secrets.token_hex(2)}"


def find_checkpoints(uri: str) -> list[Found]:
    """The complete checkpoints below `uri`, newest first: by step, of one step by age."""
    files = set(_files(uri))
    found = [Found(_step(path), path, (path, ABANDONED) in files) for path, name in files if name == COMPLETE]
    return sorted(found, key=lambda each: (each.step, each.path), reverse=True)


def newest_extra(uri: str) -> dict[str, Any] | None:
    """The state in the newest checkpoint whose complete.json can be read; None: there is none."""
    for each in find_checkpoints(uri):
        content = read_complete(each.path)
        if not each.abandoned and isinstance(content, dict):
            return dict(content["extra"])
    return None


def read_complete(path: str) -> dict[str, Any] | str:
    """Return the content of a checkpoint's complete.json, or what is wrong with it."""
    try:
        content = json.loads(storage.read(storage.join(path, COMPLETE)))
        return content if set(content) >= FIELDS else f"{COMPLETE} lacks {sorted(FIELDS - set(content))}"
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, TypeError) as error:
        return f"{COMPLETE} cannot be read: {error}"


def claim(uri: str, name: str, output: str) -> None:
    """Write down whose checkpoints lie at `uri`, once. Raises StorageError where they are another run's.

    Two runs in one place would go on from each other's weights. A run is known by its name and its output.
    """
    owner, place = {"name": name, "output": output.rstrip("/")}, storage.join(uri, OWNER)
    try:
        storage.write(place, json.dumps(owner).encode(), create_only=True)
    except FileExistsError:
        found = json.loads(storage.read(place))
        if found != owner:
            raise storage.StorageError(
                f"checkpoint.uri={uri}: the checkpoints there are of the run {found.get('name')!r} with output="
                f"{found.get('output')}, this is {name!r} with output={output}: choose another checkpoint.uri, or "
                f"delete {place} to go on from them"
            ) from None


def retire(uri: str, step: int, keep_last: int, keep_every: int | None, keep_before: int | None = None) -> None:
    """Delete what nothing keeps, and what was abandoned, after the save of `step`.

    Kept are the last `keep_last`, every `keep_every` steps, and the last one before or at step `keep_before`.
    Checkpoints of later steps, which a corrupt one among them can be, neither count nor go.
    """
    found = find_checkpoints(uri)
    good = [each for each in found if not each.abandoned and each.step <= step]
    kept = {each.path for each in good[:keep_last]}
    kept |= {each.path for each in good if keep_every and each.step % keep_every == 0}
    kept |= {each.path for each in [each for each in good if keep_before and each.step <= keep_before][:1]}
    for each in found:
        if each.path not in kept and (each.abandoned or each.step <= step):
            _delete(each.path)


def abandon_after(uri: str, step: int) -> None:
    """Mark the checkpoints after `step` as of a past that is no more, the newest first."""
    for each in find_checkpoints(uri):
        if each.step > step and not each.abandoned:
            storage.write(storage.join(each.path, ABANDONED), json.dumps({"rewound_to": step}).encode())


def delete_unfinished(uri: str) -> None:
    """Delete the checkpoint directories that are not complete; only while nobody else writes here."""
    whole = {each.path for each in find_checkpoints(uri)}
    for path in sorted({path for path, _ in _files(uri)} - whole):
        _delete(path)
    local = storage.local_path(uri)
    for folder in local.glob("step-*") if local is not None else ():
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)  # empty, or what was never given its name


def fault_of(folder: Path, files: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what is wrong with files of a checkpoint, or None."""
    for file in files:
        path = folder / file["name"]
        if not path.exists():
            return f"{file['name']} is missing"
        if path.stat().st_size != file["bytes"]:
            return f"{file['name']} has {path.stat().st_size:,} bytes, not {file['bytes']:,}"
        if sha256_of(path) != file["sha256"]:
            return f"{file['name']} has another digest than when it was written"
    return None


def is_of_rank(name: str, rank: int) -> bool:
    """Return whether this rank sends a file: each its own, rank 0 the one that describes them."""
    return name.startswith(f"__{rank}_") or (rank == 0 and name == ".metadata")


def _delete(path: str) -> None:
    """complete.json first: what is half deleted is no checkpoint."""
    storage.delete(storage.join(path, COMPLETE))
    for file in storage.list_files(path):
        storage.delete(file.uri)
    local = storage.local_path(path)
    if local is not None:
        # What is left are folders, and files that a killed writer did not finish.
        shutil.rmtree(local, ignore_errors=True)


def _files(uri: str) -> Iterator[tuple[str, str]]:
    """Yield (directory, name) of every file of a checkpoint directory."""
    root = storage.join(uri)
    for file in storage.list_files(uri):
        folder, _, name = file.uri.removeprefix(root).strip("/").partition("/")
        if file.uri.startswith(root) and folder.startswith("step-") and name:
            yield storage.join(uri, folder), name


def _step(path: str) -> int:
    return int(path.rpartition("/")[2].split("-")[1])

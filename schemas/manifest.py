"""The manifest of a dataset: its digests, how it is read, and the one operation that commits a generation.

A dataset exists when `manifest/gN.json` does (contracts, section 6). `manifest.json` is only a hint; readers and
writers probe for the next generation.
"""

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pydantic

from schemas import storage
from schemas.generation import VERSION, FileRef, Hint, Manifest
from schemas.recipe import canonical_json

__all__ = [
    "COPY",
    "CURE",
    "ELSEWHERE",
    "CommitRefused",
    "DatasetError",
    "Manifest",
    "commit",
    "file_digest",
    "generation_digest",
    "named_by_content",
    "newest_generation",
    "order_digest",
    "read_files",
    "read_inputs",
    "read_manifest",
    "read_named",
    "read_shards",
    "shard_group",
]

HINT = "manifest.json"
NO_DATASET = (
    "no dataset there (it has no manifest/g1.json): check the path, or make one with "
    "`gristmill run RECIPE --output PATH`"
)
COPY = "copy it again from where it is whole"
ELSEWHERE = ", or run with another --output (and --work, to read no crawl again)"
CURE = COPY + ELSEWHERE


class DatasetError(ValueError):
    """What is read is no dataset, or not the one that was meant: the message says which file and why."""


class CommitRefused(DatasetError):
    """Another driver committed this generation first; nothing of this run is lost."""


# ---------------------------------------------------------------- digests


def generation_digest(
    *,
    code: Mapping[str, str],
    recipe: str,
    assets: Mapping[str, str],
    previous: str | None,
    inputs: Iterable[tuple[str, str, int, int, str]],
    shards: Iterable[str],
    ledger: Iterable[str],
) -> str:
    """The digest of a generation: hex sha256 of the canonical JSON (`canonical_json`) of

    {"assets": {name: sha256}, "code": {name: version}, "inputs": [[source, name, start, end, sha256], ...],
     "ledger": [sha256, ...], "previous": generation digest of N-1 or null, "recipe": recipe digest,
     "shards": [sha256, ...]}

    with sorted lists. `inputs` are the rows of the inputs table, `shards` the shards in use, `ledger` the ledger
    files that the generation lists.
    """
    return _digest(
        {
            "assets": dict(assets),
            "code": dict(code),
            "inputs": sorted(list(piece) for piece in inputs),
            "ledger": sorted(ledger),
            "previous": previous,
            "recipe": recipe,
            "shards": sorted(shards),
        }
    )


def order_digest(shards: pa.Table, tokenizer: str, end_of_text: int) -> str:
    """The digest of what a training depends on: hex sha256 of the canonical JSON of

    {"end_of_text": id, "shards": [[sha256, source, split, rows, tokens], ...], "tokenizer": sha256}

    with the list sorted; of the shards table only the shards in use (`retired_in` null) enter.
    """
    in_use = shards.filter(pc.is_null(shards["retired_in"]))
    columns = [in_use[name].to_pylist() for name in ("sha256", "source", "split", "rows", "tokens")]
    rows = sorted(list(row) for row in zip(*columns, strict=True))
    return _digest({"end_of_text": end_of_text, "shards": rows, "tokenizer": tokenizer})


def file_digest(data: bytes) -> str:
    """Hex sha256 of a file's bytes."""
    return hashlib.sha256(data).hexdigest()


def named_by_content(stem: str, suffix: str, data: bytes) -> FileRef:
    """The reference of a file whose name ends in the first 16 hex digits of its sha256."""
    sha256 = file_digest(data)
    return FileRef(path=f"{stem}-{sha256[:16]}{suffix}", bytes=len(data), sha256=sha256)


def shard_group(path: str, source: str) -> str:
    """What planned a shard, from its path: `g1-00003` for a group, `g1-all-SOURCE` for a source's validation."""
    match = re.match(r"shards/(g\d+)-(\d+|all)-", path)
    if match is None:
        raise DatasetError(f"{path}: not the name of a shard, shards/gGENERATION-GROUP-SOURCE-SPLIT-N-DIGEST.arrow")
    generation, group = match.groups()
    return f"{generation}-all-{source}" if group == "all" else f"{generation}-{group}"


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


# ---------------------------------------------------------------- reading


def newest_generation(dataset: str) -> int:
    """The highest generation that is committed, 0 for none: the hint, then probing beyond it."""
    try:
        newest = Hint.model_validate_json(storage.read(storage.join(dataset, HINT))).generation
    except (FileNotFoundError, pydantic.ValidationError):
        newest = 0
    if newest and not storage.exists(_place(dataset, newest)):
        newest = 0  # the hint is of another dataset, or the copy is not complete
    while storage.exists(_place(dataset, newest + 1)):
        newest += 1
    return newest


def read_manifest(dataset: str, generation: int | None = None) -> Manifest:
    """The manifest of a generation, by default the newest. Raises DatasetError where there is none."""
    number = newest_generation(dataset) if generation is None else generation
    if number < 1:
        raise DatasetError(f"{dataset}: {NO_DATASET}")
    try:
        data = storage.read(_place(dataset, number))
    except FileNotFoundError:
        newest = newest_generation(dataset)
        there = f"there is no generation {number}; the newest is {newest}" if newest else NO_DATASET
        raise DatasetError(f"{dataset}: {there}") from None
    return _parse(data, _place(dataset, number))


def read_shards(dataset: str, manifest: Manifest) -> pa.Table:
    """The shards table: one row a shard, cumulative; a shard's number is its row."""
    with pa.ipc.open_file(pa.BufferReader(_checked(dataset, manifest.tables.shards))) as reader:
        return reader.read_all()


def read_files(dataset: str, manifest: Manifest) -> pa.Table:
    """The files table: ledgers first, in the order of the groups; a ledger's number is its row."""
    return pq.ParquetFile(io.BytesIO(_checked(dataset, manifest.tables.files))).read()


def read_inputs(dataset: str, manifest: Manifest) -> pa.Table:
    """The inputs table: one row a piece read, cumulative, sorted by (source, name, start)."""
    return pq.ParquetFile(io.BytesIO(_checked(dataset, manifest.tables.inputs))).read()


def _place(dataset: str, generation: int) -> str:
    return storage.join(dataset, "manifest", f"g{generation}.json")


def _parse(data: bytes, place: str) -> Manifest:
    try:
        version = json.loads(data).get("version")
        if isinstance(version, int) and version > VERSION:
            raise DatasetError(f"{place}: manifest version {version}, this program reads up to {VERSION}: update it")
        return Manifest.model_validate_json(data)
    except (pydantic.ValidationError, json.JSONDecodeError, AttributeError) as error:
        raise DatasetError(
            f"{place}: not a manifest ({' '.join(str(error).split())}): copy it again from where it is whole"
        ) from None


def read_named(dataset: str, path: str) -> bytes:
    """A file of a dataset whose name ends in the first 16 hex digits of its sha256: all but shards.

    Raises DatasetError for one that is missing or holds something else.
    """
    data = _read(dataset, path)
    if not path.rpartition(".")[0].endswith(f"-{file_digest(data)[:16]}"):
        raise DatasetError(f"{dataset}: {path} has sha256 {file_digest(data)}, not the one in its name: {CURE}")
    return data


def _read(dataset: str, path: str) -> bytes:
    try:
        return storage.read(storage.join(dataset, path))
    except FileNotFoundError:
        raise DatasetError(f"{dataset}: {path} is missing; the dataset is not complete") from None


def _checked(dataset: str, file: FileRef) -> bytes:
    data = _read(dataset, file.path)
    if file_digest(data) != file.sha256:
        raise DatasetError(f"{dataset}: {file.path} has sha256 {file_digest(data)}, the manifest says {file.sha256}")
    return data


# ---------------------------------------------------------------- the commit


def commit(dataset: str, generation: int, data: bytes) -> None:
    """Create `manifest/gN.json` in one create-only operation, then point the hint at the newest generation.

    A driver that finds its own generation digest there was only interrupted before the hint, or lost a race
    against its twin: it succeeds. Raises CommitRefused when another driver's generation stands there, or when
    this one was not made on top of the committed generation N-1.
    """
    place = _place(dataset, generation)
    ours = _parse(data, place).digests
    if generation > 1:
        before = read_manifest(dataset, generation - 1).digests.generation
        if before != ours.previous:
            raise CommitRefused(
                f"{dataset}: generation {generation} was made on top of {ours.previous}, but generation "
                f"{generation - 1} is {before}: run again to build on it; finished parts are used again"
            )
    try:
        storage.write(place, data, create_only=True)
    except FileExistsError:
        theirs = _parse(storage.read(place), place).digests.generation
        if theirs != ours.generation:
            raise CommitRefused(
                f"{dataset}: another run committed generation {generation} first (its digest {theirs}, this run's "
                f"{ours.generation}). Nothing is lost: run again to build on it; finished parts are used again"
            ) from None
    newest = newest_generation(dataset)
    hint = Hint(generation=newest, path=f"manifest/g{newest}.json")
    storage.write(storage.join(dataset, HINT), canonical_json(hint.model_dump()) + b"\n")

"""A dataset as the trainer opens it: one manifest, one table of shards (contracts, section 6).

Nothing of a shard is read here but, where they lie in a folder, the sizes. N = train shards in use of a generation.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas import storage
from schemas.generation import Manifest
from schemas.manifest import DatasetError, read_manifest, read_shards
from trainer.order.phases import ShardTable
from trainer.order.shard_table import NOT_COUNTED, Shards, sort_names

__all__ = ["Dataset", "ShardFiles", "check_digest", "open_dataset", "sha256_of"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """One generation of a dataset, opened: what the order of samples needs, and where the shards lie."""

    uri: str
    name: str  # "" where a run reads one dataset
    manifest: Manifest
    table: pa.Table  # every shard of every split, retired ones too; a shard's number is its row
    number_N: NDArray[np.int64]  # row of `table`
    shards: Shards  # of split train, in use

    @property
    def generation(self) -> int:
        """Its number."""
        return self.manifest.generation

    @property
    def order_digest(self) -> str:
        """Hex digest of what a training depends on."""
        return self.manifest.digests.order

    @property
    def vocab_size(self) -> int:
        """One above the highest token id."""
        return self.manifest.tokenizer.vocab_size

    @property
    def end_of_text(self) -> int:
        """Id of the token that ends every document."""
        return self.manifest.tokenizer.end_of_text.id

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the special tokens, sorted."""
        return tuple(sorted({*self.manifest.tokenizer.special_tokens.values(), self.end_of_text}))

    @property
    def token_type(self) -> np.dtype[Any]:
        """Of the shards: uint16 or uint32."""
        return np.dtype(self.manifest.tokenizer.token_type)

    @property
    def tokenizer_sha256(self) -> str:
        """Hex digest of the tokenizer's file."""
        return self.manifest.tokenizer.sha256

    @cached_property
    def tokenizer(self) -> bytes:
        """The tokenizer's file, as `tokenizers` reads it. Raises DatasetError when it is not the manifest's."""
        uri = storage.join(self.uri, self.manifest.tokenizer.path)
        try:
            data = storage.read(uri)
        except FileNotFoundError:
            raise DatasetError(f"{uri} is missing; the dataset is not complete") from None
        if (found := hashlib.sha256(data).hexdigest()) != self.tokenizer_sha256:
            raise DatasetError(f"{uri} has sha256 {found}, the manifest says {self.tokenizer_sha256}: copy it again")
        return data

    @property
    def folder(self) -> Path | None:
        """Where the dataset lies, if that is a local folder."""
        return storage.local_path(self.uri)

    def file_uri(self, index: int) -> str:
        """Address of shard `index` of `shards`."""
        return storage.join(self.uri, self.table["path"][int(self.number_N[index])].as_py())

    @cached_property
    def bytes_N(self) -> NDArray[np.int64]:
        """Size of each shard's file, by the manifest."""
        return _numbers(self.table["bytes"])[self.number_N]

    @cached_property
    def faults(self) -> dict[int, str]:
        """Shards of a local folder that are missing or of another size, by index: what is wrong, and with which."""
        if self.folder is None:
            return {}
        root, found = str(self.folder), {}
        paths = self.table["path"].to_pylist()
        for index, (number, size) in enumerate(zip(self.number_N.tolist(), self.bytes_N.tolist(), strict=True)):
            place = f"{root}/{paths[number]}"
            try:
                has = os.stat(place).st_size
            except OSError as error:
                found[index] = f"{place}: {error.strerror}; the dataset is not complete: copy the shard again"
                continue
            if has != size:
                found[index] = f"{place} has {has:,} bytes, the manifest says {size:,}: copy the shard again"
        return found

    def with_packed_rows(self, sequence_length: int, rows_N: NDArray[np.int64]) -> "Dataset":
        """The dataset with a count of packed rows of T tokens for each shard."""
        packed = self.shards.packed_rows | {sequence_length: rows_N}
        return replace(self, shards=replace(self.shards, packed_rows=packed))


def open_dataset(uri: str, generation: int | None = None, name: str | None = None) -> Dataset:
    """Open a generation (default: the newest) of a dataset in a folder, in a bucket or on a web server.

    With a `name` the sources are called NAME:SOURCE, as a run of several datasets needs. Raises DatasetError for what
    is no dataset or not complete, StorageError for a store that does not answer.
    """
    manifest = read_manifest(uri, generation)
    table = read_shards(uri, manifest)
    number_N = np.flatnonzero(
        _equals(table["split"], "train") & _numbers(table["retired_in"].is_null().cast(pa.int8()))
    )
    if not len(number_N):
        raise DatasetError(f"{uri}: generation {manifest.generation} has no shard of split train")
    return Dataset(uri, name or "", manifest, table, number_N, _shards(table, number_N, name or ""))


def _shards(table: pa.Table, number_N: NDArray[np.int64], name: str) -> Shards:
    digests = _digests(table["sha256"])
    column = table["source"].combine_chunks().dictionary_encode()
    names = [f"{name}:{source}" if name else source for source in column.dictionary.to_pylist()]
    in_use_N = np.from_dlpack(column.indices)[number_N]
    sources = sort_names(names[source] for source in np.unique(in_use_N).tolist())
    place = np.array([sources.index(source) if source in sources else -1 for source in names], np.int32)
    replaces = table["replaces"].combine_chunks()
    first = np.from_dlpack(replaces.offsets)
    numbers, replaced = np.flatnonzero(np.diff(first)).tolist(), digests[np.from_dlpack(replaces.values)]
    return Shards(
        sources=tuple(sources),
        source_N=place[in_use_N],
        sha256_N=digests[number_N],
        tokens_N=_numbers(table["tokens"])[number_N],
        packed_rows=_packed_rows(table["packed_rows"], number_N),
        replaces={
            digests[number].tobytes(): tuple(old.tobytes() for old in replaced[first[number] : first[number + 1]])
            for number in numbers
        },
    )


def _numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column without nulls. Not by `to_numpy`, which first imports pandas, for a second."""
    return np.from_dlpack(column.combine_chunks())


def _equals(column: pa.ChunkedArray, text: str) -> NDArray[np.bool_]:
    encoded = column.combine_chunks().dictionary_encode()
    same = np.array([each == text for each in encoded.dictionary.to_pylist()], np.bool_)
    return same[np.from_dlpack(encoded.indices)]


def _digests(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """(shards, 32) bytes of a column of hex digests."""
    text = "".join(column.to_pylist())
    if len(text) != 64 * len(column):
        raise DatasetError("the shards table has a sha256 that is not 64 hex digits: the dataset is damaged")
    return np.frombuffer(bytes.fromhex(text), np.uint8).reshape(-1, 32)


def _packed_rows(column: pa.ChunkedArray, number_N: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """By sequence length, for the lengths that any shard has been counted for."""
    texts = column.to_pylist() if column.null_count < len(column) else []
    if not texts:
        return {}
    counts = json.loads(f"[{','.join(texts[number] or '{}' for number in number_N.tolist())}]")
    lengths = sorted({length for each in counts for length in each}, key=int)
    return {int(length): np.array([each.get(length, NOT_COUNTED) for each in counts], np.int64) for length in lengths}


def check_digest(path: str | Path, sha256: str, name: str) -> None:
    """Raises DatasetError, calling the file by `name`, for one that is not what the manifest says."""
    try:
        found = sha256_of(path)
    except OSError as error:  # a bad sector too, which would kill the process were the file first read as memory
        raise DatasetError(f"{name}: {error.strerror}: copy it again") from None
    if found != sha256:
        raise DatasetError(f"{name}: its sha256 is {found}, the manifest says {sha256}: copy it again")


def sha256_of(path: str | Path) -> str:
    """Hex digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(8 << 20):
            digest.update(block)
    return digest.hexdigest()


class ShardFiles:
    """The file of every shard of a run's table, whichever of the run's datasets it is of.

    Raises ValueError for a table with shards of a dataset that was not given.
    """

    def __init__(self, table: ShardTable, datasets: Sequence[Dataset]) -> None:
        count = len(table.source_N)
        self._datasets = tuple(datasets)
        self._dataset_N = np.full(count, -1, np.int32)
        self._index_N = np.empty(count, np.int64)
        self.bytes_N = np.zeros(count, np.int64)
        self.tokens_N = np.zeros(count, np.int64)
        keys = _keys(table.source_N, table.sha256_N)
        for number, dataset in enumerate(self._datasets):
            shards = dataset.shards
            known = np.array([source in table.sources for source in shards.sources])
            wanted = np.flatnonzero(known[shards.source_N])
            places = np.array([table.sources.index(s) if s in table.sources else -1 for s in shards.sources], np.int32)
            mine = _keys(places[shards.source_N[wanted]], shards.sha256_N[wanted])
            ids = np.minimum(np.searchsorted(keys, mine), count - 1)
            same = keys[ids] == mine
            ids, wanted = ids[same], wanted[same]
            self._dataset_N[ids], self._index_N[ids] = number, wanted
            self.bytes_N[ids], self.tokens_N[ids] = dataset.bytes_N[wanted], shards.tokens_N[wanted]
        missing = np.flatnonzero(self._dataset_N < 0)
        if len(missing):
            first = int(missing[0])
            raise ValueError(
                f"shard {table.sha256_N[first].tobytes().hex()} of source {table.sources[table.source_N[first]]!r} is "
                "in the phases and in none of the datasets: give every dataset and generation that a phase reads"
            )

    def dataset(self, shard: int) -> Dataset:
        """The dataset of a shard."""
        return self._datasets[self._dataset_N[shard]]

    def index(self, shard: int) -> int:
        """A shard's index in its dataset's `shards`."""
        return int(self._index_N[shard])

    def uri(self, shard: int) -> str:
        """Address of a shard."""
        return self.dataset(shard).file_uri(self.index(shard))

    def path(self, shard: int) -> str | None:
        """Where a shard lies on this machine; None for a remote one."""
        path = storage.local_path(self.uri(shard))
        return None if path is None else str(path)

    def packed_rows(self, shard: int, sequence_length: int) -> int | None:
        """Packed rows of T tokens that the manifest, or a scan, counted in a shard; None where nobody did."""
        counted = self.dataset(shard).shards.packed_rows.get(sequence_length)
        return None if counted is None or counted[self.index(shard)] == NOT_COUNTED else int(counted[self.index(shard)])

    def remote_N(self) -> NDArray[np.bool_]:
        """Which shards must come through the cache."""
        remote = np.array([dataset.folder is None for dataset in self._datasets])
        return remote[self._dataset_N]

    def faults(self) -> dict[int, str]:
        """Local shards that are missing or of another size; see `Dataset.faults`."""
        found: dict[int, str] = {}
        for number, dataset in enumerate(self._datasets):
            if dataset.faults:
                shards = np.flatnonzero(self._dataset_N == number).tolist()
                found |= {s: dataset.faults[self.index(s)] for s in shards if self.index(s) in dataset.faults}
        return found


def _keys(source_N: NDArray[np.int32], sha256_N: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """(source, sha256) as 36 bytes that sort alike."""
    keys = np.empty((len(source_N), 36), np.uint8)
    keys[:, :4] = source_N.astype(">i4").view(np.uint8).reshape(-1, 4)
    keys[:, 4:] = sha256_N
    return keys.view("S36").reshape(-1)

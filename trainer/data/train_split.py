"""The train split of a dataset as a run reads it: the columns that the order of samples needs, and where shards lie.

Nothing of a shard is read here but, where they lie in a folder, the sizes. N = train shards in use of a generation.
"""

import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas import storage
from schemas.dataset import Dataset, DatasetError, open_dataset
from trainer.order.shard_table import NOT_COUNTED, Shards, sort_names

__all__ = ["TrainSplit", "open_train_split"]


@dataclass(frozen=True, eq=False)
class TrainSplit:
    """The shards of split train that a generation has in use, as columns, and the dataset that they are of."""

    dataset: Dataset
    name: str  # of the dataset; "" where a run reads one
    number_N: NDArray[np.int64]  # row of the dataset's `shard_table`
    shards: Shards

    @property
    def uri(self) -> str:
        """Where the dataset lies."""
        return self.dataset.uri

    @property
    def generation(self) -> int:
        """The dataset's generation."""
        return self.dataset.manifest.generation

    @property
    def order_digest(self) -> str:
        """Hex digest of what a training depends on."""
        return self.dataset.manifest.digests.order

    @property
    def vocab_size(self) -> int:
        """One above the highest token id."""
        return self.dataset.manifest.tokenizer.vocab_size

    @property
    def end_of_text(self) -> int:
        """Id of the token that ends every document."""
        return self.dataset.manifest.tokenizer.end_of_text.id

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the special tokens, sorted."""
        return tuple(sorted({*self.dataset.manifest.tokenizer.special_tokens.values(), self.end_of_text}))

    @property
    def token_type(self) -> np.dtype[Any]:
        """Of the shards: uint16 or uint32."""
        return np.dtype(self.dataset.manifest.tokenizer.token_type)

    @property
    def tokenizer_sha256(self) -> str:
        """Hex digest of the tokenizer's file."""
        return self.dataset.manifest.tokenizer.sha256

    @cached_property
    def tokenizer(self) -> bytes:
        """The tokenizer's file. Raises DatasetError when it is not the manifest's."""
        return self.dataset.tokenizer()

    @property
    def folder(self) -> Path | None:
        """Where the dataset lies, if that is a local folder."""
        return storage.local_path(self.uri)

    def shard_path(self, index: int) -> str:
        """Path below the dataset of shard `index` of `shards`."""
        return str(self.dataset.shard_table["path"][int(self.number_N[index])].as_py())

    def file_uri(self, index: int) -> str:
        """Address of shard `index` of `shards`."""
        return storage.join(self.uri, self.shard_path(index))

    @cached_property
    def bytes_N(self) -> NDArray[np.int64]:
        """Size of each shard's file, by the manifest."""
        return _numbers(self.dataset.shard_table["bytes"])[self.number_N]

    @cached_property
    def faults(self) -> dict[int, str]:
        """Shards of a local folder that are missing or of another size, by index: what is wrong, and with which."""
        if self.folder is None:
            return {}
        root, found = str(self.folder), {}
        paths = self.dataset.shard_table["path"].to_pylist()
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

    def with_packed_rows(self, sequence_length: int, rows_N: NDArray[np.int64]) -> "TrainSplit":
        """The same with a count of packed rows of T tokens for each shard."""
        packed = self.shards.packed_rows | {sequence_length: rows_N}
        return replace(self, shards=replace(self.shards, packed_rows=packed))


def open_train_split(uri: str, generation: int | None = None, name: str | None = None) -> TrainSplit:
    """Open a generation (default: the newest) of a dataset in a folder, in a bucket or on a web server.

    With a `name` the sources are called NAME:SOURCE, as a run of several datasets needs. Raises DatasetError for what
    is not a dataset or not complete, StorageError for a store that does not answer.
    """
    dataset = open_dataset(uri, generation)
    table = dataset.shard_table
    number_N = np.flatnonzero(
        _equals(table["split"], "train") & _numbers(table["retired_in"].is_null().cast(pa.int8()))
    )
    if not len(number_N):
        raise DatasetError(f"{uri}: generation {dataset.manifest.generation} has no shard of split train")
    return TrainSplit(dataset, name or "", number_N, _shards(table, number_N, name or ""))


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

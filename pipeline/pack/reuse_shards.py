"""Rows that an earlier generation already encoded: found by position and text hash, copied from its shards."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.pack.documents import fixed_rows
from pipeline.pack.groups import PackGroup, Plan
from schemas import storage
from schemas.dataset import Dataset, DatasetError, read_shard
from schemas.manifest import CURE, ELSEWHERE, read_named, shard_group
from schemas.text_format import plural

__all__ = ["OldRows", "OldShards", "check_sizes"]

Tokens = NDArray[np.integer]  # type: ignore[type-arg]


class OldShards:
    """The shards in use before this run."""

    def __init__(self, plan: Plan) -> None:
        self._dataset = plan.dataset
        self._paths: list[str] = []
        self._sha256: dict[str, str] = {}
        self._by_group: dict[str, dict[str, str]] = {}
        if plan.shards_table is None:
            return
        with pa.ipc.open_file(pa.py_buffer(read_named(plan.dataset, plan.shards_table))) as reader:
            table = reader.read_all().select(["path", "sha256", "source", "retired_in"])
        self._paths = table["path"].to_pylist()
        self._sha256 = dict(zip(self._paths, table["sha256"].to_pylist(), strict=True))
        in_use = table.filter(pc.is_null(table["retired_in"])).to_pylist()
        for row in in_use:
            self._by_group.setdefault(shard_group(row["path"], row["source"]), {})[row["sha256"]] = row["path"]

    def known(self, group: str) -> dict[str, str]:
        """sha256 to path, of the shards that a group (or a source's validation) has."""
        return self._by_group.get(group, {})

    def path(self, number: int) -> str:
        """Where a shard lies below the dataset."""
        return self._paths[number]

    def take_tokens(self, path: str, rows: NDArray[np.integer]) -> list[Tokens]:  # type: ignore[type-arg]
        """Copies of the token ids of some rows of a shard; `rows` ascend.

        Raises DatasetError for a shard that is not the one that was written: copied from, its damage would be part of
        the next generation under digests that agree with it.
        """
        try:
            shard = read_shard(storage.join(self._dataset, path), self._sha256[path])
        except DatasetError as error:
            raise DatasetError(f"{error}{ELSEWHERE}") from None
        return shard.tokens_of(rows)


class OldRows:
    """Where each row of a group lies in the generation before; -1: nowhere. Rows never change their positions."""

    def __init__(self, plan: Plan, group: PackGroup, num_rows: int) -> None:
        self.shard = np.full(num_rows, -1, np.int64)
        self.row = np.full(num_rows, -1, np.int64)
        self._hashes = np.zeros((num_rows, 16), np.uint8)
        if group.previous_ledger is None:
            return
        data = read_named(plan.dataset, group.previous_ledger)
        table = pq.ParquetFile(io.BytesIO(data)).read(columns=["final_hash", "shard", "row"])
        self.shard = pc.fill_null(table["shard"].cast("int64"), -1).to_numpy()
        self.row = pc.fill_null(table["row"].cast("int64"), -1).to_numpy()
        self._hashes = fixed_rows(table["final_hash"], 16)

    def same_text(self, first: int, final_hashes: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of the rows from `first` on are in a shard, encoded from the text with this hash."""
        last = first + len(final_hashes)
        return (self.shard[first:last] >= 0) & (self._hashes[first:last] == final_hashes).all(axis=1)


def _size(uri: str) -> int | None:
    try:
        return storage.stat(uri).size
    except FileNotFoundError:
        return None


def check_sizes(dataset: Dataset) -> None:
    """Raise DatasetError for a file in use that is missing or of another size: listings, nothing is read."""
    found = {
        file.uri: file.size
        for folder in ("shards", "ledger", "index")
        for file in storage.list_files(storage.join(dataset.uri, folder))
    }
    shards = zip(*(dataset.shards()[name].to_pylist() for name in ("path", "bytes")), strict=True)
    for path, expected in (*shards, *((file.path, file.bytes) for file in dataset.file_refs)):
        uri = storage.join(dataset.uri, path)
        size = found.get(uri) if "/" in path else _size(uri)
        if size != expected:
            has = "is missing" if size is None else f"has {plural(size, 'byte')}, not {expected:,}"
            raise DatasetError(f"{uri}: it {has}: {CURE}")

"""Shards: the one place that opens a shard's file, and which shards a generation has in use.

D = documents of a shard, in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas import storage
from schemas.manifest import COPY, DatasetError, file_digest

__all__ = ["ShardFile", "fixed_rows", "in_use", "map_shard", "missing_shard", "parse_shard", "read_shard"]

COLUMNS = ("doc_id", "tokens", "num_bytes")


@dataclass(frozen=True, eq=False)
class ShardFile:
    """A shard's file in memory; its record batches are views of it."""

    name: str  # for messages: its path or address
    whole: pa.Buffer
    schema: pa.Schema
    batches: tuple[pa.RecordBatch, ...]

    def doc_ids(self) -> NDArray[np.uint8]:
        """(D, 16) bytes: the documents' ids."""
        return np.concatenate([np.empty((0, 16), np.uint8), *(fixed_rows(batch["doc_id"]) for batch in self.batches)])

    def num_tokens(self) -> NDArray[np.int64]:
        """(D,) tokens of each document, end-of-text included."""
        return _joined([np.diff(np.from_dlpack(batch["tokens"].offsets)) for batch in self.batches])

    def num_bytes(self) -> NDArray[np.int64]:
        """(D,) bytes of each document's text."""
        return _joined([np.from_dlpack(batch["num_bytes"]) for batch in self.batches])

    def tokens_of(self, rows: NDArray[np.integer[Any]]) -> list[NDArray[np.integer[Any]]]:
        """Copies of the token ids of some documents; `rows` ascend."""
        taken: list[NDArray[np.integer[Any]]] = []
        first = 0
        for batch in self.batches:
            column = batch["tokens"]
            inside = rows[len(taken) : np.searchsorted(rows, first + len(column))] - first
            offsets, values = np.from_dlpack(column.offsets), np.from_dlpack(column.values)
            taken += [values[offsets[row] : offsets[row + 1]].copy() for row in inside]
            first += len(column)
        assert len(taken) == len(rows), f"row {rows[len(taken)]} of {first}"
        return taken


def map_shard(path: str) -> ShardFile:
    """A local shard, in memory as far as the operating system has it there; no file descriptor stays open.

    Its digest is the caller's to check (`check_digest`). Raises DatasetError for a file that is not a shard.
    """
    try:
        with pa.memory_map(path) as file:
            whole = file.read_buffer(file.size())  # the mapping outlives the descriptor, as long as the buffer does
    except FileNotFoundError:
        raise missing_shard(path) from None
    except OSError as error:
        raise DatasetError(f"{path}: not a shard: {' '.join(str(error).split())}") from None
    return parse_shard(whole, path)


def read_shard(uri: str, sha256: str | None) -> ShardFile:
    """A shard from anywhere, read whole. Raises DatasetError for a missing one, or another than `sha256`."""
    try:
        data = storage.read(uri)
    except FileNotFoundError:
        raise missing_shard(uri) from None
    if sha256 is not None and (found := file_digest(data)) != sha256:
        raise DatasetError(f"{uri}: it has sha256 {found}, the manifest says {sha256}: {COPY}")
    return parse_shard(pa.py_buffer(data), uri)


def missing_shard(name: str) -> DatasetError:
    """What to raise for a shard that is not there."""
    return DatasetError(f"{name} is missing (pruned, or not copied): {COPY}")


def parse_shard(whole: pa.Buffer, name: str) -> ShardFile:
    """A shard's bytes as record batches. Raises DatasetError for what is not a shard."""
    try:
        with pa.ipc.open_file(whole) as reader:
            schema = reader.schema
            batches = tuple(reader.get_batch(number) for number in range(reader.num_record_batches))
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{name}: not a shard: {' '.join(str(error).split())}") from None
    if missing := [column for column in COLUMNS if column not in schema.names]:
        raise DatasetError(f"{name}: not a shard: it has no column {missing[0]}")
    return ShardFile(name, whole, schema, batches)


def _joined(columns: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *(column.astype(np.int64) for column in columns)])


def fixed_rows(column: pa.FixedSizeBinaryArray) -> NDArray[np.uint8]:
    """(rows, width) bytes of a fixed-width column without nulls; a view of it."""
    width = column.type.byte_width
    values = np.frombuffer(column.buffers()[1], np.uint8) if len(column) else np.empty(0, np.uint8)
    return values[column.offset * width : (column.offset + len(column)) * width].reshape(-1, width)


def in_use(table: pa.Table, split: str | None = None) -> pa.Table:
    """The shards in use of a shards table, of one split if given, with their `number`: their row of the table."""
    numbered = table.append_column("number", pa.array(np.arange(len(table), dtype=np.uint32)))
    chosen = pc.is_null(table["retired_in"])
    if split is not None:
        chosen = pc.and_(chosen, pc.equal(table["split"], split))
    return numbered.filter(chosen)

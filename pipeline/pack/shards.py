"""Shards: documents in seeded order, cut by size, written as Arrow files. Contracts, sections 5 and 6."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.pack.documents import bytes_column, order_keys
from pipeline.pack.files import arrow_bytes, write_once
from pipeline.pack.groups import Plan
from pipeline.pack.receipts import ShardFile
from schemas.arrow import tokens_schema
from schemas.manifest import file_digest
from schemas.packing import packed_rows
from schemas.recipe import canonical_json

__all__ = ["Documents", "Places", "cut", "tags_of", "write_shards"]

ROW_BYTES = 16 + 4 + 4  # doc_id, offset and num_bytes of a document in a shard


@dataclass
class Documents:
    """Kept documents of one source and split, in address order, with their token ids."""

    doc_ids: list[bytes]
    num_bytes: NDArray[np.uint32]
    tags: list[str]  # canonical JSON
    tokens: list[NDArray[np.integer[Any]]]  # end-of-text last

    def __len__(self) -> int:
        return len(self.doc_ids)


@dataclass
class Places:
    """Where each document went, in the same order."""

    shard: NDArray[np.uint32]  # among the shards written
    row: NDArray[np.uint32]
    token_start: NDArray[np.uint64]
    num_tokens: NDArray[np.uint32]
    num_unknown: NDArray[np.uint32]  # of them, those that stand for what the vocabulary does not know


def no_places(count: int) -> Places:
    """Room for the places of some documents."""
    shard, row, num_tokens, num_unknown = (np.zeros(count, np.uint32) for _ in range(4))
    return Places(shard, row, np.zeros(count, np.uint64), num_tokens, num_unknown)


def tags_of(languages: Sequence[str | None], partition_by: Sequence[str]) -> list[str]:
    """The tags of documents as canonical JSON, {} for none."""
    if not partition_by:
        return ["{}"] * len(languages)
    known = {language: canonical_json({"language": language}).decode() for language in set(languages)}
    return [known[language] for language in languages]


def cut(sizes: NDArray[np.integer[Any]], limit: int) -> list[tuple[int, int]]:
    """Runs [start, end) of about `limit`: a run closes before the item that would exceed; a larger one stands alone."""
    ends = np.cumsum(sizes, dtype=np.int64)
    runs, start, before = [], 0, 0
    while start < len(ends):
        end = max(start + 1, int(np.searchsorted(ends, before + limit, side="right")))
        runs.append((start, end))
        start, before = end, int(ends[end - 1])
    return runs


def write_shards(
    plan: Plan, documents: Documents, stem: str, source: str, split: str, digest: str, known: dict[str, str]
) -> tuple[list[ShardFile], Places]:
    """Write the shards of documents of one source and split; a shard holds one combination of tags.

    A document's place follows from xxh3_64(doc_id, seed), ties from its address. A shard whose bytes the dataset
    holds already (`known`: sha256 to path) is not written again.
    """
    keys = order_keys(documents.doc_ids, plan.seed)
    order = np.lexsort((np.arange(len(documents)), keys))
    tags = np.array([documents.tags[index] for index in order], dtype=object)
    places = no_places(len(documents))
    if unknown := plan.tokenizer["unknown"]:
        places.num_unknown[:] = [np.count_nonzero(tokens == unknown["id"]) for tokens in documents.tokens]
    files: list[ShardFile] = []
    for tag in sorted(set(documents.tags)):
        members = order[tags == tag]
        sizes = np.array([ROW_BYTES + documents.tokens[index].nbytes for index in members], np.int64)
        for start, end in cut(sizes, plan.shards["shard_bytes"]):
            rows = members[start:end]
            lengths = np.array([len(documents.tokens[index]) for index in rows], np.int64)
            path = f"shards/{stem}-{split}-{len(files):03d}-{digest}.arrow"
            metadata = {"source": source, "split": split, "tags": tag, "tokenizer": plan.tokenizer["sha256"]}
            data = _shard_bytes(plan, documents, rows, sizes[start:end], metadata)
            _place(places, rows, lengths, len(files))
            files.append(_shard_file(plan, documents, rows, lengths, metadata, path, data, known))
    return files, places


def _shard_bytes(
    plan: Plan,
    documents: Documents,
    rows: NDArray[np.integer[Any]],
    sizes: NDArray[np.integer[Any]],
    metadata: dict[str, str],
) -> bytes:
    """A shard's file; batches of about `batch_bytes` end between rows."""
    schema = tokens_schema(pa.type_for_alias(plan.tokenizer["token_type"]), metadata)
    batches = []
    for start, end in cut(sizes, plan.shards["batch_bytes"]):
        chosen = rows[start:end]
        tokens = [documents.tokens[index] for index in chosen]
        offsets = np.zeros(len(tokens) + 1, np.int32)
        np.cumsum([len(ids) for ids in tokens], out=offsets[1:])
        ids = np.frombuffer(b"".join(documents.doc_ids[index] for index in chosen), np.uint8).reshape(-1, 16)
        columns = [
            bytes_column(ids),
            pa.ListArray.from_arrays(
                pa.array(offsets), pa.array(np.concatenate(tokens)), type=schema.field("tokens").type
            ),
            pa.array(documents.num_bytes[chosen]),
        ]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    return arrow_bytes(schema, batches)


def _place(places: Places, rows: NDArray[np.integer[Any]], lengths: NDArray[np.int64], shard: int) -> None:
    places.shard[rows] = shard
    places.row[rows] = np.arange(len(rows))
    places.token_start[rows] = np.cumsum(lengths) - lengths
    places.num_tokens[rows] = lengths


def _shard_file(
    plan: Plan,
    documents: Documents,
    rows: NDArray[np.integer[Any]],
    lengths: NDArray[np.int64],
    metadata: dict[str, str],
    path: str,
    data: bytes,
    known: dict[str, str],
) -> ShardFile:
    """Write a shard unless the dataset has it (`known`: sha256 to path)."""
    sha256 = file_digest(data)
    if sha256 in known:
        path = known[sha256]
    else:
        write_once(plan.dataset, path, data)
    packed = {str(length): packed_rows(lengths, length) for length in plan.shards["sequence_lengths"]}
    return ShardFile(
        path=path,
        bytes=len(data),
        sha256=sha256,
        rows=len(rows),
        tokens=int(lengths.sum()),
        text_bytes=int(documents.num_bytes[rows].sum(dtype=np.int64)),
        source=metadata["source"],
        tags=metadata["tags"],
        split=metadata["split"],
        longest_document=int(lengths.max()),
        packed_rows=canonical_json(packed).decode() if packed else None,
    )

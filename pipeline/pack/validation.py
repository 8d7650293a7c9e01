"""Validation documents of all groups of a source, merged, so that there are few validation shards.

Memory holds some hundred bytes a validation document; the tokens lie in a temporary file on the worker's disk.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from pipeline.pack.encode import PLACES, places_batch
from pipeline.pack.files import arrow_bytes, open_arrow, write_work
from pipeline.pack.groups import PackGroup, Plan, safe_name
from pipeline.pack.receipts import ShardsReceipt, ValidationReceipt
from pipeline.pack.reuse_shards import OldShards
from pipeline.pack.shards import Documents, Places, write_shards
from schemas import storage

__all__ = ["merge_validation"]


@dataclass
class Fragments:
    """The validation documents of a source, their tokens in a file."""

    file: BinaryIO
    dtype: np.dtype[Any]
    positions: list[int] = field(default_factory=list)
    doc_ids: list[bytes] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    start: list[int] = field(default_factory=list)  # tokens before it in the file
    length: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)  # documents of each fragment
    references: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # shard: (row, document)
    written: int = 0

    def append(self, tokens: Any) -> tuple[int, int]:
        """Put tokens at the file's end; returns where."""
        self.file.write(np.ascontiguousarray(tokens).tobytes())
        start, self.written = self.written, self.written + len(tokens)
        return start, len(tokens)


def merge_validation(
    plan: Plan, groups: Sequence[PackGroup], receipts: Sequence[ShardsReceipt], old: OldShards
) -> ValidationReceipt:
    """Write the validation shards of a source's groups (of one generation), unless their receipt exists.

    `receipts` are those of `groups`, in order. Place and size follow from the documents alone, as in any shard.
    """
    digests = "".join(receipt.digest for receipt in receipts)
    digest = hashlib.sha256(digests.encode()).hexdigest()[:16]
    lengths = f"{digest} {plan.shards['sequence_lengths']}"
    name = f"validation-{hashlib.sha256(lengths.encode()).hexdigest()[:16]}"
    receipt = ValidationReceipt.load(plan.work, f"{name}.json", plan.dataset)
    if receipt is not None:
        return receipt
    first = groups[0]
    with tempfile.TemporaryFile() as file:
        fragments = Fragments(file, np.dtype(plan.tokenizer["token_type"]))
        for each in receipts:
            _read_fragment(plan, fragments, each)
        _copy_references(old, fragments)
        documents = _documents(fragments)
        stem = f"g{first.generation}-all-{safe_name(first.source)}"
        shards, places = write_shards(
            plan, documents, stem, first.source, "validation", digest, old.known(first.family)
        )
    path = f"pack/{name}-places.arrow"
    receipt = ValidationReceipt(
        family=first.family,
        ledgers=[group.ledger for group in groups],
        shards=shards,
        places=path,
        in_work=write_work(plan.work, path, arrow_bytes(PLACES, _by_group(fragments, places))),
        in_dataset={shard.path: shard.bytes for shard in shards},
    )
    receipt.save(plan.work, f"{name}.json")
    return receipt


def _read_fragment(plan: Plan, fragments: Fragments, receipt: ShardsReceipt) -> None:
    """Add a group's validation documents; those of an old shard are noted, to be copied later."""
    if receipt.fragment is None:
        fragments.counts.append(0)
        return
    with open_arrow(storage.join(plan.work, receipt.fragment)) as reader:
        batch = reader.get_batch(0)
    fragments.counts.append(batch.num_rows)
    base = len(fragments.positions)
    fragments.positions += batch["position"].to_pylist()
    fragments.doc_ids += batch["doc_id"].to_pylist()
    fragments.tags += batch["tags"].to_pylist()
    fragments.num_bytes += batch["num_bytes"].to_pylist()
    offsets = batch["tokens"].offsets.to_numpy()
    start, _ = fragments.append(batch["tokens"].values.to_numpy())
    fragments.start += (start + offsets[:-1]).tolist()
    fragments.length += np.diff(offsets).tolist()
    rows = zip(batch["reference"].to_pylist(), batch["reference_row"].to_pylist(), strict=True)
    for index, (reference, row) in enumerate(rows):
        if reference >= 0:
            fragments.references.setdefault(receipt.references[reference], []).append((row, base + index))


def _copy_references(old: OldShards, fragments: Fragments) -> None:
    """Copy the tokens that lie in shards of the generation before, each shard read once."""
    for path, wanted in sorted(fragments.references.items()):
        wanted.sort()
        taken = old.take_tokens(path, np.array([row for row, _ in wanted]))
        for (_, document), tokens in zip(wanted, taken, strict=True):
            fragments.start[document], fragments.length[document] = fragments.append(tokens)


def _documents(fragments: Fragments) -> Documents:
    """The documents, with tokens as views of the mapped file."""
    fragments.file.flush()
    mapped = np.zeros(0, fragments.dtype)
    if fragments.written:
        mapped = np.asarray(np.memmap(fragments.file, fragments.dtype, "r"))
    tokens = [mapped[start : start + length] for start, length in zip(fragments.start, fragments.length, strict=True)]
    return Documents(fragments.doc_ids, np.array(fragments.num_bytes, np.uint32), fragments.tags, tokens)


def _by_group(fragments: Fragments, places: Places) -> list[pa.RecordBatch]:
    """One table of places a group."""
    batches, start = [], 0
    positions = np.array(fragments.positions, np.int64)
    for count in fragments.counts:
        end = start + count
        part = Places(*(column[start:end] for column in vars(places).values()))
        batches.append(places_batch(positions[start:end], part))
        start = end
    return batches

"""One group from parts to shards: texts encoded or copied, train shards written, validation rows kept for the merge."""

import hashlib
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.pack.documents import bytes_column, fixed_rows, part_batches, read_verdicts, texts_of
from pipeline.pack.files import arrow_bytes, write_work
from pipeline.pack.groups import PackGroup, Plan
from pipeline.pack.receipts import ShardsReceipt
from pipeline.pack.reuse_shards import OldRows, OldShards
from pipeline.pack.shards import Documents, Places, tags_of, write_shards
from pipeline.pack.tokenize.encoder import Encoder
from pipeline.runtime.progress import Reporter
from schemas import storage
from schemas.manifest import DatasetError
from schemas.recipe import canonical_json

__all__ = ["PACK_VERSION", "PLACES", "encode_group", "fragment_schema", "places_batch", "stage_version"]

PACK_VERSION = "2"  # raised by hand when the bytes of shards change

# Where the rows of a group went. One row a kept document, in address order.
PLACES = pa.schema(
    [
        pa.field("position", pa.uint32(), nullable=False),  # row of the group: its parts laid end to end
        pa.field("shard", pa.uint32(), nullable=False),  # among the shards of the receipt
        pa.field("row", pa.uint32(), nullable=False),
        pa.field("token_start", pa.uint64(), nullable=False),
        pa.field("num_tokens", pa.uint32(), nullable=False),
        pa.field("num_unknown", pa.uint32(), nullable=False),  # of them
    ]
)


def stage_version() -> str:
    """What the bytes of shards depend on beside the recipe."""
    return f"{PACK_VERSION}; tokenizers {version('tokenizers')}; pyarrow {version('pyarrow')}"


def fragment_schema(token_type: str) -> pa.Schema:
    """Validation documents of one group, on their way to the merge."""
    return pa.schema(
        [
            pa.field("position", pa.uint32(), nullable=False),
            pa.field("doc_id", pa.binary(16), nullable=False),
            pa.field("tags", pa.string(), nullable=False),
            pa.field("num_bytes", pa.uint32(), nullable=False),
            pa.field("tokens", pa.large_list(pa.type_for_alias(token_type)), nullable=False),  # empty: to be copied
            pa.field("reference", pa.int32(), nullable=False),  # among the receipt's references; -1: none
            pa.field("reference_row", pa.int32(), nullable=False),
        ]
    )


@dataclass
class Kept:
    """The kept rows of a group, in address order."""

    positions: NDArray[np.int64]
    validation: NDArray[np.bool_]
    documents: Documents
    old_shard: NDArray[np.int64]  # number of the shard to copy from; -1: encoded
    old_row: NDArray[np.int64]


@dataclass
class Rows:
    """Columns of kept rows while batches come in."""

    positions: list[int] = field(default_factory=list)
    num_bytes: list[int] = field(default_factory=list)
    languages: list[str | None] = field(default_factory=list)
    copied: list[bool] = field(default_factory=list)
    tokens: list[NDArray[np.integer[Any]]] = field(default_factory=list)


def encode_group(plan: Plan, group: PackGroup, encoder: Encoder, old: OldShards, reporter: Reporter) -> ShardsReceipt:
    """Write a group's train shards and its validation fragment, unless its receipt exists; returns the receipt."""
    verdicts = [read_verdicts(part, ["doc_id", "kept", "split"]) for part in plan.parts_of(group)]
    digest = _shard_digest(plan, group, verdicts)
    # Lengths to count rows for are in the receipt but not in the shards.
    lengths = canonical_json([digest, plan.shards["sequence_lengths"]])
    name = f"shards-{hashlib.sha256(lengths).hexdigest()[:16]}"
    receipt = ShardsReceipt.load(plan.work, f"{name}.json", plan.dataset)
    if receipt is not None:
        for part in plan.parts_of(group):
            reporter.add("pack", items=1, bytes=part.text_bytes, records=part.rows)
        # Used as they are: what was encoded then is not encoded now.
        return replace(receipt, copied=receipt.copied + receipt.encoded, encoded=0)
    kept = _read_kept(plan, group, pa.concat_tables(verdicts), encoder, reporter)
    train = np.flatnonzero(~kept.validation)
    _copy(kept, train, old)
    stem = group.stem
    shards, places = write_shards(
        plan, _subset(kept.documents, train), stem, group.source, "train", digest, old.known(group.key)
    )
    places_path, batch = f"pack/{name}-places.arrow", places_batch(kept.positions[train], places)
    in_work = write_work(plan.work, places_path, arrow_bytes(PLACES, [batch]))
    fragment, references = _write_fragment(plan, kept, old, f"pack/{name}-validation.arrow", in_work)
    in_dataset = {shard.path: shard.bytes for shard in shards}
    in_dataset |= {path: storage.stat(storage.join(plan.dataset, path)).size for path in references}
    receipt = ShardsReceipt(
        digest=digest,
        ledger=group.ledger,
        shards=shards,
        places=places_path,
        copied=int((kept.old_shard >= 0).sum()),
        encoded=int((kept.old_shard < 0).sum()),
        fragment=fragment,
        references=references,
        in_work=in_work,
        in_dataset=in_dataset,
    )
    receipt.save(plan.work, f"{name}.json")
    return receipt


def _shard_digest(plan: Plan, group: PackGroup, verdicts: list[pa.Table]) -> str:
    """What the bytes of a group's shards depend on (contracts, section 5); texts, edits and tags are in the parts."""
    shards = {key: plan.shards[key] for key in ("shard_bytes", "batch_bytes", "partition_by")}
    head = {
        "generation": group.generation,
        "group": group.number,
        "source": group.source,
        "parts": [part.content for part in plan.parts_of(group)],
        "tokenizer": plan.tokenizer["sha256"],
        "end_of_text": plan.tokenizer["end_of_text"]["id"],
        "begin_of_text": plan.tokenizer["begin_of_text"],
        "shards": shards,
        "seed": plan.seed,
        "version": stage_version(),
    }
    digest = hashlib.sha256(canonical_json(head))
    for table in verdicts:
        kept = table["kept"].to_numpy()
        digest.update(np.packbits(kept).tobytes())
        digest.update(np.packbits(_is_validation(table, group)).tobytes())
        digest.update(fixed_rows(table["doc_id"], 16)[kept].tobytes())
    return digest.hexdigest()[:16]


def _is_validation(verdicts: pa.Table, group: PackGroup) -> NDArray[np.bool_]:
    """Which rows are kept for validation. Raises DatasetError for a kept row without a split."""
    kept = verdicts["kept"].to_numpy()
    split = np.array(verdicts["split"].to_pylist(), dtype=object)
    validation, train = kept & (split == "validation"), kept & (split == "train")
    wrong = np.flatnonzero(kept & ~validation & ~train)
    if len(wrong):
        raise DatasetError(
            f"group {group.number} of source {group.source}: row {wrong[0]} of a part is kept with split "
            f"{split[wrong[0]]!r}: expected train or validation"
        )
    return validation


def _read_kept(plan: Plan, group: PackGroup, verdicts: pa.Table, encoder: Encoder, reporter: Reporter) -> Kept:
    """Read the group's parts once, encoding what is kept and not to be copied."""
    keep = verdicts["kept"].to_numpy()
    old_rows = OldRows(plan, group, len(keep))
    rows = Rows()
    base = 0
    for part in plan.parts_of(group):
        for first, batch in part_batches(part, ["text", "edits", "final_hash", "num_bytes", "language"]):
            start = base + first
            chosen = keep[start : start + batch.num_rows]
            copied = chosen & old_rows.same_text(start, fixed_rows(batch["final_hash"], 16))
            _encode_batch(rows, batch, start, chosen, copied, encoder, part.uri)
            size = pc.sum(pc.binary_length(batch["text"])).as_py() or 0
            reporter.add("pack", bytes=size, records=batch.num_rows)
        reporter.add("pack", items=1)
        base += part.rows
    positions = np.array(rows.positions, np.int64)
    copied = np.array(rows.copied, bool)
    ids = fixed_rows(verdicts["doc_id"], 16)
    documents = Documents(
        [ids[position].tobytes() for position in positions],
        np.array(rows.num_bytes, np.uint32),
        tags_of(rows.languages, plan.shards["partition_by"]),
        rows.tokens,
    )
    return Kept(
        positions,
        _is_validation(verdicts, group)[positions],
        documents,
        np.where(copied, old_rows.shard[positions], -1),
        np.where(copied, old_rows.row[positions], -1),
    )


def _encode_batch(
    rows: Rows,
    batch: pa.RecordBatch,
    start: int,
    chosen: NDArray[np.bool_],
    copied: NDArray[np.bool_],
    encoder: Encoder,
    uri: str,
) -> None:
    """Add a batch's kept rows; those to be copied have no tokens yet."""
    inside = np.flatnonzero(chosen)
    if not len(inside):
        return
    tokens = iter(encoder.encode(texts_of(batch, chosen & ~copied, uri)))
    nothing = np.zeros(0, encoder.dtype)
    rows.positions += (start + inside).tolist()
    rows.num_bytes += batch["num_bytes"].take(pa.array(inside)).to_pylist()
    rows.languages += batch["language"].take(pa.array(inside)).to_pylist()
    rows.copied += copied[inside].tolist()
    rows.tokens += [nothing if copied[row] else next(tokens) for row in inside]


def _copy(kept: Kept, members: NDArray[np.integer[Any]], old: OldShards) -> None:
    """Fill in the tokens of some kept rows from the shards that hold them, each read once."""
    for shard in np.unique(kept.old_shard[members]):
        if shard < 0:
            continue
        wanted = members[kept.old_shard[members] == shard]
        wanted = wanted[np.argsort(kept.old_row[wanted])]
        taken = old.take_tokens(old.path(int(shard)), kept.old_row[wanted])
        for index, tokens in zip(wanted, taken, strict=True):
            kept.documents.tokens[index] = tokens


def _subset(documents: Documents, rows: NDArray[np.integer[Any]]) -> Documents:
    return Documents(
        [documents.doc_ids[row] for row in rows],
        documents.num_bytes[rows],
        [documents.tags[row] for row in rows],
        [documents.tokens[row] for row in rows],
    )


def places_batch(positions: NDArray[np.integer[Any]], places: Places) -> pa.RecordBatch:
    """Where documents went, as a table."""
    columns = [positions.astype(np.uint32), places.shard, places.row, places.token_start]
    columns += [places.num_tokens, places.num_unknown]
    return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=PLACES)


def _write_fragment(
    plan: Plan, kept: Kept, old: OldShards, path: str, in_work: dict[str, str]
) -> tuple[str | None, list[str]]:
    """Write the validation rows for the merge; returns their path, and the shards that they refer to.

    Rows to be copied are only referred to: the merge reads each old shard once, where every group would.
    """
    rows = np.flatnonzero(kept.validation)
    if not len(rows):
        return None, []
    shards, reference = np.unique(kept.old_shard[rows], return_inverse=True)
    missing = int(len(shards) > 0 and shards[0] < 0)  # the row of -1, where there is one
    references = [old.path(int(shard)) for shard in shards[missing:]]
    documents = _subset(kept.documents, rows)
    offsets = np.concatenate([[0], np.cumsum([len(tokens) for tokens in documents.tokens])]).astype(np.int64)
    schema = fragment_schema(plan.tokenizer["token_type"])
    values = pa.array(np.concatenate(documents.tokens))
    ids = np.frombuffer(b"".join(documents.doc_ids), np.uint8).reshape(-1, 16)
    columns = [
        pa.array(kept.positions[rows].astype(np.uint32)),
        bytes_column(ids),
        pa.array(documents.tags, pa.string()),
        pa.array(documents.num_bytes),
        pa.LargeListArray.from_arrays(pa.array(offsets), values, type=schema.field("tokens").type),
        pa.array((reference - missing).astype(np.int32)),
        pa.array(kept.old_row[rows].astype(np.int32)),
    ]
    in_work |= write_work(plan.work, path, arrow_bytes(schema, [pa.RecordBatch.from_arrays(columns, schema=schema)]))
    return path, references

"""The ledger of a group: one row a record read, kept or dropped, in (part, row) order. Contracts, section 6."""

import hashlib
import io
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.pack.documents import part_table, read_verdicts
from pipeline.pack.files import open_arrow, write_once, write_work
from pipeline.pack.groups import PackGroup, PackPart, Plan
from pipeline.pack.index import document_rows, near_file, url_rows
from pipeline.pack.receipts import LedgerReceipt, ShardsReceipt, ValidationReceipt
from pipeline.text.edits import REPLACEMENTS
from schemas import storage
from schemas.arrow import LEDGER
from schemas.manifest import DatasetError, file_digest, named_by_content
from schemas.recipe import canonical_json

__all__ = ["LEDGER_VERSION", "Placements", "write_ledger"]

LEDGER_VERSION = "1"  # raised by hand when the bytes of ledgers or indexes change
ROW_GROUP = 1 << 16
NUM_WORDS = "gopher.num_words"
# Columns of parts that a ledger has unchanged.
FROM_PART = ["record_id", "url", "input", "position", "offset", "language", "num_bytes", "final_hash"]
FROM_GROUPS = ["edits", "final", "language", "gopher", "signature"]  # whose columns it takes
FROM_VERDICT = ["doc_id", "kept", "stage", "rule", "value", "threshold", "duplicate_of", "twin", "cluster"]


class Placements:
    """Where the kept rows of a group went: row by row, -1 for dropped ones."""

    def __init__(self, num_rows: int) -> None:
        self.shard = np.full(num_rows, -1, np.int64)  # number in the shards table
        self.row = np.full(num_rows, -1, np.int64)
        self.token_start = np.zeros(num_rows, np.int64)
        self.num_tokens = np.full(num_rows, -1, np.int64)
        self.unknown_tokens = 0  # of all rows

    def add(self, places: pa.RecordBatch, numbers: list[int]) -> None:
        """Enter rows of a table of places; `numbers` are those of its receipt's shards."""
        position = places["position"].to_numpy()
        self.shard[position] = np.array(numbers, np.int64)[places["shard"].to_numpy()]
        self.row[position] = places["row"].to_numpy()
        self.token_start[position] = places["token_start"].to_numpy()
        self.num_tokens[position] = places["num_tokens"].to_numpy()
        self.unknown_tokens += int(places["num_unknown"].to_numpy().sum())


def write_ledger(
    plan: Plan,
    group: PackGroup,
    shards: ShardsReceipt,
    validation: ValidationReceipt,
    numbers: dict[tuple[str, str], int],
) -> LedgerReceipt:
    """Write a group's ledger, its near index and its rows for the other indexes; returns the receipt.

    `shards` and `validation` are the receipts of its shards and of its source's validation shards, `numbers` the
    numbers of all shards in use.
    """
    train_numbers = [numbers[group.key, shard.sha256] for shard in shards.shards]
    validation_numbers = [numbers[group.family, shard.sha256] for shard in validation.shards]
    name = f"ledger-{_ledger_digest(plan, group, shards, train_numbers, validation, validation_numbers)}"
    receipt = LedgerReceipt.load(plan.work, f"{name}.json", plan.dataset)
    if receipt is not None:
        return receipt
    parts = plan.parts_of(group)
    placements = Placements(sum(part.rows for part in parts))
    with open_arrow(storage.join(plan.work, shards.places)) as reader:
        placements.add(reader.get_batch(0), train_numbers)
    with open_arrow(storage.join(plan.work, validation.places)) as reader:
        placements.add(reader.get_batch(validation.ledgers.index(group.ledger)), validation_numbers)
    counts: Counter[str] = Counter()
    splits: dict[str, Counter[str]] = {}
    data, documents, urls = _ledger_bytes(plan, group, placements, counts, splits)
    ledger = named_by_content(f"ledger/{group.stem}", ".parquet", data)
    write_once(plan.dataset, ledger.path, data)
    near = near_file(plan, group)
    rows_path = f"pack/{name}.rows"
    receipt = LedgerReceipt(
        ledger=ledger,
        near=near,
        rows=rows_path,
        documents_bytes=len(documents),
        records_read=len(placements.shard),
        dropped=dict(sorted(counts.items())),
        splits={split: dict(count) for split, count in sorted(splits.items())},
        unknown_tokens=placements.unknown_tokens,
        in_work=write_work(plan.work, rows_path, documents + urls),
        in_dataset={file.path: file.bytes for file in (ledger, near) if file},
    )
    receipt.save(plan.work, f"{name}.json")
    return receipt


def _ledger_digest(
    plan: Plan,
    group: PackGroup,
    shards: ShardsReceipt,
    train_numbers: list[int],
    validation: ValidationReceipt,
    validation_numbers: list[int],
) -> str:
    """What a ledger depends on: its shards and their numbers, and every column of the verdicts."""
    head = {
        "ledger": group.ledger,
        "shards": shards.digest,
        "train": train_numbers,
        "validation": [*zip([shard.sha256 for shard in validation.shards], validation_numbers, strict=True)],
        "parts": [part.content_with(*FROM_GROUPS) for part in plan.parts_of(group)],
        "verdicts": [_verdicts_digest(part) for part in plan.parts_of(group)],
        "minhash": plan.minhash,
        "version": LEDGER_VERSION,
    }
    return hashlib.sha256(canonical_json(head)).hexdigest()[:16]


def _verdicts_digest(part: PackPart) -> str:
    digest = file_digest(storage.read(part.verdicts))
    if part.verdicts_sha256 not in ("", digest):
        folder = part.verdicts.rpartition("/")[0]
        raise DatasetError(f"{part.verdicts}: it is damaged, its sha256 is {digest}: delete {folder} and run again")
    return digest


def _ledger_bytes(
    plan: Plan, group: PackGroup, placements: Placements, counts: Counter[str], splits: dict[str, Counter[str]]
) -> tuple[bytes, bytes, bytes]:
    """The ledger's file and its packed rows of index/documents and index/urls; counts rows by rule and split."""
    sink = io.BytesIO()
    documents, urls = [], []
    base = 0
    with pq.ParquetWriter(sink, LEDGER, compression="zstd") as writer:
        for part in plan.parts_of(group):
            table = _ledger_table(part, placements, base)
            _count(table, counts, splits)
            # A part without a row still leaves no empty row group behind.
            if part.rows:
                writer.write_table(table, row_group_size=ROW_GROUP)
            documents.append(document_rows(table, placements.token_start[base : base + part.rows], group.ledger, base))
            urls.append(url_rows(table["url"], group.ledger, base))
            base += part.rows
    return sink.getvalue(), b"".join(documents), b"".join(urls)


def _ledger_table(part: PackPart, placements: Placements, base: int) -> pa.Table:
    """The rows of one part; what does not apply is null."""
    verdicts = read_verdicts(part, [*FROM_VERDICT, "cluster_size", "split"])
    read = part_table(part, [*FROM_PART, "edits", NUM_WORDS])
    rows = slice(base, base + part.rows)
    columns = {name: read[name] for name in FROM_PART} | {name: verdicts[name] for name in verdicts.column_names}
    columns["source"] = pa.array([part.source] * part.rows, pa.string())
    columns["num_words"] = read[NUM_WORDS].cast("uint32")
    columns["edited_bytes"] = _edited_bytes(read["edits"], read["num_bytes"])
    columns["num_tokens"] = _where_known(placements.num_tokens[rows])
    columns["shard"] = _where_known(placements.shard[rows])
    columns["row"] = _where_known(placements.row[rows])
    table = pa.table([columns[field.name] for field in LEDGER], schema=LEDGER)
    lost = pc.sum(pc.xor(table["kept"], pc.is_valid(table["shard"]))).as_py()
    assert not lost, f"{part.uri}: {lost} rows are kept without a shard, or dropped with one"
    return table


def _where_known(values: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.maximum(values, 0).astype(np.uint32), mask=values < 0)


def _edited_bytes(edits: pa.ChunkedArray, num_bytes: pa.ChunkedArray) -> pa.Array:
    """Bytes that edits took away (or, below zero, added), a row; null where there is no text."""
    column = edits.combine_chunks()
    lists = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    flat = column.flatten()
    lengths = np.array([len(text.encode()) for text in REPLACEMENTS], np.int64)
    removed = flat.field("length").to_numpy().astype(np.int64) - lengths[flat.field("replacement").to_numpy()]
    totals = np.concatenate([[0], np.cumsum(removed)])
    ends = np.cumsum(lists)
    return pa.array(totals[ends] - totals[ends - lists], pa.int64(), mask=pc.is_null(num_bytes).to_numpy())


def _count(table: pa.Table, counts: Counter[str], splits: dict[str, Counter[str]]) -> None:
    """Count a part's rows, dropped and kept. Raises DatasetError for a dropped row without a reason."""
    dropped = table.filter(pc.invert(table["kept"]))
    for row in pc.value_counts(dropped["rule"]).to_pylist():
        if row["values"] is None:
            raise DatasetError(f"source {table['source'][0]}: {row['counts']} dropped rows name no rule")
        counts[row["values"]] += row["counts"]
    sums = (
        table.filter(table["kept"])
        .group_by("split")
        .aggregate([("num_bytes", "count"), ("num_bytes", "sum"), ("num_tokens", "sum")])
    )
    for row in sums.to_pylist():
        count = splits.setdefault(row["split"], Counter())
        count.update(documents=row["num_bytes_count"], bytes=row["num_bytes_sum"], tokens=row["num_tokens_sum"])

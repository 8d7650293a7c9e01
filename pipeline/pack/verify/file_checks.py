"""What `verify` checks of one file: a shard, a ledger, an index file. Every fault names the file and what differs."""

import io
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.pack.documents import fixed_rows
from pipeline.pack.index import DOCUMENT_ROW, index_kind, index_order, index_rows, index_schema, url_rows
from schemas import storage
from schemas.arrow import LEDGER, tokens_schema
from schemas.dataset import DatasetError, parse_shard
from schemas.generation import FileRef, Tokenizer
from schemas.manifest import file_digest
from schemas.packing import packed_rows
from schemas.recipe import canonical_json
from schemas.text_format import plural

__all__ = [
    "Claims",
    "Faults",
    "LedgerFacts",
    "check_claims",
    "check_index",
    "check_ledger",
    "check_near",
    "check_shard",
]

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]


@dataclass
class Faults:
    """Faults found, in the order found."""

    found: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, fault: str) -> None:
        """Note what is wrong with a file."""
        self.found.append((path, fault))

    def differ(self, path: str, what: str, found: Any, expected: Any) -> None:
        """Note a value unless it is as expected."""
        if found != expected:
            self.add(path, f"{what} is {found}, expected {expected}")

    def read(self, dataset: str, file: FileRef) -> bytes | None:
        """A file's bytes, if they are those that the generation lists."""
        try:
            data = storage.read(storage.join(dataset, file.path))
        except OSError as error:
            self.add(file.path, "missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}")
            return None
        if len(data) != file.bytes:
            self.add(file.path, f"{plural(len(data), 'byte')}, the generation lists {file.bytes:,}")
            return None
        digest = file_digest(data)
        if digest != file.sha256:
            self.add(file.path, f"sha256 is {digest}, the generation lists {file.sha256}")
            return None
        return data


@dataclass
class Shard:
    """The rows of a shard that was read."""

    doc_ids: Bytes
    num_tokens: Numbers
    num_bytes: Numbers


@dataclass
class Claims:
    """Where ledgers say that documents are, one row a kept document."""

    doc_ids: Bytes
    shard: Numbers
    row: Numbers
    num_tokens: Numbers
    num_bytes: Numbers
    ledger: Numbers
    ledger_row: Numbers

    def take(self, rows: NDArray[Any]) -> "Claims":
        """Some of them."""
        return Claims(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    @staticmethod
    def join(claims: list["Claims"]) -> "Claims":
        """All of several."""
        return Claims(
            *(np.concatenate([getattr(each, name) for each in claims]) for name in Claims.__dataclass_fields__)
        )


@dataclass
class LedgerFacts:
    """What a ledger says."""

    records_read: int
    dropped: Counter[str]
    splits: dict[str, Counter[str]]
    claims: Claims
    urls: bytes  # rows that index/urls should have


# ---------------------------------------------------------------- shards


def check_shard(faults: Faults, dataset: str, row: dict[str, Any], tokenizer: Tokenizer) -> Shard | None:
    """Bytes, digest, schema and tokens of a shard against its row of the shards table; None where it is unreadable."""
    path = row["path"]
    data = faults.read(dataset, FileRef(path=path, bytes=row["bytes"], sha256=row["sha256"]))
    if data is None:
        return None
    metadata = {name: row[name] for name in ("source", "split", "tags")} | {"tokenizer": tokenizer.sha256}
    expected = tokens_schema(pa.type_for_alias(tokenizer.token_type), metadata)
    try:
        file = parse_shard(pa.py_buffer(data), path)
    except DatasetError as error:
        faults.add(path, str(error).removeprefix(f"{path}: "))
        return None
    if not file.schema.equals(expected, check_metadata=True):
        faults.add(path, f"schema or metadata differ: {file.schema.to_string(show_schema_metadata=True)}")
        return None
    for batch in file.batches:
        _check_tokens(faults, path, batch["tokens"], tokenizer)
    num_tokens = file.num_tokens()
    shard = Shard(file.doc_ids(), num_tokens, file.num_bytes())
    packed = {str(length): packed_rows(num_tokens, int(length)) for length in json.loads(row["packed_rows"] or "{}")}
    found = {
        "rows": len(num_tokens),
        "tokens": int(num_tokens.sum()),
        "text_bytes": int(shard.num_bytes.sum()),
        "longest_document": int(num_tokens.max(initial=0)),
        "packed_rows": canonical_json(packed).decode() if packed else None,
    }
    for name, value in found.items():
        faults.differ(path, f"number of {name}" if name != "longest_document" else name, value, row[name])
    return shard


def _check_tokens(faults: Faults, path: str, column: pa.ListArray, tokenizer: Tokenizer) -> None:
    """Every id in the vocabulary, end-of-text last."""
    offsets = column.offsets.to_numpy().astype(np.int64)
    values = column.values.to_numpy()
    if len(values) and int(values.max()) >= tokenizer.vocab_size:
        faults.add(path, f"token {int(values.max())} is beyond the vocabulary of {tokenizer.vocab_size}")
    lengths = np.diff(offsets)
    last = np.full(len(lengths), -1, np.int64)
    last[lengths > 0] = values[offsets[1:][lengths > 0] - 1]
    wrong = np.flatnonzero(last != tokenizer.end_of_text.id)
    if len(wrong):
        faults.add(
            path, f"{plural(len(wrong), 'document')} without end-of-text ({tokenizer.end_of_text.id}) at the end"
        )


def check_claims(faults: Faults, path: str, shard: Shard, claims: Claims) -> bytes:
    """A shard's rows against the ledgers' rows that point to them; returns its rows of index/documents."""
    claims = claims.take(np.argsort(claims.row, kind="stable"))
    count = len(shard.doc_ids)
    if not np.array_equal(claims.row, np.arange(count)):
        faults.add(
            path,
            f"{plural(count, 'row')}, but the ledger points to {len(claims.row)} "
            f"({len(np.unique(claims.row))} different)",
        )
        return b""
    for name, mine, theirs in (
        ("doc_id", shard.doc_ids, claims.doc_ids),
        ("num_tokens", shard.num_tokens, claims.num_tokens),
        ("num_bytes", shard.num_bytes, claims.num_bytes),
    ):
        same = (mine == theirs).reshape(count, -1).all(axis=1)
        if not same.all():
            faults.add(
                path,
                f"row {int(np.argmin(same))}: {name} is not what the ledger says ({plural(int((~same).sum()), 'row')})",
            )
    rows = np.zeros(count, DOCUMENT_ROW)
    halves = np.ascontiguousarray(shard.doc_ids).view(">u8").reshape(-1, 2)
    rows["high"], rows["low"] = halves[:, 0], halves[:, 1]
    rows["token_start"] = np.cumsum(shard.num_tokens) - shard.num_tokens
    for name in ("shard", "row", "num_tokens", "ledger", "ledger_row"):
        rows[name] = getattr(claims, name)
    return rows.tobytes()


# ---------------------------------------------------------------- ledgers and indexes


def check_ledger(faults: Faults, dataset: str, file: FileRef, ledger: int, source: str) -> LedgerFacts | None:
    """Bytes, digest, schema and rows of a ledger; None where it is unreadable."""
    data = faults.read(dataset, file)
    if data is None:
        return None
    try:
        table = pq.ParquetFile(io.BytesIO(data)).read()
    except pa.ArrowException as error:
        faults.add(file.path, f"not a Parquet file: {error}")
        return None
    if not table.schema.equals(LEDGER):
        faults.add(file.path, f"schema differs: {table.schema}")
        return None
    faults.differ(file.path, "its sources", table["source"].unique().to_pylist() or [source], [source])
    kept = table["kept"].to_numpy()
    for name in ("shard", "row", "num_tokens", "split"):
        wrong = int((kept != table[name].is_valid().to_numpy()).sum())
        faults.differ(file.path, f"rows with {name} but dropped, or kept without", wrong, 0)
    wrong = int((kept == table["rule"].is_valid().to_numpy()).sum())
    faults.differ(file.path, "rows kept with a rule, or dropped without", wrong, 0)
    rows = np.flatnonzero(kept & table["shard"].is_valid().to_numpy())
    chosen = table.take(rows)
    numbers = {
        name: pc.fill_null(chosen[name].cast("int64"), -1).to_numpy()
        for name in ("shard", "row", "num_tokens", "num_bytes")
    }
    ledgers = np.full(len(rows), ledger, np.int64)
    claims = Claims(
        doc_ids=fixed_rows(chosen["doc_id"], 16), **numbers, ledger=ledgers, ledger_row=rows.astype(np.int64)
    )
    dropped: Counter[str] = Counter()
    for each in table.filter(pc.invert(table["kept"]))["rule"].value_counts().to_pylist():
        dropped[str(each["values"])] = each["counts"]
    splits: dict[str, Counter[str]] = {}
    for each in (
        chosen.group_by("split").aggregate([("num_bytes", "sum"), ("num_tokens", "sum"), ([], "count_all")]).to_pylist()
    ):
        counts = {"documents": each["count_all"], "bytes": each["num_bytes_sum"], "tokens": each["num_tokens_sum"]}
        splits[str(each["split"])] = Counter(counts)
    return LedgerFacts(table.num_rows, dropped, splits, claims, url_rows(table["url"], ledger, 0))


def check_near(faults: Faults, dataset: str, file: FileRef, kept: Bytes | None) -> None:
    """A group's near index against its ledger: it holds every kept document, in order. `kept` None: unknown."""
    data = faults.read(dataset, file)
    if data is None:
        return
    table = _arrow_table(faults, file.path, data)
    if table is None:
        return
    ids = fixed_rows(table.filter(pc.equal(table["status"], "kept"))["doc_id"], 16)
    if kept is not None and not np.array_equal(ids, kept):
        faults.add(
            file.path, f"what it keeps ({plural(len(ids), 'document')}) is not what the ledger keeps ({len(kept):,})"
        )


def check_index(faults: Faults, dataset: str, file: FileRef) -> bytes:
    """Bytes, digest, schema and order of an index file; returns its packed rows, none where it is unreadable."""
    data = faults.read(dataset, file)
    if data is None:
        return b""
    kind = index_kind(file.path)
    table = _arrow_table(faults, file.path, data)
    if table is None:
        return b""
    if not table.schema.equals(index_schema(kind)):
        faults.add(file.path, f"schema differs: {table.schema}")
        return b""
    rows = index_rows(kind, table)
    if not np.array_equal(index_order(kind, rows), np.arange(len(rows))):
        faults.add(file.path, "its rows are not sorted")
    return rows.tobytes()


def _arrow_table(faults: Faults, path: str, data: bytes) -> pa.Table | None:
    try:
        with pa.ipc.open_file(pa.BufferReader(data)) as reader:
            return reader.read_all()
    except pa.ArrowInvalid as error:
        faults.add(path, f"not a whole Arrow file: {error}")
        return None

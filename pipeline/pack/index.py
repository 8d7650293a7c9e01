"""Indexes into the ledger and the shards: by document, by URL, and what near duplicates are sought in.

Documents and URLs cross the shuffle as packed rows of 44 and 16 bytes, many to an element. Contracts, section 6.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from pipeline.kernel_digest import kernel_digest
from pipeline.pack.documents import bytes_column, fixed_rows, part_batches, read_verdicts
from pipeline.pack.files import arrow_bytes, write_once
from pipeline.pack.groups import PackGroup, Plan
from pipeline.pack.shards import cut
from schemas.arrow import INDEX_DOCUMENTS, INDEX_URLS, near_index_schema
from schemas.generation import FileRef
from schemas.manifest import named_by_content, read_named

__all__ = [
    "DOCUMENT_ROW",
    "KINDS",
    "URL_ROW",
    "document_rows",
    "fingerprint",
    "index_digits",
    "index_kind",
    "index_order",
    "index_rows",
    "index_schema",
    "near_file",
    "old_index_rows",
    "partition",
    "url_rows",
    "write_index",
]

FILE_ROWS = 1 << 20  # of an index file, about: all of one must fit in a worker's memory, several times
BATCH_ROWS = 1 << 16

# doc_id as two big-endian halves, so that numbers compare as its bytes do.
DOCUMENT_ROW = np.dtype(
    [
        ("high", ">u8"),
        ("low", ">u8"),
        ("shard", "<u4"),
        ("row", "<u4"),
        ("token_start", "<u8"),
        ("num_tokens", "<u4"),
        ("ledger", "<u4"),
        ("ledger_row", "<u4"),
    ]
)
URL_ROW = np.dtype([("url_hash", "<u8"), ("ledger", "<u4"), ("ledger_row", "<u4")])
KINDS = {"documents": (DOCUMENT_ROW, "high"), "urls": (URL_ROW, "url_hash")}


def document_rows(table: pa.Table, token_start: NDArray[np.int64], ledger: int, first: int) -> bytes:
    """Kept rows among successive rows of a ledger, packed for index/documents; `first` is the row it starts at."""
    kept = table["kept"].to_numpy()
    rows = np.zeros(int(kept.sum()), DOCUMENT_ROW)
    halves = np.ascontiguousarray(fixed_rows(table["doc_id"], 16)[kept]).view(">u8").reshape(-1, 2)
    rows["high"], rows["low"] = halves[:, 0], halves[:, 1]
    for name in ("shard", "row", "num_tokens"):
        rows[name] = pc.fill_null(table[name], 0).to_numpy()[kept]
    rows["token_start"] = token_start[kept]
    rows["ledger"] = ledger
    rows["ledger_row"] = first + np.flatnonzero(kept)
    return rows.tobytes()


def url_rows(urls: pa.ChunkedArray, ledger: int, first: int) -> bytes:
    """Those with a URL among successive rows of a ledger, packed for index/urls."""
    present = np.flatnonzero(urls.is_valid().to_numpy())
    rows = np.zeros(len(present), URL_ROW)
    texts = urls.drop_null().to_pylist()
    rows["url_hash"] = np.fromiter((xxhash.xxh3_64_intdigest(url.encode()) for url in texts), np.uint64, len(texts))
    rows["ledger"] = ledger
    rows["ledger_row"] = first + present
    return rows.tobytes()


def index_digits(num_rows: int) -> int:
    """Hex digits that name the files of an index: 0 (one file), 1, 2, ... so that each has about a million rows."""
    digits = 0
    while num_rows > FILE_ROWS << (4 * digits):
        digits += 1
    return digits


def partition(kind: str, packed: bytes, digits: int) -> Iterator[tuple[str, bytes]]:
    """Packed rows by the file they go to: ("documents/3f", rows)."""
    dtype, key = KINDS[kind]
    rows = np.frombuffer(packed, dtype)
    if not digits:
        if len(rows):
            yield f"{kind}/all", packed
        return
    prefixes = rows[key].astype(np.uint64) >> np.uint64(64 - 4 * digits)
    for prefix in np.unique(prefixes):
        yield f"{kind}/{int(prefix):0{digits}x}", rows[prefixes == prefix].tobytes()


def index_kind(path: str) -> str:
    """`documents` or `urls`, from the path of an index file."""
    return path.split("/")[1]


def index_schema(kind: str) -> pa.Schema:
    """The schema of index/documents or index/urls."""
    return INDEX_DOCUMENTS if kind == "documents" else INDEX_URLS


def index_rows(kind: str, table: pa.Table) -> NDArray[Any]:
    """An index table as packed rows."""
    rows = np.zeros(table.num_rows, KINDS[kind][0])
    if kind == "documents":
        halves = np.ascontiguousarray(fixed_rows(table["doc_id"], 16)).view(">u8").reshape(-1, 2)
        rows["high"], rows["low"] = halves[:, 0], halves[:, 1]
    for field in index_schema(kind):
        if field.name != "doc_id":
            rows[field.name] = table[field.name].to_numpy()
    return rows


def index_order(kind: str, rows: NDArray[Any]) -> NDArray[np.int64]:
    """The order in which an index file has its rows."""
    names = ("high", "low", "shard", "row") if kind == "documents" else ("url_hash", "ledger", "ledger_row")
    return np.lexsort([rows[field] for field in reversed(names)])


def old_index_rows(plan: Plan, path: str) -> bytes:
    """Packed rows of an index file of the generation before, without those of ledgers decided again."""
    kind = index_kind(path)
    decided = np.array([group.ledger for group in plan.groups], np.int64)
    with pa.ipc.open_file(pa.BufferReader(read_named(plan.dataset, path))) as reader:
        rows = index_rows(kind, reader.read_all().combine_chunks())
    return rows[~np.isin(rows["ledger"], decided)].tobytes()


def write_index(plan: Plan, name: str, packed: Iterable[bytes]) -> FileRef:
    """Sort the rows of one index file and write it; `name` is its kind and prefix."""
    kind = name.split("/")[0]
    rows = np.frombuffer(b"".join(packed), KINDS[kind][0])
    rows = rows[index_order(kind, rows)]
    schema = index_schema(kind)
    batches = [_batch(schema, rows[start : start + BATCH_ROWS]) for start in range(0, len(rows), BATCH_ROWS)]
    data = arrow_bytes(schema, batches)
    file = named_by_content(f"index/{name}", ".arrow", data)
    return write_once(plan.dataset, file.path, data)


def _batch(schema: pa.Schema, rows: NDArray[Any]) -> pa.RecordBatch:
    columns = []
    for field in schema:
        if field.name == "doc_id":
            halves = np.stack([rows["high"], rows["low"]], axis=1).astype(">u8")
            columns.append(bytes_column(halves.view(np.uint8).reshape(-1, 16)))
        else:
            columns.append(pa.array(np.ascontiguousarray(rows[field.name])))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def fingerprint(kind: str, packed: bytes) -> tuple[int, int]:
    """Number of packed rows, and a sum of a hash of each that does not depend on their order."""
    rows = np.frombuffer(packed, KINDS[kind][0])
    total = np.zeros(len(rows), np.uint64)
    for name in rows.dtype.names or ():
        total ^= rows[name].astype(np.uint64)
        total = (total ^ (total >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        total = (total ^ (total >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        total ^= total >> np.uint64(31)
    return len(rows), int(total.sum(dtype=np.uint64))


# ---------------------------------------------------------------- near duplicates


def near_file(plan: Plan, group: PackGroup) -> FileRef | None:
    """Write index/near of a group: every document that passed the rules, and every removed one."""
    minhash = plan.minhash
    metadata = {
        "shingle": str(minhash["shingle"]),
        "shingle_version": kernel_digest(["pipeline.measure.minhash.shingles"]),
        "scheme": "affine32",
        "seed": str(minhash["seed"]),
        "num_hashes": str(minhash["num_hashes"]),
    }
    schema = near_index_schema(minhash["num_hashes"], metadata)
    batches: list[pa.RecordBatch] = []
    for part in plan.parts_of(group):
        verdicts = read_verdicts(part, ["doc_id", "kept", "rule", "cluster", "split", "passed"])
        for first, batch in part_batches(part, ["final_hash", "signature"]):
            batches += _near_batches(schema, batch, verdicts.slice(first, batch.num_rows))
    if not batches:
        return None
    data = arrow_bytes(schema, batches)
    file = named_by_content(f"index/near/{group.stem}", ".arrow", data)
    return write_once(plan.dataset, file.path, data)


def _near_batches(schema: pa.Schema, batch: pa.RecordBatch, verdicts: pa.Table) -> Iterator[pa.RecordBatch]:
    """The rows of a batch of a part that near duplicates are sought in, in batches of about a million bytes."""
    removed = pc.fill_null(pc.equal(verdicts["rule"], "removed"), False).to_numpy()
    kept = verdicts["kept"].to_numpy()
    rows = np.flatnonzero(verdicts["passed"].to_numpy() | removed)
    width = schema.field("signature").type.byte_width
    ids, texts = fixed_rows(verdicts["doc_id"], 16), fixed_rows(batch["final_hash"], 16)
    signatures, signed = fixed_rows(batch["signature"], width), batch["signature"].is_valid().to_numpy(False)
    # A document alone in its cluster may have none recorded: it is its own.
    clusters = np.where(verdicts["cluster"].is_valid().to_numpy()[:, None], fixed_rows(verdicts["cluster"], 16), ids)
    status = np.where(kept, "kept", np.where(removed, "removed", "duplicate"))
    splits = np.array(pc.fill_null(verdicts["split"], "").to_pylist(), dtype=object)
    for start, end in cut(np.full(len(rows), 64 + width), 1 << 20):
        chosen = rows[start:end]
        columns = [
            bytes_column(ids[chosen]),
            bytes_column(texts[chosen]),
            bytes_column(signatures[chosen], signed[chosen]),
            bytes_column(clusters[chosen]),
            pa.array(splits[chosen], pa.string()),
            pa.array(status[chosen], pa.string()),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)

"""A small dataset written table by table, so that tests of its readers do not depend on its writers."""

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from pipeline.ingest.receipts import Receipt
from schemas import arrow
from schemas.generation import (
    Digests,
    EndOfText,
    FileRef,
    Funnel,
    Group,
    Manifest,
    Part,
    SourceFunnel,
    SplitCount,
    Tables,
    Tokenizer,
)
from schemas.manifest import commit, file_digest, named_by_content
from schemas.recipe import canonical_json

PART_ROWS = 4
SIGNALS = ["gopher.num_words", "gopher.mean_word_length", "language.score"]
RECIPE = """\
name: handmade
sources: {web: {root: crawl}}
rules: {gopher.too_few_words: 5, gopher.words_too_long: 9}
"""


def identity(name: str) -> bytes:
    """A doc_id."""
    return xxhash.xxh3_128_digest(name.encode())


def document(url: str | None, text: str | None = None, **fields: Any) -> dict[str, Any]:
    """One record: a kept document unless `rule` says otherwise."""
    words = len(text.split()) if text is not None else None
    row: dict[str, Any] = dict.fromkeys((*arrow.LEDGER.names, *arrow.document_schema(1, SIGNALS).names))
    row |= {"doc_id": identity(url or ""), "record_id": f"urn:{url}", "url": url, "source": "web", "input": "a.warc.gz"}
    row |= {"position": 0, "offset": 0, "status": 200, "mime": "text/html", "charset": "utf-8", "text": text}
    row |= {"kept": "rule" not in fields, "language": "en" if text else None, "num_words": words}
    if text is not None:
        row |= {"num_bytes": len(text.encode()), "edited_bytes": 0, "edits": []}
        row |= {"gopher.num_words": float(len(text.split())), "gopher.mean_word_length": 4.0, "language.score": 0.9}
    if row["kept"]:
        row |= {
            "num_tokens": words,
            "shard": 0,
            "row": 0,
            "split": "train",
            "cluster": row["doc_id"],
            "cluster_size": 1,
        }
    if text is not None:
        row["text_hash"] = row["final_hash"] = xxhash.xxh3_128_digest(text.encode())
    return row | fields


def write_dataset(folder: Path, documents: list[dict[str, Any]], recipe: str = RECIPE, digest: str = "1") -> str:
    """The dataset's files and its work folder below `folder`; a source's documents lie in parts of four rows."""
    sources = sorted({row["source"] for row in documents})
    parts, groups, files = [], [], []
    for number, source in enumerate(sources):
        rows = [row for row in documents if row["source"] == source]
        first = len(parts)
        for start in range(0, len(rows), PART_ROWS):
            parts.append(_write_part(folder / "work", len(parts), source, rows[start : start + PART_ROWS]))
        path = f"ledger/g1-{number:05}-{source}.parquet"
        files.append(_write(folder, path, _parquet(pa.Table.from_pylist(_only(rows, arrow.LEDGER), arrow.LEDGER))))
        groups.append(
            Group(generation=1, number=number, source=source, parts=[*range(first, len(parts))], **_fates(rows))
        )
    kept = [row for row in documents if row["kept"]]
    numbered = [
        (ledger, place, row)
        for ledger, source in enumerate(sources)
        for place, row in enumerate(row for row in documents if row["source"] == source)
    ]
    entries = [
        {
            "doc_id": row["doc_id"],
            "shard": 0,
            "row": 0,
            "token_start": 0,
            "num_tokens": row["num_tokens"],
            "ledger": ledger,
            "ledger_row": place,
        }
        for ledger, place, row in sorted(numbered, key=lambda item: item[2]["doc_id"])
        if row["kept"]
    ]
    table = pa.Table.from_pylist(entries, arrow.INDEX_DOCUMENTS)
    files.append(_write(folder, "index/documents/all-0.arrow", _ipc(table)))
    urls = sorted(
        (xxhash.xxh3_64_intdigest(row["url"].encode()), ledger, place) for ledger, place, row in numbered if row["url"]
    )
    columns = [
        pa.array(column, kind) for column, kind in zip(zip(*urls, strict=True), arrow.INDEX_URLS.types, strict=True)
    ]
    files.append(_write(folder, "index/urls/all-0.arrow", _ipc(pa.table(columns, schema=arrow.INDEX_URLS))))
    files.append(_write(folder, named_by_content("recipe", ".yaml", recipe.encode()).path, recipe.encode()))
    tables = Tables(
        shards=_table(folder, "manifest/g1-shards", ".arrow", _ipc(_shards(kept))),
        files=_table(folder, "manifest/g1-files", ".parquet", _parquet(pa.Table.from_pylist(files, arrow.FILES))),
        inputs=_table(folder, "manifest/g1-inputs", ".parquet", _parquet(_inputs(documents))),
    )
    by_source = {
        source: SourceFunnel(**_fates([row for row in documents if row["source"] == source])) for source in sources
    }
    manifest = Manifest(
        generation=1,
        name="handmade",
        digests=Digests(generation=digest * 64, recipe="2" * 64, order="3" * 64, previous=None),
        tokenizer=Tokenizer(
            path="tokenizer-0.json",
            sha256="4" * 64,
            vocab_size=300,
            token_type="uint16",
            end_of_text=EndOfText(token="<|endoftext|>", id=0),
            special_tokens={"<|endoftext|>": 0},
            options={},
        ),
        parts=parts,
        groups=groups,
        funnel=Funnel(**_fates(documents), sources=by_source),
        assets={},
        decision="0",
        code={"gristmill": "0"},
        platform={"machine": "test"},
        tables=tables,
    )
    commit(str(folder), 1, manifest.to_json())
    return str(folder)


def _fates(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kept = [row for row in rows if row["kept"]]
    count = SplitCount(
        documents=len(kept), bytes=sum(row["num_bytes"] for row in kept), tokens=sum(row["num_tokens"] for row in kept)
    )
    dropped = Counter(row["rule"] for row in rows if not row["kept"])
    return {"records_read": len(rows), "kept": len(kept), "dropped": dict(dropped), "splits": {"train": count}}


def _only(rows: list[dict[str, Any]], schema: pa.Schema) -> list[dict[str, Any]]:
    return [{name: row[name] for name in schema.names} for row in rows]


def _write_part(work: Path, number: int, source: str, rows: list[dict[str, Any]]) -> Part:
    """A part, in record batches of two rows, and its receipt. Only what ingest drops has its reason there."""
    schema = arrow.document_schema(1, SIGNALS)
    early = [
        row if row["stage"] in ("read", "extract") else row | dict.fromkeys(("stage", "rule", "value", "threshold"))
        for row in rows
    ]
    data = _ipc(pa.Table.from_pylist(_only(early, schema), schema), rows=2)
    receipt = Receipt(
        key=f"k{number}",
        number=0,
        last=True,
        source=source,
        path=f"parts/k{number}-0.1.arrow",
        rows=len(rows),
        alive=0,
        text_bytes=0,
        bytes=len(data),
        sha256=xxhash.xxh3_128_hexdigest(data),
        pieces=(),
    )
    _write(work, receipt.path, data)
    _write(work, f"receipts/k{number}-0.json", receipt.to_json())
    return Part(
        generation=1, source=source, name="a.warc.gz", start=0, sha256=receipt.sha256, rows=len(rows), text_bytes=0
    )


def _shards(kept: list[dict[str, Any]]) -> pa.Table:
    rows = []
    for source, split in sorted({(row["source"], row["split"]) for row in kept}):
        inside = [row for row in kept if (row["source"], row["split"]) == (source, split)]
        rows.append(
            {
                "path": f"shards/g1-00000-{source}-{split}-0-0.arrow",
                "bytes": 1,
                "sha256": f"{len(rows):064}",
                "rows": len(inside),
                "tokens": sum(row["num_tokens"] for row in inside),
                "text_bytes": sum(row["num_bytes"] for row in inside),
                "source": source,
                "tags": "{}",
                "split": split,
                "longest_document": 1,
                "packed_rows": '{"16":3}',
                "generation": 1,
                "replaces": [],
                "retired_in": None,
            }
        )
    return pa.Table.from_pylist(rows, arrow.SHARDS)


def _inputs(documents: list[dict[str, Any]]) -> pa.Table:
    rows = []
    for source, name in sorted({(row["source"], row["input"]) for row in documents}):
        records = canonical_json(
            {"response": sum((row["source"], row["input"]) == (source, name) for row in documents)}
        ).decode()
        size = 1000 + len(rows)
        rows.append(
            {
                "source": source,
                "name": name,
                "start": 0,
                "end": size,
                "size": size,
                "sha256": "0" * 64,
                "rows": 1,
                "records": records,
            }
        )
    return pa.Table.from_pylist(rows, arrow.INPUTS)


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=3)
    return sink.getvalue()


def _ipc(table: pa.Table, rows: int | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.to_batches(rows):
            writer.write_batch(batch)
    return sink.getvalue()


def _write(folder: Path, path: str, data: bytes) -> dict[str, Any]:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return {"path": path, "bytes": len(data), "sha256": file_digest(data)}


def _table(folder: Path, stem: str, suffix: str, data: bytes) -> FileRef:
    ref = named_by_content(stem, suffix, data)
    _write(folder, ref.path, data)
    return ref

"""What stands around the shards and ledgers of a made dataset: its files, groups, tables and manifest."""

import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.measure.registry import load_registry
from pipeline.pack.files import arrow_bytes, write_once
from schemas.arrow import FILES, INPUTS, SHARDS
from schemas.generation import (
    DecidedRule,
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
from schemas.manifest import file_digest, named_by_content, order_digest
from schemas.recipe import stored_recipe

END_OF_TEXT = 0
TOKENIZER = "f" * 64

Records = Mapping[str, list[dict[str, Any]]]  # rows of the ledger by source


class Files:
    """The files of a generation as they are written."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self.listed: list[FileRef] = []

    def write(self, stem: str, suffix: str, data: bytes) -> None:
        """Write a file that the files table lists."""
        self.listed.append(self.table(stem, suffix, data))

    def table(self, stem: str, suffix: str, data: bytes) -> FileRef:
        """Write a table of the generation itself."""
        return write_once(self._uri, named_by_content(stem, suffix, data).path, data)


def group_of(
    generation: int, number: int, source: str, rows: list[dict[str, Any]], parts: dict[str, list[Part]]
) -> Group:
    """A source's records as the one group that they make; parts are numbered in the order of the sources."""
    before = sum(len(each) for name, each in parts.items() if name < source)
    numbers = range(before, before + len(parts.get(source, [])))
    return Group(generation=generation, number=number, source=source, parts=list(numbers), **_counts(rows))


def _counts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What became of records, as groups count it."""
    splits: dict[str, Counter[str]] = {}
    for row in rows:
        if row["kept"]:
            count = {"documents": 1, "bytes": row["num_bytes"] or 0, "tokens": row["num_tokens"]}
            splits.setdefault(row["split"], Counter()).update(count)
    dropped = Counter(row["rule"] for row in rows if not row["kept"])
    kept = {split: SplitCount(**count) for split, count in splits.items()}
    return {"records_read": len(rows), "kept": len(rows) - dropped.total(), "dropped": dict(dropped), "splits": kept}


def manifest_of(dataset: Any, groups: list[Group], rows: Records, files: Files, options: dict[str, Any]) -> Manifest:
    """The manifest of the generation that a MadeDataset commits; writes its tables."""
    shards = pa.Table.from_pylist([shard.row for shard in dataset.shards], schema=SHARDS)
    stem = f"manifest/g{dataset.generation}"
    tables = Tables(
        shards=files.table(f"{stem}-shards", ".arrow", arrow_bytes(SHARDS, shards.to_batches())),
        files=files.table(
            f"{stem}-files",
            ".parquet",
            parquet_bytes(pa.Table.from_pylist([file.model_dump() for file in files.listed], schema=FILES)),
        ),
        inputs=files.table(
            f"{stem}-inputs",
            ".parquet",
            parquet_bytes(pa.Table.from_pylist(options.get("inputs", []), schema=INPUTS)),
        ),
    )
    before = None
    if dataset.generation > 1:
        before = json.loads((dataset.folder / f"manifest/g{dataset.generation - 1}.json").read_bytes())
    return Manifest(
        generation=dataset.generation,
        name="made",
        digests=Digests(
            generation=options.get("digest") or file_digest(f"{dataset.generation}{tables.shards.sha256}".encode()),
            recipe="0" * 64,
            order=order_digest(shards, TOKENIZER, END_OF_TEXT),
            previous=before and before["digests"]["generation"],
        ),
        tokenizer=Tokenizer(
            path="tokenizer.json",
            sha256=TOKENIZER,
            vocab_size=dataset.vocab_size,
            token_type=dataset.token_type,
            end_of_text=EndOfText(token="<|endoftext|>", id=END_OF_TEXT),
            special_tokens={"<|endoftext|>": END_OF_TEXT},
            options={},
        ),
        parts=[part for _, each in sorted(options.get("parts", {}).items()) for part in each],
        groups=groups,
        funnel=Funnel(
            **_counts([row for each in rows.values() for row in each]),
            sources={source: SourceFunnel(**_counts(each)) for source, each in rows.items()},
        ),
        assets={},
        decision="0",
        rules=_rules(options.get("recipe")),
        code={"gristmill": "test"},
        platform={"machine": "test"},
        tables=tables,
    )


def _rules(recipe: str | None) -> list[DecidedRule]:
    """The rules of a recipe, as a manifest has them."""
    if not recipe:
        return []
    stored = stored_recipe(recipe.encode())
    return [rule.decided() for rule in load_registry(stored).resolve_rules(stored.rules)]


def parquet_bytes(table: pa.Table) -> bytes:
    """A Parquet file of small row groups, so that a test's few rows lie in several."""
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=3)
    return sink.getvalue()

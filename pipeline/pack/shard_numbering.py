"""The shards table: old shards keep their rows, new ones are appended. Contracts, section 6."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.pack.files import arrow_bytes, open_arrow, write_once
from pipeline.pack.groups import Plan
from pipeline.pack.receipts import ShardFile
from schemas import storage
from schemas.arrow import SHARDS
from schemas.generation import FileRef
from schemas.manifest import named_by_content, shard_group

__all__ = ["number_shards", "shards_in_use"]


def number_shards(plan: Plan, files: Sequence[ShardFile], decided: set[str]) -> tuple[FileRef, int]:
    """Write the shards table of the generation; returns where, and the number of documents in use.

    `files` are the shards of all groups in `decided` (the groups, and sources' validation, of this run). A shard
    in use with equal sha256 keeps its row and its number; others of those groups are retired; the rest is new, by path.
    """
    rows = _old_rows(plan)
    wanted = {(_key(row), row["sha256"]): row for row in (file.to_dict() for file in files)}
    for row in rows:
        if row["retired_in"] is not None or _key(row)[0] not in decided:
            continue
        same = wanted.pop((_key(row), row["sha256"]), None)
        if same is None:
            row["retired_in"] = plan.generation
        else:
            row["packed_rows"] = same["packed_rows"]
    retired: dict[tuple[str, str, str], list[int]] = {}
    for number, row in enumerate(rows):
        if row["retired_in"] is not None:
            retired.setdefault(_key(row), []).append(number)
    for shard in sorted(wanted.values(), key=lambda shard: shard["path"]):
        added = {"generation": plan.generation, "replaces": retired.get(_key(shard), []), "retired_in": None}
        rows.append({**shard, **added})
    batch = pa.RecordBatch.from_pylist(rows, schema=SHARDS)
    data = arrow_bytes(SHARDS, [batch])
    file = named_by_content(f"manifest/g{plan.generation}-shards", ".arrow", data)
    return write_once(plan.dataset, file.path, data), sum(row["rows"] for row in rows if row["retired_in"] is None)


def shards_in_use(plan: Plan, path: str) -> dict[tuple[str, str], int]:
    """The number of each shard in use, by what planned it and its sha256."""
    with open_arrow(storage.join(plan.dataset, path)) as reader:
        table = reader.read_all().select(["path", "source", "sha256", "retired_in"])
    return {
        (shard_group(row["path"], row["source"]), row["sha256"]): number
        for number, row in enumerate(table.to_pylist())
        if row["retired_in"] is None
    }


def _old_rows(plan: Plan) -> list[dict[str, Any]]:
    if plan.shards_table is None:
        return []
    with open_arrow(storage.join(plan.dataset, plan.shards_table)) as reader:
        return reader.read_all().to_pylist()  # type: ignore[no-any-return]


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    """Group, split and tags: what a new shard replaces has the same."""
    return shard_group(row["path"], row["source"]), row["split"], row["tags"]

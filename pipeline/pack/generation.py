"""What a run made, as a generation: its tables, its funnel, its digests, its manifest."""

import io
import platform
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.ingest.receipts import PieceReceipt
from pipeline.ingest.records import ConservationError
from pipeline.job import Decided, Job, Measured
from pipeline.measure.registry import asset_digests, load_registry
from pipeline.pack.encode import stage_version
from pipeline.pack.files import write_once
from pipeline.pack.groups import Plan
from pipeline.pack.ledger import LEDGER_VERSION
from pipeline.pack.receipts import IndexWritten, PackedGroup
from schemas import storage
from schemas.arrow import FILES, INPUTS
from schemas.dataset import Dataset
from schemas.generation import (
    Digests,
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
from schemas.manifest import DatasetError, file_digest, generation_digest, named_by_content, order_digest
from schemas.recipe import Recipe, canonical_json

__all__ = ["make_generation", "recipe_yaml"]

Pieces = Iterable[tuple[str, PieceReceipt]]  # with their source


def make_generation(
    plan: Plan,
    result: Sequence[PackedGroup | IndexWritten],
    job: Job,
    measured: Measured,
    decided: Decided,
    previous: Dataset | None,
) -> Manifest:
    """Write the generation's tables and say what it is; nothing is committed yet.

    `result` is what the pipeline left. Raises ConservationError when records read are not kept plus dropped.
    """
    recipe, assets = job.recipe, asset_digests(job.recipe)
    code = {**job.code(), "pack": stage_version(), "ledger": LEDGER_VERSION}
    by_group = {each.group: each for each in result if isinstance(each, PackedGroup)}
    index = [each.index for each in result if isinstance(each, IndexWritten)]
    assert sorted(by_group) == sorted(group.ledger for group in plan.groups), "a group has no ledger"
    groups = _groups(plan, by_group, previous)
    inputs = _inputs(measured.pieces(), previous)
    _check_conservation(groups, inputs)
    files = _files(plan, index, by_group, recipe, previous)
    shards_file = next(iter(by_group.values())).table
    tables = Tables(
        shards=shards_file,
        files=_write_table(plan, "files", pa.Table.from_pylist([file.model_dump() for file in files], schema=FILES)),
        inputs=_write_table(plan, "inputs", inputs),
    )
    with pa.ipc.open_file(pa.BufferReader(storage.read(storage.join(plan.dataset, shards_file.path)))) as reader:
        shards = reader.read_all()
    tokenizer, registry = Tokenizer.model_validate(plan.tokenizer), load_registry(recipe)
    in_use = [row["sha256"] for row in shards.select(["sha256", "retired_in"]).to_pylist() if row["retired_in"] is None]
    content = [inputs[name].to_pylist() for name in ("source", "name", "start", "end", "sha256")]
    before = previous.manifest.digests.generation if previous else None
    digests = Digests(
        generation=generation_digest(
            code=code,
            recipe=recipe.digest(),
            assets=assets,
            previous=before,
            inputs=zip(*content, strict=True),
            shards=in_use,
            ledger=[file.sha256 for file in files[: len(groups)]],
        ),
        recipe=recipe.digest(),
        order=order_digest(shards, tokenizer.sha256, tokenizer.end_of_text.id),
        previous=before,
    )
    return Manifest(
        generation=plan.generation,
        name=recipe.name,
        digests=digests,
        tokenizer=tokenizer,
        parts=_parts(plan, previous),
        groups=groups,
        funnel=_funnel(groups),
        assets=assets,
        decision=decided.decision,
        measures=registry.measures(),
        rules=[rule.decided() for rule in registry.resolve_rules(recipe.rules)],
        code=code,
        platform={
            "machine": platform.machine(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        tables=tables,
    )


def recipe_yaml(recipe: Recipe) -> bytes:
    """The recipe as kept with the dataset: without where things lay, so that it is the same file anywhere."""
    data = recipe.model_dump(mode="json", exclude={"output", "work"})
    for source in data["sources"].values():
        source["root"] = "."
    note = "# Where inputs lay is no part of a recipe: set each source's root, and give --output.\n"
    return (note + yaml.safe_dump(data, sort_keys=False, allow_unicode=True)).encode()


def _parts(plan: Plan, previous: Dataset | None) -> list[Part]:
    """The plan of parts: those of earlier generations first, each with the bytes it has now."""
    old = list(previous.manifest.parts) if previous else []
    parts = []
    for number in range(max(len(old), max(plan.parts) + 1)):
        given = plan.parts.get(number)
        if given is None:
            parts.append(old[number])
            continue
        first = old[number] if number < len(old) else None
        parts.append(
            Part(
                generation=first.generation if first else plan.generation,
                source=given.source,
                name=first.name if first else given.name,
                start=first.start if first else given.start,
                sha256=given.sha256,
                rows=given.rows,
                text_bytes=given.text_bytes,
            )
        )
    return parts


def _groups(plan: Plan, by_group: Mapping[int, PackedGroup], previous: Dataset | None) -> list[Group]:
    """All groups of the dataset, those of this run with their counts."""
    groups: dict[int, Group] = dict(enumerate(previous.manifest.groups)) if previous else {}
    for group in plan.groups:
        receipt = by_group[group.ledger].ledger
        groups[group.ledger] = Group(
            generation=group.generation,
            number=group.number,
            source=group.source,
            parts=list(group.parts),
            records_read=receipt.records_read,
            kept=receipt.records_read - sum(receipt.dropped.values()),
            dropped=receipt.dropped,
            splits={split: SplitCount(**count) for split, count in receipt.splits.items()},
            unknown_tokens=receipt.unknown_tokens,
        )
    return [groups[ledger] for ledger in range(len(groups))]


def _funnel(groups: Sequence[Group]) -> Funnel:
    """What became of all records, by source."""
    sources = {
        source: _sum([group for group in groups if group.source == source])
        for source in sorted({group.source for group in groups})
    }
    return Funnel(**_sum(groups).model_dump(), sources=sources)


def _sum(groups: Sequence[Group]) -> SourceFunnel:
    dropped: Counter[str] = Counter()
    splits: dict[str, Counter[str]] = {}
    for group in groups:
        dropped.update(group.dropped)
        for split, count in group.splits.items():
            splits.setdefault(split, Counter()).update(count.model_dump())
    return SourceFunnel(
        records_read=sum(group.records_read for group in groups),
        kept=sum(group.kept for group in groups),
        dropped=dict(sorted(dropped.items())),
        splits={split: SplitCount(**count) for split, count in sorted(splits.items())},
        unknown_tokens=sum(group.unknown_tokens for group in groups),
    )


def _inputs(pieces: Pieces, previous: Dataset | None) -> pa.Table:
    """The inputs table: earlier generations' pieces and this run's, each once."""
    rows = (
        {(row["source"], row["name"], row["start"]): row for row in previous.input_table.to_pylist()}
        if previous
        else {}
    )
    for source, piece in pieces:
        key = (source, piece.name, piece.start)
        row = {
            "source": source,
            "name": piece.name,
            "start": piece.start,
            "end": piece.end,
            "size": piece.size,
            "sha256": piece.sha256,
            "rows": piece.rows,
            "records": canonical_json(piece.records).decode(),
        }
        known = rows.setdefault(key, row)
        if known["sha256"] != row["sha256"]:
            raise DatasetError(
                f"source {source}: {piece.name} from {piece.start} on has sha256 {row['sha256']}, the dataset read it "
                f"as {known['sha256']}: an input may not change under its name; give the new file a new name"
            )
        rows[key] = row
    return pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=INPUTS)


def _check_conservation(groups: Sequence[Group], inputs: pa.Table) -> None:
    """Rows of receipts = rows of ledgers, source by source."""
    read: Counter[str] = Counter()
    for source, rows in zip(inputs["source"].to_pylist(), inputs["rows"].to_pylist(), strict=True):
        read[source] += rows
    in_ledgers: Counter[str] = Counter()
    for group in groups:
        in_ledgers[group.source] += group.records_read
    for source in sorted({*read, *in_ledgers}):
        if read[source] != in_ledgers[source]:
            raise ConservationError(
                f"source {source}: {read[source]} records were read, the ledger has {in_ledgers[source]}"
            )


def _files(
    plan: Plan,
    index: Sequence[FileRef],
    by_group: Mapping[int, PackedGroup],
    recipe: Recipe,
    previous: Dataset | None,
) -> list[FileRef]:
    """Every file but shards and tables: ledgers in the order of the groups, then the others by path."""
    old = previous.file_refs if previous else []
    num_old = len(previous.manifest.groups) if previous else 0
    ledgers = dict(enumerate(old[:num_old])) | {ledger: packed.ledger.ledger for ledger, packed in by_group.items()}
    decided = {group.key for group in plan.groups}
    others = [file for file in old[num_old:] if _near_group(file.path) not in {None, *decided}]
    others += [packed.ledger.near for packed in by_group.values() if packed.ledger.near]
    others += index
    tokenizer = plan.tokenizer["path"]
    size = storage.stat(storage.join(plan.dataset, tokenizer)).size
    others.append(FileRef(path=tokenizer, bytes=size, sha256=plan.tokenizer["sha256"]))
    data = recipe_yaml(recipe)
    others.append(write_once(plan.dataset, named_by_content("recipe", ".yaml", data).path, data))
    return [ledgers[ledger] for ledger in range(len(ledgers))] + sorted(others, key=lambda file: file.path)


def _near_group(path: str) -> str | None:
    """The group of a file of index/near; None for any other file, which every generation lists anew."""
    match = re.match(r"index/near/(g\d+-\d+)-", path)
    return match.group(1) if match else None


def _write_table(plan: Plan, kind: str, table: pa.Table) -> FileRef:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue()
    stem = f"manifest/g{plan.generation}-{kind}"
    return write_once(plan.dataset, f"{stem}-{file_digest(data)[:16]}.parquet", data)

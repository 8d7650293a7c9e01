"""Measure columns beside the text parts: which there are, and those that are missing, measured from the stored texts.

A pass over a part writes one file below `columns/` with the columns of all groups that it measured, and a receipt
below `receipts/columns/`, numbered among the passes over this text. A group's columns are those of the first pass that
measured them under the group's key: a key holds all that decides a value, so nothing old is ever taken for new.
"""

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from pipeline.ingest.part_columns import read_part
from pipeline.ingest.part_file import PartFile
from pipeline.ingest.receipts import ColumnsFile, ColumnsReceipt, Receipt
from pipeline.measure.configured_groups import ConfiguredGroup
from pipeline.measure.measure import Measurer
from pipeline.measure.registry import Registry
from pipeline.runtime.progress import Reporter
from schemas import storage

__all__ = [
    "choose_columns",
    "columns_files",
    "columns_receipt",
    "columns_schema",
    "find_columns",
    "measure_missing",
    "spread_columns",
]


def columns_schema(groups: Sequence[ConfiguredGroup]) -> pa.Schema:
    """The file of some groups' columns; a row that ingest dropped is null in each."""
    return pa.schema([pa.field(name, kind) for group in groups for name, kind in group.columns.items()])


def find_columns(work: str, part_sha256: str, keys: Mapping[str, str]) -> dict[str, ColumnsReceipt]:
    """By group, the receipt of the first pass over this text that measured it under its key; missing ones left out."""
    found: dict[str, ColumnsReceipt] = {}
    for receipt in _passes(work, part_sha256):
        here = [name for name, key in keys.items() if name not in found and receipt.groups.get(name) == key]
        if here and _is_there(receipt, work):
            found |= dict.fromkeys(here, receipt)
        if len(found) == len(keys):
            break
    return found


def columns_files(work: str, found: Mapping[str, ColumnsReceipt]) -> tuple[ColumnsFile, ...]:
    """The files of what `find_columns` found, and which columns are taken from each."""
    taken: dict[str, list[str]] = {}
    sha256: dict[str, str] = {}
    for group, receipt in found.items():
        taken.setdefault(receipt.path, []).extend(receipt.columns[group])
        sha256[receipt.path] = receipt.sha256
    return tuple(ColumnsFile(storage.join(work, path), sha256[path], tuple(taken[path])) for path in taken)


def measure_missing(receipt: Receipt, registry: Registry, work: str, reporter: Reporter) -> None:
    """Measure, in one pass over a text part, every group whose columns are not there.

    Raises MeasureError for a group of the user's own that is wrong, StorageError for a store that fails.
    """
    keys = {group.name: group.key(receipt.sha256) for group in registry.groups}
    found = find_columns(work, receipt.sha256, keys)
    missing = [group for group in registry.groups if group.name not in found]
    if not missing:
        return
    uri, files = storage.join(work, receipt.path), columns_files(work, found)
    measured = {name for group in missing for name in group.columns}
    needed = {name for group in missing for name in group.needs} - measured
    columns = ["text", *sorted(needed)]
    path = f"columns/{receipt.key}-{receipt.number:03d}.{secrets.token_hex(4)}.arrow"
    measurer, schema = Measurer(registry, [group.name for group in missing]), columns_schema(missing)
    with PartFile(storage.join(work, path), schema) as file:
        for _, batch in read_part(uri, files, columns, receipt.rows):
            file.write_batch(_measured(measurer, batch, schema))
            reporter.add("ingest", bytes=batch["text"].nbytes, records=batch.num_rows)
        size, sha256 = file.publish()
    choose_columns(work, columns_receipt(receipt, path, size, sha256, missing))


def _measured(measurer: Measurer, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    alive = batch["text"].is_valid()
    living = batch.filter(alive)
    columns = {name: living[name] for name in living.schema.names if name != "text"}
    made = measurer.measure(living["text"], columns) if living.num_rows else {}
    return spread_columns(made, alive.to_pylist(), schema)


def spread_columns(made: Mapping[str, pa.Array], alive: Sequence[bool], schema: pa.Schema) -> pa.RecordBatch:
    """Columns of living rows as columns of all rows, null for the others."""
    if made and all(alive):
        return pa.RecordBatch.from_arrays([made[name] for name in schema.names], schema=schema)
    places: list[int | None] = []
    count = 0
    for is_alive in alive:
        places.append(count if is_alive else None)
        count += is_alive
    taken = pa.array(places, pa.int32())
    arrays = [made[field.name].take(taken) if made else pa.nulls(len(places), field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def columns_receipt(
    part: Receipt, path: str, size: int, sha256: str, groups: Sequence[ConfiguredGroup]
) -> ColumnsReceipt:
    """The receipt of a file of columns over a part."""
    return ColumnsReceipt(
        part=part.sha256,
        path=path,
        rows=part.rows,
        bytes=size,
        sha256=sha256,
        groups={group.name: group.key(part.sha256) for group in groups},
        columns={group.name: list(group.columns) for group in groups},
    )


def choose_columns(work: str, made: ColumnsReceipt) -> None:
    """Enter a pass behind those that are known; where they have all its groups already, its file is deleted."""
    missing = dict(made.groups)
    number = 0
    while True:
        try:
            known = _read(work, made.part, number)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                storage.write(_receipt_uri(work, made.part, number), made.to_json(), create_only=True)
                return
            continue  # another attempt was first: look at what it measured
        if known is not None and _is_there(known, work):
            missing = {name: key for name, key in missing.items() if known.groups.get(name) != key}
        if not missing:
            if known is None or known.path != made.path:
                storage.delete(storage.join(work, made.path))
            return
        number += 1


def _passes(work: str, part_sha256: str) -> Iterator[ColumnsReceipt]:
    """The receipts of all passes over a text, in order; a damaged one counts for nothing."""
    number = 0
    while True:
        try:
            receipt = _read(work, part_sha256, number)
        except FileNotFoundError:
            return
        if receipt is not None:
            yield receipt
        number += 1


def _read(work: str, part_sha256: str, number: int) -> ColumnsReceipt | None:
    """A receipt; None for a damaged one. Raises FileNotFoundError."""
    try:
        return ColumnsReceipt.from_json(storage.read(_receipt_uri(work, part_sha256, number)))
    except ValueError:
        return None


def _receipt_uri(work: str, part_sha256: str, number: int) -> str:
    return storage.join(work, "receipts", "columns", f"{part_sha256[:32]}-{number:03d}.json")


def _is_there(receipt: ColumnsReceipt, work: str) -> bool:
    try:
        return storage.stat(storage.join(work, receipt.path)).size == receipt.bytes
    except FileNotFoundError:
        return False

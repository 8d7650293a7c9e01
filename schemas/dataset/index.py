"""The index: kept documents by id, and captures by URL.

An index file holds the keys that begin with the hex digits in its name (`all`: every key), sorted (contracts, 6).
A look-up finds the record batches that may hold its keys by bisection, and reads no others.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.arrow import INDEX_DOCUMENTS, INDEX_URLS
from schemas.dataset.files import open_file
from schemas.dataset.shards import fixed_rows

__all__ = ["KEPT", "Key", "files_by_digits", "find_keys", "is_doc_id", "kept_in_file"]

# A kept document: its id as two numbers that sort as its bytes do.
KEPT = np.dtype([("high", "u8"), ("low", "u8"), ("num_tokens", "u4")])
KINDS = {"documents": (INDEX_DOCUMENTS, "doc_id"), "urls": (INDEX_URLS, "url_hash")}


class Key(NamedTuple):
    """A document of a shard. Ids alone are labels."""

    doc_id: bytes
    shard: int  # number: a row of the shards table
    row: int


def is_doc_id(document: str) -> bool:
    """Whether a document is named by its id, 32 hex digits."""
    return re.fullmatch("[0-9a-fA-F]{32}", document) is not None


def files_by_digits(paths: Iterable[str], kind: str) -> dict[str, str]:
    """The files of an index among the paths of a generation, by the hex digits that their keys begin with."""
    files = {}
    for path in paths:
        if path.startswith(f"index/{kind}/"):
            digits = path.rpartition("/")[2].partition("-")[0]
            files["" if digits == "all" else digits] = path
    return files


def find_keys(dataset: str, files: Mapping[str, str], kind: str, keys: Iterable[Any]) -> pa.Table:
    """The rows of index/documents or index/urls (`kind`) whose doc_id or URL hash is one of `keys`."""
    schema, column = KINDS[kind]
    by_file: dict[str, list[Any]] = {}
    for key in sorted(set(keys)):
        digits = key.hex() if isinstance(key, bytes) else f"{key:016x}"
        for prefix, path in files.items():
            if digits.startswith(prefix):
                by_file.setdefault(path, []).append(key)
    found = []
    for path, inside in by_file.items():
        with open_file(dataset, path) as source, pa.ipc.open_file(source) as reader:
            wanted = pa.array(inside, schema.field(column).type)
            options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(column)])
            with pa.ipc.open_file(source, options=options) as keys_alone:
                numbers = _batches_with(keys_alone, inside)
            for batch in map(reader.get_batch, numbers):
                rows = batch.filter(pc.is_in(batch[column], wanted))
                # Taken, so that nothing of the file stays mapped.
                found.append(pa.RecordBatch.from_arrays(rows.columns, schema=schema))
    return pa.Table.from_batches(found, schema)


def _batches_with(reader: pa.ipc.RecordBatchFileReader, keys: Iterable[Any]) -> list[int]:
    """The record batches of a sorted file that may hold one of the keys; the reader gives the column of keys alone."""
    bounds: dict[int, tuple[Any, Any]] = {}
    wanted = set()

    def bounds_of(number: int) -> tuple[Any, Any]:
        if number not in bounds:
            column = reader.get_batch(number).column(0)
            bounds[number] = column[0].as_py(), column[-1].as_py()
        return bounds[number]

    for key in keys:
        low, high = 0, reader.num_record_batches
        while low < high:
            middle = (low + high) // 2
            if bounds_of(middle)[1] < key:
                low = middle + 1
            else:
                high = middle
        while low < reader.num_record_batches and bounds_of(low)[0] <= key:
            wanted.add(low)
            low += 1
    return sorted(wanted)


@lru_cache(maxsize=2)  # files of few digits are read for several prefixes, one after the other
def kept_in_file(dataset: str, path: str) -> NDArray[np.void]:
    """The kept documents (KEPT) of a file of index/documents, sorted by id."""
    with open_file(dataset, path) as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all().select(["doc_id", "num_tokens"]).combine_chunks()
        documents = np.empty(len(table), KEPT)
        halves = fixed_rows(table["doc_id"].combine_chunks()).view(">u8").reshape(-1, 2)
        documents["high"], documents["low"] = halves[:, 0], halves[:, 1]
        documents["num_tokens"] = np.from_dlpack(table["num_tokens"].combine_chunks())
    return documents

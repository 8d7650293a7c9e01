"""Looking things up in a dataset's indexes: documents by id, captures by URL.

An index file holds the keys that begin with the hex digits in its name (`all`: every key), sorted.
"""

import contextlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from pipeline.report.dataset import Dataset, Place, reading
from schemas import storage

__all__ = ["KEPT", "index_digits", "kept_documents", "places_of_id", "places_of_url"]

# A kept document: its id as two numbers that sort as its bytes do.
KEPT = np.dtype([("high", "u8"), ("low", "u8"), ("num_tokens", "u4")])


def _files(dataset: Dataset, kind: str) -> dict[str, str]:
    """The files of an index by the digits that its keys begin with."""
    files = {}
    for path in dataset.paths(f"index/{kind}/"):
        digits = path.rpartition("/")[2].partition("-")[0]
        files["" if digits == "all" else digits] = path
    return files


@contextlib.contextmanager
def _opened(dataset: Dataset, path: str) -> Iterator[pa.Table]:
    uri = storage.join(dataset.uri, path)
    local = storage.local_path(uri)
    with (
        reading(dataset.uri, path),
        pa.memory_map(str(local)) if local is not None else storage.open_input(uri) as source,
        pa.ipc.open_file(source) as reader,
    ):
        yield reader.read_all()


def _entries(dataset: Dataset, kind: str, digits: str, column: str, key: object) -> Iterator[Place]:
    """The rows of an index whose key is `key`; `digits` is the key in hex."""
    for prefix, path in _files(dataset, kind).items():
        if digits.startswith(prefix):
            with _opened(dataset, path) as table:
                found = table.filter(pa.compute.equal(table[column], pa.scalar(key, table.schema.field(column).type)))
                for ledger, row in zip(found["ledger"].to_pylist(), found["ledger_row"].to_pylist(), strict=True):
                    yield Place(ledger, row)


def places_of_url(dataset: Dataset, url: str) -> list[Place]:
    """The ledger rows whose URL has the hash of `url`; another URL with that hash is possible, if hardly."""
    key = xxhash.xxh3_64_intdigest(url.encode("utf-8"))
    return sorted(_entries(dataset, "urls", f"{key:016x}", "url_hash", key))


def places_of_id(dataset: Dataset, doc_id: bytes) -> list[Place]:
    """The ledger row of a kept document; none if it is not kept."""
    return sorted(_entries(dataset, "documents", doc_id.hex(), "doc_id", doc_id))


def index_digits(dataset: Dataset) -> int:
    """Hex digits in the names of the files of index/documents."""
    return max(map(len, _files(dataset, "documents")), default=0)


def kept_documents(dataset: Dataset, digits: str) -> NDArray[np.void]:
    """The kept documents whose id begins with some hex digits, sorted by id."""
    for prefix, path in _files(dataset, "documents").items():
        if digits.startswith(prefix):
            documents = _kept_file(dataset.uri, path)
            shift = np.uint64(64 - 4 * len(digits)) if digits else None
            return documents if shift is None else documents[documents["high"] >> shift == int(digits, 16)]
    return np.empty(0, KEPT)


@lru_cache(maxsize=2)  # files of few digits are asked for several times, one after the other
def _kept_file(uri: str, path: str) -> NDArray[np.void]:
    with (
        reading(uri, path),
        storage.open_input(storage.join(uri, path)) as source,
        pa.ipc.open_file(source) as reader,
    ):
        table = reader.read_all().select(["doc_id", "num_tokens"]).combine_chunks()
    documents = np.empty(len(table), KEPT)
    ids = table["doc_id"].combine_chunks()
    halves = (
        np.frombuffer(ids.buffers()[1], ">u8")[2 * ids.offset : 2 * (ids.offset + len(ids))].reshape(-1, 2)
        if len(ids)
        else np.empty((0, 2))
    )
    documents["high"], documents["low"] = halves[:, 0], halves[:, 1]
    documents["num_tokens"] = table["num_tokens"].to_numpy()
    return documents

"""The index and the ledgers of a dataset's generation: what is known of a document, found by its id or its URL.

An index file holds the keys that begin with the hex digits in its name (`all`: every key), sorted (contracts, 6).
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from schemas import storage
from schemas.manifest import DatasetError, read_files
from trainer.dataset import Dataset

__all__ = ["Books", "Key"]

TOLD = ["record_id", "url", "input", "position", "language", "cluster_size"]  # of the ledger


class Key(NamedTuple):
    """A document of a shard. Ids alone are labels."""

    doc_id: bytes
    shard: int  # number in the dataset's table
    row: int


class Books:
    """The index and the ledgers of a generation."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._paths: list[str] = read_files(dataset.uri, dataset.manifest)["path"].to_pylist()

    def documents(self, keys: Iterable[Key]) -> dict[Key, tuple[str, int, dict[str, Any]]]:
        """(path of the ledger, row, columns TOLD) of each document. Raises DatasetError for one without an entry."""
        wanted = set(keys)
        found: dict[Key, tuple[int, int]] = {}
        for table in self._index("documents", {key.doc_id.hex() for key in wanted}):
            rows = table.filter(pc.is_in(table["doc_id"], pa.array({key.doc_id for key in wanted}, pa.binary(16))))
            for row in rows.to_pylist():
                found[Key(row["doc_id"], row["shard"], row["row"])] = (row["ledger"], row["ledger_row"])
        if missing := sorted(wanted - set(found)):
            raise DatasetError(
                f"{self._dataset.uri}: document {missing[0].doc_id.hex()} stands in shard {missing[0].shard} and not "
                "in the index: `gristmill verify` tells what is damaged"
            )
        places = {found[key] for key in wanted}
        rows_of = {ledger: self._ledger_rows(ledger, places, TOLD) for ledger in {ledger for ledger, _ in places}}
        return {
            key: (self._paths[found[key][0]], found[key][1], rows_of[found[key][0]][found[key][1]]) for key in wanted
        }

    def places_of(self, document: str) -> list[dict[str, Any]]:
        """The rows of index/documents (as dicts) of an id or of a URL, whose captures may be several."""
        ids = [bytes.fromhex(document)] if _is_id(document) else self._ids_of_url(document)
        found = []
        for table in self._index("documents", {doc_id.hex() for doc_id in ids}):
            found += table.filter(pc.is_in(table["doc_id"], pa.array(ids, pa.binary(16)))).to_pylist()
        return found

    def _ids_of_url(self, url: str) -> list[bytes]:
        """The kept documents of a URL."""
        key = xxhash.xxh3_64_intdigest(url.encode())
        places = set()
        for table in self._index("urls", {f"{key:016x}"}):
            rows = table.filter(pc.equal(table["url_hash"], pa.scalar(key, pa.uint64())))
            places |= set(zip(rows["ledger"].to_pylist(), rows["ledger_row"].to_pylist(), strict=True))
        ids = []
        for ledger in {ledger for ledger, _ in places}:
            rows = self._ledger_rows(ledger, places, ["doc_id", "url", "kept"])
            ids += [row["doc_id"] for row in rows.values() if row["kept"] and row["url"] == url]
        return ids

    def _index(self, kind: str, digits: set[str]) -> Iterator[pa.Table]:
        """The files of an index that may hold keys with these hex digits; a file's name begins with its keys' first."""
        for path in self._paths:
            if path.startswith(f"index/{kind}/"):
                prefix = path.rpartition("/")[2].partition("-")[0]
                if prefix == "all" or any(each.startswith(prefix) for each in digits):
                    with self._opened(path) as source, pa.ipc.open_file(source) as reader:
                        yield reader.read_all()

    def _ledger_rows(self, ledger: int, places: set[tuple[int, int]], columns: list[str]) -> dict[int, dict[str, Any]]:
        """Some rows of a ledger; only the row groups that hold one are read."""
        wanted = sorted(row for number, row in places if number == ledger)
        found: dict[int, dict[str, Any]] = {}
        with self._opened(self._paths[ledger]) as source, pq.ParquetFile(source) as file:
            first = 0
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                inside = [row for row in wanted if first <= row < last]
                if inside:
                    table = file.read_row_group(group, columns=columns).take([row - first for row in inside])
                    found |= zip(inside, table.to_pylist(), strict=True)
                first = last
        return found

    @contextmanager
    def _opened(self, path: str) -> Iterator[Any]:
        uri = storage.join(self._dataset.uri, path)
        local = storage.local_path(uri)
        try:
            with pa.memory_map(str(local)) if local is not None else storage.open_input(uri) as source:
                yield source
        except FileNotFoundError:
            cure = "; steps are found without it by a document's id" if path.startswith("ledger/") else ""
            raise DatasetError(f"{uri} is missing, the dataset is not complete: copy it again{cure}") from None
        except storage.StorageError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{uri} is damaged ({' '.join(str(error).split())}): copy it again") from None


def _is_id(document: str) -> bool:
    return len(document) == 32 and all(digit in "0123456789abcdef" for digit in document)

"""One generation of a dataset, opened. Nothing is read before it is needed, and each table once."""

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from schemas import storage
from schemas.arrow import HASH, LEDGER
from schemas.dataset.documents import TEXTS, document_batches, document_schema, text_batches
from schemas.dataset.files import check_digest, check_file
from schemas.dataset.index import KEPT, Key, files_by_digits, find_keys, is_doc_id, kept_in_file
from schemas.dataset.ledger import Place, batches_of, filtered, schema_of, take_rows
from schemas.dataset.shards import ShardFile, in_use, map_shard, missing_shard, read_shard
from schemas.generation import FileRef, Manifest
from schemas.manifest import (
    DatasetError,
    file_digest,
    newest_generation,
    read_files,
    read_inputs,
    read_manifest,
    read_named,
    read_shards,
)
from schemas.recipe import Recipe, stored_recipe

__all__ = ["Dataset", "open_dataset", "open_newest"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A generation of a dataset. Every method raises DatasetError for a file that is missing or damaged."""

    uri: str
    manifest: Manifest
    _checked: set[str] = field(default_factory=set, init=False, repr=False)  # paths whose digest was compared

    # ---------------------------------------------------------------- shards and documents

    def shards(self, split: str | None = None) -> pa.Table:
        """The shards in use, one row each, with their `number`; of one split if given."""
        return in_use(self.shard_table, split)

    def documents(
        self, split: str | None = None, columns: Sequence[str] = ("doc_id", "tokens")
    ) -> pa.RecordBatchReader:
        """The kept documents in stored order: doc_id, tokens (end-of-text last), num_bytes (of the text)."""
        schema = document_schema(columns, self.manifest.tokenizer.token_type)
        return pa.RecordBatchReader.from_batches(schema, document_batches(self._shard_files(split), schema))

    def texts(self, split: str | None = None) -> pa.RecordBatchReader:
        """The kept documents' texts (doc_id, text), decoded from their tokens: what a model is trained on.

        The work folder is not needed. Only there, though, are the texts of what was dropped (`gristmill explain`).
        """
        return pa.RecordBatchReader.from_batches(TEXTS, text_batches(self._shard_files(split), self.tokenizer()))

    def shard_file(self, number: int, check: bool = True) -> ShardFile:
        """A shard by its number, memory-mapped where it lies on this machine; its digest is compared first."""
        path, sha256 = (self.shard_table[name][number].as_py() for name in ("path", "sha256"))
        uri = storage.join(self.uri, path)
        local = storage.local_path(uri)
        if local is None:
            return read_shard(uri, sha256 if check else None)
        if not local.exists():
            raise missing_shard(uri)
        if check and path not in self._checked:
            check_digest(local, sha256, uri)
            self._checked.add(path)
        return map_shard(str(local))

    def _shard_files(self, split: str | None) -> Iterator[ShardFile]:
        return map(self.shard_file, self.shards(split)["number"].to_pylist())

    # ---------------------------------------------------------------- the ledger

    def ledger(self, columns: Sequence[str] | None = None, where: Any = None) -> pa.RecordBatchReader:
        """Every record read, kept or dropped: all columns or some, of the rows for which `where` holds.

        `where` is an expression of pyarrow.compute, such as `field("rule") == "near.duplicate"`, over any columns.
        """
        schema = schema_of(columns)
        return pa.RecordBatchReader.from_batches(schema, self._ledger_rows(schema, where))

    def _ledger_rows(self, schema: pa.Schema, where: Any) -> Iterator[pa.RecordBatch]:
        for ledger in self.ledgers():
            if where is None:
                yield from (batch.select(schema.names) for _, batch in self.ledger_batches(ledger, schema.names))
            else:
                yield from filtered(self.uri, self._checked_path(ledger), schema, where)

    def ledgers(self) -> range:
        """The numbers of the ledgers that the generation lists."""
        return range(len(self.manifest.groups))

    def ledger_batches(self, ledger: int, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The rows of one ledger as (first row, batch)."""
        return batches_of(self.uri, self._checked_path(ledger), columns)

    def rows(self, places: Iterable[Place], columns: Sequence[str] | None = None) -> dict[Place, dict[str, Any]]:
        """Rows of the ledgers; only the row groups that hold one are read."""
        found: dict[Place, dict[str, Any]] = {}
        for ledger, group in itertools.groupby(sorted(set(places)), key=lambda place: place.ledger):
            inside = list(group)
            rows = take_rows(self.uri, self.path(ledger), [place.row for place in inside], columns)
            found |= zip(inside, rows, strict=True)
        return found

    def part_of(self, place: Place) -> tuple[int, int]:
        """The part number and row behind a row of a ledger: a ledger holds its group's parts in order."""
        parts = self.manifest.groups[place.ledger].parts
        ends = list(itertools.accumulate(self.manifest.parts[part].rows for part in parts))
        index = bisect.bisect_right(ends, place.row)
        if index == len(parts):
            raise DatasetError(f"{self.uri}: row {place.row} lies beyond the parts of {self.path(place.ledger)}")
        return parts[index], place.row - (ends[index - 1] if index else 0)

    # ---------------------------------------------------------------- look-ups

    def find(self, document: str) -> pa.Table:
        """The ledger's rows of a document, by URL (every capture), by doc_id (32 hex digits) or by record id."""
        return pa.Table.from_pylist(list(self.rows(self.places_of(document)).values()), LEDGER)

    def places_of(self, document: str) -> list[Place]:
        """Where `find` finds a document: by the index if that knows it, else by reading a column of the ledgers."""
        if is_doc_id(document):
            doc_id = bytes.fromhex(document)
            return self.places_of_id(doc_id) or list(self.places_of_ids([doc_id]).values())
        found = self.places_of_url(document)
        if found:
            return found
        record_id = document.removeprefix("<").removesuffix(">")
        return [place for place, _ in self._places_with("record_id", pa.array([record_id], pa.string()))]

    def places_of_id(self, doc_id: bytes) -> list[Place]:
        """The ledger row of a kept document, by the index; none if it is not kept."""
        return _places(self._find_keys("documents", [doc_id]))

    def places_of_url(self, url: str) -> list[Place]:
        """The ledger rows of a URL, kept or dropped, by the index."""
        key = xxhash.xxh3_64_intdigest(url.encode("utf-8"))
        rows = self.rows(_places(self._find_keys("urls", [key])), ["url"])
        return [place for place, row in rows.items() if row["url"] == url]  # another may have its hash, if hardly

    def places_of_ids(self, doc_ids: Iterable[bytes]) -> dict[bytes, Place]:
        """Where some documents stand, dropped ones too: reads the ledgers' column; those that are nowhere are left out.

        An id that ingest gave twice (contracts, section 1) has the place of its last row.
        """
        return {doc_id: place for place, doc_id in self._places_with("doc_id", pa.array(sorted(doc_ids), HASH))}

    def _places_with(self, column: str, values: pa.Array) -> Iterator[tuple[Place, Any]]:
        if not len(values):
            return
        for ledger in self.ledgers():
            for first, batch in self.ledger_batches(ledger, [column]):
                rows = pc.indices_nonzero(pc.is_in(batch[column], values))
                for row, value in zip(rows.to_pylist(), batch[column].take(rows).to_pylist(), strict=True):
                    yield Place(ledger, first + row), value

    def entries(self, doc_ids: Iterable[bytes]) -> dict[Key, dict[str, Any]]:
        """The index's entries of some kept documents: their places in shards and ledgers."""
        rows = self._find_keys("documents", doc_ids).to_pylist()
        return {Key(row["doc_id"], row["shard"], row["row"]): row for row in rows}

    def kept_documents(self, digits: str) -> NDArray[np.void]:
        """The kept documents (`index.KEPT`) whose id begins with some hex digits, sorted by id."""
        for prefix, path in files_by_digits(self.paths, "documents").items():
            if digits.startswith(prefix):
                self._check(path)
                documents = kept_in_file(self.uri, path)
                shift = np.uint64(64 - 4 * len(digits)) if digits else None
                return documents if shift is None else documents[documents["high"] >> shift == int(digits, 16)]
        return np.empty(0, KEPT)

    def index_digits(self) -> int:
        """Hex digits in the names of the files of index/documents."""
        return max(map(len, files_by_digits(self.paths, "documents")), default=0)

    def _find_keys(self, kind: str, keys: Iterable[Any]) -> pa.Table:
        return find_keys(self.uri, files_by_digits(self.paths, kind), kind, keys)

    # ---------------------------------------------------------------- files

    def files(self, kind: str, split: str | None = None) -> list[str]:
        """Addresses of the generation's files of one kind: shards (in use, of one split if given), ledger or index.

        What `duckdb` and `datasets` should be given: the folders may hold orphans and retired files.
        """
        if kind == "shards":
            paths = self.shards(split)["path"].to_pylist()
        elif kind in ("ledger", "index"):
            paths = [path for path in self.paths if path.startswith(f"{kind}/")]
        else:
            raise ValueError(f"{kind!r}: a kind of files is shards, ledger or index")
        return [storage.join(self.uri, path) for path in paths]

    @cached_property
    def shard_table(self) -> pa.Table:
        """Every shard of every generation up to this one, retired ones too; a shard's number is its row."""
        return read_shards(self.uri, self.manifest)

    @cached_property
    def input_table(self) -> pa.Table:
        """One row a piece of an input that was read."""
        return read_inputs(self.uri, self.manifest)

    @cached_property
    def file_table(self) -> pa.Table:
        """Path, bytes and sha256 of every file but shards and tables."""
        return read_files(self.uri, self.manifest)

    @cached_property
    def file_refs(self) -> list[FileRef]:
        """The rows of `file_table`; a file's number is its place. Ledgers come first."""
        return [FileRef(**row) for row in self.file_table.to_pylist()]

    @cached_property
    def paths(self) -> list[str]:
        """The paths of `file_refs`."""
        return [file.path for file in self.file_refs]

    def path(self, number: int) -> str:
        """The path of a file by its number; a ledger's number is that of its group."""
        return self.paths[number]

    def tokenizer(self) -> bytes:
        """The tokenizer's file, as `tokenizers` reads it."""
        kept = self.manifest.tokenizer
        uri = storage.join(self.uri, kept.path)
        try:
            data = storage.read(uri)
        except FileNotFoundError:
            raise DatasetError(f"{uri} is missing; the dataset is not complete") from None
        if (found := file_digest(data)) != kept.sha256:
            raise DatasetError(f"{uri} has sha256 {found}, the manifest says {kept.sha256}: copy it again")
        return data

    def recipe_text(self) -> str:
        """The recipe as stored with the dataset; empty if it was not."""
        for path in self.paths:
            if path.startswith("recipe-"):
                return read_named(self.uri, path).decode("utf-8")
        return ""

    def recipe(self) -> Recipe | None:
        """The recipe as stored with the dataset."""
        text = self.recipe_text()
        return stored_recipe(text.encode()) if text else None

    def _check(self, path: str) -> None:
        """Compare a file that is about to be read whole with its digest, once."""
        if path not in self._checked:
            check_file(self.uri, self.file_refs[self.paths.index(path)])
            self._checked.add(path)

    def _checked_path(self, number: int) -> str:
        path = self.path(number)
        self._check(path)
        return path


def open_dataset(uri: str, generation: int | None = None) -> Dataset:
    """Open a generation (default: the newest) of a dataset in a folder, in a bucket or on a web server.

    Raises DatasetError for what is not a dataset, StorageError for a store that does not answer.
    """
    return Dataset(uri, read_manifest(uri, generation))


def open_newest(uri: str) -> Dataset | None:
    """The newest generation; None where there is no dataset yet."""
    newest = newest_generation(uri)
    return open_dataset(uri, newest) if newest else None


def _places(entries: pa.Table) -> list[Place]:
    return sorted(map(Place, entries["ledger"].to_pylist(), entries["ledger_row"].to_pylist()))

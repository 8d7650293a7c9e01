"""Datasets for tests: chosen shards, and chosen records of the ledger, written by the same functions as pack's."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from pipeline.pack.files import arrow_bytes
from pipeline.pack.index import document_rows, url_rows, write_index
from schemas.arrow import LEDGER, tokens_schema
from schemas.generation import Manifest
from schemas.manifest import commit, file_digest
from schemas.packing import packed_rows
from tests.made_generation import END_OF_TEXT, TOKENIZER, Files, Records, group_of, manifest_of, parquet_bytes

__all__ = ["END_OF_TEXT", "TOKENIZER", "MadeDataset", "Shard", "doc_id", "made", "some_documents"]

Documents = Sequence[Sequence[int]]


@dataclass
class Shard:
    """A shard as the table has it, with its documents when they were made one by one."""

    row: dict[str, Any]
    documents: Documents = ()
    names: Sequence[str | bytes] = ()


@dataclass
class MadeDataset:
    """A dataset below a folder; `add` writes shards, `commit` the next generation over all of them."""

    folder: Path
    vocab_size: int = 1000
    sequence_lengths: Sequence[int] = ()
    batch_documents: int = 3
    token_type: str = "uint16"
    shards: list[Shard] = field(default_factory=list)
    generation: int = 0

    @property
    def uri(self) -> str:
        """The folder, as a URI."""
        return str(self.folder)

    def add(
        self,
        source: str,
        documents: Documents,
        split: str = "train",
        replaces: Sequence[int] = (),
        names: Sequence[str | bytes] | None = None,
    ) -> int:
        """Write a shard of documents, each a list of token ids that ends in end-of-text; returns its number.

        Their ids are those of their `names` (`doc_id`; default: SOURCE-SHARD-ROW).
        """
        number = len(self.shards)
        names = names or [f"{source}-{number}-{row}" for row in range(len(documents))]
        data = self.shard_bytes(source, split, documents, names)
        path = f"shards/g{self.generation + 1}-{number:05d}-{source}-{split}-000-{file_digest(data)[:16]}.arrow"
        return self.enter(path, data, source, documents, names, split, replaces)

    def enter(
        self,
        path: str,
        data: bytes,
        source: str,
        documents: Documents,
        names: Sequence[str | bytes],
        split: str = "train",
        replaces: Sequence[int] = (),
    ) -> int:
        """Write a shard's bytes and its row of the shards table."""
        lengths = np.array([len(document) for document in documents], np.int64)
        place = self.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        for number in replaces:
            self.retire(number)
        packed = {str(length): packed_rows(lengths, length) for length in self.sequence_lengths}
        row = {
            "path": path,
            "bytes": len(data),
            "sha256": file_digest(data),
            "rows": len(documents),
            "tokens": int(lengths.sum()),
            "text_bytes": 4 * int(lengths.sum()),
            "source": source,
            "tags": "{}",
            "split": split,
            "longest_document": int(lengths.max(initial=0)),
            "packed_rows": json.dumps(packed, separators=(",", ":"), sort_keys=True) if packed else None,
            "generation": self.generation + 1,
            "replaces": list(replaces),
            "retired_in": None,
        }
        self.shards.append(Shard(row, documents, names))
        return len(self.shards) - 1

    def retire(self, number: int) -> None:
        """Retire a shard in the generation to come."""
        self.shards[number].row["retired_in"] = self.generation + 1

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / self.shards[number].row["path"]

    def sha256(self, number: int) -> bytes:
        """The digest of a shard."""
        return bytes.fromhex(self.shards[number].row["sha256"])

    def stream_of(self, number: int) -> NDArray[np.int64]:
        """All tokens of a shard, in order."""
        return np.concatenate([np.asarray(document, np.int64) for document in self.shards[number].documents])

    def commit(self, records: Records | None = None, **options: Any) -> Manifest:
        """Write ledgers, index, tables and manifest of the next generation.

        `records` are rows of the ledger by source, in order (default: one a document of a shard in use); where a kept
        one lies is filled in from the shards. Options: `parts` (by source), `inputs`, `recipe` (text), `digest`.
        """
        self.generation += 1
        places = self._places()
        if records is None:
            records = {source: [] for source in sorted({shard.row["source"] for shard in self.shards})}
            for place in places:
                records[place["source"]].append(_record(place))
        files, groups, packed = Files(self.uri), [], {"documents/all": b"", "urls/all": b""}
        by_id = {place["doc_id"]: place for place in places}
        placed = {source: [row | _place_of(row, by_id) for row in records[source]] for source in sorted(records)}
        for number, source in enumerate(placed):
            rows = placed[source]
            table = pa.Table.from_pylist([{name: row.get(name) for name in LEDGER.names} for row in rows], LEDGER)
            starts = np.array([row.get("start", 0) for row in rows], np.int64)
            files.write(f"ledger/g{self.generation}-{number:05d}-{source}", ".parquet", parquet_bytes(table))
            packed["documents/all"] += document_rows(table, starts, number, 0)
            packed["urls/all"] += url_rows(table["url"], number, 0)
            groups.append(group_of(self.generation, number, source, rows, options.get("parts", {})))
        for name, entries in packed.items():
            files.listed.append(write_index(SimpleNamespace(dataset=self.uri), name, [entries]))
        if options.get("recipe"):
            files.write("recipe", ".yaml", options["recipe"].encode())
        manifest = manifest_of(self, groups, placed, files, options)
        commit(self.uri, self.generation, manifest.to_json())
        return manifest

    def shard_bytes(self, source: str, split: str, documents: Documents, names: Sequence[str | bytes]) -> bytes:
        """The file of a shard."""
        schema = tokens_schema(
            pa.type_for_alias(self.token_type), {"source": source, "split": split, "tags": "{}", "tokenizer": TOKENIZER}
        )
        batches = []
        for start in range(0, len(documents), self.batch_documents):
            chosen = documents[start : start + self.batch_documents]
            columns = [
                pa.array([doc_id(name) for name in names[start : start + len(chosen)]], pa.binary(16)),
                pa.array([list(map(int, document)) for document in chosen], schema.field("tokens").type),
                pa.array([4 * len(document) for document in chosen], pa.uint32()),
            ]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        return arrow_bytes(schema, batches)

    def _places(self) -> list[dict[str, Any]]:
        """Where each document of a shard in use lies."""
        found = []
        for number, shard in enumerate(self.shards):
            start = 0
            for row, (name, document) in enumerate(zip(shard.names, shard.documents, strict=True)):
                place = {"name": name, "doc_id": doc_id(name), "source": shard.row["source"]}
                place |= {"shard": number, "row": row, "start": start, "num_tokens": len(document)}
                if shard.row["retired_in"] is None:
                    found.append(place | {"split": shard.row["split"]})
                start += len(document)
        return found


def _record(place: dict[str, Any]) -> dict[str, Any]:
    """The ledger's row of a document that has only tokens."""
    source, name = place["source"], place["name"]
    return {
        "doc_id": doc_id(name),
        "record_id": f"urn:{name}",
        "url": f"http://{source}.test/{name}",
        "source": source,
        "input": f"{source}.warc",
        "position": 100 * place["row"],
        "offset": 0,
        "kept": True,
        "cluster_size": 1,
        "language": "en",
        "num_words": place["num_tokens"],
        "num_bytes": 4 * place["num_tokens"],
    }


def _place_of(row: dict[str, Any], places: dict[bytes, dict[str, Any]]) -> dict[str, Any]:
    if not row["kept"]:
        return {}
    return {name: places[row["doc_id"]][name] for name in ("shard", "row", "start", "num_tokens", "split")}


def doc_id(name: str | bytes) -> bytes:
    """The id of a document of that name; an id is its own name."""
    return name if isinstance(name, bytes) else xxhash.xxh3_128_digest(name.encode())


def some_documents(num_tokens: int, seed: int, mean: int = 20, vocab_size: int = 1000) -> list[list[int]]:
    """Documents of random lengths with `num_tokens` in all; ids 1 and up, end-of-text last."""
    random = np.random.default_rng(seed)
    documents = []
    while num_tokens > 0:
        length = min(num_tokens, 1 + int(random.integers(1, 2 * mean)))
        documents.append([*random.integers(1, vocab_size, length - 1).tolist(), END_OF_TEXT])
        num_tokens -= length
    return documents


def made(folder: Path, sources: Mapping[str, Sequence[int]], **options: Any) -> MadeDataset:
    """A committed dataset: for each source the tokens of its shards."""
    dataset = MadeDataset(folder, **options)
    for source, sizes in sources.items():
        for size in sizes:
            dataset.add(source, some_documents(size, seed=len(dataset.shards)))
    dataset.commit()
    return dataset

"""Datasets with chosen shards, written without the pipeline: the manifest, tables and files that contracts ask for."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from schemas.arrow import FILES, INDEX_DOCUMENTS, INDEX_URLS, INPUTS, LEDGER, SHARDS, tokens_schema
from schemas.generation import Digests, EndOfText, FileRef, Funnel, Manifest, Tables, Tokenizer
from schemas.manifest import commit, file_digest, named_by_content, order_digest
from schemas.packing import packed_rows

END_OF_TEXT = 0
TOKENIZER = "f" * 64

Documents = Sequence[Sequence[int]]


@dataclass
class Shard:
    """A shard as the table has it, with its documents when they were made one by one."""

    row: dict[str, Any]
    documents: Documents = ()
    names: Sequence[str] = ()


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

    def add(self, source: str, documents: Documents, split: str = "train", replaces: Sequence[int] = ()) -> int:
        """Write a shard of documents, each a list of token ids that ends in end-of-text; returns its number."""
        number = len(self.shards)
        names = [f"{source}-{number}-{row}" for row in range(len(documents))]
        data = self._shard_bytes(source, split, documents, names)
        path = f"shards/g{self.generation + 1}-{number:05d}-{source}-{split}-000-{file_digest(data)[:16]}.arrow"
        return self.enter(path, data, source, documents, names, split, replaces)

    def enter(
        self,
        path: str,
        data: bytes,
        source: str,
        documents: Documents,
        names: Sequence[str],
        split: str = "train",
        replaces: Sequence[int] = (),
    ) -> int:
        """Write a shard's bytes and its row of the shards table."""
        lengths = np.array([len(document) for document in documents], np.int64)
        _write(self.folder / path, data)
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

    def commit(self) -> Manifest:
        """Write ledger, index, tables and manifest of the next generation."""
        self.generation += 1
        table = pa.Table.from_pylist([shard.row for shard in self.shards], schema=SHARDS)
        ledger = self._file(f"ledger/g{self.generation}-00000-all", ".parquet", _parquet(self._ledger()))
        index = self._file("index/documents/all", ".arrow", _arrow(self._index()))
        urls = self._file("index/urls/all", ".arrow", _arrow(self._urls()))
        files = pa.Table.from_pylist([file.model_dump() for file in (ledger, index, urls)], schema=FILES)
        tables = Tables(
            shards=self._file(f"manifest/g{self.generation}-shards", ".arrow", _arrow(table)),
            files=self._file(f"manifest/g{self.generation}-files", ".parquet", _parquet(files)),
            inputs=self._file(f"manifest/g{self.generation}-inputs", ".parquet", _parquet(INPUTS.empty_table())),
        )
        manifest = _manifest(self, table, tables)
        commit(self.uri, self.generation, manifest.to_json())
        return manifest

    def _file(self, stem: str, suffix: str, data: bytes) -> FileRef:
        file = named_by_content(stem, suffix, data)
        _write(self.folder / file.path, data)
        return file

    def _shard_bytes(self, source: str, split: str, documents: Documents, names: Sequence[str]) -> bytes:
        metadata = {"source": source, "split": split, "tags": "{}", "tokenizer": TOKENIZER}
        schema = tokens_schema(pa.type_for_alias(self.token_type), metadata)
        sink = io.BytesIO()
        with pa.ipc.new_file(sink, schema) as writer:
            for start in range(0, len(documents), self.batch_documents):
                chosen = documents[start : start + self.batch_documents]
                columns = [
                    pa.array([doc_id(name) for name in names[start : start + len(chosen)]], pa.binary(16)),
                    pa.array([list(map(int, document)) for document in chosen], schema.field("tokens").type),
                    pa.array([4 * len(document) for document in chosen], pa.uint32()),
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        return sink.getvalue()

    def _documents(self) -> list[dict[str, Any]]:
        """Every document of a shard in use, in the order of the ledger."""
        found = []
        for number, shard in enumerate(self.shards):
            if shard.row["retired_in"] is not None:
                continue
            start = 0
            for row, (name, document) in enumerate(zip(shard.names, shard.documents, strict=True)):
                place = {"name": name, "shard": number, "row": row, "start": start, "tokens": len(document)}
                found.append(place | {"source": shard.row["source"], "split": shard.row["split"]})
                start += len(document)
        return found

    def _ledger(self) -> pa.Table:
        rows = [
            {
                "doc_id": doc_id(place["name"]),
                "record_id": f"urn:{place['name']}",
                "url": f"http://{place['source']}.test/{place['name']}",
                "source": place["source"],
                "input": f"{place['source']}.warc",
                "position": 100 * place["row"],
                "offset": 0,
                "kept": True,
                "cluster_size": 1,
                "language": "en",
                "num_words": place["tokens"],
                "num_bytes": 4 * place["tokens"],
                "num_tokens": place["tokens"],
                "shard": place["shard"],
                "row": place["row"],
                "split": place["split"],
            }
            for place in self._documents()
        ]
        return pa.Table.from_pylist(rows, schema=LEDGER)

    def _index(self) -> pa.Table:
        rows = [
            {
                "doc_id": doc_id(place["name"]),
                "shard": place["shard"],
                "row": place["row"],
                "token_start": place["start"],
                "num_tokens": place["tokens"],
                "ledger": 0,
                "ledger_row": number,
            }
            for number, place in enumerate(self._documents())
        ]
        return pa.Table.from_pylist(sorted(rows, key=lambda row: row["doc_id"]), schema=INDEX_DOCUMENTS)

    def _urls(self) -> pa.Table:
        hashes = [xxhash.xxh3_64_intdigest(url.encode()) for url in self._ledger()["url"].to_pylist()]
        rows = [{"url_hash": value, "ledger": 0, "ledger_row": row} for row, value in enumerate(hashes)]
        return pa.Table.from_pylist(sorted(rows, key=lambda row: row["url_hash"]), schema=INDEX_URLS)


def doc_id(name: str) -> bytes:
    """The id of a document of that name."""
    return xxhash.xxh3_128_digest(name.encode())


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


def _manifest(dataset: MadeDataset, table: pa.Table, tables: Tables) -> Manifest:
    digests = Digests(
        generation=file_digest(f"{dataset.generation}{tables.shards.sha256}".encode()),
        recipe="0" * 64,
        order=order_digest(table, TOKENIZER, END_OF_TEXT),
        previous=None,
    )
    if dataset.generation > 1:
        before = json.loads((dataset.folder / f"manifest/g{dataset.generation - 1}.json").read_bytes())
        digests = digests.model_copy(update={"previous": before["digests"]["generation"]})
    return Manifest(
        generation=dataset.generation,
        name="made",
        digests=digests,
        tokenizer=Tokenizer(
            path="tokenizer.json",
            sha256=TOKENIZER,
            vocab_size=dataset.vocab_size,
            token_type=dataset.token_type,
            end_of_text=EndOfText(token="<|endoftext|>", id=END_OF_TEXT),
            special_tokens={"<|endoftext|>": END_OF_TEXT},
            options={},
        ),
        parts=[],
        groups=[],
        funnel=Funnel(records_read=0, kept=0, dropped={}, splits={}, sources={}),
        assets={},
        decision="",
        code={"gristmill": "test"},
        platform={},
        tables=tables,
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()

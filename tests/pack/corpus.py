"""Small corpora as ingest and select would leave them: parts, verdicts and pieces, with a pipeline to pack them."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from pipeline.ingest.receipts import PartRef, PieceReceipt
from pipeline.job import Decided, Job, Measured
from pipeline.pack.pack import pack
from pipeline.select.decision.funnel import Funnel, VerdictFile
from schemas.arrow import VERDICT
from schemas.dataset import Dataset
from schemas.manifest import Manifest
from schemas.recipe import Recipe
from tests import made_parts
from tests.made_parts import digest, text_columns, write_part_file

NUM_HASHES = 4


@dataclass(frozen=True)
class Doc:
    """A record; without a text it was dropped in ingest."""

    name: str
    text: str | None = "words"
    rule: str | None = None  # why it was dropped; None: kept
    validation: bool = False
    language: str | None = "en"
    edits: tuple[tuple[int, int, int], ...] = ()
    url: str | None = None
    words: float | None = 2.0

    @property
    def doc_id(self) -> bytes:
        """Of the name."""
        return digest(self.name)


@dataclass
class Corpus:
    """Parts on disk."""

    folder: Path
    parts: list[PartRef] = field(default_factory=list)
    pieces: list[tuple[str, PieceReceipt]] = field(default_factory=list)
    documents: list[list[Doc]] = field(default_factory=list)

    def add(self, source: str, documents: Iterable[Doc], rows: int = 3) -> None:
        """Write the next part, in batches of some rows, and its verdicts."""
        self.write(len(self.parts), source, list(documents), rows)

    def write(self, number: int, source: str, documents: list[Doc], rows: int = 3) -> None:
        """Write a part, the next one or in place of an earlier one."""
        path, name = self.folder / f"part-{number}.arrow", f"{source}-{number}.warc"
        records = [_row(name, place, doc) for place, doc in enumerate(documents)]
        sha256 = write_part_file(path, records, NUM_HASHES, ["gopher.num_words"], rows)
        size = sum(len((doc.text or "").encode()) for doc in documents)
        self.parts[number:] = [
            PartRef(number, source, str(path), len(documents), size, sha256, name, 0),
            *self.parts[number + 1 :],
        ]
        read = hashlib.sha256(name.encode()).hexdigest()
        receipt = PieceReceipt(name, 0, 10, 10, 0, 10, read, len(documents), {"response": len(documents)})
        self.pieces[number:] = [(source, receipt), *self.pieces[number + 1 :]]
        self.decide(number, documents)

    def decide(self, number: int, documents: list[Doc]) -> None:
        """Write verdicts over a part."""
        self.documents[number:] = [documents, *self.documents[number + 1 :]]
        with pa.ipc.new_file(str(self.folder / f"verdict-{number}.arrow"), VERDICT) as writer:
            writer.write_batch(pa.RecordBatch.from_pylist([verdict(doc) for doc in documents], schema=VERDICT))

    def verdict_uri(self, part: PartRef) -> str:
        """Where the verdicts over a part lie."""
        return str(self.folder / f"verdict-{part.number}.arrow")

    def pack(
        self, recipe: Recipe, dataset: Path, work: Path | None = None, previous: Dataset | None = None, **options: Any
    ) -> Manifest:
        """Pack all parts, or the `parts` with the `inputs` of `options`; lines for the user go to its `stream`."""
        job = Job(
            recipe,
            str(dataset),
            str(work or f"{dataset}/work"),
            options.get("new_pipeline", new_pipeline),
            memory_bytes=1 << 30,
            stream=options.get("stream"),
        )
        receipts = [
            SimpleNamespace(source=source, pieces=(piece,)) for source, piece in options.get("inputs", self.pieces)
        ]
        verdicts = tuple(VerdictFile(part, "", 0, sha256) for part, sha256 in options.get("verdicts", {}).items())
        funnel = Funnel(0, 0, 0, (), {}, 0, 0, 0, verdicts)
        decided = Decided("", [self.verdict_uri(part) for part in self.parts], funnel, 0.0)
        return pack(job, Measured(options.get("parts", self.parts), receipts), decided, previous)


def new_pipeline(size: int) -> beam.Pipeline:
    """Beam's local runner, in this process."""
    return beam.Pipeline(runner=FnApiRunner())


def final_text(doc: Doc) -> str:
    """The text with its edits applied."""
    assert doc.text is not None
    return made_parts.final_text(doc.text, doc.edits)


def _row(name: str, position: int, doc: Doc) -> dict[str, Any]:
    row: dict[str, Any] = {
        "doc_id": doc.doc_id,
        "record_id": f"urn:{doc.name}",
        "url": doc.url,
        "input": name,
        "position": 100 * position,
        "offset": 0,
        "language": None,
    }
    if doc.text is None:
        return row | {"stage": "read", "rule": doc.rule}
    columns = text_columns(doc.text, doc.edits)
    return (
        row
        | columns
        | {
            "language": doc.language,
            "signature": doc.doc_id[: 4 * NUM_HASHES] if columns["num_bytes"] > 20 else None,
            "gopher.num_words": doc.words,
        }
    )


def verdict(doc: Doc) -> dict[str, Any]:
    """The verdict that select would give."""
    kept = doc.rule is None
    return {
        "doc_id": doc.doc_id,
        "kept": kept,
        "stage": None if kept else "read" if doc.text is None else "rules",
        "rule": doc.rule,
        "value": None if kept else 1.5,
        "threshold": None if kept else 2.0,
        "cluster": doc.doc_id if kept else None,
        "cluster_size": 1 if kept else None,
        "split": None if not kept else "validation" if doc.validation else "train",
        "passed": kept or doc.rule == "near.duplicate",
    }


def some_documents(prefix: str, count: int, seed: int = 0) -> list[Doc]:
    """Documents of different lengths; every seventh is dropped, every fifth is for validation."""
    documents = []
    for index in range(count):
        text = " ".join(f"{prefix} word{(index * 31 + seed + step) % 97}" for step in range(3 + 7 * (index % 11)))
        doc = Doc(f"{prefix}-{index}", text, validation=index % 5 == 0, url=f"http://{prefix}.test/{index}")
        if index % 7 == 3:
            doc = replace(doc, rule="gopher.too_few_words" if index % 2 else "near.duplicate")
        if index % 13 == 5:
            doc = replace(doc, text=None, rule="read.mime", url=None)
        documents.append(doc)
    return documents


def recipe(**sections: Any) -> Recipe:
    """A recipe with small shards."""
    shards = {"shard_bytes": 8192, "batch_bytes": 2048, "group_bytes": 4096, **sections.pop("shards", {})}
    tokenizer = {"vocab_size": 300, "sample_bytes": 4096, **sections.pop("tokenizer", {})}
    measure = {"minhash": {"num_hashes": NUM_HASHES}}
    sources = {name: {"root": "."} for name in ("books", "web", "web/odd: *")}
    return Recipe.model_validate(
        {"sources": sources, "shards": shards, "tokenizer": tokenizer, "measure": measure, **sections}
    )


def tree(folder: Path, *without: str) -> dict[str, bytes]:
    """Every file below a folder with its bytes, apart from some top folders."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = {str(path.relative_to(folder)): path for path in files}
    return {name: path.read_bytes() for name, path in names.items() if not name.startswith(without)}


Changed = Callable[[Doc], Doc]

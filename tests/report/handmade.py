"""A small dataset of chosen records, with its work folder: what the report, explain and diff read."""

from pathlib import Path
from typing import Any

from pipeline.ingest.receipts import Receipt
from schemas import storage
from schemas.arrow import LEDGER
from schemas.generation import Part
from schemas.recipe import canonical_json
from tests.made_dataset import END_OF_TEXT, MadeDataset, doc_id
from tests.made_parts import text_columns, write_part_file

PART_ROWS = 4
SIGNALS = ["gopher.num_words", "gopher.mean_word_length", "language.score"]
RECIPE = """\
name: handmade
sources: {web: {root: crawl}}
rules: {gopher.too_few_words: 5, gopher.words_too_long: 9}
"""


def document(url: str | None, text: str | None = None, **fields: Any) -> dict[str, Any]:
    """One record: a kept document unless `rule` says otherwise."""
    words = len(text.split()) if text is not None else None
    row: dict[str, Any] = dict.fromkeys(LEDGER.names)
    row |= {"doc_id": doc_id(url or ""), "record_id": f"urn:{url}", "url": url, "source": "web", "input": "a.warc.gz"}
    row |= {"position": 0, "offset": 0, "status": 200, "mime": "text/html", "charset": "utf-8"}
    row |= {"kept": "rule" not in fields, "language": "en" if text else None, "num_words": words}
    if text is not None:
        row |= text_columns(text) | {"edited_bytes": 0}
        row |= {"gopher.num_words": float(len(text.split())), "gopher.mean_word_length": 4.0, "language.score": 0.9}
    if row["kept"]:
        row |= {
            "num_tokens": words or 1,
            "split": "train",
            "cluster": row["doc_id"],
            "cluster_size": 1,
        }
    return row | fields


def write_dataset(folder: Path, documents: list[dict[str, Any]], recipe: str = RECIPE, digest: str = "1") -> str:
    """The dataset's files and its work folder below `folder`; a source's documents lie in parts of four rows."""
    dataset = MadeDataset(folder, sequence_lengths=[16])
    by_source = {
        source: [row for row in documents if row["source"] == source] for source in _values(documents, "source")
    }
    parts, number = {}, 0
    for source, rows in by_source.items():
        starts = range(0, len(rows), PART_ROWS)
        cut = [rows[start : start + PART_ROWS] for start in starts]
        parts[source] = [_write_part(folder / "work", number + place, source, each) for place, each in enumerate(cut)]
        number += len(cut)
        kept = [row for row in rows if row["kept"]]
        for split in _values(kept, "split"):
            inside = [row for row in kept if row["split"] == split]
            tokens = [[1] * (row["num_tokens"] - 1) + [END_OF_TEXT] for row in inside]
            dataset.add(source, tokens, split, names=[row["doc_id"] for row in inside])
    options = {"parts": parts, "inputs": _inputs(documents), "recipe": recipe, "digest": digest * 64}
    dataset.commit(by_source, **options)
    return dataset.uri


def _values(rows: list[dict[str, Any]], name: str) -> list[str]:
    return sorted({row[name] for row in rows})


def _write_part(work: Path, number: int, source: str, rows: list[dict[str, Any]]) -> Part:
    """A part, in record batches of two rows, and its receipt. Only what ingest drops has its reason there."""
    early = [
        row if row["stage"] in ("read", "extract") else row | dict.fromkeys(("stage", "rule", "value", "threshold"))
        for row in rows
    ]
    path = f"parts/k{number}-0.1.arrow"
    sha256 = write_part_file(work / path, early, 1, SIGNALS, 2)
    receipt = Receipt(
        key=f"k{number}",
        number=0,
        last=True,
        source=source,
        path=path,
        rows=len(rows),
        alive=0,
        text_bytes=0,
        bytes=(work / path).stat().st_size,
        sha256=sha256,
        pieces=(),
    )
    storage.write(f"{work}/receipts/k{number}-0.json", receipt.to_json())
    return Part(
        generation=1, source=source, name="a.warc.gz", start=0, sha256=receipt.sha256, rows=len(rows), text_bytes=0
    )


def _inputs(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for source, name in sorted({(row["source"], row["input"]) for row in documents}):
        records = canonical_json(
            {"response": sum((row["source"], row["input"]) == (source, name) for row in documents)}
        ).decode()
        size = 1000 + len(rows)
        rows.append(
            {
                "source": source,
                "name": name,
                "start": 0,
                "end": size,
                "size": size,
                "sha256": "0" * 64,
                "rows": 1,
                "records": records,
            }
        )
    return rows

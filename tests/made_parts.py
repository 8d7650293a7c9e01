"""Part files for tests: rows as ingest leaves them, made from literal records."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from pipeline.pack.files import arrow_bytes
from pipeline.text.edits import EDITS, apply_edits
from schemas.arrow import document_schema

Edits = Sequence[tuple[int, int, int]]  # start, length and replacement of each


def digest(text: str) -> bytes:
    """xxh3_128 of a text, as doc_ids and hashes of texts are."""
    return xxhash.xxh3_128_digest(text.encode())


def final_text(text: str, edits: Edits) -> str:
    """A text with its edits applied."""
    return apply_edits(pa.array([text], pa.large_string()), pa.array([edit_column(edits)], EDITS))[0].as_py()


def edit_column(edits: Edits) -> list[dict[str, int]]:
    """Edits as a part has them."""
    return [{"start": start, "length": length, "replacement": row} for start, length, row in edits]


def text_columns(text: str, edits: Edits = ()) -> dict[str, Any]:
    """The columns of a part that follow from a text and its edits."""
    final = final_text(text, edits)
    return {
        "text": text,
        "text_hash": digest(text),
        "final_hash": digest(final),
        "num_bytes": len(final.encode()),
        "edits": edit_column(edits),
    }


def part_batch(rows: Sequence[Mapping[str, Any]], num_hashes: int, signals: Iterable[str]) -> pa.RecordBatch:
    """Rows of a part; a column that a row does not name is null."""
    schema = document_schema(num_hashes, signals)
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.record_batch(columns, schema=schema)


def write_part_file(path: Path, batches: Sequence[pa.RecordBatch]) -> str:
    """Write a part; returns its sha256."""
    data = arrow_bytes(batches[0].schema, batches)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()

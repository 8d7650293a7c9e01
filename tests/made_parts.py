"""Part files for tests: rows as ingest leaves them, made from literal records."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import xxhash

from pipeline.ingest.receipts import PartRef
from pipeline.measure.minhash.sign import sign
from pipeline.pack.files import arrow_bytes
from pipeline.text.edits import EDITS, apply_edits, text_buffers
from schemas.arrow import document_schema
from schemas.recipe import Minhash, Recipe

SIGNALS = ("gopher.num_words", "language.score")
Rows = Sequence[Mapping[str, Any]]  # the columns that are not null
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


def part_batch(rows: Rows, num_hashes: int, signals: Iterable[str]) -> pa.RecordBatch:
    """Rows of a part; a column that a row does not name is null."""
    schema = document_schema(num_hashes, signals)
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in schema]
    return pa.record_batch(columns, schema=schema)


def write_part_file(path: Path, rows: Rows, num_hashes: int, signals: Sequence[str], batch_rows: int = 1 << 20) -> str:
    """Write a part in batches of some rows; returns its sha256."""
    starts = range(0, len(rows), batch_rows)
    batches = [part_batch(rows[start : start + batch_rows], num_hashes, signals) for start in starts]
    data = arrow_bytes(document_schema(num_hashes, signals), batches)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- parts that select decides


def make_recipe(**sections: Any) -> Recipe:
    """A recipe without rules; sections as in YAML."""
    return Recipe.model_validate({"sources": {"web": {"root": "/nowhere"}}, **sections})


def measured_rows(source: str, rows: Rows, minhash: Minhash) -> list[dict[str, Any]]:
    """Rows of a part, signed: `text` (None: dropped in ingest), and any other column or signal by name."""
    alive = [row for row in rows if row.get("text") is not None]
    texts = pa.array([row["text"] for row in alive], pa.large_string())
    signatures, valid = sign(*text_buffers(texts), minhash)
    signed = iter(zip(signatures, valid, strict=True))
    full_rows = []
    for place, row in enumerate(rows):
        text = row.get("text")
        full: dict[str, Any] = {"record_id": f"r{place}", "input": "a.jsonl", "position": place, "offset": 0}
        if text is None:
            full |= {"stage": "read", "rule": "read.status", "value": 404.0, "threshold": 200.0}
        else:
            signature, signable = next(signed)
            full |= text_columns(text)
            full |= {"language": "en", "signature": signature.tobytes() if signable else None}
            full |= dict.fromkeys(SIGNALS, 1.0)
        full |= row
        full.setdefault("doc_id", digest(f"{source}\0{full['record_id']}"))
        full_rows.append(full)
    return full_rows


def write_part(folder: Path, number: int, rows: Rows, source: str = "web", minhash: Minhash | None = None) -> PartRef:
    """Write a part and return its reference."""
    path = folder / f"part-{number}.arrow"
    minhash = minhash or Minhash()
    sha256 = write_part_file(path, measured_rows(source, rows, minhash), minhash.num_hashes, SIGNALS)
    text_bytes = sum(len((row.get("text") or "").encode()) for row in rows)
    return PartRef(number, source, str(path), len(rows), text_bytes, sha256)


def write_texts(
    folder: Path, texts: Sequence[str], num_parts: int = 1, minhash: Minhash | None = None
) -> list[PartRef]:
    """The texts in parts of about equal size, in order; record ids are t0, t1, ..."""
    bounds = [len(texts) * part // num_parts for part in range(num_parts + 1)]
    return [
        write_part(
            folder,
            part,
            [{"text": texts[n], "record_id": f"t{n}"} for n in range(bounds[part], bounds[part + 1])],
            minhash=minhash,
        )
        for part in range(num_parts)
    ]


def text_id(number: int, source: str = "web") -> bytes:
    """doc_id of text `number` of `write_texts`."""
    return digest(f"{source}\0t{number}")

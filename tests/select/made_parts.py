"""Part files as ingest writes them, made from a few literal rows or from texts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.ingest.receipts import PartRef
from pipeline.measure.minhash.sign import sign
from pipeline.select.files import fixed_bytes
from pipeline.text.edits import text_buffers
from schemas.recipe import Minhash, Recipe
from tests import made_parts
from tests.made_parts import digest, text_columns, write_part_file

SIGNALS = ("gopher.num_words", "language.score")


def make_recipe(**sections: Any) -> Recipe:
    """A recipe without rules; sections as in YAML."""
    return Recipe.model_validate({"sources": {"web": {"root": "/nowhere"}}, **sections})


def part_batch(source: str, rows: Sequence[Mapping[str, Any]], minhash: Minhash) -> pa.RecordBatch:
    """document_schema rows: `text` (None: dropped in ingest), and any other column or signal by name."""
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
    return made_parts.part_batch(full_rows, minhash.num_hashes, SIGNALS)


def write_part(
    folder: Path, number: int, rows: Sequence[Mapping[str, Any]], source: str = "web", minhash: Minhash | None = None
) -> PartRef:
    """Write a part and return its reference."""
    path = folder / f"part-{number}.arrow"
    sha256 = write_part_file(path, [part_batch(source, rows, minhash or Minhash())])
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


def signature_rows(batch: pa.RecordBatch) -> Any:
    """Signatures (N, K) of a part batch."""
    return fixed_bytes(batch["signature"]).view("<u4")

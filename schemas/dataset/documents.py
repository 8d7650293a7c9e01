"""Documents of a generation, shard by shard: ids, tokens, and the texts that the tokens stand for."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from schemas.arrow import HASH, tokens_schema
from schemas.dataset.shards import ShardFile
from schemas.manifest import DatasetError

__all__ = ["TEXTS", "document_batches", "document_schema", "text_batches"]

TEXTS = pa.schema([pa.field("doc_id", HASH, nullable=False), pa.field("text", pa.large_string(), nullable=False)])
TEXT_ROWS = 1024  # documents decoded at a time


def document_schema(columns: Sequence[str], token_type: str) -> pa.Schema:
    """The schema of `document_batches`. Raises ValueError for a column that shards do not have."""
    schema = tokens_schema(pa.type_for_alias(token_type), {})
    if unknown := [name for name in columns if name not in schema.names]:
        raise ValueError(f"columns: {unknown[0]!r} is not one of {', '.join(schema.names)}")
    return pa.schema([schema.field(name) for name in columns])


def document_batches(shards: Iterable[ShardFile], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The documents of some shards, in stored order; views of the shards' own bytes."""
    for shard in shards:
        for batch in shard.batches:
            yield pa.RecordBatch.from_arrays([batch[name] for name in schema.names], schema=schema)


def text_batches(shards: Iterable[ShardFile], tokenizer: bytes) -> Iterator[pa.RecordBatch]:
    """The texts of some shards' documents, decoded; each is held against the length of what was encoded.

    Raises DatasetError where a tokenizer does not give back the text that it encoded.
    """
    import tokenizers

    decoder = tokenizers.Tokenizer.from_str(tokenizer.decode("utf-8"))
    for shard in shards:
        for batch in shard.batches:
            for first in range(0, batch.num_rows, TEXT_ROWS):
                yield _decode(decoder, batch.slice(first, TEXT_ROWS), shard.name)


def _decode(decoder: Any, batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
    ids = [tokens[:-1] for tokens in batch["tokens"].to_pylist()]  # the last is end-of-text
    texts = decoder.decode_batch(ids, skip_special_tokens=False)
    for doc_id, text, size in zip(batch["doc_id"].to_pylist(), texts, batch["num_bytes"].to_pylist(), strict=True):
        if len(text.encode()) != size:
            raise DatasetError(
                f"{name}: document {doc_id.hex()} decodes to {len(text.encode()):,} bytes, {size:,} were encoded: the "
                "tokenizer does not give texts back, and only the work folder has them"
            )
    return pa.RecordBatch.from_arrays([batch["doc_id"], pa.array(texts, pa.large_string())], schema=TEXTS)

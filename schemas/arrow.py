"""Every table that Gristmill writes, as Arrow schemas: one comment a field says meaning, unit and writer.

Field names, order and nullability are part of the format: the bytes of a dataset depend on them.
"""

from collections.abc import Iterable

import pyarrow as pa

__all__ = [
    "EDIT",
    "EDITS",
    "FILES",
    "INDEX_DOCUMENTS",
    "INDEX_URLS",
    "INPUTS",
    "LEDGER",
    "SHARDS",
    "TEXT_PART",
    "VERDICT",
    "document_schema",
    "near_index_schema",
    "tokens_schema",
]


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


HASH = pa.binary(16)  # xxh3_128, big-endian bytes as `xxhash.xxh3_128_digest` gives them

EDIT = pa.struct(
    [
        _required("start", pa.uint32()),  # first byte of the span in the stored text
        _required("length", pa.uint32()),  # bytes replaced
        _required("replacement", pa.uint16()),  # row of `pipeline.text.edits.REPLACEMENTS`; 0 deletes
    ]
)


EDITS = pa.list_(pa.field("item", EDIT, nullable=False))  # sorted, disjoint

# A text part: one row a ledger record, alive or already dropped. Written by ingest. Contracts, section 2.
TEXT_PART = pa.schema(
    [
        _required("doc_id", HASH),  # before repeats are resolved (contracts, section 1)
        pa.field("record_id", pa.string()),  # WARC-Record-ID without <>, or the id field; null: none
        pa.field("url", pa.string()),  # as the archive has it, without <>
        _required("input", pa.string()),  # input name: path below the source's root
        _required("position", pa.int64()),  # file offset of the frame, or of the record, or Parquet row number
        _required("offset", pa.int64()),  # decoded bytes before the record in its frame
        pa.field("date", pa.int64()),  # milliseconds since 1970 UTC
        pa.field("status", pa.int16()),  # HTTP status
        pa.field("mime", pa.string()),  # media type, lower-cased, without parameters
        pa.field("charset", pa.string()),  # encoding the page was decoded with
        pa.field("stage", pa.string()),  # where the record was dropped in ingest: read, extract; null: alive
        pa.field("rule", pa.string()),  # why; null: alive
        pa.field("value", pa.float64()),  # what was measured against `threshold`
        pa.field("threshold", pa.float64()),
        pa.field("text", pa.large_string()),  # as extracted, once; null: dropped
        pa.field("text_hash", HASH),  # xxh3_128 of `text`
    ]
)


def document_schema(num_hashes: int, signals: Iterable[str]) -> pa.Schema:
    """A text part with the measure columns beside it, as select, pack and the report see documents.

    `signals` are the names of float64 columns. The columns of a group of the user's own join them.
    """
    return pa.schema(
        [
            *TEXT_PART,
            pa.field("final_hash", HASH),  # xxh3_128 of the text with its edits applied
            pa.field("num_bytes", pa.int64()),  # bytes of the text with its edits applied
            pa.field("edits", EDITS),
            pa.field("language", pa.string()),  # best label of the language model
            pa.field("signature", pa.binary(4 * num_hashes)),  # uint32 little-endian; null: too short for a shingle
            *(pa.field(name, pa.float64()) for name in signals),
        ]
    )


# The verdict over one part, by position: row i is row i of the part. Written by select, read by pack.
VERDICT = pa.schema(
    [
        _required("doc_id", HASH),  # final: repeats inside the source are resolved
        _required("kept", pa.bool_()),
        pa.field("stage", pa.string()),  # read, extract, rules, exact, near, split, edits; null: kept
        pa.field("rule", pa.string()),  # the first rule that dropped it; null: kept
        pa.field("value", pa.float64()),  # measured value; duplicates: similarity to `twin`
        pa.field("threshold", pa.float64()),
        pa.field("duplicate_of", HASH),  # the kept document fewest verified hops away
        pa.field("twin", HASH),  # the verified neighbour on a shortest chain to it
        pa.field("cluster", HASH),  # smallest doc_id of the component; null: dropped before duplicates
        pa.field("cluster_size", pa.uint32()),  # exact copies included
        pa.field("split", pa.string()),  # train or validation; null: dropped
        _required("passed", pa.bool_()),  # passed every rule (it may be a duplicate)
    ]
)

# The ledger: one row a record read, kept or dropped. Parquet. Contracts, section 6.
LEDGER = pa.schema(
    [
        _required("doc_id", HASH),
        pa.field("record_id", pa.string()),
        pa.field("url", pa.string()),
        _required("source", pa.string()),
        _required("input", pa.string()),
        _required("position", pa.int64()),  # see document_schema
        _required("offset", pa.int64()),
        _required("kept", pa.bool_()),
        pa.field("stage", pa.string()),
        pa.field("rule", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("duplicate_of", HASH),
        pa.field("twin", HASH),
        pa.field("cluster", HASH),
        pa.field("cluster_size", pa.uint32()),
        pa.field("language", pa.string()),
        pa.field("num_words", pa.uint32()),  # words of the raw text
        pa.field("num_bytes", pa.int64()),  # bytes of the final text
        pa.field("edited_bytes", pa.int64()),  # stored minus final bytes
        pa.field("final_hash", HASH),  # xxh3_128 of the text that was encoded
        pa.field("num_tokens", pa.uint32()),  # end-of-text included; null: dropped
        pa.field("shard", pa.uint32()),  # row of the generation's shards table
        pa.field("row", pa.uint32()),  # row of that shard
        pa.field("split", pa.string()),  # train or validation; null: dropped
    ]
)


def tokens_schema(token_type: pa.DataType, metadata: dict[str, str]) -> pa.Schema:
    """A shard: one row a document. `metadata` (source, split, tags, tokenizer) is written in sorted order."""
    return pa.schema(
        [
            _required("doc_id", HASH),
            _required("tokens", pa.list_(pa.field("item", token_type, nullable=False))),  # end-of-text last
            _required("num_bytes", pa.uint32()),  # bytes of the text that was encoded
        ],
        metadata={key: metadata[key] for key in sorted(metadata)},
    )


# One row a shard, cumulative over generations; a shard's number is its row and never changes. Arrow IPC.
SHARDS = pa.schema(
    [
        _required("path", pa.string()),  # below the dataset
        _required("bytes", pa.int64()),
        _required("sha256", pa.string()),  # hex
        _required("rows", pa.int64()),  # documents
        _required("tokens", pa.int64()),
        _required("text_bytes", pa.int64()),  # sum of num_bytes
        _required("source", pa.string()),
        _required("tags", pa.string()),  # canonical JSON object, {} for none
        _required("split", pa.string()),
        _required("longest_document", pa.int64()),  # tokens
        pa.field("packed_rows", pa.string()),  # canonical JSON {"2048": rows}; null: not asked for
        _required("generation", pa.int32()),  # that added it
        _required("replaces", pa.list_(pa.field("item", pa.uint32(), nullable=False))),  # shard numbers
        pa.field("retired_in", pa.int32()),  # generation that retired it; null: in use
    ]
)

# Every other file of a generation; a ledger's number is its row here. Parquet.
FILES = pa.schema([_required("path", pa.string()), _required("bytes", pa.int64()), _required("sha256", pa.string())])

# One row a piece read. Parquet.
INPUTS = pa.schema(
    [
        _required("source", pa.string()),
        _required("name", pa.string()),
        _required("start", pa.int64()),  # first byte (Parquet: row group) that the piece owns
        _required("end", pa.int64()),  # one past the last
        _required("size", pa.int64()),  # bytes of the whole file
        _required("sha256", pa.string()),  # of the bytes read
        _required("rows", pa.int64()),  # ledger rows
        _required("records", pa.string()),  # canonical JSON {"response": n, ...}, damage included
    ]
)

# index/documents: sorted by doc_id. Arrow IPC, fixed width.
INDEX_DOCUMENTS = pa.schema(
    [
        _required("doc_id", HASH),
        _required("shard", pa.uint32()),
        _required("row", pa.uint32()),
        _required("token_start", pa.uint64()),  # tokens before the document in its shard
        _required("num_tokens", pa.uint32()),
        _required("ledger", pa.uint32()),  # row of the files table
        _required("ledger_row", pa.uint32()),
    ]
)

# index/urls: sorted by hash. Arrow IPC, fixed width.
INDEX_URLS = pa.schema(
    [
        _required("url_hash", pa.uint64()),  # xxh3_64 of the URL's UTF-8 bytes
        _required("ledger", pa.uint32()),
        _required("ledger_row", pa.uint32()),
    ]
)


def near_index_schema(num_hashes: int, metadata: dict[str, str]) -> pa.Schema:
    """index/near: every document that passed the rules. Arrow IPC. `metadata`: shingle, scheme, seed, num_hashes."""
    return pa.schema(
        [
            _required("doc_id", HASH),
            _required("text_hash", HASH),  # final_hash
            pa.field("signature", pa.binary(4 * num_hashes)),  # null: too short for a shingle
            _required("cluster", HASH),
            _required("split", pa.string()),
            _required("status", pa.string()),  # kept, duplicate, removed
        ],
        metadata={key: metadata[key] for key in sorted(metadata)},
    )

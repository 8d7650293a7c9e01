"""Measuring a batch of texts: language, edits, signals and signature, from two compiled passes over the UTF-8."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from pipeline.measure import c4, c4_lines, fineweb, gopher, repetition
from pipeline.measure.counts import COLUMNS, Counts
from pipeline.measure.fasttext.model import FASTTEXT_VERSION
from pipeline.measure.language import LanguageModel
from pipeline.measure.minhash.sign import MINHASH_VERSION, sign
from pipeline.measure.pii import mask
from pipeline.measure.registry import SIGNALS
from pipeline.measure.urls import BlockList
from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.edits import apply_edits, compose_edits, make_edits, text_buffers
from pipeline.text.utf8 import BYTES, CHARS_VERSION, INDEXES, TABLE, TABLE_TYPE
from pipeline.text.word_tokenizer import TOKENS_VERSION, collect_tokens, decode_text, mark_tokens
from schemas.arrow import HASH
from schemas.recipe import Edits, Measure

__all__ = ["MEASURE_VERSION", "Measurer"]

# Part of every part's key: a number raised by hand when output changes, and what else shapes it.
MEASURE_VERSION = "/".join(["1", CHARS_VERSION, TOKENS_VERSION, FASTTEXT_VERSION, MINHASH_VERSION])

ROWS = types.int64[:, ::1]


@njit(nogil=True)
def _longest(offsets: Any) -> int:
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest


@kernel(types.void(BYTES, INDEXES, TABLE_TYPE, ROWS))
def _count_raw(data: Any, offsets: Any, table: Any, rows: Any) -> None:
    """Count in each text as extracted what Gopher's rules ask, into its row."""
    longest = _longest(offsets)
    slots = repetition.table_size(longest + 1)
    points, flags, no_places = np.empty(longest, np.int32), np.empty(longest, np.uint16), np.empty(0, np.int32)
    hashes, lengths, kinds = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.empty(longest, np.uint16)
    grams, ends = np.empty(longest, np.uint64), np.empty(longest + 1, np.int64)
    keys, heads = np.empty(slots, np.uint64), np.empty((slots, 2), np.int32)
    for text in range(offsets.size - 1):
        row = rows[text]
        size = decode_text(data, offsets[text], offsets[text + 1], table, points, flags, no_places)
        gopher.count_lines(points, flags, size, row)
        repetition.count_segments(points, flags, size, keys, row)
        mark_tokens(points, flags, size)
        num_tokens = collect_tokens(points, flags, size, hashes, lengths, kinds)
        gopher.count_words(lengths, kinds, num_tokens, row)
        repetition.count_ngrams(hashes, lengths, num_tokens, grams, ends, keys, heads, row)


@kernel(types.void(BYTES, INDEXES, TABLE_TYPE, ROWS))
def _count_c4(data: Any, offsets: Any, table: Any, rows: Any) -> None:
    """Count in each text of the view c4 what C4's and FineWeb's rules ask, into its row."""
    longest = _longest(offsets)
    points, flags, no_places = np.empty(longest, np.int32), np.empty(longest, np.uint16), np.empty(0, np.int32)
    hashes, lengths, kinds = np.empty(longest, np.uint64), np.empty(longest, np.int32), np.empty(longest, np.uint16)
    keys = np.empty(repetition.table_size(longest + 1), np.uint64)
    for text in range(offsets.size - 1):
        row = rows[text]
        size = decode_text(data, offsets[text], offsets[text + 1], table, points, flags, no_places)
        mark_tokens(points, flags, size)
        num_tokens = collect_tokens(points, flags, size, hashes, lengths, kinds)
        c4.count_sentences(kinds, num_tokens, row)
        fineweb.count_text_lines(points, flags, size, num_tokens, keys, row)


class Measurer:
    """Measures batches as a recipe asks. Holds the models: make one in each worker."""

    def __init__(self, measure: Measure, edits: Edits) -> None:
        self._measure, self._edits = measure, edits
        self._language = LanguageModel(measure.language_model)
        self._blocked = BlockList.load(measure.url_block_list) if measure.url_block_list else BlockList(())

    def measure(self, texts: pa.LargeStringArray, urls: pa.StringArray) -> pa.RecordBatch:
        """One row a text: language, edits, hashes, size, signature, then every signal in the registry's order.

        No text is null; a URL may be.
        """
        raw, offsets = text_buffers(texts)
        rows = np.zeros((len(texts), len(COLUMNS)), np.int64)
        _count_raw(raw, offsets, TABLE, rows)
        edits, firsts, found = c4_lines.rewrite_lines(raw, offsets, self._edits.c4)
        rows[:, COLUMNS["curly_brackets"]], rows[:, COLUMNS["lorem_ipsums"]] = found.T
        c4_edits = make_edits(firsts, *edits.T)
        c4_texts = apply_edits(texts, c4_edits)
        view, view_offsets = text_buffers(c4_texts)
        _count_c4(view, view_offsets, TABLE, rows)
        all_edits = compose_edits(c4_edits, mask(view, view_offsets, self._edits.mask))
        final_texts = apply_edits(texts, all_edits)
        labels, scores = self._language.predict(texts)
        counts = Counts(*rows.T)._replace(language_score=scores, url_blocked=self._blocked.blocked(urls.to_pylist()))
        return self._batch(texts, final_texts, all_edits, labels, counts)

    def _batch(
        self,
        texts: pa.LargeStringArray,
        final_texts: pa.LargeStringArray,
        edits: pa.ListArray,
        labels: pa.StringArray,
        counts: Counts,
    ) -> pa.RecordBatch:
        final, offsets = text_buffers(final_texts)
        text_hashes = _hashes(*text_buffers(texts))
        signatures, valid = sign(final, offsets, self._measure.minhash)
        columns: dict[str, pa.Array] = {
            "text_hash": text_hashes,
            "final_hash": text_hashes if final_texts is texts else _hashes(final, offsets),
            "num_bytes": pa.array(np.diff(offsets)),
            "edits": edits,
            "language": labels,
            "signature": _signature_column(signatures, valid),
        }
        for signal in SIGNALS:
            columns[signal.name] = pa.array(signal.function(counts), pa.float64())
        return pa.RecordBatch.from_pydict(columns)


def _hashes(data: np.ndarray, offsets: np.ndarray) -> pa.FixedSizeBinaryArray:
    """xxh3_128 of each text."""
    view = memoryview(data)  # type: ignore[arg-type]
    digests = [xxhash.xxh3_128_digest(view[start:end]) for start, end in pairwise(offsets.tolist())]
    return pa.array(digests, HASH)


def _signature_column(signatures: np.ndarray, valid: np.ndarray) -> pa.FixedSizeBinaryArray:
    """Signatures as little-endian bytes; null where a text is too short for a shingle."""
    size = 4 * signatures.shape[1]
    content = pa.py_buffer(np.ascontiguousarray(signatures, "<u4"))
    mask_bits = pa.array(valid).buffers()[1]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(valid), [mask_bits, content])

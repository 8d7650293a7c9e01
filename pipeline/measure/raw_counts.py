"""One compiled pass over the texts as extracted: everything that Gopher's rules ask."""

from typing import Any

import numpy as np

from pipeline.measure import gopher, repetition
from pipeline.measure.counts import RawCounts
from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.utf8 import BYTES, INDEXES, TABLE, TABLE_TYPE
from pipeline.text.word_tokenizer import collect_tokens, decode_text, mark_tokens

__all__ = ["ROWS", "count_raw", "longest_text"]

ROWS = types.int64[:, ::1]


@njit(nogil=True)
def longest_text(offsets: Any) -> int:
    """Bytes of the longest text."""
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    return longest


@kernel(types.void(BYTES, INDEXES, TABLE_TYPE, ROWS))
def _count_raw(data: Any, offsets: Any, table: Any, rows: Any) -> None:
    """Count in each text as extracted what Gopher's rules ask, into its row."""
    longest = longest_text(offsets)
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


def count_raw(data: np.ndarray, offsets: np.ndarray) -> RawCounts:
    """The counts of texts: text i is data[offsets[i]:offsets[i + 1]], UTF-8 (uint8, int64)."""
    rows = np.zeros((offsets.size - 1, len(RawCounts._fields)), np.int64)
    _count_raw(data, offsets, TABLE, rows)
    return RawCounts(*rows.T)

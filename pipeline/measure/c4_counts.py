"""One compiled pass over the texts that C4's rewriting has left: what C4's and FineWeb's rules ask."""

from typing import Any

import numpy as np

from pipeline.measure import c4, fineweb, repetition
from pipeline.measure.counts import C4Counts
from pipeline.measure.raw_counts import ROWS, longest_text
from pipeline.numba_kernels import kernel, types
from pipeline.text.utf8 import BYTES, INDEXES, TABLE, TABLE_TYPE
from pipeline.text.word_tokenizer import collect_tokens, decode_text, mark_tokens

__all__ = ["count_c4"]


@kernel(types.void(BYTES, INDEXES, TABLE_TYPE, ROWS))
def _count_c4(data: Any, offsets: Any, table: Any, rows: Any) -> None:
    """Count in each text of the view c4 what C4's and FineWeb's rules ask, into its row."""
    longest = longest_text(offsets)
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


def count_c4(data: np.ndarray, offsets: np.ndarray) -> C4Counts:
    """The counts of texts: text i is data[offsets[i]:offsets[i + 1]], UTF-8 (uint8, int64)."""
    rows = np.zeros((offsets.size - 1, len(C4Counts._fields)), np.int64)
    _count_c4(data, offsets, TABLE, rows)
    return C4Counts(*rows.T)

"""Deleting what is not seen: soft hyphens and zero-width characters that pages put inside words.

Deleted wherever they stand: U+00AD soft hyphen, U+2060 word joiner, U+FEFF zero width no-break space. U+200B zero width
space goes unless it stands beside a letter of a script written without spaces, where it parts words (Thai, Khmer,
Lao, Myanmar). U+200C and U+200D, the (non-)joiners, shape letters in Persian, the scripts of India and emoji; they go
where both neighbours are Latin, Greek or Cyrillic letters or digits, which they cannot shape.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.edits import make_edits, no_edits
from pipeline.text.utf8 import ALONE, BYTES, INDEXES, TABLE, TABLE_TYPE, WORD, decode

__all__ = ["INVISIBLE_VERSION", "delete_invisible"]

INVISIBLE_VERSION = "invisible-1"

SOFT_HYPHEN, WORD_JOINER, NO_BREAK = 0x00AD, 0x2060, 0xFEFF
ZERO_SPACE, NON_JOINER, JOINER = 0x200B, 0x200C, 0x200D
SHAPED_FROM = 0x0530  # letters below have one shape


@njit(nogil=True)
def _flags_of(point: int, table: Any) -> int:
    blocks, classes, flags, _, _ = table
    return np.int64(flags[np.int64(classes[np.int64(blocks[point >> 7]) << 7 | (point & 127)])])


@njit(nogil=True)
def _may_be_invisible(data: Any, i: int) -> bool:
    """Whether the bytes at `i` begin one of the characters above."""
    byte = data[i]
    if byte == 0xC2:
        return bool(data[i + 1] == 0xAD)
    if byte == 0xE2:
        second, third = data[i + 1], data[i + 2]
        return bool((second == 0x80 and 0x8B <= third <= 0x8D) or (second == 0x81 and third == 0xA0))
    return bool(byte == 0xEF and data[i + 1] == 0xBB and data[i + 2] == 0xBF)


@njit(nogil=True)
def _has_invisible(text: Any) -> bool:
    """Whether a text holds a byte of one of them: most do not."""
    found = False
    for byte in text:
        found |= (byte == 0xAD) | (byte == 0xE2) | (byte == 0xEF)
    if not found:
        return False
    found = False
    for i in range(text.size):
        byte = text[i]
        found |= byte in (0xC2, 0xE2, 0xEF) and _may_be_invisible(text, i)
    return found


@njit(nogil=True)
def _goes(point: int, before: int, after: int, table: Any) -> bool:
    """Whether an invisible character between two visible ones (-1: the text's end) is deleted."""
    if point == ZERO_SPACE:
        return not (
            (before >= 0 and _flags_of(before, table) & ALONE) or (after >= 0 and _flags_of(after, table) & ALONE)
        )
    if point in (NON_JOINER, JOINER):
        return bool(
            0 <= before < SHAPED_FROM
            and 0 <= after < SHAPED_FROM
            and _flags_of(before, table) & WORD
            and _flags_of(after, table) & WORD
        )
    return True


@njit(nogil=True)
def _visible_after(data: Any, i: int, end: int) -> int:
    """The first visible character from byte `i` on; -1 where the text ends before."""
    while i < end and _may_be_invisible(data, i):
        _, i = decode(data, i)
    if i == end:
        return -1
    point, _ = decode(data, i)
    return point


@kernel(types.Tuple((types.int64[:, ::1], types.int64[::1]))(BYTES, INDEXES, TABLE_TYPE))
def _find(data: Any, offsets: Any, table: Any) -> Any:
    """(start, length) of the runs to delete in each text, and how many come before each text."""
    num_texts = offsets.size - 1
    spans = np.empty((16, 2), np.int64)
    firsts = np.zeros(num_texts + 1, np.int64)
    n = 0
    for text in range(num_texts):
        first, end = offsets[text], offsets[text + 1]
        i, before = first, np.int64(-1)
        if not _has_invisible(data[first:end]):
            i = end
        while i < end:
            if data[i] < 0x80:
                before = np.int64(data[i])
                i += 1
                continue
            point, following = decode(data, i)
            if not _may_be_invisible(data, i):
                before, i = point, following
                continue
            if _goes(point, before, _visible_after(data, following, end), table):
                if n > firsts[text] and spans[n - 1, 0] + spans[n - 1, 1] == i - first:
                    spans[n - 1, 1] += following - i
                else:
                    if n == spans.shape[0]:
                        larger = np.empty((2 * n, 2), np.int64)
                        larger[:n] = spans
                        spans = larger
                    spans[n, 0], spans[n, 1] = i - first, following - i
                    n += 1
            i = following
        firsts[text + 1] = n
    return spans[:n], firsts


def delete_invisible(data: np.ndarray, offsets: np.ndarray) -> pa.ListArray:
    """Return the edits that delete the invisible characters of UTF-8 texts data[offsets[i]:offsets[i + 1]]."""
    spans, firsts = _find(data, offsets, TABLE)
    if not len(spans):
        return no_edits(offsets.size - 1)
    start, length = np.ascontiguousarray(spans.T)
    return make_edits(firsts, start, length, np.zeros(len(spans), np.int64))

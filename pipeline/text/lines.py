"""One normalization of line ends for everything that is measured.

A line ends where `str.splitlines` ends one: at a line feed, a carriage return (with a line feed behind it, both are
one end), a vertical tab, a form feed, U+001C to U+001E, NEL, U+2028 or U+2029. Every end is read as one line feed.
Blanks before an end, and at the end of the text, are not read; so a line of blanks is an empty line. Stored texts and
edits keep their bytes: it decides what is counted, never what is kept.
Differs: the published rules split on a line feed alone (Gopher's repetition, FineWeb) and count blanks at line ends,
so that the same page has another verdict with "\\r\\n".
"""

from typing import Any

import numpy as np

from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.utf8 import BYTES, INDEXES, LINE_END, SPACE, TABLE, TABLE_TYPE, decode

__all__ = ["lined_texts", "read_lines"]


NEWLINE, RETURN = 0x0A, 0x0D
NEWLINE_FLAGS = SPACE | LINE_END  # of U+000A in the table


@njit(nogil=True)
def read_lines(points: Any, flags: Any, size: int) -> int:
    """Rewrite the first `size` code points and their flags with normalized line ends; return how many are left."""
    n, filled = 0, 0  # code points written; the same up to the last one that is not a blank of its line
    after_return = False
    for i in range(size):
        point, flag = points[i], flags[i]
        if flag & LINE_END:
            if not (after_return and point == NEWLINE):
                points[filled], flags[filled] = NEWLINE, NEWLINE_FLAGS
                n = filled = filled + 1
            after_return = point == RETURN
            continue
        after_return = False
        points[n], flags[n] = point, flag
        n += 1
        if not flag & SPACE:
            filled = n
    return filled


@njit(nogil=True)
def _is_blank(data: Any, start: int, at: int, table: Any) -> bool:
    """Whether the character that ends before byte `at` is a blank; False at the start of the text."""
    blocks, classes, flags, _, _ = table
    first = at - 1
    while first > start and data[first] & 0xC0 == 0x80:
        first -= 1
    if first < start:
        return False
    point, _ = decode(data, first)
    kind = flags[np.int64(classes[np.int64(blocks[point >> 7]) << 7 | (point & 127)])]
    return (kind & SPACE) != 0 and (kind & LINE_END) == 0


@njit(nogil=True)
def _is_lined(data: Any, start: int, end: int, table: Any) -> bool:
    """Whether normalizing line ends changes nothing in a text."""
    text = data[start:end]
    for i in range(text.size):
        byte = text[i]
        if byte > 0x1E and byte != 0xC2 and byte != 0xE2:
            continue
        if byte == NEWLINE:
            # Most lines end with an ASCII character that is no blank.
            if i > 0 and not 0x20 < text[i - 1] < 0x80 and _is_blank(data, start, start + i, table):
                return False
            continue
        is_end = 0x0B <= byte <= 0x0D or 0x1C <= byte <= 0x1E or (byte == 0xC2 and text[i + 1] == 0x85)
        if is_end or (byte == 0xE2 and text[i + 1] == 0x80 and 0xA8 <= text[i + 2] <= 0xA9):
            return False
    return not _is_blank(data, start, end, table)


@kernel(types.Tuple((types.boolean, types.uint8[::1], types.int64[::1]))(BYTES, INDEXES, TABLE_TYPE))
def _write_lined(data: Any, offsets: Any, table: Any) -> Any:
    """Whether a text changes when normalized, and if so the UTF-8 of all normalized texts and its offsets."""
    num_texts = offsets.size - 1
    bounds = np.zeros(num_texts + 1, np.int64)
    changed = np.zeros(num_texts, np.bool_)
    for text in range(num_texts):
        changed[text] = not _is_lined(data, offsets[text], offsets[text + 1], table)
    if not np.any(changed):
        return False, np.empty(0, np.uint8), bounds
    out = np.empty(offsets[num_texts] - offsets[0], np.uint8)
    place = 0
    for text in range(num_texts):
        start, end = offsets[text], offsets[text + 1]
        if changed[text]:
            place = _write_text(data, start, end, table, out, place)
        else:
            for i in range(start, end):
                out[place + i - start] = data[i]
            place += end - start
        bounds[text + 1] = place
    return True, out[:place], bounds


@njit(nogil=True)
def _write_text(data: Any, start: int, end: int, table: Any, out: Any, place: int) -> int:
    """Write one normalized text from `place` on; return the place after it."""
    blocks, classes, flags, _, _ = table
    filled, after_return = place, False
    i = start
    while i < end:
        point, following = decode(data, i)
        kind = flags[np.int64(classes[np.int64(blocks[point >> 7]) << 7 | (point & 127)])]
        if kind & LINE_END:
            if not (after_return and point == NEWLINE):
                out[filled] = NEWLINE
                place = filled = filled + 1
            after_return = point == RETURN
        else:
            after_return = False
            for at in range(i, following):
                out[place] = data[at]
                place += 1
            if not kind & SPACE:
                filled = place
        i = following
    return filled


def lined_texts(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalize the line ends of texts (text i is data[offsets[i]:offsets[i + 1]]); the same arrays if they are."""
    changes, lined, bounds = _write_lined(data, offsets, TABLE)
    return (lined, bounds) if changes else (data, offsets)

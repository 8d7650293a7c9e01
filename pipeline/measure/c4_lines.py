"""C4's rewriting of a text, line by line, as edits over the text.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2, in datatrove 0.10's reading and
order of tests: long word, citations, end mark, few words, lorem ipsum, javascript, curly bracket, policy; then the
lines are joined by one newline and the whole is stripped. "{" and "lorem ipsum" are counted in lines that last to
those tests, for the rules in c4.py.
Differs: a text with "{" or "lorem ipsum" is rewritten all the same, since another recipe may turn those rules off.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.measure import c4
from pipeline.measure.counts import LineCounts
from pipeline.measure.signal_group import Batch, Measure
from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.edits import EDITS, compose_edits, make_edits
from pipeline.text.utf8 import BYTES, INDEXES, LINE_END, SPACE, TABLE, TABLE_TYPE
from pipeline.text.word_tokenizer import decode_text
from schemas.recipe import C4Lines

__all__ = ["COLUMNS", "SIGNALS", "rewrite_lines", "setup"]

DELETION, NEWLINE_REPLACEMENT = np.int64(0), np.int64(1)  # rows of pipeline.text.edits.REPLACEMENTS
END_MARKS = ".?!\"'"
END_MARK_POINTS = np.array([ord(mark) for mark in END_MARKS], np.int32)

PHRASES = (
    *("lorem ipsum", "javascript", "terms of use", "privacy policy"),
    *("cookie policy", "uses cookies", "use of cookies", "use cookies"),
)
LOREM, JAVASCRIPT = 1 << 0, 1 << 1  # bits by place in PHRASES; the others are policies
PHRASE_TEXT = np.frombuffer("".join(PHRASES).encode("ascii"), np.uint8)
PHRASE_ENDS = np.cumsum([len(phrase) for phrase in PHRASES])
PHRASE_BEGINS = np.array([any(phrase[0] == chr(point) for phrase in PHRASES) for point in range(128)])
CITATION_NAMES = ("edit]", "citation needed]")
CITATION_TEXT = np.frombuffer("".join(CITATION_NAMES).encode("ascii"), np.uint8)
CITATION_LENGTHS = np.array([len(name) for name in CITATION_NAMES])


@njit(nogil=True)
def _citation_length(points: Any, i: int, end: int) -> int:
    """Length of [12], [], [edit] or [citation needed] at i, where a bracket stands, or 0."""
    j = i + 1
    while j < end and 0x30 <= points[j] <= 0x39:
        j += 1
    if j < end and points[j] == 0x5D:
        return j + 1 - i
    first = 0
    for length in CITATION_LENGTHS:
        k = 0
        while k < length and i + 1 + k < end and points[i + 1 + k] == CITATION_TEXT[first + k]:
            k += 1
        if k == length:
            return length + 1
        first += length
    return 0


@njit(nogil=True)
def _find_phrases(clean: Any, size: int) -> int:
    """Bits of the PHRASES that occur in the first `size` lower-cased code points."""
    found = 0
    for i in range(size):
        point = clean[i]
        if point >= 0x80 or not PHRASE_BEGINS[point]:
            continue
        first = 0
        for phrase in range(PHRASE_ENDS.size):
            end = PHRASE_ENDS[phrase]
            if point == PHRASE_TEXT[first] and i + end - first <= size:
                k = 1
                while first + k < end and clean[i + k] == PHRASE_TEXT[first + k]:
                    k += 1
                if first + k == end:
                    found |= 1 << phrase
            first = end
    return found


@njit(nogil=True)
def _measure_words(flags: Any, start: int, end: int) -> tuple[int, int]:
    """Words between spaces in a stripped line, and the length of the longest."""
    words, longest, length = 0, 0, 0
    for i in range(start, end):
        if flags[i] & SPACE:
            length = 0
        else:
            words += length == 0
            length += 1
            longest = max(longest, length)
    return words, longest


@njit(nogil=True)
def _ends_well(points: Any, flags: Any, kept: Any, size: int) -> bool:
    """Whether a line (the places `kept` of its code points) ends with a mark that is no ellipsis."""
    if size == 0:
        return False
    last = points[kept[size - 1]]
    dots = 0
    while dots < 3 and dots < size and points[kept[size - 1 - dots]] == 0x2E:
        dots += 1
    if dots == 3:
        return False
    return bool(np.any(last == END_MARK_POINTS))


@njit(nogil=True)
def _clean_line(points: Any, start: int, end: int, citations: bool, kept: Any) -> int:
    """Write the places of a line's code points without its citations; returns how many are left."""
    size, i = 0, start
    while i < end:
        length = _citation_length(points, i, end) if citations and points[i] == 0x5B else 0
        if length:
            i += length
        else:
            kept[size] = i
            size += 1
            i += 1
    return size


@njit(nogil=True)
def _add(edits: Any, n: int, first: int, start: int, end: int, replacement: int) -> int:
    """Append an edit of [start, end); a deletion that abuts the one before (edits from `first` on) widens it."""
    if start == end:
        return n
    if (
        n > first
        and replacement == DELETION
        and edits[n - 1, 2] == DELETION
        and edits[n - 1, 0] + edits[n - 1, 1] == start
    ):
        edits[n - 1, 1] += end - start
        return n
    edits[n, 0], edits[n, 1], edits[n, 2] = start, end - start, replacement
    return n + 1


@njit(nogil=True)
def _add_gap(edits: Any, n: int, first: int, data: Any, origin: int, start: int, end: int) -> int:
    """Append edits that leave one newline of what lies between two kept lines.

    A newline of the text itself is kept where there is one, so that a later edit of a line does not touch it.
    """
    for place in range(start, end):
        if data[origin + place] == 0x0A:
            n = _add(edits, n, first, start, place, DELETION)
            return _add(edits, n, first, place + 1, end, DELETION)
    return _add(edits, n, first, start, end, NEWLINE_REPLACEMENT)


@njit(nogil=True)
def _rewrite_text(
    data: Any, origin: int, points: Any, flags: Any, places: Any, size: int, options: Any, table: Any, scratch: Any,
    edits: Any, n: int, out: Any,
) -> int:  # fmt: skip
    """Append the edits of one text to `edits`, count into `out` ("{" and lorem ipsum); returns the number of edits."""
    end_mark, min_words, max_word_chars, citations, javascript, policies = options
    kept, clean = scratch
    blocks, classes, _, lower, _ = table
    begun = False  # a kept line has come
    first_edit, done = n, np.int64(0)  # edits before n and text before byte `done` are settled
    settled, settled_edits = np.int64(0), n  # the same up to the last character that is no space
    line = 0
    while line < size:
        line_end = line
        while line_end < size and not flags[line_end] & LINE_END:
            line_end += 1
        start, end = line, line_end
        crlf = line_end + 1 < size and points[line_end] == 0x0D and points[line_end + 1] == 0x0A
        line = line_end + (2 if crlf else 1)
        while start < end and flags[start] & SPACE:
            start += 1
        while end > start and flags[end - 1] & SPACE:
            end -= 1
        words, longest = _measure_words(flags, start, end)
        if max_word_chars and longest > max_word_chars:
            continue
        left = _clean_line(points, start, end, citations, kept)
        if (end_mark and not _ends_well(points, flags, kept, left)) or words < min_words:
            continue
        brackets = 0
        for k in range(left):
            point = np.int64(points[kept[k]])
            brackets += point == 0x7B
            clean[k] = point + lower[classes[np.int64(blocks[point >> 7]) << 7 | (point & 127)]]
        found = _find_phrases(clean, left)
        out[1] += found & LOREM
        if javascript and found & JAVASCRIPT:
            continue
        out[0] += brackets
        if policies and found > (LOREM | JAVASCRIPT):
            continue
        # The whole is stripped in the end: blank lines in front are dropped, spaces behind forgotten.
        low, high = 0, left
        while high > 0 and flags[kept[high - 1]] & SPACE:
            high -= 1
        if not begun:
            while low < high and flags[kept[low]] & SPACE:
                low += 1
            if low == high:
                continue
            n = _add(edits, n, first_edit, np.int64(0), places[kept[low]], DELETION)
            begun = True
        elif left == 0:
            n = _add_gap(edits, n, first_edit, data, origin, done, places[end])
            done = places[end]
            continue
        else:
            n = _add_gap(edits, n, first_edit, data, origin, done, places[kept[0]])
        for k in range(low, left):
            if k > low and kept[k] != kept[k - 1] + 1:
                n = _add(edits, n, first_edit, places[kept[k - 1] + 1], places[kept[k]], DELETION)
            if k == high - 1:
                settled, settled_edits = places[kept[k] + 1], n
        done = places[kept[left - 1] + 1]
    n = settled_edits
    return _add(edits, n, first_edit, settled, places[size], DELETION)


OPTIONS = types.Tuple((types.boolean, types.int64, types.int64, types.boolean, types.boolean, types.boolean))


@kernel(
    types.Tuple((types.int64[:, ::1], types.int64[::1], types.int64[:, ::1]))(BYTES, INDEXES, TABLE_TYPE, OPTIONS),
)
def _rewrite(data: Any, offsets: Any, table: Any, options: Any) -> Any:
    """Edits (start, length, replacement), how many come before each text, and ("{", lorem ipsum) for each text."""
    num_texts = offsets.size - 1
    longest = 0
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    points, flags, places = np.empty(longest, np.int32), np.empty(longest, np.uint16), np.empty(longest + 1, np.int64)
    scratch = (np.empty(longest, np.int32), np.empty(longest, np.int32))
    # A line gives two edits and takes a byte or more; pages that are not written cost nothing.
    edits = np.empty((offsets[num_texts] - offsets[0] + 2 * num_texts, 3), np.int64)
    counts = np.zeros((num_texts, 2), np.int64)
    firsts = np.zeros(num_texts + 1, np.int64)
    for text in range(num_texts):
        origin = offsets[text]
        size = decode_text(data, origin, offsets[text + 1], table, points, flags, places)
        firsts[text + 1] = _rewrite_text(
            data, origin, points, flags, places, size, options, table, scratch, edits, firsts[text], counts[text]
        )
    return edits[: firsts[num_texts]], firsts, counts


NO_REWRITING = C4Lines(end_mark=False, min_words=0, max_word_chars=0, citations=False, javascript=False, policies=False)


def rewrite_lines(
    data: np.ndarray, offsets: np.ndarray, lines: C4Lines | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The edits that C4 makes in each text, and what it counts on the way.

    Returns edits (E, 3) of (start byte in the text, length, replacement id), the number of edits before each text
    (texts + 1), and (texts, 2) counts of "{" and of lines with lorem ipsum. Without `lines` there are no edits, and
    every line counts.
    """
    chosen = lines or NO_REWRITING
    options = (
        chosen.end_mark, chosen.min_words, chosen.max_word_chars, chosen.citations, chosen.javascript, chosen.policies
    )  # fmt: skip
    edits, firsts, counts = _rewrite(data, offsets, TABLE, options)
    if lines is None:
        return edits[:0], np.zeros_like(firsts), counts
    return edits, firsts, counts


COLUMNS = {"c4_edits": EDITS}  # from the stored text to the view c4
SIGNALS = {signal.name: signal.meaning for signal in c4.LINE_SIGNALS}


def setup(options: Mapping[str, Any]) -> Measure:
    """Rewrite lines by `options["lines"]`, the fields of a recipe's `edits.c4`; None: no edit."""
    lines = C4Lines(**options["lines"]) if options["lines"] else None

    def measure(batch: Batch) -> dict[str, Any]:
        edits, firsts, found = rewrite_lines(*batch.buffers(), lines)
        counts = LineCounts(*found.T)
        columns = {signal.name: signal.function(counts) for signal in c4.LINE_SIGNALS}
        return {"c4_edits": compose_edits(batch.column("raw_edits"), make_edits(firsts, *edits.T)), **columns}

    return measure

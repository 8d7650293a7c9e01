"""Edits: what is changed in a text, as spans over the text as it was extracted.

An edit replaces `length` bytes from byte `start` by a row of REPLACEMENTS. The edits of a text are sorted and
disjoint, so that any view of it is one pass over the stored bytes. A batch's edits are an Arrow list array of
`schemas.arrow.EDIT`, a list a text.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.numba_kernels import kernel, njit, types
from schemas.arrow import EDIT, EDITS

__all__ = [
    "EDITS",
    "REPLACEMENTS",
    "apply_edits",
    "compose_edits",
    "make_edits",
    "merge_edits",
    "no_edits",
    "text_buffers",
]

# Append-only: parts on disk refer to these by number.
# The IPv4 addresses are from the blocks set aside for documentation (RFC 5737).
REPLACEMENTS = (
    "",
    "\n",
    "email@example.com",
    "firstname.lastname@example.org",
    "192.0.2.14",
    "192.0.2.187",
    "198.51.100.23",
    "198.51.100.206",
    "203.0.113.51",
    "203.0.113.142",
)
REPLACEMENT_BYTES = np.frombuffer("".join(REPLACEMENTS).encode(), np.uint8)
REPLACEMENT_ENDS = np.cumsum([0] + [len(text.encode()) for text in REPLACEMENTS])


READ_U8, READ_I64, READ_U32, READ_U16 = (
    types.Array(kind, 1, "C", readonly=True) for kind in (types.uint8, types.int64, types.uint32, types.uint16)
)
SPANS = types.Tuple((READ_I64, READ_U32, READ_U32, READ_U16))  # edits before each text, start, length, replacement
NEW_SPANS = types.Tuple((types.int64[::1], types.uint32[::1], types.uint32[::1], types.uint16[::1]))


def text_buffers(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 and offsets of a column of texts, without a copy: text i is data[offsets[i]:offsets[i + 1]].

    No text may be null.
    """
    assert pa.types.is_large_string(texts.type)
    assert texts.null_count == 0, "drop rows without text first"
    _, offsets, data = texts.buffers()
    if offsets is None or len(texts) == 0:
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return (np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)), bounds


def make_edits(firsts: np.ndarray, start: np.ndarray, length: np.ndarray, replacement: np.ndarray) -> pa.ListArray:
    """The Arrow column of edits; `firsts` (texts + 1) is the number of edits before each text."""
    columns = [start.astype(np.uint32), length.astype(np.uint32), replacement.astype(np.uint16)]
    structs = pa.StructArray.from_arrays([pa.array(column) for column in columns], fields=list(EDIT))
    return pa.ListArray.from_arrays(pa.array(firsts.astype(np.int32)), structs, type=EDITS)


def no_edits(num_texts: int) -> pa.ListArray:
    """An empty list of edits for each text."""
    empty = np.empty(0, np.int64)
    return make_edits(np.zeros(num_texts + 1, np.int64), empty, empty, empty)


def _spans(edits: pa.ListArray) -> tuple[np.ndarray, ...]:
    """The column as arrays: edits before each text, start, length, replacement. No list may be null."""
    assert edits.null_count == 0, "drop rows without text first"
    firsts = edits.offsets.to_numpy().astype(np.int64)
    values = edits.values
    return firsts, *(np.ascontiguousarray(values.field(name).to_numpy()) for name in ("start", "length", "replacement"))


@njit(nogil=True)
def _copy(out: Any, place: int, data: Any, start: int, end: int) -> int:
    """Copy data[start:end] to `place`; returns the place after it. A loop: slices take seconds to compile."""
    for i in range(end - start):
        out[place + i] = data[start + i]
    return place + end - start


def apply_edits(texts: pa.LargeStringArray, edits: pa.ListArray) -> pa.LargeStringArray:
    """The texts with their edits applied; the same array where there are none."""
    assert len(texts) == len(edits)
    if len(edits) == 0 or len(edits.flatten()) == 0:
        return texts
    data, offsets = text_buffers(texts)
    out, bounds = _apply(data, offsets, _spans(edits), REPLACEMENT_BYTES, REPLACEMENT_ENDS)
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(bounds), pa.py_buffer(out))


@kernel(
    types.Tuple((types.uint8[::1], types.int64[::1]))(READ_U8, READ_I64, SPANS, READ_U8, READ_I64),
)
def _apply(data: Any, offsets: Any, spans: Any, replacement_bytes: Any, replacement_ends: Any) -> Any:
    """New UTF-8 and offsets: measure first, then copy what lies between the edits."""
    firsts, start, length, replacement = spans
    num_texts = offsets.size - 1
    bounds = np.zeros(num_texts + 1, np.int64)
    for text in range(num_texts):
        size = offsets[text + 1] - offsets[text]
        for edit in range(firsts[text], firsts[text + 1]):
            row = np.int64(replacement[edit])
            size += replacement_ends[row + 1] - replacement_ends[row] - np.int64(length[edit])
        bounds[text + 1] = bounds[text] + size
    out = np.empty(bounds[num_texts], np.uint8)
    for text in range(num_texts):
        place, i = bounds[text], offsets[text]
        for edit in range(firsts[text], firsts[text + 1]):
            end = offsets[text] + np.int64(start[edit])
            place = _copy(out, place, data, i, end)
            i = end + np.int64(length[edit])
            row = np.int64(replacement[edit])
            place = _copy(out, place, replacement_bytes, replacement_ends[row], replacement_ends[row + 1])
        _copy(out, place, data, i, offsets[text + 1])
    return out, bounds


def merge_edits(earlier: pa.ListArray, later: pa.ListArray) -> pa.ListArray:
    """Both columns of edits as one, sorted and disjoint; positions of both are in the stored text.

    A later edit absorbs the earlier ones that it shares bytes with: the result covers them all, and deletes where one
    of them does, else it replaces as the later one does. Deletions that abut become one; nothing else is changed by an
    edit that only abuts it, so that a deleted footnote mark behind a masked address does not delete the address.
    """
    assert len(earlier) == len(later)
    if len(later.flatten()) == 0:
        return earlier
    return make_edits(*_merge(_spans(earlier), _spans(later)))


@njit(NEW_SPANS(SPANS, SPANS), nogil=True, cache=True)
def _merge(earlier: Any, later: Any) -> Any:
    """One pass over both lists of each text by start; spans that overlap the one being built join it."""
    num_texts = earlier[0].size - 1
    room = earlier[1].size + later[1].size
    firsts = np.zeros(num_texts + 1, np.int64)
    starts, lengths, rows = np.empty(room, np.uint32), np.empty(room, np.uint32), np.empty(room, np.uint16)
    n = 0
    for text in range(num_texts):
        a, a_end = earlier[0][text], earlier[0][text + 1]
        b, b_end = later[0][text], later[0][text + 1]
        first, end, from_later = n, np.int64(0), False
        while a < a_end or b < b_end:
            take_later = a == a_end or (b < b_end and later[1][b] < earlier[1][a])
            if take_later:
                start, length, row = np.int64(later[1][b]), np.int64(later[2][b]), later[3][b]
                b += 1
            else:
                start, length, row = np.int64(earlier[1][a]), np.int64(earlier[2][a]), earlier[3][a]
                a += 1
            both_delete = n > first and rows[n - 1] == 0 and row == 0
            if n > first and (start < end or (start == end and both_delete)):
                if row == 0 or rows[n - 1] == 0:
                    rows[n - 1] = 0
                elif take_later and not from_later:
                    rows[n - 1] = row
                from_later |= take_later
                end = max(end, start + length)
                lengths[n - 1] = end - np.int64(starts[n - 1])
            else:
                starts[n], lengths[n], rows[n] = start, length, row
                end, from_later = start + length, take_later
                n += 1
        firsts[text + 1] = n
    return firsts, starts[:n], lengths[:n], rows[:n]


def compose_edits(view: pa.ListArray, on_view: pa.ListArray) -> pa.ListArray:
    """`view`'s edits followed by edits whose positions are in that view's text, as one column over the stored text."""
    assert len(view) == len(on_view)
    if len(on_view.flatten()) == 0:
        return view
    return merge_edits(view, make_edits(*_to_stored(_spans(view), _spans(on_view), REPLACEMENT_ENDS)))


@njit(NEW_SPANS(SPANS, SPANS, READ_I64), nogil=True, cache=True)
def _to_stored(view: Any, on_view: Any, replacement_ends: Any) -> Any:
    """Map spans of the view to the stored text.

    A span that begins or ends inside a replacement takes all that it replaced; deletions at its ends stay outside.
    """
    num_texts = view[0].size - 1
    size = on_view[1].size
    starts, lengths, rows = np.empty(size, np.uint32), np.empty(size, np.uint32), np.empty(size, np.uint16)
    firsts = np.zeros(num_texts + 1, np.int64)
    n = 0
    for text in range(num_texts):
        edit, edits_end = view[0][text], view[0][text + 1]
        shift = np.int64(0)  # stored minus view position behind the edits passed
        for span in range(on_view[0][text], on_view[0][text + 1]):
            low = np.int64(on_view[1][span])
            high = low + np.int64(on_view[2][span])
            stored_low, stored_high = np.int64(-1), np.int64(-1)
            while edit < edits_end:
                at = np.int64(view[1][edit]) - shift  # where the edit's replacement begins in the view
                row = np.int64(view[3][edit])
                new = replacement_ends[row + 1] - replacement_ends[row]
                if stored_low < 0 and low < at:
                    stored_low = low + shift
                if at >= high:
                    break
                stored_end = np.int64(view[1][edit]) + np.int64(view[2][edit])
                if at + new > low:
                    if stored_low < 0 and low < at + new:
                        stored_low = np.int64(view[1][edit])
                    if high <= at + new:
                        # It ends inside this replacement, where the next span may begin.
                        stored_high = stored_end
                        break
                shift = stored_end - (at + new)
                edit += 1
            if stored_low < 0:
                stored_low = low + shift
            if stored_high < 0:
                stored_high = high + shift
            starts[n], lengths[n], rows[n] = stored_low, stored_high - stored_low, on_view[3][span]
            n += 1
        firsts[text + 1] = n
    return firsts, starts[:n], lengths[:n], rows[:n]

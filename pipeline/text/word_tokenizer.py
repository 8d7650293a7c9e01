"""Tokens as the Gopher rules count them: words, and punctuation by itself.

Follows spaCy 3.8's rule-based English tokenizer, which datatrove uses: between spaces, punctuation is split off both
ends (a run of full stops stays together), possessives, contractions and units leave their word, and what is left is
split at hyphens, slashes and the like between letters, unless it looks like a URL or an e-mail address.
Differs: spaCy's lists of emoticons and of contractions without an apostrophe ("dont", "cannot") are left out; a
contraction is split after any word, not after listed ones; letters of scripts without spaces are tokens by themselves
(`ALONE` in utf8.py). Positions in this file count code points.
"""

from typing import Any

import numpy as np

from pipeline.numba_kernels import njit
from pipeline.text.affixes import mark_affixes, packed
from pipeline.text.hashing import HASH_FACTOR, HASH_START, SHIFT_32, mix64
from pipeline.text.lines import read_lines
from pipeline.text.utf8 import (
    ALONE,
    CUT,
    JOINER,
    LETTER,
    LINE_END,
    LOWER_OR_UNCASED,
    MARK_P,
    SPACE,
    SYMBOL,
    TERMINAL,
    TRIMMED,
    decode,
)

__all__ = [
    "ALPHABETIC",
    "BEGINS_LINE",
    "FULL_STOP",
    "ONLY_PUNCTUATION",
    "STOP_WORD_SHIFT",
    "WORD_TOKEN",
    "collect_tokens",
    "decode_text",
    "mark_tokens",
]

# What a token is.
WORD_TOKEN = 1 << 0  # not made of symbols alone
ALPHABETIC = 1 << 1  # has a letter
FULL_STOP = 1 << 2  # one Sentence_Terminal character
ONLY_PUNCTUATION = 1 << 3  # category P alone
BEGINS_LINE = 1 << 4  # the first of its line
STOP_WORD_SHIFT = 8  # from here on, one bit for each of Gopher's eight stop words


# Rae et al. 2021, appendix A.1
(THE,), (BE,), (TO,), (OF,), (AND,), (THAT,), (HAVE,), (WITH,) = map(
    packed, ("the", "be", "to", "of", "and", "that", "have", "with")
)


@njit(nogil=True)
def decode_text(data: Any, start: int, end: int, table: Any, points: Any, flags: Any, places: Any) -> int:
    """Write code points, their flags and (unless `places` is empty) their first bytes; return how many there are.

    `places` counts from `start` and gets one more entry, `end`. Without places the text is for measuring, and is read
    with normalized line ends (lines.py).
    """
    blocks, classes, meanings, _, _ = table
    keep_places = places.size > 0
    n = 0
    i = start
    while i < end:
        if keep_places:
            places[n] = i - start
        byte = data[i]
        if byte < 0x80:
            point = np.int64(byte)
            i += 1
        else:
            point, i = decode(data, i)
        points[n] = point
        flags[n] = meanings[classes[np.int64(blocks[point >> 7]) << 7 | (point & 127)]]
        n += 1
    if not keep_places:
        return read_lines(points, flags, n)
    places[n] = end - start
    return n


@njit(nogil=True)
def mark_tokens(points: Any, flags: Any, size: int) -> None:
    """Set CUT where a token begins. A token ends where the next begins or a space stands."""
    i = np.int64(0)  # not a literal, for which the functions below would be compiled once more
    while i < size:
        if flags[i] & SPACE:
            i += 1
            continue
        start = i
        every = before = LETTER
        while i < size and not flags[i] & SPACE:
            before = every
            every &= flags[i] if not flags[i] & ALONE else 0
            i += 1
        flags[start] |= CUT
        if every:
            continue
        # Two short cuts for the most: letters and a comma or the like, a long word and a full stop.
        last = i - 1
        comma = flags[last] & TRIMMED
        full_stop = points[last] == 0x2E and i - start > 8 and flags[last - 1] & LOWER_OR_UNCASED
        if before and last > start and (comma or full_stop):
            flags[last] |= CUT
        else:
            _mark_chunk(points, flags, start, i)


@njit(nogil=True)
def _mark_chunk(points: Any, flags: Any, start: int, end: int) -> None:
    """Mark the tokens of a run without spaces: letters that stand alone, and what lies between them."""
    i = start
    while i < end:
        first = i
        if flags[i] & ALONE:
            i += 1
            while i < end and flags[i] & JOINER:
                i += 1
            if i < end:
                flags[i] |= CUT
        else:
            while i < end and not flags[i] & ALONE:
                i += 1
            if i < end:
                flags[i] |= CUT
            mark_affixes(points, flags, first, i)


@njit(nogil=True)
def _stop_word(key: Any) -> int:
    """The bit of a stop word by its packed characters, 0 for any other word."""
    if key == THE:
        return 1
    if key == BE:
        return 2
    if key == TO:
        return 4
    if key == OF:
        return 8
    if key == AND:
        return 16
    if key == THAT:
        return 32
    if key == HAVE:
        return 64
    return 128 if key == WITH else 0


@njit(nogil=True)
def collect_tokens(points: Any, flags: Any, size: int, hashes: Any, lengths: Any, kinds: Any) -> int:
    """Write hash (of its code points, case kept), length and kind of each token; returns how many tokens there are."""
    n = 0
    new_line = True
    i = 0
    while i < size:
        if flags[i] & SPACE:
            new_line |= (flags[i] & LINE_END) != 0
            i += 1
            continue
        start = i
        h, key, highest = HASH_START, np.uint64(0), 0
        some, every = flags[i], flags[i]
        while True:
            h = (h ^ np.uint64(points[i])) * HASH_FACTOR
            h ^= h >> SHIFT_32
            key = key << np.uint64(8) | np.uint64(points[i])
            highest |= points[i]
            some |= flags[i]
            every &= flags[i]
            i += 1
            if i == size or flags[i] & (SPACE | CUT):
                break
        length = i - start
        kind = np.int64(_stop_word(key)) << STOP_WORD_SHIFT if length <= 4 and highest < 0x80 else np.int64(0)
        if not every & SYMBOL:
            kind |= WORD_TOKEN
        if some & LETTER:
            kind |= ALPHABETIC
        if length == 1 and some & TERMINAL:
            kind |= FULL_STOP
        if every & MARK_P:
            kind |= ONLY_PUNCTUATION
        if new_line:
            kind |= BEGINS_LINE
            new_line = False
        hashes[n], lengths[n], kinds[n] = mix64(h), length, kind
        n += 1
    return n

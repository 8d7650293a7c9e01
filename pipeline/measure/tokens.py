"""Tokens as the Gopher rules count them: words, and punctuation by itself.

Follows spaCy 3.8's rule-based English tokenizer, which datatrove uses: between spaces, punctuation is split off both ends
(a run of full stops stays together), possessives, contractions and units leave their word, and what is left is split at
hyphens, slashes and the like between letters, unless it looks like a URL or an e-mail address.
Differs: spaCy's lists of emoticons and of contractions without an apostrophe ("dont", "cannot") are left out; a contraction is
split after any word, not after listed ones; letters of scripts without spaces are tokens by themselves (`ALONE` in chars.py).
Positions in this file count code points.
"""

from typing import Any

import numpy as np
from numba import njit

from .chars import (
    ALONE,
    CURRENCY,
    ICON,
    JOINER,
    LETTER,
    LINE_END,
    LOWER,
    MARK_P,
    QUOTE,
    SPACE,
    SYMBOL,
    TERMINAL,
    TRIMMED,
    UPPER,
    WORD,
    decode,
)
from .words import HASH_FACTOR, HASH_START, SHIFT_32, mix64

__all__ = [
    "ALPHABETIC",
    "BEGINS_LINE",
    "FULL_STOP",
    "ONLY_PUNCTUATION",
    "STOP_WORD_SHIFT",
    "TOKENS_VERSION",
    "WORD_TOKEN",
    "collect_tokens",
    "decode_text",
    "mark_tokens",
]

TOKENS_VERSION = "1"

CUT = 1 << 15  # on a code point's flags: a token begins here

# What a token is.
WORD_TOKEN = 1 << 0  # not made of symbols alone
ALPHABETIC = 1 << 1  # has a letter
FULL_STOP = 1 << 2  # one Sentence_Terminal character
ONLY_PUNCTUATION = 1 << 3  # category P alone
BEGINS_LINE = 1 << 4  # the first of its line
STOP_WORD_SHIFT = 8  # from here on, one bit for each of Gopher's eight stop words


def _packed(*strings: str) -> np.ndarray:
    """Short ASCII strings as sorted numbers, one character a byte, the last lowest."""
    assert all(len(string) <= 8 for string in strings)
    return np.array(sorted(int.from_bytes(string.encode("ascii"), "big") for string in strings), np.uint64)


# After a number these are a token of their own (spaCy's units, and am, pm).
UNITS = _packed(
    *"km m dm cm mm ha nm yd in ft kg g mg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % am pm".split(),
    *("a.m.", "p.m."),
)
# Never split: English abbreviations with their full stop, and contractions that stand alone, as spaCy lists them.
UNSPLIT = _packed(
    *"Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans.".split(),
    *"Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep.".split(),
    *"Sept. Tenn. Va. Wash. Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr.".split(),
    *"Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s.".split(),
    *(f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyz"),
    *"'s 'S 'd 're 'll 'em 'cause 'Cause 'cos 'Cos 'bout".split(),
)
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")  # Rae et al. 2021, appendix A.1
(THE,), (BE,), (TO,), (OF,), (AND,), (THAT,), (HAVE,), (WITH,) = (_packed(word) for word in STOP_WORDS)


@njit(nogil=True)
def decode_text(data: Any, start: int, end: int, table: Any, points: Any, flags: Any, places: Any) -> int:
    """Write code points, their flags and (unless `places` is empty) their first bytes; returns how many code points there are.

    `places` counts from `start` and gets one more entry, `end`.
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
    if keep_places:
        places[n] = end - start
    return n


@njit(nogil=True)
def mark_tokens(points: Any, flags: Any, size: int) -> None:
    """Set CUT where a token begins. A token ends where the next begins or a space stands."""
    i = 0
    while i < size:
        if flags[i] & SPACE:
            i += 1
            continue
        start = i
        every = flags[i]
        while i < size and not flags[i] & SPACE:
            every &= flags[i] if not flags[i] & ALONE else 0
            i += 1
        flags[start] |= CUT
        if not every & LETTER:
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
            _mark_affixes(points, flags, first, i)


@njit(nogil=True)
def _mark_affixes(points: Any, flags: Any, low: int, high: int) -> None:
    """Split prefixes and suffixes off [low, high) in turn, then the rest at its infixes."""
    while low < high and not _is_unsplit(points, low, high):
        prefix = _prefix_length(points, flags, low, high)
        low += prefix
        if low == high:
            return
        flags[low] |= CUT
        if prefix and _is_unsplit(points, low, high):
            return
        suffix = _suffix_length(points, flags, low, high)
        high -= suffix
        if suffix:
            flags[high] |= CUT
        if prefix + suffix == 0:
            _mark_infixes(points, flags, low, high)
            return


@njit(nogil=True)
def _pack(points: Any, low: int, high: int) -> Any:
    """The ASCII string [low, high) as `_packed` has it; 0 where it is longer than 8 characters or not ASCII."""
    key = np.uint64(0)
    if high - low > 8:
        return key
    for i in range(low, high):
        if points[i] > 127:
            return np.uint64(0)
        key = key << np.uint64(8) | np.uint64(points[i])
    return key


@njit(nogil=True)
def _is_listed(key: Any, keys: Any) -> bool:
    place = np.searchsorted(keys, key)
    return place < keys.size and keys[place] == key


@njit(nogil=True)
def _is_unsplit(points: Any, low: int, high: int) -> bool:
    if high - low > 8 or (points[high - 1] != 0x2E and points[low] != 0x27):
        return False
    return _is_listed(_pack(points, low, high), UNSPLIT)


@njit(nogil=True)
def _is_digit(point: int) -> bool:
    return 0x30 <= point <= 0x39


@njit(nogil=True)
def _dots_before(points: Any, low: int, high: int) -> int:
    """Length of the run of full stops that ends at `high`."""
    i = high
    while i > low and points[i - 1] == 0x2E:
        i -= 1
    return high - i


@njit(nogil=True)
def _dots_from(points: Any, low: int, high: int) -> int:
    """Length of the run of full stops that begins at `low`."""
    i = low
    while i < high and points[i] == 0x2E:
        i += 1
    return i - low


@njit(nogil=True)
def _prefix_length(points: Any, flags: Any, low: int, high: int) -> int:
    """Code points to split off the front of [low, high)."""
    point = points[low]
    if point == 0x2E:
        dots = _dots_from(points, low, high)
        return dots if dots > 1 else 0
    if flags[low] & (TRIMMED | CURRENCY) or point in (0xA7, 0x25, 0x3D, 0x2014, 0x2013):  # § % = — –  # noqa: RUF003
        return 1
    if point == 0x2B:
        return 0 if low + 1 < high and _is_digit(points[low + 1]) else 1
    if point in (0x41, 0x43, 0x55) and low + 2 < high:  # A$ C$ US$
        if point == 0x55 and points[low + 1] == 0x53 and points[low + 2] == 0x24:
            return 3
        if point != 0x55 and points[low + 1] == 0x24:
            return 2
    return 0


@njit(nogil=True)
def _suffix_length(points: Any, flags: Any, low: int, high: int) -> int:
    """Code points to split off the end of [low, high)."""
    last = points[high - 1]
    before = points[high - 2] if high - low > 1 else 0
    if last == 0x2E:
        return _full_stop_length(points, flags, low, high)
    if last in (0x73, 0x53) and before in (0x27, 0x2019):  # 's 'S ’s ’S  # noqa: RUF003
        return 2
    if flags[high - 1] & TRIMMED or last in (0x2014, 0x2013):
        return 1
    if _is_digit(before) and (last == 0x2B or flags[high - 1] & CURRENCY):
        return 1
    if last < 0x80:
        digit = high - 1
        while digit >= low and digit >= high - 5 and not _is_digit(points[digit]):
            digit -= 1
        if low <= digit < high - 1 and _is_digit(points[digit]) and _is_listed(_pack(points, digit + 1, high), UNITS):
            return high - 1 - digit
    return 0


@njit(nogil=True)
def _full_stop_length(points: Any, flags: Any, low: int, high: int) -> int:
    """Full stops to split off the end of [low, high): an ellipsis, or one that ends a sentence and no abbreviation."""
    dots = _dots_before(points, low, high)
    if dots > 1:
        return dots
    if high - low < 2:
        return 0
    before, kind = points[high - 2], flags[high - 2]
    if _is_digit(before) or kind & LOWER or (kind & TRIMMED and not kind & ICON) or before in (0x25, 0xB2, 0x2D, 0x2B):
        return 1
    return 1 if high - low > 2 and kind & UPPER and flags[high - 3] & UPPER else 0


@njit(nogil=True)
def _mark_infixes(points: Any, flags: Any, low: int, high: int) -> None:
    """Split [low, high) inside: contractions, then hyphens and the like; not at all where it is a URL."""
    contraction = _contraction_length(points, flags, low, high)
    if contraction:
        flags[high - contraction] |= CUT
        return
    i = low
    checked = False
    while i < high:
        length = _infix_length(points, flags, i, low, high)
        if length == 0:
            i += 1
            continue
        if not checked:
            if _is_url(points, flags, low, high):
                return
            checked = True
        if i > low:
            flags[i] |= CUT
            if i + length < high:
                flags[i + length] |= CUT
        i += length


@njit(nogil=True)
def _contraction_length(points: Any, flags: Any, low: int, high: int) -> int:
    """Length of n't, 'll, 've, 're, 'd or 'm at the end of a word, or 0."""
    if high - low < 3:
        return 0
    last = points[high - 1]
    if last in (0x64, 0x6D):  # d m
        length = 2
    elif last == 0x74 and points[high - 3] == 0x6E:  # n't
        length = 3
    elif last == 0x6C and points[high - 2] == 0x6C:  # 'll
        length = 3
    elif last == 0x65 and points[high - 2] in (0x76, 0x72):  # 've 're
        length = 3
    else:
        return 0
    apostrophe = points[high - 2] if last != 0x6C and last != 0x65 else points[high - 3]
    if apostrophe not in (0x27, 0x2019) or high - low <= length:
        return 0
    for i in range(low, high - length):
        if not flags[i] & LETTER:
            return 0
    return length


@njit(nogil=True)
def _infix_length(points: Any, flags: Any, i: int, low: int, high: int) -> int:
    """Length of the infix that begins at i, or 0. It looks at the neighbours inside [low, high) alone."""
    point, kind = points[i], flags[i]
    if kind & LETTER or _is_digit(point):
        return 0
    if point == 0x2026 or kind & ICON:
        return 1
    dots = _dots_from(points, i, high)
    if dots > 1:
        return dots
    if i == low or i + 1 == high:
        return 0
    before, after = flags[i - 1], flags[i + 1]
    if point == 0x2E:
        return 1 if before & (LOWER | QUOTE) and after & (UPPER | QUOTE) else 0
    if point in (0x2B, 0x2D, 0x2A, 0x5E) and _is_digit(points[i - 1]) and (_is_digit(points[i + 1]) or points[i + 1] == 0x2D):
        return 1
    if point == 0x2C:
        return 1 if before & LETTER and after & LETTER else 0
    if not before & LETTER and not _is_digit(points[i - 1]):
        return 0
    if point in (0x3A, 0x3C, 0x3E, 0x3D, 0x2F):  # : < > = /
        return 1 if after & LETTER else 0
    longest = 3 if point == 0x2D else 2 if point == 0x2014 else 1 if point in (0x2013, 0x7E) else 0
    for length in range(1, longest + 1):
        if i + length == high:
            return 0
        if flags[i + length] & LETTER:
            return length
        if points[i + length] != point:
            return 0
    return 0


@njit(nogil=True)
def _is_host_char(point: int) -> bool:
    return _is_digit(point) or 0x61 <= point <= 0x7A or 0x41 <= point <= 0x5A or 0xA1 <= point <= 0xFFFF


@njit(nogil=True)
def _is_url(points: Any, flags: Any, low: int, high: int) -> bool:
    """Whether [low, high) is a URL or an e-mail address: an optional scheme or user, a host of two labels or more, a path."""
    start = low
    while start < high and (flags[start] & WORD or points[start] in (0x2B, 0x2D, 0x2E)):
        start += 1
    scheme = start - low > 1 and start + 2 < high
    scheme = scheme and points[start] == 0x3A and points[start + 1] == 0x2F and points[start + 2] == 0x2F
    start = start + 3 if scheme else low
    for i in range(start, high):
        if points[i] == 0x2F or points[i] == 0x3F:
            break
        if points[i] == 0x40:
            start = i + 1
    label, dots, i = start, 0, start
    lower, numeric = True, True
    while i < high and (_is_host_char(points[i]) or points[i] in (0x2D, 0x5F, 0x2E)):
        if points[i] == 0x2E:
            if i == label or not _is_host_char(points[label]) or not _is_host_char(points[i - 1]):
                return False
            label, dots, lower = i + 1, dots + 1, True
        else:
            lower &= (flags[i] & LOWER) != 0
            numeric &= _is_digit(points[i])
        i += 1
    is_address = numeric and dots == 3 and i > label
    if not is_address and (dots == 0 or not lower or i - label < 2):
        return False
    if i < high and points[i] == 0x3A:
        i += 1
        while i < high and _is_digit(points[i]):
            i += 1
    return i == high or points[i] in (0x2F, 0x3F, 0x23)


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

"""How a run without spaces is split into tokens: affixes, contractions, units, infixes, URLs.

Follows spaCy 3.8's rules for English; word_tokenizer.py says where it does not. Positions count code points.
"""

from typing import Any

import numpy as np

from pipeline.numba_kernels import njit
from pipeline.text.utf8 import CURRENCY, CUT, ICON, LETTER, LOWER_OR_UNCASED, QUOTE, TRIMMED, UPPER_OR_UNCASED, WORD

__all__ = ["mark_affixes", "packed"]


def packed(strings: str) -> np.ndarray:
    """ASCII strings of at most 8 characters as sorted numbers, a character a byte, the last lowest."""
    assert all(len(string) <= 8 for string in strings.split())
    return np.array(sorted(int.from_bytes(string.encode("ascii"), "big") for string in strings.split()), np.uint64)


# After a number these are a token of their own (spaCy's units, and am, pm).
UNITS = packed(
    "km m dm cm mm ha nm yd in ft kg g mg t lb oz m/s km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % "
    "am pm a.m. p.m."
)
# Never split: English abbreviations with their full stop, and contractions that stand alone, as spaCy lists them.
UNSPLIT = packed(
    "Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. "
    "Kan. Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. "
    "Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. a.m. Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. "
    "i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. "
    "a. b. c. d. e. f. g. h. i. j. k. l. m. n. o. p. q. r. s. t. u. v. w. x. y. z. "
    "'s 'S 'd 're 'll 'em 'cause 'Cause 'cos 'Cos 'bout"
)


@njit(nogil=True)
def mark_affixes(points: Any, flags: Any, low: int, high: int) -> None:
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
    """The ASCII string [low, high) as `packed` has it; 0 where it is longer than 8 characters or not ASCII."""
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
    if flags[low] & (TRIMMED | CURRENCY) or point in (0xA7, 0x25, 0x3D, 0x2014, 0x2013):  # § % = — –
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
    if last in (0x73, 0x53) and before in (0x27, 0x2019):  # 's 'S ’s ’S
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
    if (
        _is_digit(before)
        or kind & LOWER_OR_UNCASED
        or (kind & TRIMMED and not kind & ICON)
        or before in (0x25, 0xB2, 0x2D, 0x2B)
    ):
        return 1
    return 1 if high - low > 2 and kind & UPPER_OR_UNCASED and flags[high - 3] & UPPER_OR_UNCASED else 0


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
        if flags[i] & LETTER or _is_digit(points[i]):
            i += 1
            continue
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
    last, second, third = points[high - 1], points[high - 2], points[high - 3]
    if last in (0x64, 0x6D):  # 'd 'm
        length, apostrophe = 2, second
    elif last == 0x74 and third == 0x6E:  # n't
        length, apostrophe = 3, second
    elif (last == 0x6C and second == 0x6C) or (last == 0x65 and second in (0x76, 0x72)):  # 'll 've 're
        length, apostrophe = 3, third
    else:
        return 0
    if apostrophe not in (0x27, 0x2019) or high - low <= length:
        return 0
    for i in range(low, high - length):
        if not flags[i] & LETTER:
            return 0
    return length


@njit(nogil=True)
def _infix_length(points: Any, flags: Any, i: int, low: int, high: int) -> int:
    """Length of the infix that begins at i, no letter or digit, or 0; it looks at neighbours in [low, high) alone."""
    point, kind = points[i], flags[i]
    if point == 0x2026 or kind & ICON:
        return 1
    dots = _dots_from(points, i, high)
    if dots > 1:
        return dots
    if i == low or i + 1 == high:
        return 0
    before, after = flags[i - 1], flags[i + 1]
    if point == 0x2E:
        return 1 if before & (LOWER_OR_UNCASED | QUOTE) and after & (UPPER_OR_UNCASED | QUOTE) else 0
    if (
        point in (0x2B, 0x2D, 0x2A, 0x5E)
        and _is_digit(points[i - 1])
        and (_is_digit(points[i + 1]) or points[i + 1] == 0x2D)
    ):
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
    """Whether [low, high) is a URL or e-mail address: a scheme or user or neither, a host of labels, a path or none."""
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
            lower &= (flags[i] & LOWER_OR_UNCASED) != 0
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

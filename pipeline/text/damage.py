"""Damaged characters in a text: U+FFFD, and pairs that come of UTF-8 or GBK read in another encoding.

A *mojibake pair* is a letter that begins a UTF-8 sequence read as windows-1252 with what such a sequence goes on with
("Ã©", "â€™", "Ð¿"), two letters of a run of four or more from U+00A1 to U+00FF (GBK or windows-1251 read as
windows-1252: "ÖÐ¹ú", "Ïðèâåò"), or two characters that UTF-8 makes in GBK or Shift_JIS ("锟斤", "縺").
"""

from typing import Any

import numpy as np

from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.utf8 import BYTES, INDEXES, decode

__all__ = ["DAMAGE_VERSION", "count_damage", "damage_counts"]

DAMAGE_VERSION = "damage-1"

REPLACEMENT = 0xFFFD
RUN = 4
# What bytes 80-BF are in windows-1252, with the controls that it leaves open.
FOLLOWING = np.zeros(0x2200, np.bool_)
for _byte in range(0x80, 0xC0):
    FOLLOWING[ord(bytes([_byte]).decode("cp1252", "replace")) if _byte >= 0xA0 else _byte] = True
    if (_point := ord(bytes([_byte]).decode("cp1252", "replace"))) != REPLACEMENT:
        FOLLOWING[_point] = True
# They stand behind a capital letter in valid texts too: « É » and quotes, dashes, a blank.
CLOSING = np.array([ord(mark) for mark in "\u00a0»›”’…–—"], np.int32)
SURE_LEADS = np.array([ord(letter) for letter in "ÃÂÐÑØÙ"], np.int32)  # of 2-byte sequences
LEADS = np.array([ord(letter) for letter in "ÅÄÎÏ×Ö"], np.int32)
LONG_LEADS = np.array([ord(letter) for letter in "âãäåæçèéïð"], np.int32)  # of 3- and 4-byte sequences
WIDE = np.array([ord(letter) for letter in "锟鈥脙縺繧繝"], np.int32)


@njit(nogil=True)
def _follows(point: int) -> bool:
    return bool(point < FOLLOWING.size and FOLLOWING[point])


@njit(nogil=True)
def _is_one_of(point: int, points: Any) -> bool:
    return bool(np.any(points == point))


@njit(nogil=True)
def _begins_pair(before: int, point: int, after: int) -> bool:
    """Whether two code points, with the one behind them, are a mojibake pair."""
    if before >= 0x4E00:
        return point >= 0x80 and _is_one_of(before, WIDE)
    if not 0xC0 <= before <= 0xFF or not _follows(point):
        return False
    if _is_one_of(before, LONG_LEADS):
        return _follows(after)
    return _is_one_of(before, SURE_LEADS) or (_is_one_of(before, LEADS) and not _is_one_of(point, CLOSING))


@njit(nogil=True)
def count_damage(points: Any, size: int) -> tuple[int, int]:
    """Return how many of the first `size` code points are U+FFFD, and how many mojibake pairs they hold."""
    replaced, pairs, i = 0, 0, 0
    while i < size:
        point = points[i]
        end = i + 1
        if point >= 0x80:
            replaced += point == REPLACEMENT
            while end < size and 0xA1 <= point <= 0xFF and 0xA1 <= points[end] <= 0xFF:
                end += 1
            if end - i >= RUN:
                pairs += (end - i) // 2
            else:
                end = i + 1
                if end < size:
                    pairs += _begins_pair(point, points[end], points[end + 1] if end + 1 < size else 0)
        i = end
    return replaced, pairs


@kernel(types.int64[:, ::1](BYTES, INDEXES))
def _count(data: Any, offsets: Any) -> Any:
    counts = np.zeros((offsets.size - 1, 2), np.int64)
    longest = 0
    for text in range(offsets.size - 1):
        longest = max(longest, offsets[text + 1] - offsets[text])
    points = np.empty(longest, np.int32)
    for text in range(offsets.size - 1):
        size, i = 0, offsets[text]
        while i < offsets[text + 1]:
            points[size], i = decode(data, i)
            size += 1
        counts[text, 0], counts[text, 1] = count_damage(points, size)
    return counts


def damage_counts(data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return (texts, 2) int64: U+FFFD and mojibake pairs of each UTF-8 text data[offsets[i]:offsets[i + 1]]."""
    counts: np.ndarray = _count(data, offsets)
    return counts

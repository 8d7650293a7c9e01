"""Words of a batch of texts and their hashes: what shingles are made of.

A *word* is a maximal run of letters, numbers and underscores, with the combining marks and zero-width joiners that
follow (`\\w+`, save that a mark continues a word). A letter of a script written without spaces (Han, Hiragana,
Katakana, Thai, Lao, Khmer, Myanmar) is a word by itself, with the marks that follow.
Differs: from a word segmenter for those scripts, which needs a dictionary; from Unicode's default word boundaries
(UAX 29), which join "can't" and "3.5".
"""

from typing import Any

import numpy as np

from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.hashing import HASH_FACTOR, HASH_START, SHIFT_32, mix64
from pipeline.text.utf8 import ALONE, BYTES, INDEXES, JOINER, TABLE, TABLE_TYPE, WORD, decode

__all__ = ["fill_words", "word_hashes", "words"]


@njit(nogil=True)
def fill_words(data: Any, start: int, end: int, table: Any, hashes: Any, starts: Any, ends: Any, n: int) -> int:
    """Write the words of the text data[start:end] from index n on; returns the index after the last.

    `hashes` takes each word's hash over its lower-cased code points c: h = (h ^ c) * HASH_FACTOR, h ^= h >> 32, from
    HASH_START, then mix64. `starts` and `ends` take its first byte and the byte after it, unless they are empty arrays.
    The arrays need room for (end - start + 1) // 2 words. It is one loop without calls, three times as fast as one
    with a call a word, because compiled code counts references to arrays at each call.
    """
    blocks, classes, flags, lower, ascii_words = table
    bounds = starts.size > 0
    inside, alone = False, False
    h = HASH_START
    i = start
    while i < end:
        first = i
        byte = data[i]
        if byte < 0x80:
            i += 1
            point = np.int64(ascii_words[byte])
            begins = point != 0
            goes_on = begins and not alone
            next_alone = False
        else:
            point, i = decode(data, i)
            number = np.int64(classes[np.int64(blocks[point >> 7]) << 7 | (point & 127)])
            kind = flags[number]
            point += lower[number]
            begins = (kind & WORD) != 0
            next_alone = (kind & ALONE) != 0
            goes_on = (kind & JOINER) != 0 or (begins and not alone and not next_alone)
        if inside:
            if goes_on:
                h = (h ^ np.uint64(point)) * HASH_FACTOR
                h ^= h >> SHIFT_32
                continue
            hashes[n] = mix64(h)
            if bounds:
                ends[n] = first
            n += 1
            inside = False
        alone = next_alone
        if begins:
            inside = True
            h = (HASH_START ^ np.uint64(point)) * HASH_FACTOR
            h ^= h >> SHIFT_32
            if bounds:
                starts[n] = first
    if inside:
        hashes[n] = mix64(h)
        if bounds:
            ends[n] = end
        n += 1
    return n


@kernel(
    types.Tuple((types.uint64[::1], types.int64[::1], types.int64[::1], types.int64[::1]))(
        BYTES, INDEXES, TABLE_TYPE, types.boolean
    ),
)
def _scan(data: Any, offsets: Any, table: Any, bounds: bool) -> Any:
    """Hashes of all words, with their bounds where asked for, and the number of words before each text."""
    num_texts = offsets.size - 1
    # A word and what parts it from the next take two bytes or more; pages that are not written cost nothing.
    room = (offsets[num_texts] - offsets[0]) // 2 + num_texts
    hashes = np.empty(room, np.uint64)
    starts = np.empty(room if bounds else 0, np.int64)
    ends = np.empty(room if bounds else 0, np.int64)
    firsts = np.zeros(num_texts + 1, np.int64)
    for text in range(num_texts):
        firsts[text + 1] = fill_words(data, offsets[text], offsets[text + 1], table, hashes, starts, ends, firsts[text])
    n = firsts[num_texts]
    return hashes[:n], starts[:n], ends[:n], firsts


def words(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First byte and byte after it of each word in `data`, and the number of words before each text (texts + 1).

    `data` is UTF-8, text i being data[offsets[i]:offsets[i + 1]], as the buffers of a `pa.LargeStringArray` are.
    """
    _, starts, ends, firsts = _scan(data, offsets, TABLE, True)
    return starts, ends, firsts


def word_hashes(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The uint64 hash of each word's lower-cased code points, and the number of words before each text (texts + 1)."""
    hashes, _, _, firsts = _scan(data, offsets, TABLE, False)
    return hashes, firsts

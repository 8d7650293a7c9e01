"""Shingles: every run of `shingle` consecutive words of a text, as one 32-bit number each.

A shingle's number depends on its words' hashes and their order alone: with word hashes w_0 .. w_(s-1) it is the
upper half of mix64(w_0 P^(s-1) + w_1 P^(s-2) + ... + w_(s-1)) modulo 2^64, P = SHINGLE_FACTOR. The sum rolls along
the text, so a shingle of any length costs two multiplications.
"""

from typing import Any

import numpy as np
from numba import njit, types

from .words import mix64, word_hashes

__all__ = ["SHINGLES_VERSION", "shingle_hashes", "shingle_sets", "text_shingles"]

SHINGLES_VERSION = "1"

SHINGLE_FACTOR = np.uint64(0xD6E8FEB86659FD93)
SHIFT_32 = np.uint64(32)

# Readable arrays: a buffer of a memory-mapped file may not be written.
UINT8 = types.Array(types.uint8, 1, "C", readonly=True)
UINT32 = types.Array(types.uint32, 1, "C", readonly=True)
UINT64 = types.Array(types.uint64, 1, "C", readonly=True)
INT64 = types.Array(types.int64, 1, "C", readonly=True)


@njit(types.Tuple((types.uint32[::1], types.int64[::1]))(UINT64, INT64, types.int64), nogil=True, cache=True)
def _roll(words: Any, firsts: Any, shingle: int) -> Any:
    """Shingle numbers of all texts, in the order of the text, and the number of shingles before each text."""
    num_texts = firsts.size - 1
    counts = np.zeros(num_texts + 1, np.int64)
    for text in range(num_texts):
        counts[text + 1] = counts[text] + max(0, firsts[text + 1] - firsts[text] - shingle + 1)
    hashes = np.empty(counts[num_texts], np.uint32)
    leaving = np.uint64(1)
    for _ in range(shingle):
        leaving *= SHINGLE_FACTOR
    for text in range(num_texts):
        first, n = firsts[text], counts[text]
        if counts[text + 1] == n:
            continue
        total = np.uint64(0)
        for word in range(first, first + shingle):
            total = total * SHINGLE_FACTOR + words[word]
        hashes[n] = np.uint32(mix64(total) >> SHIFT_32)
        for word in range(first + shingle, firsts[text + 1]):
            n += 1
            total = total * SHINGLE_FACTOR + words[word] - words[word - shingle] * leaving
            hashes[n] = np.uint32(mix64(total) >> SHIFT_32)
    return hashes, counts


@njit(types.Tuple((types.uint32[::1], types.int64[::1]))(UINT32, INT64), nogil=True, cache=True)
def _sets(hashes: Any, counts: Any) -> Any:
    """Each text's shingles sorted, repeats left out."""
    kept = np.empty(hashes.size, np.uint32)
    firsts = np.zeros(counts.size, np.int64)
    n = 0
    for text in range(counts.size - 1):
        ordered = np.sort(hashes[counts[text] : counts[text + 1]])
        for place in range(ordered.size):
            if place == 0 or ordered[place] != ordered[place - 1]:
                kept[n] = ordered[place]
                n += 1
        firsts[text + 1] = n
    return kept[:n], firsts


def shingle_hashes(words: np.ndarray, firsts: np.ndarray, shingle: int) -> tuple[np.ndarray, np.ndarray]:
    """uint32 shingle numbers of texts given by their words' hashes, and the number of shingles before each text.

    `words` and `firsts` are what `word_hashes` gives. A text with fewer words than `shingle` has no shingle.
    """
    hashes, counts = _roll(words, firsts, shingle)
    return hashes, counts


def text_shingles(data: np.ndarray, offsets: np.ndarray, shingle: int) -> tuple[np.ndarray, np.ndarray]:
    """uint32 shingle numbers of UTF-8 texts (text i is data[offsets[i]:offsets[i + 1]]), and how many before each."""
    return shingle_hashes(*word_hashes(data, offsets), shingle)


def shingle_sets(data: np.ndarray, offsets: np.ndarray, shingle: int) -> tuple[np.ndarray, np.ndarray]:
    """As `text_shingles`, each text's numbers sorted and without repeats: what a Jaccard similarity is taken of."""
    kept, firsts = _sets(*text_shingles(data, offsets, shingle))
    return kept, firsts

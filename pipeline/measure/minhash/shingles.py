"""Shingles: every run of `shingle` consecutive units of a text, as one 32-bit number each.

A *unit* is a word (words.py: a run of letters and numbers, and of scripts written without spaces each letter). Beside
such a letter a stretch of at most MAX_SPLIT other word characters is taken letter by letter too, for in Chinese or
Japanese spaces are moved about freely, inside foreign names as well: with whole names as units, 32 of 137 pairs of
texts that are equal but for spaces came out below a similarity of 0.75, with letters one.

A shingle's number depends on its units' hashes and their order alone: with unit hashes w_0 .. w_(s-1) it is the
upper half of mix64(w_0 P^(s-1) + w_1 P^(s-2) + ... + w_(s-1)) modulo 2^64, P = SHINGLE_FACTOR. The sum rolls along
the text, so a shingle of any length costs two multiplications.
"""

from typing import Any

import numpy as np

from pipeline.measure.minhash.words import fill_words
from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.hashing import HASH_FACTOR, HASH_START, SHIFT_32, mix64
from pipeline.text.utf8 import ALONE, BYTES, INDEXES, JOINER, TABLE, TABLE_TYPE, decode

__all__ = ["shingle_hashes", "shingle_sets", "text_shingles", "unit_hashes"]

SHINGLE_FACTOR = np.uint64(0xD6E8FEB86659FD93)
MAX_SPLIT = 64

# Readable arrays: a buffer of a memory-mapped file may not be written.
UINT32 = types.Array(types.uint32, 1, "C", readonly=True)
UINT64 = types.Array(types.uint64, 1, "C", readonly=True)
INT64 = types.Array(types.int64, 1, "C", readonly=True)


@njit(nogil=True)
def _has_wide_letters(data: Any, start: int, end: int) -> bool:
    """Whether a text may hold a letter of a script written without spaces: all lie in U+0800-1FFF or from U+3000 on."""
    found = False
    for byte in data[start:end]:
        found |= (byte >= 0xE0) & (byte != 0xE2)
    return found


@njit(nogil=True)
def _letters(data: Any, start: int, end: int, table: Any, units: Any, n: int) -> int:
    """Write the hash of each letter of a word, with the marks that follow it, from unit n on."""
    blocks, classes, flags, lower, _ = table
    h = HASH_START
    i = start
    while i < end:
        point, following = decode(data, i)
        number = np.int64(classes[np.int64(blocks[point >> 7]) << 7 | (point & 127)])
        if i > start and (flags[number] & JOINER) == 0:
            units[n] = mix64(h)
            n += 1
            h = HASH_START
        h = (h ^ np.uint64(point + lower[number])) * HASH_FACTOR
        h ^= h >> SHIFT_32
        i = following
    units[n] = mix64(h)
    return n + 1


@njit(nogil=True)
def _is_alone(data: Any, start: int, table: Any) -> bool:
    """Whether the word that begins at `start` is one letter of a script written without spaces."""
    blocks, classes, flags, _, _ = table
    if data[start] < 0xE0:
        return False
    point, _ = decode(data, start)
    return (flags[np.int64(classes[np.int64(blocks[point >> 7]) << 7 | (point & 127)])] & ALONE) != 0


@njit(nogil=True)
def _split(data: Any, table: Any, words: Any, starts: Any, ends: Any, units: Any, n: int) -> int:
    """Write the units of a text with such letters, given its words; returns the unit after the last."""
    word, after_alone = 0, False
    while word < words.size:
        first, letters = word, 0
        while word < words.size and not _is_alone(data, starts[word], table):
            for place in range(starts[word], ends[word]):
                letters += (data[place] & 0xC0) != 0x80
            word += 1
        short = letters <= MAX_SPLIT and (after_alone or word < words.size)
        for other in range(first, word):
            if short:
                n = _letters(data, starts[other], ends[other], table, units, n)
            else:
                units[n] = words[other]
                n += 1
        if word < words.size:
            units[n] = words[word]
            n, word, after_alone = n + 1, word + 1, True
    return n


@kernel(types.Tuple((types.uint64[::1], types.int64[::1]))(BYTES, INDEXES, TABLE_TYPE))
def _units(data: Any, offsets: Any, table: Any) -> Any:
    """Unit hashes of all texts, and the number of units before each text."""
    num_texts = offsets.size - 1
    # A unit takes a byte or more; pages that are not written cost nothing.
    units = np.empty(offsets[num_texts] - offsets[0] + num_texts, np.uint64)
    firsts = np.zeros(num_texts + 1, np.int64)
    no_bounds = np.empty(0, np.int64)
    for text in range(num_texts):
        n, start, end = firsts[text], offsets[text], offsets[text + 1]
        if _has_wide_letters(data, start, end):
            room = (end - start) // 2 + 1
            words, starts, ends = np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.int64)
            size = fill_words(data, start, end, table, words, starts, ends, 0)
            firsts[text + 1] = _split(data, table, words[:size], starts, ends, units, n)
        else:
            firsts[text + 1] = fill_words(data, start, end, table, units, no_bounds, no_bounds, n)
    return units[: firsts[num_texts]], firsts


@kernel(types.Tuple((types.uint32[::1], types.int64[::1]))(UINT64, INT64, types.int64))
def _roll(units: Any, firsts: Any, shingle: int) -> Any:
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
        for unit in range(first, first + shingle):
            total = total * SHINGLE_FACTOR + units[unit]
        hashes[n] = np.uint32(mix64(total) >> SHIFT_32)
        for unit in range(first + shingle, firsts[text + 1]):
            n += 1
            total = total * SHINGLE_FACTOR + units[unit] - units[unit - shingle] * leaving
            hashes[n] = np.uint32(mix64(total) >> SHIFT_32)
    return hashes, counts


@kernel(types.Tuple((types.uint32[::1], types.int64[::1]))(UINT32, INT64))
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


def unit_hashes(data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint64 hashes of the units of UTF-8 texts and how many before each; text i: data[offsets[i]:offsets[i + 1]]."""
    units, firsts = _units(data, offsets, TABLE)
    return units, firsts


def shingle_hashes(units: np.ndarray, firsts: np.ndarray, shingle: int) -> tuple[np.ndarray, np.ndarray]:
    """uint32 shingle numbers of texts given by what `unit_hashes` returns, and the number of shingles before each text.

    A text with fewer units than `shingle` has no shingle.
    """
    hashes, counts = _roll(units, firsts, shingle)
    return hashes, counts


def text_shingles(data: np.ndarray, offsets: np.ndarray, shingle: int) -> tuple[np.ndarray, np.ndarray]:
    """uint32 shingle numbers of UTF-8 texts (text i is data[offsets[i]:offsets[i + 1]]), and how many before each."""
    return shingle_hashes(*unit_hashes(data, offsets), shingle)


def shingle_sets(data: np.ndarray, offsets: np.ndarray, shingle: int) -> tuple[np.ndarray, np.ndarray]:
    """As `text_shingles`, each text's numbers sorted and without repeats: what a Jaccard similarity is taken of."""
    kept, firsts = _sets(*text_shingles(data, offsets, shingle))
    return kept, firsts

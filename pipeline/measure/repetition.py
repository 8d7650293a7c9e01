"""Gopher's repetition rules: how much of a text says the same again?

Source: Rae et al. 2021, appendix A.1 and table A1, in datatrove 0.10's reading: a duplicate is each copy *after* the
first, shares of characters are of the whole text with its spaces, and the most frequent n-gram counts even if it
occurs once.
Differs: n-grams are told apart by a 64-bit hash of their tokens, where datatrove joins the tokens without spaces for
n >= 5; tokens are those of word_tokenizer.py. An empty text has 0 for every signal.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from pipeline.measure.counts import CountSignal, RawCounts, columns, ratio
from pipeline.measure.signal_group import Rule
from pipeline.numba_kernels import njit
from pipeline.text.hashing import HASH_FACTOR, HASH_START, SHIFT_32, mix64
from pipeline.text.utf8 import SPACE

__all__ = ["RULES", "SIGNALS", "count_ngrams", "count_segments", "insert", "span_hash", "table_size"]

(PARAGRAPHS, LINES, TOP_2) = columns("paragraphs", "filled_lines", "top_2_gram_characters")
NEWLINE = 0x0A
ONE, TWO = np.int64(1), np.int64(2)  # not literals, for each of which a function would be compiled
LONGEST_TOP, LONGEST_NGRAM = 4, 10
GRAM_FACTOR = np.uint64(0xD6E8FEB86659FD93)


@njit(nogil=True)
def table_size(items: int) -> int:
    """Slots of a hash table for `items` keys: a power of two, at least twice as many."""
    size = 16
    while size < 2 * items:
        size *= 2
    return size


@njit(nogil=True)
def span_hash(points: Any, start: int, end: int) -> Any:
    """The hash of the code points [start, end)."""
    h = HASH_START ^ np.uint64(end - start)
    i = start
    while i + 1 < end:  # two at a time: the multiplications wait for each other
        h = (h ^ np.uint64(points[i]) ^ np.uint64(points[i + 1]) << SHIFT_32) * HASH_FACTOR
        h ^= h >> SHIFT_32
        i += 2
    if i < end:
        h = (h ^ np.uint64(points[i])) * HASH_FACTOR
    return mix64(h)


@njit(nogil=True)
def insert(table: Any, size: int, key: Any) -> bool:
    """Put `key` into the first `size` slots of `table` (0: free); whether it was there."""
    if key == 0:
        key = np.uint64(1)
    mask = np.uint64(size - 1)
    slot = key & mask
    while table[slot] != 0:
        if table[slot] == key:
            return True
        slot = (slot + np.uint64(1)) & mask
    table[slot] = key
    return False


@njit(nogil=True)
def count_segments(points: Any, flags: Any, size: int, table: Any, row: Any) -> None:
    """Count paragraphs (of the stripped text) and lines, and their copies, into `row`."""
    start, end = np.int64(0), size
    while start < end and flags[start] & SPACE:
        start += 1
    while end > start and flags[end - 1] & SPACE:
        end -= 1
    _count_copies(points, start, end, TWO, table, row[PARAGRAPHS : PARAGRAPHS + 3])
    _count_copies(points, np.int64(0), size, ONE, table, row[LINES : LINES + 3])


@njit(nogil=True)
def _count_copies(points: Any, start: int, end: int, min_newlines: int, table: Any, out: Any) -> None:
    """Segments parted by `min_newlines` newlines or more; copies of earlier ones; characters of those."""
    segments = 1
    run = 0
    for i in range(start, end):
        run = run + 1 if points[i] == NEWLINE else 0
        segments += run == min_newlines
    slots = table_size(segments)
    table[:slots] = 0
    first, i = start, start
    while True:
        while i < end and points[i] != NEWLINE:
            i += 1
        last = i
        while i < end and points[i] == NEWLINE:
            i += 1
        if i < end and i - last < min_newlines:
            continue
        if i == end and i - last < min_newlines:
            last = end
        if insert(table, slots, span_hash(points, first, last)):
            out[1] += 1
            out[2] += last - first
        if last == end:
            break
        first = i
        if first == end:
            # The text ends with newlines: an empty segment follows them.
            out[1] += insert(table, slots, span_hash(points, end, end))
            break
    out[0] = segments


@njit(nogil=True)
def count_ngrams(
    hashes: Any, lengths: Any, num_tokens: int, grams: Any, ends: Any, table: Any, heads: Any, row: Any
) -> None:
    """Count characters of the most frequent 2- to 4-grams and of repeated 5- to 10-grams into `row`.

    `grams`, `ends`, `table` and `heads` are scratch: room for the tokens + 1, and a hash table's slots.
    """
    ends[0] = 0
    for i in range(num_tokens):
        ends[i + 1] = ends[i] + lengths[i]
        grams[i] = hashes[i]
    slots = table_size(num_tokens)
    for n in range(2, LONGEST_NGRAM + 1):
        count = num_tokens - n + 1
        for i in range(count):
            grams[i] = grams[i] * GRAM_FACTOR + hashes[i + n - 1]
        if count < 1:
            break
        if n <= LONGEST_TOP:
            row[TOP_2 + n - 2] = _top_characters(grams, ends, count, n, heads, slots)
        else:
            row[TOP_2 + n - 2] = _duplicate_characters(grams, ends, count, n, table, slots)


@njit(nogil=True)
def _top_characters(grams: Any, ends: Any, count: int, n: int, heads: Any, slots: int) -> int:
    """Length (tokens joined by a space) times count of the most frequent n-gram, the first of several."""
    # heads[slot] is the place of an n-gram's first occurrence + 1, and how often it occurred.
    heads[:slots] = 0
    mask = np.uint64(slots - 1)
    most = 0
    for i in range(count):
        key = grams[i]
        slot = (key ^ key >> SHIFT_32) & mask
        while heads[slot, 0] != 0 and grams[heads[slot, 0] - 1] != key:
            slot = (slot + np.uint64(1)) & mask
        if heads[slot, 0] == 0:
            heads[slot, 0] = i + 1
        heads[slot, 1] += 1
        most = max(most, heads[slot, 1])
    first = count
    for slot in range(slots):
        if heads[slot, 1] == most:
            first = min(first, heads[slot, 0] - 1)
    return (ends[first + n] - ends[first] + n - 1) * most


@njit(nogil=True)
def _duplicate_characters(grams: Any, ends: Any, count: int, n: int, table: Any, slots: int) -> int:
    """Characters (without spaces) of n-grams met before, from left to right, each token counted once."""
    table[:slots] = 0
    mask = np.uint64(slots - 1)
    characters = 0
    i = 0
    while i < count:
        key = grams[i] | np.uint64(1)
        slot = (key ^ key >> SHIFT_32) & mask
        while table[slot] != 0 and table[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if table[slot] == key:
            characters += ends[i + n] - ends[i]
            i += n
        else:
            table[slot] = key
            i += 1
    return characters


def duplicate_line_fraction(counts: RawCounts) -> np.ndarray:
    """Share of lines that are copies of an earlier line."""
    return ratio(counts.duplicate_lines, counts.filled_lines)


def duplicate_paragraph_fraction(counts: RawCounts) -> np.ndarray:
    """Share of paragraphs that are copies of an earlier paragraph."""
    return ratio(counts.duplicate_paragraphs, counts.paragraphs)


def duplicate_line_character_fraction(counts: RawCounts) -> np.ndarray:
    """Share of characters in lines that are copies."""
    return ratio(counts.duplicate_line_characters, counts.characters)


def duplicate_paragraph_character_fraction(counts: RawCounts) -> np.ndarray:
    """Share of characters in paragraphs that are copies."""
    return ratio(counts.duplicate_paragraph_characters, counts.characters)


def character_share(name: str) -> Callable[[RawCounts], np.ndarray]:
    """The signal that divides the count `name` by all characters."""
    return lambda counts: ratio(getattr(counts, name), counts.characters)


def top_gram_share(n: int) -> CountSignal:
    """The signal of the most frequent n-gram."""
    function = character_share(f"top_{n}_gram_characters")
    return CountSignal(
        f"gopher.top_{n}_gram_character_fraction", function, f"Share of characters in the most frequent {n}-gram."
    )


def duplicate_gram_share(n: int) -> CountSignal:
    """The signal of repeated n-grams."""
    function = character_share(f"duplicate_{n}_gram_characters")
    return CountSignal(
        f"gopher.duplicate_{n}_gram_character_fraction", function, f"Share of characters in repeated {n}-grams."
    )


TOP_THRESHOLDS = {2: 0.20, 3: 0.18, 4: 0.16}
DUPLICATE_THRESHOLDS = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}

SIGNALS = (
    CountSignal("gopher.duplicate_paragraph_fraction", duplicate_paragraph_fraction),
    CountSignal("gopher.duplicate_paragraph_character_fraction", duplicate_paragraph_character_fraction),
    CountSignal("gopher.duplicate_line_fraction", duplicate_line_fraction),
    CountSignal("gopher.duplicate_line_character_fraction", duplicate_line_character_fraction),
    *(top_gram_share(n) for n in TOP_THRESHOLDS),
    *(duplicate_gram_share(n) for n in DUPLICATE_THRESHOLDS),
)

SOURCE = "Rae et al. 2021, table A1 (datatrove's reading)"
RULES = (
    Rule("gopher.too_many_duplicate_paragraphs", "gopher.duplicate_paragraph_fraction", ">", 0.30, SOURCE),
    Rule(
        "gopher.too_many_duplicate_paragraph_characters",
        "gopher.duplicate_paragraph_character_fraction",
        ">",
        0.20,
        SOURCE,
    ),
    Rule("gopher.too_many_duplicate_lines", "gopher.duplicate_line_fraction", ">", 0.30, SOURCE),
    Rule("gopher.too_many_duplicate_line_characters", "gopher.duplicate_line_character_fraction", ">", 0.20, SOURCE),
    *(
        Rule(f"gopher.too_many_top_{n}_grams", f"gopher.top_{n}_gram_character_fraction", ">", threshold, SOURCE)
        for n, threshold in TOP_THRESHOLDS.items()
    ),
    *(
        Rule(
            f"gopher.too_many_duplicate_{n}_grams",
            f"gopher.duplicate_{n}_gram_character_fraction",
            ">",
            threshold,
            SOURCE,
        )
        for n, threshold in DUPLICATE_THRESHOLDS.items()
    ),
)

"""Gopher's quality rules: is this running text?

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", appendix A.1, in
datatrove 0.10's reading. Differs: tokens are those of word_tokenizer.py, where datatrove takes spaCy's.
An empty text has 0 for every signal; it is dropped as `gopher.too_few_words`.
"""

from typing import Any

import numpy as np

from pipeline.measure.counts import CountSignal, RawCounts, columns, ratio
from pipeline.measure.signal_group import Rule
from pipeline.numba_kernels import njit
from pipeline.text.utf8 import LINE_END, SPACE
from pipeline.text.word_tokenizer import ALPHABETIC, STOP_WORD_SHIFT, WORD_TOKEN

__all__ = ["RULES", "SIGNALS", "count_lines", "count_words"]

TOKENS, WORDS, WORD_CHARACTERS, ALPHABETIC_TOKENS, STOP_WORDS = columns(
    "tokens", "words", "word_characters", "alphabetic_tokens", "stop_words"
)
HASHES, ELLIPSES, LINES, BULLET_LINES, ELLIPSIS_LINES, CHARACTERS = columns(
    "hashes", "ellipses", "lines", "bullet_lines", "ellipsis_lines", "characters"
)
HASH, DOT, ELLIPSIS, BULLET, HYPHEN, RETURN, NEWLINE = 0x23, 0x2E, 0x2026, 0x2022, 0x2D, 0x0D, 0x0A


@njit(nogil=True)
def count_words(lengths: Any, kinds: Any, num_tokens: int, row: Any) -> None:
    """Count what Gopher asks of tokens into `row`."""
    words, characters, alphabetic, stop_words = 0, 0, 0, 0
    for i in range(num_tokens):
        if kinds[i] & WORD_TOKEN:
            words += 1
            characters += lengths[i]
        if kinds[i] & ALPHABETIC:
            alphabetic += 1
        stop_words |= kinds[i] >> STOP_WORD_SHIFT
    row[TOKENS], row[WORDS], row[WORD_CHARACTERS], row[ALPHABETIC_TOKENS] = num_tokens, words, characters, alphabetic
    for bit in range(8):
        row[STOP_WORDS] += stop_words >> bit & 1


@njit(nogil=True)
def count_lines(points: Any, flags: Any, size: int, row: Any) -> None:
    """Count symbols, and lines with a bullet in front or an ellipsis behind (spaces apart), into `row`."""
    hashes, ellipses, lines, bullets, ends = 0, 0, 0, 0, 0
    dots = 0  # full stops in a row; three of them are an ellipsis, six are two
    begun, filled, ellipsis = False, False, False
    for i in range(size):
        point = points[i]
        if flags[i] & LINE_END:
            # "\r\n" ends one line.
            if not (point == NEWLINE and i > 0 and points[i - 1] == RETURN):
                lines += 1
                ends += ellipsis
            begun, filled, ellipsis = False, False, False
            dots = 0
            continue
        begun = True
        if flags[i] & SPACE:
            dots = 0
            continue
        if not filled:
            bullets += point in (BULLET, HYPHEN)
            filled = True
        dots = dots + 1 if point == DOT else 0
        hashes += point == HASH
        ellipses += point == ELLIPSIS or (dots > 0 and dots % 3 == 0)
        ellipsis = point == ELLIPSIS or dots >= 3
    if begun:
        lines += 1
        ends += ellipsis
    row[HASHES], row[ELLIPSES], row[LINES], row[BULLET_LINES], row[ELLIPSIS_LINES] = (
        hashes,
        ellipses,
        lines,
        bullets,
        ends,
    )
    row[CHARACTERS] = size


def num_words(counts: RawCounts) -> np.ndarray:
    """Tokens that are not symbols alone."""
    return counts.words.astype(np.float64)


def mean_word_length(counts: RawCounts) -> np.ndarray:
    """Mean characters of a word."""
    return ratio(counts.word_characters, counts.words)


def hash_ratio(counts: RawCounts) -> np.ndarray:
    """ "#" for each token."""
    return ratio(counts.hashes, counts.tokens)


def ellipsis_ratio(counts: RawCounts) -> np.ndarray:
    """ "..." and "…" for each token."""
    return ratio(counts.ellipses, counts.tokens)


def bullet_line_fraction(counts: RawCounts) -> np.ndarray:
    """Share of lines that begin with • or -."""
    return ratio(counts.bullet_lines, counts.lines)


def ellipsis_line_fraction(counts: RawCounts) -> np.ndarray:
    """Share of lines that end with an ellipsis."""
    return ratio(counts.ellipsis_lines, counts.lines)


def alphabetic_token_fraction(counts: RawCounts) -> np.ndarray:
    """Share of tokens with a letter."""
    return ratio(counts.alphabetic_tokens, counts.tokens)


def num_stop_words(counts: RawCounts) -> np.ndarray:
    """How many of: the, be, to, of, and, that, have, with (lower-case) occur."""
    return counts.stop_words.astype(np.float64)


SIGNALS = (
    CountSignal("gopher.num_words", num_words),
    CountSignal("gopher.mean_word_length", mean_word_length),
    CountSignal("gopher.hash_ratio", hash_ratio),
    CountSignal("gopher.ellipsis_ratio", ellipsis_ratio),
    CountSignal("gopher.bullet_line_fraction", bullet_line_fraction),
    CountSignal("gopher.ellipsis_line_fraction", ellipsis_line_fraction),
    CountSignal("gopher.alphabetic_token_fraction", alphabetic_token_fraction),
    CountSignal("gopher.num_stop_words", num_stop_words),
)

SOURCE = "Rae et al. 2021, appendix A.1 (datatrove's reading)"
RULES = (
    Rule("gopher.too_few_words", "gopher.num_words", "<", 50, SOURCE),
    Rule("gopher.too_many_words", "gopher.num_words", ">", 100_000, SOURCE),
    Rule("gopher.words_too_short", "gopher.mean_word_length", "<", 3, SOURCE),
    Rule("gopher.words_too_long", "gopher.mean_word_length", ">", 10, SOURCE),
    Rule("gopher.too_many_hashes", "gopher.hash_ratio", ">", 0.1, SOURCE),
    Rule("gopher.too_many_ellipses", "gopher.ellipsis_ratio", ">", 0.1, SOURCE),
    Rule("gopher.too_many_bullets", "gopher.bullet_line_fraction", ">", 0.9, SOURCE),
    Rule("gopher.too_many_end_ellipses", "gopher.ellipsis_line_fraction", ">", 0.3, SOURCE),
    Rule("gopher.too_few_alphabetic_words", "gopher.alphabetic_token_fraction", "<", 0.8, SOURCE),
    Rule("gopher.too_few_stop_words", "gopher.num_stop_words", "<", 2, SOURCE),
)

"""FineWeb's own rules: lists, menus and repeated lines.

Source: Penedo et al. 2024, "The FineWeb Datasets", section 3.6, in the reading of datatrove 0.10's code: lines are
split at newlines and not stripped, the end mark is any Sentence_Terminal character, words are tokens with
punctuation.
Differs: the code's default for repeated characters is 0.01 where the paper says 0.1; as published here it is the
code's. A blank text has 0 for every signal; it is dropped as `fineweb.too_few_end_marks`.
"""

from typing import Any

import numpy as np

from pipeline.measure.counts import C4Counts, CountSignal, columns, ratio
from pipeline.measure.repetition import insert, span_hash, table_size
from pipeline.measure.signal_group import Rule
from pipeline.numba_kernels import njit
from pipeline.text.utf8 import SPACE, TERMINAL

__all__ = ["RULES", "SIGNALS", "count_text_lines"]

TEXT_LINES, TERMINAL_LINES, SHORT_LINES, REPEATED, LINE_CHARACTERS, NEWLINES, TOKENS = columns(
    "text_lines", "terminal_lines", "short_lines", "repeated_characters", "line_characters", "newlines", "c4_tokens"
)
NEWLINE = 0x0A
SHORT_LINE = 30


@njit(nogil=True)
def count_text_lines(points: Any, flags: Any, size: int, num_tokens: int, table: Any, row: Any) -> None:
    """Count lines that are not blank, their ends, lengths and copies into `row`."""
    newlines = 0
    for i in range(size):
        newlines += points[i] == NEWLINE
    slots = table_size(newlines + 1)
    table[:slots] = 0
    row[NEWLINES], row[LINE_CHARACTERS], row[TOKENS] = newlines, size - newlines, num_tokens
    start = np.int64(0)
    while start <= size:
        end = start
        blank = True
        while end < size and points[end] != NEWLINE:
            blank &= (flags[end] & SPACE) != 0
            end += 1
        if not blank:
            row[TEXT_LINES] += 1
            row[TERMINAL_LINES] += (flags[end - 1] & TERMINAL) != 0
            row[SHORT_LINES] += end - start <= SHORT_LINE
            if insert(table, slots, span_hash(points, start, end)):
                row[REPEATED] += end - start
        start = end + 1


def end_mark_fraction(counts: C4Counts) -> np.ndarray:
    """Share of lines that end with a mark that ends a sentence."""
    return ratio(counts.terminal_lines, counts.text_lines)


def short_line_fraction(counts: C4Counts) -> np.ndarray:
    """Share of lines of at most 30 characters."""
    return ratio(counts.short_lines, counts.text_lines)


def repeated_character_fraction(counts: C4Counts) -> np.ndarray:
    """Share of characters in lines that are copies of an earlier line."""
    return ratio(counts.repeated_characters, counts.line_characters)


def newline_ratio(counts: C4Counts) -> np.ndarray:
    """Newlines for each token."""
    return ratio(counts.newlines, counts.c4_tokens)


SIGNALS = (
    CountSignal("fineweb.end_mark_fraction", end_mark_fraction),
    CountSignal("fineweb.short_line_fraction", short_line_fraction),
    CountSignal("fineweb.repeated_character_fraction", repeated_character_fraction),
    CountSignal("fineweb.newline_ratio", newline_ratio),
)

SOURCE = "Penedo et al. 2024, section 3.6 (datatrove's code)"
RULES = (
    Rule("fineweb.too_few_end_marks", "fineweb.end_mark_fraction", "<", 0.12, SOURCE),
    Rule("fineweb.too_many_short_lines", "fineweb.short_line_fraction", ">", 0.67, SOURCE),
    Rule("fineweb.too_many_repeated_characters", "fineweb.repeated_character_fraction", ">", 0.01, SOURCE),
    Rule("fineweb.too_many_newlines", "fineweb.newline_ratio", ">", 0.3, SOURCE),
)

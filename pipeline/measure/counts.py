"""What the compiled passes count in a text, and signals as functions of counts.

Every count is an integer, and a signal divides two of them once, in float64: so the bits do not depend on the machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pipeline.measure.signal_group import Batch, Measure

__all__ = ["C4Counts", "CountSignal", "LineCounts", "RawCounts", "columns", "counted", "ratio"]


class RawCounts(NamedTuple):
    """The counts of a batch of view raw, an array with one int64 a text each; characters are code points."""

    # Gopher's quality rules
    tokens: Any  # words and punctuation, word_tokenizer.py
    words: Any  # tokens that are not symbols alone
    word_characters: Any  # characters of words
    alphabetic_tokens: Any  # tokens with a letter
    stop_words: Any  # how many of the eight stop words occur
    hashes: Any  # "#"
    ellipses: Any  # "..." and "…"
    lines: Any  # as str.splitlines
    bullet_lines: Any  # that begin with a bullet
    ellipsis_lines: Any  # that end with an ellipsis
    # Gopher's repetition rules
    characters: Any
    paragraphs: Any  # parted by empty lines
    duplicate_paragraphs: Any  # copies after the first
    duplicate_paragraph_characters: Any
    filled_lines: Any  # parted by newlines, empty ones left out
    duplicate_lines: Any
    duplicate_line_characters: Any
    top_2_gram_characters: Any  # length times count of the most frequent n-gram of tokens
    top_3_gram_characters: Any
    top_4_gram_characters: Any
    duplicate_5_gram_characters: Any  # covered by copies after the first
    duplicate_6_gram_characters: Any
    duplicate_7_gram_characters: Any
    duplicate_8_gram_characters: Any
    duplicate_9_gram_characters: Any
    duplicate_10_gram_characters: Any


class LineCounts(NamedTuple):
    """What is counted in a batch of view raw while C4 rewrites its lines."""

    curly_brackets: Any  # "{" in lines that lasted to that test
    lorem_ipsums: Any  # lines with "lorem ipsum"


class C4Counts(NamedTuple):
    """The counts of a batch of view c4, as those of `RawCounts`."""

    sentences: Any
    # FineWeb's rules
    text_lines: Any  # lines that are not blank
    terminal_lines: Any  # that end with a mark that ends a sentence
    short_lines: Any  # of at most 30 characters
    repeated_characters: Any  # characters of lines after the first of their kind
    line_characters: Any  # all characters but newlines
    newlines: Any
    c4_tokens: Any


PLACES = {name: place for kind in (RawCounts, C4Counts) for place, name in enumerate(kind._fields)}


def columns(*names: str) -> tuple[int, ...]:
    """The columns of counts in the array that compiled code fills."""
    return tuple(PLACES[name] for name in names)


@dataclass(frozen=True)
class CountSignal:
    """A signal that is a function of counts: float64, always finite."""

    name: str
    function: Callable[[Any], np.ndarray]
    text: str = ""  # what it means; default: the function's docstring

    @property
    def meaning(self) -> str:
        """What it means, in a line."""
        return self.text or (self.function.__doc__ or "").strip().partition("\n")[0]


def counted(count: Callable[[np.ndarray, np.ndarray], Any], signals: tuple[CountSignal, ...]) -> Measure:
    """The measure of signals that are functions of what one compiled pass counts."""

    def measure(batch: Batch) -> dict[str, Any]:
        counts = batch.once(count)
        return {signal.name: signal.function(counts) for signal in signals}

    return measure


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole in float64; 0 where the whole is 0, so that an empty text has defined values."""
    return part / np.maximum(whole, 1)

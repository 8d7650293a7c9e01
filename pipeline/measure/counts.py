"""What the compiled pass counts in a text, and what signals and rules are.

Every count is an integer, and a signal divides two of them once, in float64: so the bits do not depend on the machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

__all__ = ["Comparison", "Counts", "Rule", "Signal", "View", "columns", "ratio"]

View = Literal["raw", "c4", "final"]
Comparison = Literal["<", ">", "not in"]


class Counts(NamedTuple):
    """The counts of a batch, an array with one int64 a text each; characters are code points."""

    # View raw: Gopher's quality rules
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
    # View raw: Gopher's repetition rules
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
    # View c4: C4's rules for documents; the first two are counted while lines are rewritten
    curly_brackets: Any  # "{" in lines that lasted to that test
    lorem_ipsums: Any  # lines with "lorem ipsum"
    sentences: Any
    # View c4: FineWeb's rules
    text_lines: Any  # lines that are not blank
    terminal_lines: Any  # that end with a mark that ends a sentence
    short_lines: Any  # of at most 30 characters
    repeated_characters: Any  # characters of lines after the first of their kind
    line_characters: Any  # all characters but newlines
    newlines: Any
    c4_tokens: Any
    # Of the document
    language_score: Any  # float64
    url_blocked: Any  # 0 or 1


COLUMNS = {name: number for number, name in enumerate(Counts._fields)}


def columns(*names: str) -> tuple[int, ...]:
    """The columns of counts in the array that compiled code fills."""
    return tuple(COLUMNS[name] for name in names)


@dataclass(frozen=True)
class Signal:
    """A number measured once per document: a function of its counts."""

    name: str
    view: View  # the text that is measured
    function: Callable[[Counts], np.ndarray]  # float64, always finite


@dataclass(frozen=True)
class Rule:
    """A fault, by its name: the signal lies below ("<"), above (">") or outside ("not in") the threshold."""

    name: str
    signal: str
    comparison: Comparison
    threshold: float | tuple[str, ...]  # as published
    source: str
    stage: str = "rules"


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole in float64; 0 where the whole is 0, so that an empty text has defined values."""
    return part / np.maximum(whole, 1)

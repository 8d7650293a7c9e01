"""C4's rules for the lines that its rewriting (c4_lines.py) has left.

Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2, in datatrove 0.10's reading.
Differs: sentences are counted with the tokens of word_tokenizer.py, where datatrove takes spaCy's.
An empty text has 0 for every signal; it is dropped as `c4.too_few_sentences`.
"""

from typing import Any

import numpy as np

from pipeline.measure.counts import C4Counts, CountSignal, LineCounts, columns
from pipeline.measure.signal_group import Rule
from pipeline.numba_kernels import njit
from pipeline.text.word_tokenizer import BEGINS_LINE, FULL_STOP, ONLY_PUNCTUATION

__all__ = ["LINE_SIGNALS", "RULES", "SIGNALS", "count_sentences"]

(SENTENCES,) = columns("sentences")


@njit(nogil=True)
def count_sentences(kinds: Any, num_tokens: int, row: Any) -> None:
    """Count sentences into `row`: a line begins one, and so does what follows a full stop and is no punctuation."""
    sentences = 0
    after_stop = False
    for i in range(num_tokens):
        kind = kinds[i]
        if kind & BEGINS_LINE:
            sentences += 1
            after_stop = (kind & FULL_STOP) != 0
        elif kind & FULL_STOP:
            after_stop = True
        elif after_stop and not kind & ONLY_PUNCTUATION:
            sentences += 1
            after_stop = False
    row[SENTENCES] = sentences


def num_sentences(counts: C4Counts) -> np.ndarray:
    """Sentences of the lines that are left."""
    return counts.sentences.astype(np.float64)


def num_curly_brackets(counts: LineCounts) -> np.ndarray:
    """ "{" in lines that pass the tests before this one."""
    return counts.curly_brackets.astype(np.float64)


def num_lorem_ipsum(counts: LineCounts) -> np.ndarray:
    """Lines with "lorem ipsum" that pass the tests before this one."""
    return counts.lorem_ipsums.astype(np.float64)


LINE_SIGNALS = (
    CountSignal("c4.num_lorem_ipsum", num_lorem_ipsum),
    CountSignal("c4.num_curly_brackets", num_curly_brackets),
)
SIGNALS = (CountSignal("c4.num_sentences", num_sentences),)

SOURCE = "Raffel et al. 2020, section 2.2 (datatrove's reading)"
RULES = (
    Rule("c4.lorem_ipsum", "c4.num_lorem_ipsum", ">", 0, SOURCE),
    Rule("c4.curly_bracket", "c4.num_curly_brackets", ">", 0, SOURCE),
    Rule("c4.too_few_sentences", "c4.num_sentences", "<", 5, SOURCE),
)

"""Training a tokenizer: a byte-level BPE, the same bytes whatever the threads and the order of the texts."""

import re
from collections.abc import Iterable, Iterator

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from pipeline.pack.tokenize.tokenizer_file import TokenizerError
from schemas.recipe import TokenizerOptions
from schemas.text_format import plural

__all__ = ["TRAINER_VERSION", "first_tokens", "train_bpe"]

BYTES = 256  # tokens of a byte-level alphabet
TRAINER_VERSION = 1  # of what makes merges from texts, besides the library
# A word of a million letters would be merged for hours, each merge moving the rest of it, and teaches nothing.
# These are runs of letters and digits, of marks, and of spaces; each word is in one of them.
LONG = re.compile(r"(?<![^\W_])[^\W_]{1025,}|(?<![^\w\s])(?<!_)(?:[^\w\s]|_){1025,}|(?<!\s)\s{1025,}")
LONGEST = 1024


def train_bpe(texts: Iterable[str], options: TokenizerOptions) -> bytes:
    """A byte-level BPE as tokenizer.json: special tokens first, then the 256 bytes, then merges.

    Words are split as GPT-2 splits them (Radford et al. 2019). Merges follow from word counts and ties from token
    ids, so neither threads nor the order of the texts change a byte. Words of more than 1,024 letters are cut. Raises
    TokenizerError for a vocabulary too small.
    """
    special = first_tokens(options)
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=options.vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((piece for text in texts for piece in _short_words(text)), trainer)
    return tokenizer.to_str().encode()


def _short_words(text: str) -> Iterator[str]:
    """The text, cut inside of words of more than 1,024 letters, marks or spaces."""
    start = 0
    for found in LONG.finditer(text):
        for cut in range(found.start() + LONGEST, found.end(), LONGEST):
            yield text[start:cut]
            start = cut
    yield text[start:]


def first_tokens(options: TokenizerOptions) -> list[str]:
    """The special tokens that a trained vocabulary begins with. Raises TokenizerError for one too small for them."""
    special = list(dict.fromkeys([options.end_of_text, *_begin(options), *options.special_tokens]))
    if options.vocab_size < BYTES + len(special):
        raise TokenizerError(
            f"tokenizer.vocab_size={options.vocab_size}: {BYTES} bytes and {plural(len(special), 'special token')} "
            f"need at least {BYTES + len(special)}"
        )
    return special


def _begin(options: TokenizerOptions) -> list[str]:
    return [] if options.begin_of_text is None else [options.begin_of_text]

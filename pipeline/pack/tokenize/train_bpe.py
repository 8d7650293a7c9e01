"""The tokenizer: trained on a sample of the kept documents, or loaded from a tokenizer.json."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from schemas.generation import EndOfText, Tokenizer
from schemas.manifest import file_digest
from schemas.recipe import TokenizerOptions
from schemas.text_format import plural

__all__ = [
    "TRAINER_VERSION",
    "TokenizerError",
    "describe_tokenizer",
    "first_tokens",
    "identity_options",
    "load_tokenizer",
    "train_bpe",
]

BYTES = 256  # tokens of a byte-level alphabet
TRAINER_VERSION = 1  # of what makes merges from texts, besides the library
# A word of a million letters would be merged for hours, each merge moving the rest of it, and teaches nothing.
# These are runs of letters and digits, of marks, and of spaces; each word is in one of them.
LONG = re.compile(r"(?<![^\W_])[^\W_]{1025,}|(?<![^\w\s])(?<!_)(?:[^\w\s]|_){1025,}|(?<!\s)\s{1025,}")
LONGEST = 1024


class TokenizerError(ValueError):
    """A tokenizer that cannot be used: its message says why and what would do."""


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
    special = list(dict.fromkeys([options.end_of_text, *options.special_tokens]))
    if options.vocab_size < BYTES + len(special):
        raise TokenizerError(
            f"tokenizer.vocab_size={options.vocab_size}: {BYTES} bytes and {plural(len(special), 'special token')} "
            f"need at least {BYTES + len(special)}"
        )
    return special


def load_tokenizer(data: bytes, name: str) -> tokenizers.Tokenizer:
    """A tokenizer.json ready to encode documents whole and as they are.

    A document never yields a special token: where its text spells one out, it is encoded as any other text
    (`encode_special_tokens`). Added tokens that are not special are words of the vocabulary and match as ever.
    Truncation and padding of the file are switched off. Raises TokenizerError when the file is no tokenizer, or
    draws at random.
    """
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(data)
    except Exception as error:  # the bindings raise bare Exception
        raise TokenizerError(f"{name}: not a tokenizer.json: {' '.join(str(error).split())}") from None
    dropout = getattr(tokenizer.model, "dropout", None)
    if dropout:
        raise TokenizerError(f"{name}: dropout={dropout:g} encodes at random: set it to null")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def describe_tokenizer(data: bytes, path: str, name: str, options: TokenizerOptions) -> Tokenizer:
    """What the manifest says of a tokenizer; `name` is how messages call it.

    Raises TokenizerError when the vocabulary has no such token, with those it might be.
    """
    tokenizer, token = load_tokenizer(data, name), options.end_of_text
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if token not in vocabulary:
        raise TokenizerError(
            f"{name}: no token {token!r} to end documents with: set tokenizer.end_of_text to "
            f"{' or '.join(repr(each) for each in _candidates(tokenizer, vocabulary)) or 'a token of its vocabulary'}"
        )
    size = max(vocabulary.values()) + 1
    special = {added.content: number for number, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    return Tokenizer(
        path=path,
        sha256=file_digest(data),
        vocab_size=size,
        token_type="uint16" if size <= 1 << 16 else "uint32",
        end_of_text=EndOfText(token=token, id=vocabulary[token]),
        special_tokens=dict(sorted(special.items(), key=lambda item: item[1])),
        options=identity_options(options, data),
    )


def identity_options(options: TokenizerOptions, data: bytes) -> dict[str, Any]:
    """The recipe's tokenizer section as recorded: of a loaded tokenizer the content counts, not where it lay."""
    if options.file is not None:
        return {"file": file_digest(data), "end_of_text": options.end_of_text}
    return {key: value for key, value in options.model_dump(mode="json").items() if key != "file"}


def _candidates(tokenizer: tokenizers.Tokenizer, vocabulary: dict[str, int]) -> list[str]:
    """Tokens that may end documents: special ones, and those named so."""
    special = [added.content for added in tokenizer.get_added_tokens_decoder().values() if added.special]
    named = [token for token in ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "[SEP]") if token in vocabulary]
    return list(dict.fromkeys(named + special))[:8]

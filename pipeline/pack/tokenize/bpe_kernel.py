"""Byte-level BPE as compiled code: the ids that the tokenizers library gives, several times as fast.

A text is cut into words (pretokens.py), whose ids are remembered (word_cache.py) or merged (merges.py). `compile_bpe`
knows the files of GPT-2, GPT-4, Llama 3, Qwen and those that `train_bpe` makes; what it does not recognise, and what
the installed library answers in another way, is left to the library.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.numba_kernels import kernel, types
from pipeline.pack.tokenize.merges import SHORT, Merges, make_merges, merge_word
from pipeline.pack.tokenize.pretokens import GPT2, KINDS, KINDS_TYPE, PATTERNS, word_end_cl100k, word_end_gpt2
from pipeline.pack.tokenize.word_cache import (
    CACHE_TYPE,
    MAX_CACHED,
    WordCache,
    find_slot,
    new_cache,
    recall,
    remember,
    word_key,
)
from pipeline.text.utf8 import BYTES, INDEXES

__all__ = ["BytePairs", "byte_letters", "compile_bpe", "encode", "word_cache", "word_ends"]

SLOTS = 1 << 16  # of a word cache: 4 MB
FORMS = ("NFC", "NFD", "NFKC", "NFKD")

CHUNKS = types.Array(types.uint64, 1, "C", readonly=True)
MERGES_TYPE = types.NamedTuple((types.Array(types.int64, 1, "C", readonly=True), CHUNKS, CHUNKS), Merges)


class BytePairs(NamedTuple):
    """A tokenizer as `encode` takes it."""

    family: int  # of patterns
    digits: int  # of a word, in the family CL100K
    merges: Merges
    known: WordCache  # words that are one token whatever the merges say
    normalized: bool  # texts are to be brought into the tokenizer's Unicode normal form first
    added: tuple[str, ...]  # words that are to be cut out of texts first: texts with them are for the library


def compile_bpe(data: bytes) -> BytePairs | None:
    """A tokenizer.json as compiled code takes it; None when it is of another kind."""
    spec = json.loads(data)
    model, normalizer = spec["model"], spec.get("normalizer")
    pattern = _pattern(spec.get("pre_tokenizer") or {})
    plain = not any(model.get(name) for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
    if pattern is None or not plain or model.get("type") != "BPE" or (normalizer or {}).get("type", "NFC") not in FORMS:
        return None
    vocabulary, letters = model["vocab"], byte_letters()
    if not vocabulary.keys() >= set(letters) or len({*vocabulary.values()}) < len(vocabulary):
        return None
    known = _known_words(vocabulary, letters) if model.get("ignore_merges") else {}
    if any(len(word) > MAX_CACHED for word in known):
        return None
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    merges = [(vocabulary[left], vocabulary[right], vocabulary[left + right]) for left, right in pairs]
    added = (token["content"] for token in spec.get("added_tokens") or [] if not token["special"])
    table = make_merges([vocabulary[letter] for letter in letters], merges)
    return BytePairs(*pattern, table, _learn(known), bool(normalizer), tuple(added))


def _pattern(pre_tokenizer: dict[str, Any]) -> tuple[int, int] | None:
    """Family and digits of a pre-tokenizer: ByteLevel, alone or after a Split by a pattern that is known."""
    steps = pre_tokenizer.get("pretokenizers") or [pre_tokenizer]
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space", True):
        return None
    by_itself = last.get("use_regex", True)
    if len(steps) == 1:
        return (GPT2, 0) if by_itself else None
    split = steps[0]
    if (
        len(steps) > 2
        or by_itself
        or split.get("type") != "Split"
        or split["behavior"] != "Isolated"
        or split["invert"]
    ):
        return None
    return PATTERNS.get(split["pattern"].get("Regex", ""))


def byte_letters() -> list[str]:
    """The character that stands for each byte in a vocabulary (GPT-2's `bytes_to_unicode`)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def _known_words(vocabulary: dict[str, int], letters: Sequence[str]) -> dict[bytes, int]:
    """The vocabulary's words by their bytes; those with other characters come out of no text."""
    byte_of = {letter: byte for byte, letter in enumerate(letters)}
    return {
        bytes(byte_of[letter] for letter in word): number
        for word, number in vocabulary.items()
        if word and all(letter in byte_of for letter in word)
    }


def _learn(words: dict[bytes, int]) -> WordCache:
    """A cache of words of one id each, which never grows full."""
    cache = new_cache(1 << (2 * len(words)).bit_length())
    cache = cache._replace(words=np.empty(sum(len(word) // 8 + 1 for word in words) + MAX_CACHED, np.uint64))
    offsets = np.cumsum([0, *map(len, words)]).astype(np.int64)
    chunks, _ = _padded(np.frombuffer(b"".join(words), np.uint8), 0, int(offsets[-1]))
    _remember_all(chunks, offsets, np.array([*words.values()], np.uint32), cache)
    return cache


@kernel(types.void(CHUNKS, types.int64[::1], types.uint32[::1], CACHE_TYPE))
def _remember_all(chunks: Any, offsets: Any, ids: Any, cache: Any) -> None:
    for word in range(ids.size):
        low, high = word_key(chunks, offsets[word], offsets[word + 1])
        remember(cache, low, high, chunks, offsets[word], offsets[word + 1], ids, word, word + 1)


def word_cache() -> WordCache:
    """A cache for `encode`, which only one thread at a time may use."""
    return new_cache(SLOTS)


def encode(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], tokenizer: BytePairs, end_id: int, cache: WordCache
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Ids of texts, `end_id` after each, and the index after each text's last; text i is data[offsets[i]:offsets[i+1]].

    Needs memory of 13 bytes a byte of text, of which those for ids that do not come are never touched.
    """
    first, last = int(offsets[0]), int(offsets[-1])
    chunks, room = _padded(data, first, last)
    ids, ends = np.empty(last - first + len(offsets), np.uint32), np.empty(len(offsets) - 1, np.int64)
    family, digits, merges, known = tokenizer[:4]
    number = _encode(room, chunks, offsets, family, digits, KINDS, merges, known, cache, end_id, ids, ends)
    return ids[:number], ends


def word_ends(data: NDArray[np.uint8], tokenizer: BytePairs) -> NDArray[np.int64]:
    """The byte after each word of one text."""
    _, room = _padded(data, 0, len(data))
    return _word_ends(room, len(data), tokenizer.family, tokenizer.digits, KINDS)


def _padded(data: NDArray[np.uint8], first: int, last: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """A copy of data[first:last] with 16 bytes or more of room after it, by eights and by bytes."""
    chunks = np.empty(((last - first) >> 3) + 3, np.uint64)
    chunks[-3:] = 0
    room = chunks.view(np.uint8)
    room[: last - first] = data[first:last]
    chunks.setflags(write=False)
    room.setflags(write=False)
    return chunks, room


@kernel(types.int64[::1](BYTES, types.int64, types.int64, types.int64, KINDS_TYPE))
def _word_ends(data: Any, end: int, family: int, digits: int, kinds: Any) -> Any:
    ends = np.empty(end, np.int64)
    n = i = 0
    while i < end:
        i = word_end_gpt2(data, i, end, kinds) if family == GPT2 else word_end_cl100k(data, i, end, digits, kinds)
        ends[n] = i
        n += 1
    return ends[:n]


@kernel(
    types.int64(
        BYTES, CHUNKS, INDEXES, types.int64, types.int64, KINDS_TYPE, MERGES_TYPE, CACHE_TYPE, CACHE_TYPE,
        types.int64, types.uint32[::1], types.int64[::1],
    ),
)  # fmt: skip
def _encode(
    data: Any, chunks: Any, offsets: Any, family: int, digits: int, kinds: Any, merges: Any, known: Any, cache: Any,
    end_id: int, out: Any, ends: Any,
) -> int:  # fmt: skip
    scratch_ids, scratch_pairs = np.empty(SHORT, np.int64), np.empty(SHORT, np.uint64)
    n = 0
    for text in range(offsets.size - 1):
        i, end = offsets[text] - offsets[0], offsets[text + 1] - offsets[0]
        while i < end:
            start = i
            if family == GPT2:
                i = word_end_gpt2(data, start, end, kinds)
            else:
                i = word_end_cl100k(data, start, end, digits, kinds)
            if i - start > MAX_CACHED:
                n = merge_word(data, start, i, merges, scratch_ids, scratch_pairs, out, n)
                continue
            low, high = word_key(chunks, start, i)
            before = n
            n = recall(cache, find_slot(cache, low, high, chunks, start, i), out, n)
            if n > before:
                continue
            n = recall(known, find_slot(known, low, high, chunks, start, i), out, n)
            if n == before:
                n = merge_word(data, start, i, merges, scratch_ids, scratch_pairs, out, n)
            remember(cache, low, high, chunks, start, i, out, before, n)
        out[n] = end_id
        n += 1
        ends[text] = n
    return n

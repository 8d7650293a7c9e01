"""Texts to token ids in batches: by fastokens where it is known to agree, else by the tokenizers library."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.pack.tokenize.byte_level import byte_level_like
from pipeline.pack.tokenize.tokenizer_file import load_tokenizer, reserved_ids, text_spec
from schemas.generation import Tokenizer

__all__ = ["Encoder"]

BATCH_BYTES = 1 << 20  # of text encoded at once: an encoding of the library takes about 100 bytes a token
Ids = NDArray[np.integer[Any]]


class Encoder:
    """Texts to token ids, end-of-text last and begin-of-text, where there is one, first.

    Between them are the ids of `Tokenizer.encode` without special tokens, always: a text that spells a special token is
    encoded as any other, so that these ids come at the ends of documents only.
    """

    def __init__(self, data: bytes, tokenizer: Tokenizer) -> None:
        # Set here, because the library otherwise turns threads off, with a warning, after a fork.
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        self._end, begin = tokenizer.end_of_text, tokenizer.begin_of_text
        reserved = [mark.token for mark in (self._end, begin) if mark]
        self._library = load_tokenizer(data, tokenizer.path, *reserved)
        self._fast = byte_level_like(text_spec(json.loads(data), *reserved), self._library)
        self._begin = [begin.id] if begin else []
        self._reserved = np.array(reserved_ids(tokenizer))
        self.dtype = np.dtype(tokenizer.token_type)

    @property
    def fast(self) -> bool:
        """Whether fastokens encodes, rather than the library."""
        return self._fast is not None

    def encode(self, texts: pa.LargeStringArray) -> list[Ids]:
        """Token ids of each text, in the order of the texts."""
        if self._fast is None:
            return self._by_library(texts.to_pylist())
        normal = self._normalized(texts)
        others = _holds_any(texts, self._fast.added) | _holds_any(normal, self._fast.added)
        if not others.any():
            return self._by_fastokens(normal.to_pylist())
        by_library = iter(self._by_library(texts.filter(pa.array(others)).to_pylist()))
        by_fastokens = iter(self._by_fastokens(normal.filter(pa.array(~others)).to_pylist()))
        return [next(by_library) if other else next(by_fastokens) for other in others]

    def _normalized(self, texts: pa.LargeStringArray) -> pa.LargeStringArray:
        """The texts in the tokenizer's normal form, as the library's own normalizer makes it."""
        form = self._library.normalizer
        if form is None:
            return texts
        # ASCII is in every normal form.
        normal = [text if text.isascii() else form.normalize_str(text) for text in texts.to_pylist()]
        return pa.array(normal, pa.large_string())

    def _by_fastokens(self, texts: list[str]) -> list[Ids]:
        assert self._fast is not None
        return self._marked(*self._fast.encode(texts)) if texts else []

    def _by_library(self, texts: list[str]) -> list[Ids]:
        result: list[Ids] = []
        for batch in _batches(texts):
            # One conversion a batch: NumPy's cost of a call is that of some fifty tokens.
            encodings = self._library.encode_batch_fast(batch, add_special_tokens=False)
            # Only a text that holds a stand-in of tokenizer_file.py yields what it stands for.
            ids = [np.array(encoding.ids, np.int64) for encoding in encodings]
            ids = [each[~np.isin(each, self._reserved)] for each in ids]
            result += self._marked(np.concatenate(ids), np.cumsum([0, *map(len, ids)]))
        return result

    def _marked(self, ids: Ids, offsets: NDArray[np.int64]) -> list[Ids]:
        """Ids of texts laid end to end as arrays of the dataset's type, with what begins and ends documents."""
        marks = len(self._begin) + 1
        lasts = offsets[1:] + marks * np.arange(1, len(offsets)) - 1
        result = np.empty(len(ids) + marks * len(lasts), self.dtype)
        is_text = np.ones(len(result), bool)
        firsts = np.concatenate([[0], lasts[:-1] + 1])
        for places, mark in ((firsts, self._begin), (lasts, [self._end.id])):
            if mark:
                is_text[places] = False
                result[places] = mark[0]
        result[is_text] = ids
        return np.split(result, firsts[1:])


def _holds_any(texts: pa.LargeStringArray, words: Sequence[str]) -> NDArray[np.bool_]:
    """Which texts hold one of the words."""
    result = np.zeros(len(texts), bool)
    for word in words:
        result |= pc.match_substring(texts, word).to_numpy(zero_copy_only=False)
    return result


def _batches(texts: list[str]) -> Iterator[list[str]]:
    """Runs of texts of about BATCH_BYTES characters."""
    batch: list[str] = []
    size = 0
    for text in texts:
        if batch and size + len(text) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += len(text)
    if batch:
        yield batch

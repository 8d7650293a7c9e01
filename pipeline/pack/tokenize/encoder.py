"""Texts to token ids in batches: by compiled code where it knows the tokenizer, else by the tokenizers library."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
from numpy.typing import NDArray

from pipeline.pack.tokenize.bpe_kernel import BytePairs, WordCache, compile_bpe, encode, word_cache, word_ends
from pipeline.pack.tokenize.pretokens import probe_text
from pipeline.pack.tokenize.train_bpe import load_tokenizer
from pipeline.runtime.cores import cores
from pipeline.text.edits import text_buffers
from schemas.generation import Tokenizer

__all__ = ["Encoder"]

BATCH_BYTES = 1 << 20  # of text encoded at once: an encoding of the library takes about 100 bytes a token
MIN_RUN_BYTES, MAX_RUN_BYTES = 1 << 18, 1 << 22  # of text that compiled code encodes in one thread at once
Ids = NDArray[np.integer[Any]]


class Encoder:
    """Texts to token ids, end-of-text last: those of `Tokenizer.encode` without special tokens, always.

    On RAYON_NUM_THREADS threads, by default one a core: worker processes, which are one a core, set it to 1.
    """

    def __init__(self, data: bytes, tokenizer: Tokenizer) -> None:
        # Said aloud, because the library otherwise turns threads off, with a warning, after a fork.
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        self._tokenizer = load_tokenizer(data, tokenizer.path)
        self._end = tokenizer.end_of_text.id
        self.dtype = np.dtype(tokenizer.token_type)
        self._pairs = compiled_like(data, self._tokenizer)
        self._threads = int(os.environ.get("RAYON_NUM_THREADS") or 0) or cores()
        self._caches: SimpleQueue[WordCache] = SimpleQueue()

    @property
    def compiled(self) -> bool:
        """Whether compiled code encodes, rather than the library."""
        return self._pairs is not None

    def encode(self, texts: pa.LargeStringArray) -> list[Ids]:
        """Token ids of each text, in the order of the texts."""
        if self._pairs is None:
            return _by_library(texts.to_pylist(), self._tokenizer, self._end, self.dtype)
        normal = self._normalized(texts)
        others = _holds_any(texts, self._pairs.added) | _holds_any(normal, self._pairs.added)
        if not others.any():
            return self._compiled(normal)
        by_library = iter(
            _by_library(texts.filter(pa.array(others)).to_pylist(), self._tokenizer, self._end, self.dtype)
        )
        compiled = iter(self._compiled(normal.filter(pa.array(~others))))
        return [next(by_library) if other else next(compiled) for other in others]

    def _normalized(self, texts: pa.LargeStringArray) -> pa.LargeStringArray:
        """The texts in the tokenizer's normal form, as the library's own normalizer makes it."""
        if self._pairs is None or not self._pairs.normalized:
            return texts
        form = self._tokenizer.normalizer
        # ASCII is in every normal form.
        normal = [text if text.isascii() else form.normalize_str(text) for text in texts.to_pylist()]
        return pa.array(normal, pa.large_string())

    def _compiled(self, texts: pa.LargeStringArray) -> list[Ids]:
        data, offsets = text_buffers(texts)
        runs = _runs(offsets, self._threads)
        if len(runs) == 1:
            return self._encode_run(data, offsets)
        with ThreadPoolExecutor(self._threads) as pool:
            done = pool.map(lambda run: self._encode_run(data, offsets[run[0] : run[1] + 1]), runs)
            return [ids for each in done for ids in each]

    def _encode_run(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[Ids]:
        assert self._pairs is not None
        try:
            cache = self._caches.get_nowait()
        except Empty:
            cache = word_cache()
        ids, ends = encode(data, offsets, self._pairs, self._end, cache)
        self._caches.put(cache)
        return list(np.split(ids.astype(self.dtype), ends[:-1])) if len(ends) else []


def compiled_like(data: bytes, tokenizer: tokenizers.Tokenizer) -> BytePairs | None:
    """The tokenizer for compiled code, if it cuts and encodes a probe as the installed library does.

    The library's letters and numbers are those of its own Unicode version: with another than our table's, the probe
    comes out in other words.
    """
    pairs = compile_bpe(data)
    if pairs is None:
        return None
    probe = probe_text()
    column = pa.array([probe], pa.large_string())
    words = [len(piece) for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(probe)]  # a letter a byte
    if np.cumsum(words).tolist() != word_ends(text_buffers(column)[0], pairs).tolist():
        return None
    return pairs


def _by_library(texts: list[str], tokenizer: tokenizers.Tokenizer, end_id: int, dtype: np.dtype[Any]) -> list[Ids]:
    result: list[Ids] = []
    for batch in _batches(texts):
        # One conversion a batch: NumPy's cost of a call is that of some fifty tokens.
        flat: list[int] = []
        ends = []
        for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False):
            flat += encoding.ids
            flat.append(end_id)
            ends.append(len(flat))
        result += np.split(np.array(flat, dtype=dtype), ends[:-1])
    return result


def _holds_any(texts: pa.LargeStringArray, words: Sequence[str]) -> NDArray[np.bool_]:
    """Which texts hold one of the words."""
    result = np.zeros(len(texts), bool)
    for word in words:
        result |= pc.match_substring(texts, word).to_numpy(zero_copy_only=False)
    return result


def _runs(offsets: NDArray[np.int64], threads: int) -> list[tuple[int, int]]:
    """Texts first to last, for `threads` to do: of equal bytes, unless that were more or less than makes sense."""
    size = int(offsets[-1] - offsets[0])
    run_bytes = max(MIN_RUN_BYTES, min(MAX_RUN_BYTES, -(-size // threads)))
    cuts = offsets[0] + np.arange(run_bytes, size, run_bytes)
    firsts = np.unique([0, *np.searchsorted(offsets[:-1], cuts)])
    return list(zip(firsts.tolist(), [*firsts[1:].tolist(), len(offsets) - 1], strict=True))


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

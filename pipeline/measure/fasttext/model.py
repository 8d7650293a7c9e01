"""fastText's supervised models (.bin, .ftz), read and applied by a compiled kernel.

Label and probability are those of the library, to the last bit on 3,905 pages and lines in 24 languages, at nearly
three times its speed: the library makes a string of every character n-gram, this reads the bytes once.

Source: Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification" and "FastText.zip"; the file format and
arithmetic of fastText 0.9.2. Differs: losses other than softmax and hierarchical softmax are refused.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.measure.fasttext.model_file import LABEL, ModelFile, read_model
from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.utf8 import BYTES, INDEXES

__all__ = ["FastTextModel"]


END_OF_LINE = b"</s>"
FNV_START, FNV_FACTOR = np.uint32(2166136261), np.uint32(16777619)
WORD_NGRAM_FACTOR = np.uint64(116049371)
LABEL_BYTES = np.frombuffer(LABEL, np.uint8)
LOWEST_SCORE = np.float32(np.log(1e-5))  # the library's log(0 + 1e-5): branches below are given up


class Network(NamedTuple):
    """A model as compiled code takes it: V words and labels, R rows of D numbers, L labels."""

    settings: Any  # int64: num_words, min_n, max_n, word_ngrams, entry of the end of a line
    strings: Any  # uint8: words, then labels, end to end
    string_ends: Any  # int64 (V + 1)
    used: Any  # uint8: a bit for each bucket that has a row; small enough to stay in the cache
    bucket_rows: Any  # int32 (buckets): row of an n-gram by its bucket, -1 where a pruned model has none
    rows: Any  # float32 (R, D): of words, then of n-grams
    output: Any  # float32 (L, D)
    tree: Any  # int32 (2 L - 1, 2): left and right child, -1 for a leaf; empty for softmax
    slots: Any  # int32 (power of two): entry + 1 by the hash of its string; 0: free
    subwords: Any  # int32: rows of a word and its n-grams, end to end; none for a label
    subword_ends: Any  # int64 (V + 1)


NUM_WORDS, MIN_N, MAX_N, WORD_NGRAMS, END_OF_LINE_ENTRY = range(5)  # places in `settings`


def _read_only(kind: Any, dimensions: int = 1) -> Any:
    return types.Array(kind, dimensions, "C", readonly=True)


NETWORK = types.NamedTuple(
    (
        *(INDEXES, BYTES, INDEXES, BYTES, _read_only(types.int32)),
        *(_read_only(types.float32, 2), _read_only(types.float32, 2), _read_only(types.int32, 2)),
        *(_read_only(types.int32), _read_only(types.int32), INDEXES),
    ),
    Network,
)


class FastTextModel:
    """A loaded model: `labels` without their prefix, and `predict`. Raises ValueError for a file that is none."""

    def __init__(self, path: Path) -> None:
        model = read_model(path)
        self.labels = [label[len(LABEL) :].decode("utf-8", "replace") for label in model.labels]
        self._network = _network(model)

    def predict(self, data: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best label of each text (index of `labels`; -1: a text without a word) and its probability (float32).

        Text i is the UTF-8 data[offsets[i]:offsets[i + 1]], read as one line: a newline is a space.
        """
        best, scores = _predict(data, offsets, self._network)
        return best, scores


def _hash(string: bytes) -> int:
    """32-bit FNV-1a with fastText's slip: bytes are signed."""
    h = 2166136261
    for byte in string:
        h = (h ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619 & 0xFFFFFFFF
    return h


END_OF_LINE_HASH = np.uint32(_hash(END_OF_LINE))


def _network(model: ModelFile) -> Network:
    """The model's numbers, with tables that find a string's entry and a word's n-grams."""
    strings = [*model.words, *model.labels]
    end_of_line = strings.index(END_OF_LINE) if END_OF_LINE in strings else -1
    given = (
        np.array([len(model.words), model.min_n, model.max_n, model.word_ngrams, end_of_line], np.int64),
        np.frombuffer(b"".join(strings), np.uint8),
        np.cumsum([0, *map(len, strings)], dtype=np.int64),
        np.packbits(model.bucket_rows >= 0, bitorder="little"),
        model.bucket_rows,
    )
    network = Network(*given, model.rows, model.output, model.tree, *_index(*given))
    for array in network:
        array.setflags(write=False)
    return network


@njit(nogil=True)
def _add_byte(h: Any, byte: Any) -> Any:
    return np.uint32((h ^ np.uint32(np.int32(np.int8(byte)))) * FNV_FACTOR)


@njit(nogil=True)
def _find_slot(data: Any, start: int, end: int, h: Any, slots: Any, strings: Any, string_ends: Any) -> int:
    """The slot of the entry whose string is data[start:end] and hash h, or the free slot where it would stand."""
    mask = slots.size - 1
    slot = np.int64(h) & mask
    while slots[slot] != 0:
        entry = slots[slot] - 1
        first = string_ends[entry]
        if string_ends[entry + 1] - first == end - start:
            i = 0
            while i < end - start and strings[first + i] == data[start + i]:
                i += 1
            if i == end - start:
                break
        slot = (slot + 1) & mask
    return slot


@njit(nogil=True)
def _add_ngrams(data: Any, start: int, end: int, settings: Any, used: Any, bucket_rows: Any, ids: Any, n: int) -> int:
    """Append the rows of the n-grams of <data[start:end]> to `ids`, in the library's order; returns the new length."""
    min_n, max_n = settings[MIN_N], settings[MAX_N]
    num_buckets = np.uint32(bucket_rows.size)
    i = start - 1  # the bracket before the word; the one behind it is at `end`
    while i <= end:
        h = FNV_START
        j, length = i, 0
        while j <= end and length < max_n:
            h = _add_byte(h, np.uint8(0x3C) if j < start else np.uint8(0x3E) if j == end else data[j])
            j += 1
            while j < end and data[j] & 0xC0 == 0x80:
                h = _add_byte(h, data[j])
                j += 1
            length += 1
            # The brackets by themselves are no n-grams.
            if length >= min_n and not (length == 1 and (i < start or j > end)):
                bucket = np.int64(h % num_buckets)
                if used[bucket >> 3] >> (bucket & 7) & 1:
                    ids[n] = bucket_rows[bucket]
                    n += 1
        i += 1
        while i < end and data[i] & 0xC0 == 0x80:
            i += 1
    return n


@kernel(
    types.Tuple((types.int32[::1], types.int32[::1], types.int64[::1]))(
        types.int64[::1], BYTES, INDEXES, types.uint8[::1], _read_only(types.int32)
    ),
)
def _index(settings: Any, strings: Any, string_ends: Any, used: Any, bucket_rows: Any) -> Any:
    """Slots, subwords and their ends, as `Network` has them."""
    num_entries = string_ends.size - 1
    num_slots = 16
    while num_slots < 2 * num_entries:
        num_slots *= 2
    slots = np.zeros(num_slots, np.int32)
    room = settings[NUM_WORDS] + (strings.size + 2 * num_entries) * settings[MAX_N]
    subwords, ends = np.empty(room, np.int32), np.zeros(num_entries + 1, np.int64)
    n = 0
    for entry in range(num_entries):
        first, last = string_ends[entry], string_ends[entry + 1]
        h = FNV_START
        for i in range(first, last):
            h = _add_byte(h, strings[i])
        slots[_find_slot(strings, first, last, h, slots, strings, string_ends)] = entry + 1
        if entry < settings[NUM_WORDS]:
            subwords[n] = entry
            n += 1
            if entry != settings[END_OF_LINE_ENTRY] and settings[MAX_N] > 0:
                n = _add_ngrams(strings, first, last, settings, used, bucket_rows, subwords, n)
        ends[entry + 1] = n
    return slots, subwords[:n].copy(), ends


@njit(nogil=True)
def _is_label(data: Any, start: int, end: int) -> bool:
    """Whether a token that is in no table begins with __label__."""
    if end - start < LABEL_BYTES.size:
        return False
    return bool(np.all(data[start : start + LABEL_BYTES.size] == LABEL_BYTES))


@njit(nogil=True)
def _collect(data: Any, start: int, end: int, network: Any, ids: Any, hashes: Any) -> tuple[int, int]:
    """Write the rows of a text's words and n-grams to `ids`; returns how many, and how many words there are."""
    settings, strings, string_ends, used, bucket_rows, _, _, _, slots, subwords, subword_ends = network
    n, num_words, num_hashes = 0, 0, 0
    i = start
    while True:
        first, h = i, FNV_START
        while i < end and not (data[i] == 0x20 or data[i] == 0 or 0x09 <= data[i] <= 0x0D):
            h = _add_byte(h, data[i])
            i += 1
        if i > first:
            entry = np.int64(slots[_find_slot(data, first, i, h, slots, strings, string_ends)]) - 1
            num_words += 1
        elif i < end:
            i += 1
            continue
        else:
            entry, h = settings[END_OF_LINE_ENTRY], END_OF_LINE_HASH
        is_word = entry < settings[NUM_WORDS]
        if entry >= 0:
            for k in range(subword_ends[entry], subword_ends[entry + 1]):
                ids[n] = subwords[k]
                n += 1
        elif i > first:
            is_word = not _is_label(data, first, i)
            if is_word and settings[MAX_N] > 0:
                n = _add_ngrams(data, first, i, settings, used, bucket_rows, ids, n)
        if is_word:
            hashes[num_hashes] = np.int32(h)
            num_hashes += 1
        if i == first or (entry >= 0 and entry == settings[END_OF_LINE_ENTRY]):
            break
    for i in range(num_hashes):
        h64 = np.uint64(np.int64(hashes[i]))
        for j in range(i + 1, min(num_hashes, i + settings[WORD_NGRAMS])):
            h64 = h64 * WORD_NGRAM_FACTOR + np.uint64(np.int64(hashes[j]))
            row = bucket_rows[np.int64(h64 % np.uint64(bucket_rows.size))]
            if row >= 0:
                ids[n] = row
                n += 1
    return n, num_words


@njit(nogil=True)
def _log(x: Any) -> Any:
    return np.float32(np.log(np.float64(x) + 1e-5))


@njit(nogil=True)
def _dot(row: Any, hidden: Any) -> Any:
    total = np.float32(0)
    for k in range(hidden.size):
        total += row[k] * hidden[k]
    return total


@njit(nogil=True)
def _best_leaf(hidden: Any, output: Any, tree: Any, nodes: Any, scores: Any) -> Any:
    """Depth first through the tree of hierarchical softmax, branches that cannot win left out: (label, log score)."""
    num_labels = output.shape[0]
    best, best_score = np.int64(-1), np.float32(-np.inf)
    nodes[0], scores[0] = tree.shape[0] - 1, np.float32(0)
    depth = 1
    while depth:
        depth -= 1
        node, score = nodes[depth], scores[depth]
        if score < LOWEST_SCORE or (best >= 0 and score < best_score):
            continue
        if tree[node, 0] < 0:
            if best < 0 or score > best_score:
                best, best_score = np.int64(node), score
            continue
        f = _dot(output[node - num_labels], hidden)
        f = np.float32(1.0 / np.float64(np.float32(1) + np.exp(-f)))
        # The left child is looked at first, so it lies on top.
        nodes[depth], scores[depth] = tree[node, 1], score + _log(f)
        nodes[depth + 1], scores[depth + 1] = tree[node, 0], score + _log(np.float32(1.0 - np.float64(f)))
        depth += 2
    return best, best_score


@njit(nogil=True)
def _best_label(hidden: Any, output: Any, scores: Any) -> Any:
    """The label of the largest softmax: (label, log score)."""
    highest = np.float32(-np.inf)
    for label in range(output.shape[0]):
        scores[label] = _dot(output[label], hidden)
        highest = max(highest, scores[label])
    total = np.float32(0)
    for label in range(output.shape[0]):
        scores[label] = np.exp(scores[label] - highest)
        total += scores[label]
    best = np.argmax(scores[: output.shape[0]])
    return np.int64(best), _log(scores[best] / total)


@kernel(types.Tuple((types.int64[::1], types.float32[::1]))(BYTES, INDEXES, NETWORK))
def _predict(data: Any, offsets: Any, network: Any) -> Any:
    """Best label and probability of each text."""
    num_texts, longest = offsets.size - 1, 0
    for text in range(num_texts):
        longest = max(longest, offsets[text + 1] - offsets[text])
    rows, output, tree, settings = network.rows, network.output, network.tree, network.settings
    # Bytes and words together are at most longest + 1; each begins at most max_n n-grams, a word also those of words.
    room = (longest + 2) * (settings[MAX_N] + settings[WORD_NGRAMS] + 1)
    ids, hashes = np.empty(room, np.int32), np.empty(longest + 2, np.int32)
    hidden = np.empty(rows.shape[1], np.float32)
    nodes, scores = np.empty(2 * output.shape[0], np.int64), np.empty(2 * output.shape[0], np.float32)
    best, best_scores = np.full(num_texts, -1, np.int64), np.zeros(num_texts, np.float32)
    for text in range(num_texts):
        n, num_words = _collect(data, offsets[text], offsets[text + 1], network, ids, hashes)
        if n == 0 or num_words == 0:
            continue
        hidden[:] = np.float32(0)
        for i in range(n):
            row = ids[i]
            for k in range(hidden.size):
                hidden[k] += rows[row, k]
        share = np.float32(1.0 / n)
        for k in range(hidden.size):
            hidden[k] *= share
        if tree.size:
            best[text], score = _best_leaf(hidden, output, tree, nodes, scores)
        else:
            best[text], score = _best_label(hidden, output, scores)
        best_scores[text] = np.exp(score)
    return best, best_scores

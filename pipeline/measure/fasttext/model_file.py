"""The file format of fastText 0.9.2's models: .bin, and .ftz, whose n-grams are pruned and rows quantised."""

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["LABEL", "ModelFile", "read_model"]

MAGIC, FORMAT = 793712314, 12
SUPERVISED = 3
HIERARCHICAL_SOFTMAX, SOFTMAX = 1, 3
LABEL = b"__label__"


class ModelFile(NamedTuple):
    """What a model file says; R rows of D numbers, L labels."""

    words: list[bytes]
    labels: list[bytes]  # with their prefix
    min_n: int  # shortest and longest n-grams of characters
    max_n: int
    word_ngrams: int
    bucket_rows: np.ndarray  # int32 (buckets): row of an n-gram by its bucket, -1 where a pruned model has none
    rows: np.ndarray  # float32 (R, D): of words, then of n-grams
    output: np.ndarray  # float32 (L, D)
    tree: np.ndarray  # int32 (2 L - 1, 2): left and right child, -1 for a leaf; empty for softmax


def read_model(path: Path) -> ModelFile:
    """The model in a file. Raises ValueError for a file that is none, or none of a kind that is known."""
    try:
        return _Reader(path.read_bytes()).model()
    except (struct.error, IndexError) as error:
        raise ValueError(f"{path}: not a fastText model: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


class _Reader:
    """Reads the parts of a model file in their order."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + form, self.content, self.place)
        self.place += struct.calcsize("<" + form)
        return values

    def array(self, kind: str, count: int) -> np.ndarray:
        size = count * np.dtype(kind).itemsize
        if count < 0 or self.place + size > len(self.content):
            raise ValueError("the file is cut short")
        values = np.frombuffer(self.content, kind, count, self.place)
        self.place += size
        return values.copy()

    def model(self) -> ModelFile:
        if self.take("ii") != (MAGIC, FORMAT):
            raise ValueError("not a fastText model of format 12")
        dim, _, _, _, _, word_ngrams, loss, kind, num_buckets, min_n, max_n, _ = self.take("12i")
        self.take("d")
        if kind != SUPERVISED or loss not in (HIERARCHICAL_SOFTMAX, SOFTMAX):
            raise ValueError("the model must be supervised, with loss softmax or hs: train it with -loss softmax")
        entries, pruned = self.dictionary()
        words = [string for string, _, is_label in entries if not is_label]
        labels = [string for string, _, is_label in entries if is_label]
        counts = [count for _, count, is_label in entries if is_label]
        rows = self.matrix()
        (output_is_quantised,) = self.take("?")
        if output_is_quantised:
            raise ValueError("the model's output is quantised: quantize it without -qout")
        output = self.dense()
        bucket_rows = np.arange(len(words), len(words) + num_buckets, dtype=np.int32)
        if pruned is not None:
            bucket_rows[:] = -1
            bucket_rows[pruned[:, 0]] = len(words) + pruned[:, 1]
        if num_buckets < 1 and (max_n > 0 or word_ngrams > 1):
            raise ValueError("the file has n-grams and no buckets for them")
        num_rows = max(len(words), int(bucket_rows.max(initial=0)) + 1)
        if rows.shape[1] != dim or rows.shape[0] < num_rows or output.shape != (len(labels), dim):
            raise ValueError("the sizes in the file do not fit each other")
        tree = _huffman(counts) if loss == HIERARCHICAL_SOFTMAX else np.empty((0, 2), np.int32)
        return ModelFile(words, labels, min_n, max_n, word_ngrams, bucket_rows, rows, output, tree)

    def dictionary(self) -> tuple[list[tuple[bytes, int, bool]], np.ndarray | None]:
        """Strings, counts and whether they are labels, words first; and (bucket, row) of a pruned model."""
        size, _, _, _, num_pruned = self.take("iiiqq")
        entries = []
        for _ in range(size):
            end = self.content.find(b"\0", self.place)
            if end < 0:
                raise ValueError("the file is cut short")
            string, self.place = self.content[self.place : end], end + 1
            count, is_label = self.take("q?")
            entries.append((string, count, is_label))
        return entries, None if num_pruned < 0 else self.array("<i4", 2 * num_pruned).reshape(-1, 2)

    def dense(self) -> np.ndarray:
        num_rows, dim = self.take("qq")
        return self.array("<f4", num_rows * dim).reshape(num_rows, dim)

    def matrix(self) -> np.ndarray:
        """The input matrix in full; a quantised one is made of parts of 256 centroids each, times a norm."""
        (is_quantised,) = self.take("?")
        if not is_quantised:
            return self.dense()
        has_norms, num_rows, dim, num_codes = self.take("?qqi")
        codes = self.array("u1", num_codes).reshape(num_rows, -1)
        parts = self.centroids()
        norms = np.ones((num_rows, 1), np.float32)
        if has_norms:
            norm_codes = self.array("u1", num_rows)
            norms = self.centroids()[0][norm_codes]
        rows = np.concatenate([part[codes[:, i]] for i, part in enumerate(parts)], axis=1)
        if rows.shape[1] != dim:
            raise ValueError("the sizes in the file do not fit each other")
        return np.ascontiguousarray(rows * norms)

    def centroids(self) -> list[np.ndarray]:
        """(256, width) for each part of a row; the last may be narrower."""
        dim, num_parts, width, last_width = self.take("4i")
        values = self.array("<f4", 256 * dim)
        cut = 256 * width * (num_parts - 1)
        parts = list(values[:cut].reshape(num_parts - 1, 256, width))
        return [*parts, values[cut:].reshape(256, last_width)]


def _huffman(counts: list[int]) -> np.ndarray:
    """Children of each node of the tree over labels that are sorted by falling count; leaves first, the root last."""
    num_labels = len(counts)
    sums = [*counts, *([10**15] * (num_labels - 1))]
    tree = np.full((2 * num_labels - 1, 2), -1, np.int32)
    leaf, node = num_labels - 1, num_labels
    for parent in range(num_labels, 2 * num_labels - 1):
        for side in range(2):
            if leaf >= 0 and sums[leaf] < sums[node]:
                tree[parent, side], leaf = leaf, leaf - 1
            else:
                tree[parent, side], node = node, node + 1
        sums[parent] = sums[tree[parent, 0]] + sums[tree[parent, 1]]
    return tree

"""Verified pairs of the documents that share a bucket.

Of a bucket with few members all pairs are verified. Of a large one each member is verified against the first (a star,
with as many comparisons as members), and those that are not like it are again a bucket among themselves, until none is
left. So boilerplate that fills a bucket costs a line, not a square.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from pipeline.measure.minhash.shingles import INT64, UINT32
from pipeline.numba_kernels import kernel, njit, types
from pipeline.select.rows import EDGE_ROW

__all__ = ["Sketches", "bucket_edges", "group_buckets", "jaccard", "matching_share"]

BATCH_BYTES = 64 << 20


class Sketches(Protocol):
    """What documents are compared by: signatures, or sorted sets of shingles; uint32 numbers either way."""

    sorted_sets: bool

    def sizes(self, addresses: np.ndarray) -> np.ndarray:
        """Numbers of each document."""

    def gather(self, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of all documents end to end, and the place of the first of each (n + 1)."""


@njit(types.float64(UINT32, UINT32), nogil=True, cache=True)
def matching_share(a: Any, b: Any) -> float:
    """Share of equal hashes of two signatures.

    Counted in 32 bits, as wide as the hashes, so that it becomes vector instructions: 8 ns for 112 hashes against 209.
    """
    equal = np.uint32(0)
    for place in range(np.uint64(a.size)):
        equal = np.uint32(equal + np.uint32(a[place] == b[place]))
    return np.int64(equal) / a.size


@njit(types.float64(UINT32, UINT32), nogil=True, cache=True)
def jaccard(a: Any, b: Any) -> float:
    """Jaccard similarity of two sorted sets."""
    both = i = j = 0
    while i < a.size and j < b.size:
        x, y = a[i], b[j]
        both += x == y
        i += x <= y
        j += y <= x
    return both / (a.size + b.size - both)


@njit(nogil=True)
def _similarity(data: Any, firsts: Any, x: int, y: int, sorted_sets: bool) -> float:
    a, b = data[firsts[x] : firsts[x + 1]], data[firsts[y] : firsts[y + 1]]
    return jaccard(a, b) if sorted_sets else matching_share(a, b)


@njit(nogil=True)
def _add(pairs: Any, similarities: Any, n: int, x: int, y: int, similarity: float) -> Any:
    """Put an edge in place n, with twice the room where there is none."""
    if n == similarities.size:
        more_pairs, more = np.empty((2 * n, 2), np.int64), np.empty(2 * n, np.float64)
        more_pairs[:n], more[:n] = pairs, similarities
        pairs, similarities = more_pairs, more
    pairs[n, 0], pairs[n, 1], similarities[n] = x, y, similarity
    return pairs, similarities


@kernel(
    types.Tuple((types.int64[:, ::1], types.float64[::1]))(
        UINT32, INT64, INT64, types.boolean, types.float64, types.float64, types.int64
    ),
)
def _verify(data: Any, firsts: Any, buckets: Any, sorted_sets: bool, floor: float, join: float, pair_limit: int) -> Any:
    """Pairs at or above `floor` of buckets of consecutive documents; a star's member is done with at `join`."""
    pairs, similarities = np.empty((1024, 2), np.int64), np.empty(1024, np.float64)
    n = 0
    for bucket in range(buckets.size - 1):
        left = np.arange(buckets[bucket], buckets[bucket + 1])
        while left.size > pair_limit:
            centre, remaining = left[0], 0
            for place in range(1, left.size):
                similarity = _similarity(data, firsts, centre, left[place], sorted_sets)
                if similarity >= floor:
                    pairs, similarities = _add(pairs, similarities, n, centre, left[place], similarity)
                    n += 1
                if similarity < join:
                    left[remaining] = left[place]
                    remaining += 1
            left = left[:remaining]
        for i in range(left.size):
            for j in range(i + 1, left.size):
                similarity = _similarity(data, firsts, left[i], left[j], sorted_sets)
                if similarity >= floor:
                    pairs, similarities = _add(pairs, similarities, n, left[i], left[j], similarity)
                    n += 1
    return pairs[:n].copy(), similarities[:n].copy()


def group_buckets(hashes: np.ndarray, addresses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Addresses of documents that share a bucket, bucket by bucket, sorted in each, and where buckets start (+ 1)."""
    order = np.argsort(hashes)
    same = hashes[order][1:] == hashes[order][:-1]
    shared = order[np.concatenate([same, [False]]) | np.concatenate([[False], same])] if same.size else order[:0]
    shared = shared[np.lexsort((addresses[shared], hashes[shared]))]
    starts = np.flatnonzero(np.concatenate([[True], hashes[shared][1:] != hashes[shared][:-1]])[: shared.size])
    return addresses[shared], np.concatenate([starts, [shared.size]]).astype(np.int64)


def bucket_edges(
    members: np.ndarray, buckets: np.ndarray, sketches: Sketches, floor: float, join: float, pair_limit: int
) -> np.ndarray:
    """EDGE_ROWs of buckets as `group_buckets` gives them: verified pairs with a similarity of at least `floor`.

    `join` is the highest similarity that any use of the edges asks for: a member of a star below it is compared again.
    """
    edges = [np.empty(0, EDGE_ROW)]
    if not members.size:
        return edges[0]
    for start, stop in _batches(buckets, sketches.sizes(members)):
        batch = members[buckets[start] : buckets[stop]]
        if stop - start == 1 and batch.size > pair_limit and _bytes(sketches, batch) > BATCH_BYTES:
            edges.extend(_huge_bucket(batch, sketches, floor, join, pair_limit))
            continue
        data, firsts = sketches.gather(batch)
        bounds = buckets[start : stop + 1] - buckets[start]
        edges.append(_rows(batch, *_verify(data, firsts, bounds, sketches.sorted_sets, floor, join, pair_limit)))
    return np.concatenate(edges)


def _bytes(sketches: Sketches, addresses: np.ndarray) -> int:
    return int(sketches.sizes(addresses).sum()) * 4


def _batches(buckets: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Runs of buckets [start, stop) that together take about BATCH_BYTES; a larger one stands alone."""
    ends = np.concatenate([[0], np.cumsum(sizes * 4)])[buckets]
    start = 0
    while start < buckets.size - 1:
        stop = int(np.searchsorted(ends, ends[start] + BATCH_BYTES, side="right")) - 1
        stop = max(stop, start + 1)
        yield start, stop
        start = stop


def _huge_bucket(
    members: np.ndarray, sketches: Sketches, floor: float, join: float, pair_limit: int
) -> Iterator[np.ndarray]:
    """The edges of one bucket that is not to be held at once: star after star, until the rest fits."""
    while members.size > pair_limit and _bytes(sketches, members) > BATCH_BYTES:
        rest = members[1:]
        unlike = []
        for start, stop in _batches(np.arange(rest.size + 1), sketches.sizes(rest)):
            batch = np.concatenate([members[:1], rest[start:stop]])
            data, firsts = sketches.gather(batch)
            similarities = _star(data, firsts, sketches.sorted_sets)
            near = np.flatnonzero(similarities >= floor)
            pairs = np.stack([np.zeros(near.size, np.int64), near + 1], axis=1)
            yield _rows(batch, pairs, similarities[near])
            unlike.append(batch[1:][similarities < join])
        members = np.concatenate(unlike)
    if members.size < 2:
        return
    data, firsts = sketches.gather(members)
    whole = np.array([0, members.size])
    yield _rows(members, *_verify(data, firsts, whole, sketches.sorted_sets, floor, join, pair_limit))


@kernel(types.float64[::1](UINT32, INT64, types.boolean))
def _star(data: Any, firsts: Any, sorted_sets: bool) -> Any:
    """Similarity of each document but the first to the first."""
    similarities = np.empty(firsts.size - 2)
    for other in range(1, firsts.size - 1):
        similarities[other - 1] = _similarity(data, firsts, 0, other, sorted_sets)
    return similarities


def _rows(addresses: np.ndarray, pairs: np.ndarray, similarities: np.ndarray) -> np.ndarray:
    rows = np.empty(len(pairs), EDGE_ROW)
    rows["a"], rows["b"], rows["similarity"] = addresses[pairs[:, 0]], addresses[pairs[:, 1]], similarities
    return rows

"""Byte-pair merging of one word, as compiled code: the merge of lowest rank first, of equal ones the leftmost.

Source: Sennrich et al. 2016; the order is that of `Word::merge_all` of the tokenizers library. A *pair* is the number
rank << 32 | new id of two neighbours, NO_PAIR where they never merge, so that the smallest pair is the next to merge.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.numba_kernels import kernel, njit, types
from pipeline.text.hashing import mix64

__all__ = ["Merges", "make_merges", "merge_word"]

NO_PAIR = np.uint64(0xFFFFFFFFFFFFFFFF)
NO_KEY = np.uint64(0xFFFFFFFFFFFFFFFF)
LOW = np.uint64(0xFFFFFFFF)
SHIFT = np.uint64(32)
SHORT = 48  # bytes of a word whose pairs are searched one by one; longer ones take a heap, lest they take for ever


class Merges(NamedTuple):
    """A vocabulary's merges, as compiled code takes them."""

    byte_ids: Any  # (256,) int64: the id of each byte
    keys: Any  # uint64, open addressing: left id << 32 | right id, or NO_KEY
    pairs: Any  # uint64: what the key's ids merge to


def make_merges(byte_ids: Sequence[int], merges: Sequence[tuple[int, int, int]]) -> Merges:
    """Tables of (left id, right id, new id) in the order of their ranks; of a repeated one the last rank counts."""
    columns = np.array(merges, np.uint64).reshape(-1, 3)
    size = 1 << max(4, int(2 * len(columns)).bit_length())
    keys, pairs = np.full(size, NO_KEY, np.uint64), np.full(size, NO_PAIR, np.uint64)
    _fill(columns, keys, pairs)
    table = Merges(np.array(byte_ids, np.int64), keys, pairs)
    for array in table:
        array.setflags(write=False)
    return table


@kernel(types.void(types.uint64[:, ::1], types.uint64[::1], types.uint64[::1]))
def _fill(merges: Any, keys: Any, pairs: Any) -> None:
    mask = np.uint64(keys.size - 1)
    for rank in range(merges.shape[0]):
        key = merges[rank, 0] << SHIFT | merges[rank, 1]
        slot = mix64(key) & mask
        while keys[slot] != NO_KEY and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        keys[slot] = key
        pairs[slot] = np.uint64(rank) << SHIFT | merges[rank, 2]


@njit(nogil=True)
def pair_of(left: int, right: int, merges: Any) -> Any:
    """The pair of two neighbouring ids."""
    mask = np.uint64(merges.keys.size - 1)
    key = np.uint64(left) << SHIFT | np.uint64(right)
    slot = mix64(key) & mask
    while merges.keys[slot] != key:
        if merges.keys[slot] == NO_KEY:
            return NO_PAIR
        slot = (slot + np.uint64(1)) & mask
    return merges.pairs[slot]


@njit(nogil=True)
def merge_word(data: Any, start: int, end: int, merges: Any, ids: Any, pairs: Any, out: Any, n: int) -> int:
    """Write the ids of the word data[start:end] from out[n] on; returns the index after the last.

    `ids` (int64) and `pairs` (uint64) are scratch of SHORT each.
    """
    if end - start > SHORT:
        return merge_long(data, start, end, merges, out, n)
    size = end - start
    for i in range(size):
        ids[i] = merges.byte_ids[data[start + i]]
    for i in range(size - 1):
        pairs[i] = pair_of(ids[i], ids[i + 1], merges)
    while size > 1:
        best = 0
        for i in range(1, size - 1):
            if pairs[i] < pairs[best]:
                best = i
        if pairs[best] == NO_PAIR:
            break
        ids[best] = np.int64(pairs[best] & LOW)
        size -= 1
        for i in range(best + 1, size):
            ids[i] = ids[i + 1]
            pairs[i - 1] = pairs[i]
        if best + 1 < size:
            pairs[best] = pair_of(ids[best], ids[best + 1], merges)
        if best > 0:
            pairs[best - 1] = pair_of(ids[best - 1], ids[best], merges)
    for i in range(size):
        out[n + i] = ids[i]
    return n + size


@njit(nogil=True)
def push(heap: Any, size: int, value: Any) -> int:
    """Add to a binary heap of `size` values, the smallest first; returns its new size."""
    i = size
    while i > 0 and heap[(i - 1) >> 1] > value:
        heap[i] = heap[(i - 1) >> 1]
        i = (i - 1) >> 1
    heap[i] = value
    return size + 1


@njit(nogil=True)
def pop(heap: Any, size: int) -> int:
    """Take the smallest value, heap[0], off the heap; returns its new size."""
    size -= 1
    value, i = heap[size], 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[i] = heap[child]
        i = child
    heap[i] = value
    return size


@njit(nogil=True)
def merge_long(data: Any, start: int, end: int, merges: Any, out: Any, n: int) -> int:
    """As `merge_word`, in O(size log size): the heap holds rank << 32 | position, also of pairs that are gone since.

    Neighbours are linked lists over positions, which are below 2^32, as a text's bytes are.
    """
    size = end - start
    ids, pairs = np.empty(size, np.uint32), np.full(size, NO_PAIR)
    after, before = np.empty(size, np.uint32), np.empty(size, np.uint32)
    heap, waiting = np.empty(3 * size, np.uint64), 0
    for i in range(size):
        ids[i] = merges.byte_ids[data[start + i]]
        after[i], before[i] = i + 1, i - 1
    for i in range(size - 1):
        pairs[i] = pair_of(ids[i], ids[i + 1], merges)
        if pairs[i] != NO_PAIR:
            waiting = push(heap, waiting, pairs[i] & ~LOW | np.uint64(i))
    while waiting:
        top = heap[0]
        waiting = pop(heap, waiting)
        i = np.int64(top & LOW)
        if pairs[i] == NO_PAIR or pairs[i] >> SHIFT != top >> SHIFT:
            continue  # merged away, or with another neighbour since
        right = np.int64(after[i])
        ids[i] = pairs[i] & LOW
        pairs[i], pairs[right] = NO_PAIR, NO_PAIR
        after[i] = after[right]
        if after[i] < size:
            before[after[i]] = i
            pairs[i] = pair_of(ids[i], ids[after[i]], merges)
            if pairs[i] != NO_PAIR:
                waiting = push(heap, waiting, pairs[i] & ~LOW | np.uint64(i))
        if i > 0:
            left = np.int64(before[i])
            pairs[left] = pair_of(ids[left], ids[i], merges)
            if pairs[left] != NO_PAIR:
                waiting = push(heap, waiting, pairs[left] & ~LOW | np.uint64(left))
    i = 0
    while i < size:
        out[n] = ids[i]
        n += 1
        i = np.int64(after[i])
    return n

"""A cache of words and their token ids, as compiled code: most words of a text were met before.

A word's key is its bytes where they fit into 15, else a hash with the bytes beside it, so that no two words are ever
taken for one another. Bytes are read eight at a time out of `chunks`: the text as uint64, with 16 bytes of room after.
"""

from typing import Any, NamedTuple

import numpy as np

from pipeline.numba_kernels import njit, types
from pipeline.text.hashing import mix64

__all__ = ["CACHE_TYPE", "MAX_CACHED", "WordCache", "find_slot", "new_cache", "recall", "remember", "word_key"]

MAX_CACHED = 256  # bytes of a word; longer ones hardly come twice
MAX_CHUNKS = MAX_CACHED // 8 + 1
KEY_BYTES = 15

ONE, SHIFT, LOW = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
FACTOR = np.uint64(0x9FB21C651E98DF25)
SIZE_PLACE = np.uint64(56)
HASHED = np.uint64(0xFF) << SIZE_PLACE  # in the second half of a key: the first is a hash


class WordCache(NamedTuple):
    """Words and their ids, by open addressing."""

    slots: Any  # (slots, 4) uint64: key, key, the id or the place of several in `ids`, place in `words` << 32 | count
    ids: Any  # uint32: the ids of words of several
    words: Any  # uint64: the bytes of words too long for a key
    used: Any  # (3,) int64: of slots, ids, words


CACHE_TYPE = types.NamedTuple((types.uint64[:, ::1], types.uint32[::1], types.uint64[::1], types.int64[::1]), WordCache)


def new_cache(slots: int) -> WordCache:
    """An empty cache of a power of two of slots, half of which are used; 64 bytes a slot."""
    ids, words = np.empty(4 * slots, np.uint32), np.empty(2 * slots + MAX_CHUNKS, np.uint64)
    return WordCache(np.zeros((slots, 4), np.uint64), ids, words, np.zeros(3, np.int64))


@njit(nogil=True)
def eight_bytes(chunks: Any, i: int) -> Any:
    """Bytes i to i + 8 of the text, the first one lowest."""
    shift = np.uint64((i & 7) << 3)
    return chunks[i >> 3] >> shift | (chunks[(i >> 3) + 1] << ONE) << (np.uint64(63) - shift)


@njit(nogil=True)
def word_key(chunks: Any, start: int, end: int) -> tuple[Any, Any]:
    """The key of the word at bytes start to end, of which there are 1 to MAX_CACHED."""
    size = end - start
    low = eight_bytes(chunks, start)
    if size < 8:
        return low & ((ONE << np.uint64(size << 3)) - ONE), np.uint64(size) << SIZE_PLACE
    if size <= KEY_BYTES:
        high = eight_bytes(chunks, start + 8) & ((ONE << np.uint64((size - 8) << 3)) - ONE)
        return low, high | np.uint64(size) << SIZE_PLACE
    for at in range(start + 8, end - 8, 8):
        low = (low ^ (low >> SHIFT)) * FACTOR ^ eight_bytes(chunks, at)
    return (low ^ (low >> SHIFT)) * FACTOR ^ eight_bytes(chunks, end - 8), HASHED | np.uint64(size)


@njit(nogil=True)
def same_bytes(chunks: Any, start: int, end: int, words: Any, place: int) -> bool:
    """Whether a word too long for its key is the one that lies in `words` from `place` on."""
    for at in range(start, end - 8, 8):
        if words[place] != eight_bytes(chunks, at):
            return False
        place += 1
    return bool(words[place] == eight_bytes(chunks, end - 8))


@njit(nogil=True)
def find_slot(cache: Any, low: Any, high: Any, chunks: Any, start: int, end: int) -> int:
    """The slot that holds the word, or the empty one where it would be put."""
    slots = cache.slots
    mask = np.uint64(slots.shape[0] - 1)
    slot = mix64(low ^ high * FACTOR) & mask
    while slots[slot, 3] != 0:
        if slots[slot, 0] == low and slots[slot, 1] == high:
            place = np.int64(slots[slot, 3] >> SHIFT)
            if end - start <= KEY_BYTES or same_bytes(chunks, start, end, cache.words, place):
                break
        slot = (slot + ONE) & mask
    return np.int64(slot)


@njit(nogil=True)
def recall(cache: Any, slot: int, out: Any, n: int) -> int:
    """Write the ids of the word in a slot from out[n] on; returns the index after the last, n where it is empty."""
    count = np.int64(cache.slots[slot, 3] & LOW)
    value = np.int64(cache.slots[slot, 2])
    if count == 1:
        out[n] = value
    else:
        for k in range(count):
            out[n + k] = cache.ids[value + k]
    return n + count


@njit(nogil=True)
def remember(cache: Any, low: Any, high: Any, chunks: Any, start: int, end: int, ids: Any, first: int, n: int) -> None:
    """Keep ids[first:n] for a word that has no slot; a full cache forgets all others before."""
    slots, used, count = cache.slots, cache.used, n - first
    full = used[0] * 2 >= slots.shape[0] or used[1] + count > cache.ids.size
    if full or used[2] + MAX_CHUNKS > cache.words.size:
        slots[:, 3] = 0
        used[:] = 0
    slot = find_slot(cache, low, high, chunks, start, end)
    slots[slot, 0], slots[slot, 1] = low, high
    slots[slot, 2] = used[1] if count > 1 else np.int64(ids[first])
    slots[slot, 3] = np.uint64(used[2]) << SHIFT | np.uint64(count)
    used[0] += 1
    if count > 1:
        cache.ids[used[1] : used[1] + count] = ids[first:n]
        used[1] += count
    if end - start > KEY_BYTES:
        for at in range(start, end - 8, 8):
            cache.words[used[2]] = eight_bytes(chunks, at)
            used[2] += 1
        cache.words[used[2]] = eight_bytes(chunks, end - 8)
        used[2] += 1

"""Keyed mixing and permutations: all the randomness of the order of samples (contracts, section 7).

Our own integer arithmetic, since numpy's streams change between releases. mix64 is the finalizer of SplitMix64
(Steele et al. 2014); the permutation is a Feistel network with cycle walking (Black and Rogaway 2002), which needs
neither memory nor a walk: any position of any window is looked up by itself. A linear congruential order instead gave
training curves like those of unshuffled data.
"""

import hashlib
import struct
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from schemas.kernel_cache import njit_cached

__all__ = ["GOLDEN", "cycle_ranks", "hash32", "inverse", "key", "mix64", "mix64_array", "permute"]

MASK64 = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd
ROUNDS = 6
MIN_HALF_BITS = 3  # narrower halves are biased

_GOLDEN = np.uint64(GOLDEN)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_30, _SHIFT_27, _SHIFT_31, _SHIFT_32 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_ONE = np.uint64(1)

_I64 = types.Array(types.int64, 1, "C")
_U64 = types.Array(types.uint64, 1, "C")


def key(seed: int, use: str, *fields: int | str) -> int:
    """A 64-bit key of the seed, what it is for, and fields; a field's type and length enter with it."""
    digest = hashlib.blake2b(b"order-1\0", digest_size=8)
    digest.update(struct.pack("<Q", seed))
    for value in (use, *fields):
        if isinstance(value, str):
            data = value.encode()
            digest.update(b"s" + struct.pack("<I", len(data)) + data)
        else:
            digest.update(b"i" + struct.pack("<q", value))
    return int.from_bytes(digest.digest(), "little")


def mix64(z: int) -> int:
    """A bijection of the 64-bit numbers in which every bit of the result depends on every bit of z."""
    z ^= z >> 30
    z = z * 0xBF58476D1CE4E5B9 & MASK64
    z ^= z >> 27
    z = z * 0x94D049BB133111EB & MASK64
    return z ^ z >> 31


def mix64_array(z_N: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`mix64` of each."""
    z_N = z_N ^ (z_N >> _SHIFT_30)
    z_N = z_N * _MULTIPLY_1
    z_N ^= z_N >> _SHIFT_27
    z_N *= _MULTIPLY_2
    return z_N ^ (z_N >> _SHIFT_31)


def hash32(k: int, j: int) -> int:
    """The j-th 32-bit number of the stream under key k."""
    return mix64((k + (j + 1) * GOLDEN) & MASK64) >> 32


def permute(x_N: NDArray[np.int64], size: int, k: int) -> NDArray[np.int64]:
    """F(x) for each x of 0 .. size-1: a permutation of them under key k."""
    return _permute(np.ascontiguousarray(x_N, np.int64), _half_bits(size), size, np.uint64(k))


def inverse(y_N: NDArray[np.int64], size: int, k: int) -> NDArray[np.int64]:
    """The x with F(x) = y for each y."""
    return _inverse(np.ascontiguousarray(y_N, np.int64), _half_bits(size), size, np.uint64(k))


def cycle_ranks(keys_S: NDArray[np.uint64], quotas_S: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The sort keys of a mixture's cycle: rank key << 16 | source, for sample 0 .. m-1 of each source in turn.

    The rank key of sample j of a source with m is ((j << 32) + hash32(key, j)) // m, below 2^32 and, inside a source,
    ascending; so sorting these numbers sorts by (rank key, source, j). At most 65,536 sources.
    """
    return _cycle_ranks(keys_S, quotas_S)


def _half_bits(size: int) -> int:
    """Width of a half of the Feistel network over 0 .. size-1."""
    return max(MIN_HALF_BITS, ((size - 1).bit_length() + 1) // 2)


@njit(inline="always")
def _mix(z: Any) -> Any:
    z = (z ^ (z >> _SHIFT_30)) * _MULTIPLY_1
    z = (z ^ (z >> _SHIFT_27)) * _MULTIPLY_2
    return z ^ (z >> _SHIFT_31)


@njit(inline="always")
def _round_keys(k: Any) -> Any:
    round_keys = np.empty(ROUNDS, np.uint64)
    for r in range(ROUNDS):
        k += _GOLDEN
        round_keys[r] = _mix(k)
    return round_keys


@njit_cached(_I64(_I64, types.int64, types.int64, types.uint64), nogil=True)
def _permute(x_N: Any, half_bits: int, size: int, k: Any) -> Any:
    round_keys = _round_keys(k)
    half, limit = np.uint64(half_bits), np.uint64(size)
    mask = (_ONE << half) - _ONE
    y_N = np.empty_like(x_N)
    for i in range(x_N.size):
        x = np.uint64(x_N[i])
        while True:
            a, b = x >> half, x & mask
            for r in range(ROUNDS):
                a, b = b, a ^ (_mix(b ^ round_keys[r]) & mask)
            x = a << half | b
            if x < limit:
                break
        y_N[i] = np.int64(x)
    return y_N


@njit_cached(_I64(_I64, types.int64, types.int64, types.uint64), nogil=True)
def _inverse(y_N: Any, half_bits: int, size: int, k: Any) -> Any:
    round_keys = _round_keys(k)
    half, limit = np.uint64(half_bits), np.uint64(size)
    mask = (_ONE << half) - _ONE
    x_N = np.empty_like(y_N)
    for i in range(y_N.size):
        y = np.uint64(y_N[i])
        while True:
            a, b = y >> half, y & mask
            for r in range(ROUNDS - 1, -1, -1):
                a, b = b ^ (_mix(a ^ round_keys[r]) & mask), a
            y = a << half | b
            if y < limit:
                break
        x_N[i] = np.int64(y)
    return x_N


@njit_cached(_U64(_U64, _I64), nogil=True)
def _cycle_ranks(keys_S: Any, quotas_S: Any) -> Any:
    ranks = np.empty(quotas_S.sum(), np.uint64)
    place = 0
    for source in range(quotas_S.size):
        quota, z = np.uint64(quotas_S[source]), keys_S[source]
        for j in range(quotas_S[source]):
            z += _GOLDEN
            rank = ((np.uint64(j) << _SHIFT_32) + (_mix(z) >> _SHIFT_32)) // quota
            ranks[place] = rank << np.uint64(16) | np.uint64(source)
            place += 1
    return ranks

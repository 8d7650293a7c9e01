"""The hash of a sequence of code points, for compiled code: cheap a step, well mixed at the end.

Over code points c: h = (h ^ c) * HASH_FACTOR, h ^= h >> 32, from HASH_START; then mix64.
"""

from typing import Any

import numpy as np

from pipeline.numba_kernels import njit

__all__ = ["HASH_FACTOR", "HASH_START", "SHIFT_32", "mix64"]

HASH_START = np.uint64(0x9E3779B97F4A7C15)
HASH_FACTOR = np.uint64(0x9FB21C651E98DF25)
SHIFT_32 = np.uint64(32)


@njit(nogil=True)
def mix64(z: Any) -> Any:
    """Finalise a hash as splitmix64 does (Steele et al. 2014): every bit of the result depends on every bit of `z`."""
    z = np.uint64(z)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

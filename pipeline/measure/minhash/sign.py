"""MinHash signatures that are datasketch's (2.0, scheme="affine32"), bit for bit, from a compiled kernel.

Hash k of a text is the smallest a_k fmix32(x) + b_k modulo 2^32 over its shingles x, where a_k (odd) and b_k come
from the seed. The share of equal hashes of two signatures estimates the Jaccard similarity of their shingle sets.

    import datasketch
    mine = datasketch.MinHash(num_perm=112, seed=1, scheme="affine32", hashfunc=int)
    mine.update_batch(shingles)              # of pipeline.measure.minhash.shingles.text_shingles
    mine.jaccard(as_minhash(row, seed=1))    # row of the column `signature`
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.measure.minhash.shingles import INT64, UINT32, text_shingles
from pipeline.measure.signal_group import Batch, Measure
from pipeline.numba_kernels import kernel, njit, types
from schemas.recipe import Minhash

if TYPE_CHECKING:
    import datasketch

__all__ = ["SCHEME", "as_minhash", "permutations", "setup", "sign", "sign_shingles", "signature_type"]

SCHEME = "affine32"

EMPTY = np.uint32(0xFFFFFFFF)
FACTOR_1 = np.uint32(0x85EBCA6B)
FACTOR_2 = np.uint32(0xC2B2AE35)
SHIFT_13 = np.uint32(13)
SHIFT_16 = np.uint32(16)


@lru_cache(maxsize=8)
def permutations(num_hashes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """a (odd) and b of the permutations a x + b modulo 2^32, as datasketch draws them; uint32 of (K,) each."""
    draw = np.random.RandomState(seed)
    a_K = draw.randint(0, 1 << 31, num_hashes, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    b_K = draw.randint(0, 1 << 32, num_hashes, dtype=np.uint32)
    return a_K, b_K


@njit(nogil=True)
def _fmix32(x: Any) -> Any:
    """The finaliser of MurmurHash3, a bijection: it spreads inputs that lie close together."""
    x = np.uint32(x)
    x = np.uint32((x ^ (x >> SHIFT_16)) * FACTOR_1)
    x = np.uint32((x ^ (x >> SHIFT_13)) * FACTOR_2)
    return np.uint32(x ^ (x >> SHIFT_16))


@kernel(types.uint32[:, ::1](UINT32, INT64, UINT32, UINT32))
def _sign(shingles: Any, counts: Any, a: Any, b: Any) -> Any:
    """Signatures (N, K) of N texts; a text without a shingle has all hashes at their largest.

    The inner loop runs over hashes, not shingles, so that it becomes vector instructions without a reduction at its
    end; four shingles at a time share each load and store (4 ns a shingle with AVX-512 against 9 one by one and 55
    with the loops the other way round, 112 hashes).
    """
    num_texts, num_hashes = counts.size - 1, a.size
    signatures = np.full((num_texts, num_hashes), EMPTY)
    for text in range(num_texts):
        row = signatures[text]
        i, end = counts[text], counts[text + 1]
        while i + 4 <= end:
            w, x = _fmix32(shingles[i]), _fmix32(shingles[i + 1])
            y, z = _fmix32(shingles[i + 2]), _fmix32(shingles[i + 3])
            for k in range(num_hashes):
                a_k, b_k = a[k], b[k]
                least_wx = min(np.uint32(a_k * w + b_k), np.uint32(a_k * x + b_k))
                least_yz = min(np.uint32(a_k * y + b_k), np.uint32(a_k * z + b_k))
                row[k] = min(row[k], min(least_wx, least_yz))
            i += 4
        while i < end:
            w = _fmix32(shingles[i])
            for k in range(num_hashes):
                row[k] = min(row[k], np.uint32(a[k] * w + b[k]))
            i += 1
    return signatures


def sign_shingles(shingles: np.ndarray, counts: np.ndarray, options: Minhash) -> np.ndarray:
    """Signatures (N, K) uint32 of texts given by their shingles, as `text_shingles` returns them."""
    signatures_NK: np.ndarray = _sign(shingles, counts, *permutations(options.num_hashes, options.seed))
    return signatures_NK


def sign(data: np.ndarray, offsets: np.ndarray, options: Minhash) -> tuple[np.ndarray, np.ndarray]:
    """Signatures (N, K) uint32 of UTF-8 texts, and which are valid (N,): those with a shingle at all.

    Text i is data[offsets[i]:offsets[i + 1]] (uint8, int64). A text of fewer words than a shingle has no near
    duplicates, only exact ones: one shorter shingle in its place would make all short texts with equal words twins.
    """
    shingles, counts = text_shingles(data, offsets, options.shingle)
    return sign_shingles(shingles, counts, options), np.diff(counts) > 0


def signature_type(options: Mapping[str, Any]) -> dict[str, pa.DataType]:
    """The column of signatures: K uint32, little-endian; null where a text is too short for a shingle."""
    return {"signature": pa.binary(4 * options["num_hashes"])}


def setup(options: Mapping[str, Any]) -> Measure:
    """Sign texts by `options`, the fields of a recipe's `measure.minhash`."""
    minhash = Minhash(**options)

    def measure(batch: Batch) -> dict[str, Any]:
        signatures_NK, valid_N = sign(*batch.buffers(), minhash)
        content = pa.py_buffer(np.ascontiguousarray(signatures_NK, "<u4"))
        buffers = [pa.array(valid_N).buffers()[1], content]
        kind = signature_type(options)["signature"]
        return {"signature": pa.FixedSizeBinaryArray.from_buffers(kind, len(valid_N), buffers)}

    return measure


def as_minhash(row: "np.ndarray | bytes", seed: int) -> "datasketch.MinHash":
    """A stored signature as a `datasketch.MinHash`; `row` is K uint32 or their little-endian bytes."""
    import datasketch

    hashes_K = np.frombuffer(row, "<u4") if isinstance(row, (bytes, memoryview)) else row
    return datasketch.MinHash(seed=seed, hashvalues=np.array(hashes_K, np.uint32), scheme=SCHEME, hashfunc=int)

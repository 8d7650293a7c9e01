"""Bands of a signature: which documents are compared at all.

Two documents meet in a bucket when all rows of some band of their signatures agree. How many bands of how many rows
suit a threshold is found as datasketch finds it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.numba_kernels import kernel, types
from pipeline.text.hashing import mix64
from schemas.recipe import Near

__all__ = ["Bands", "band_hashes", "choose_bands"]

SIGNATURES = types.Array(types.uint32, 2, "C", readonly=True)
STEP = np.uint64(0x9E3779B97F4A7C15)
SHIFT_32 = np.uint64(32)


@dataclass(frozen=True)
class Bands:
    """`bands` bands of `rows` hashes each, from the signature's front."""

    bands: int
    rows: int

    def recall(self, similarity: float) -> float:
        """The chance that two documents of that similarity share a bucket."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def choose_bands(near: Near, num_hashes: int, threshold: float) -> Bands:
    """The recipe's bands and rows, or those that make the weighted error at `threshold` smallest.

    The error of (b, r) is the integral of 1 - (1 - s^r)^b below the threshold (pairs compared for nothing) and of
    (1 - s^r)^b above it (pairs missed), weighted; the first of equals by b, then r, wins. datasketch's
    `_optimal_param`, by Gauss-Legendre quadrature in place of QUADPACK.
    """
    if near.bands and near.rows:
        return Bands(near.bands, near.rows)
    nodes, weights = np.polynomial.legendre.leggauss(128)
    below, above = (nodes + 1) * threshold / 2, threshold + (nodes + 1) * (1 - threshold) / 2
    best, least = Bands(1, 1), float("inf")
    for bands in range(1, num_hashes + 1):
        rows = np.arange(1, num_hashes // bands + 1)[:, None]
        false_positive = (1 - (1 - below**rows) ** bands) @ weights * threshold / 2
        false_negative = (1 - above**rows) ** bands @ weights * (1 - threshold) / 2
        weight = near.false_negative_weight
        errors = false_positive * (1 - weight) + false_negative * weight
        row = int(np.argmin(errors))
        if errors[row] < least:
            best, least = Bands(bands, row + 1), float(errors[row])
    return best


@kernel(types.uint64[:, ::1](SIGNATURES, types.int64, types.int64))
def _band_hashes(signatures: Any, bands: int, rows: int) -> Any:
    hashes = np.empty((bands, signatures.shape[0]), np.uint64)
    for document in range(signatures.shape[0]):
        for band in range(bands):
            h = mix64(np.uint64(band + 1) * STEP)
            for row in range(band * rows, band * rows + rows):
                h = (h ^ np.uint64(signatures[document, row])) * STEP
                h ^= h >> SHIFT_32
            hashes[band, document] = mix64(h)
    return hashes


def band_hashes(signatures_NK: np.ndarray, bands: Bands) -> np.ndarray:
    """(bands, N) uint64: the bucket of each document in each band; the band's number enters it.

    Over a band's hashes x, from mix64((band + 1) STEP): h = (h ^ x) STEP, h ^= h >> 32; at the end mix64.
    """
    hashes: np.ndarray = _band_hashes(signatures_NK, bands.bands, bands.rows)
    return hashes

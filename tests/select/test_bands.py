"""Bands are chosen as datasketch chooses them, and two documents meet exactly where a band agrees."""

import numpy as np
import pytest
from datasketch.lsh import _optimal_param
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.select.near.bands import Bands, band_hashes, choose_bands
from schemas.recipe import Near


@pytest.mark.parametrize("num_hashes", [16, 112, 128])
@pytest.mark.parametrize("threshold", [0.4, 0.7, 0.8, 0.95])
@pytest.mark.parametrize("weight", [0.5, 0.9])
def test_the_search_finds_what_datasketch_finds(num_hashes, threshold, weight):
    near = Near(threshold=threshold, false_negative_weight=weight)
    chosen = choose_bands(near, num_hashes, threshold)
    assert (chosen.bands, chosen.rows) == _optimal_param(threshold, num_hashes, 1 - weight, weight)


def test_given_bands_are_taken():
    assert choose_bands(Near(bands=14, rows=8), 112, 0.8) == Bands(14, 8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), min_size=12, max_size=12), min_size=2, max_size=6))
def test_documents_share_a_bucket_of_a_band_when_its_rows_agree(rows):
    signatures = np.array(rows, np.uint32)
    hashes = band_hashes(signatures, Bands(4, 3))
    for band in range(4):
        for a in range(len(rows)):
            for b in range(len(rows)):
                agree = (signatures[a, 3 * band : 3 * band + 3] == signatures[b, 3 * band : 3 * band + 3]).all()
                assert (hashes[band, a] == hashes[band, b]) == agree


def test_equal_rows_of_different_bands_are_different_buckets():
    hashes = band_hashes(np.zeros((1, 12), np.uint32), Bands(4, 3))
    assert len(set(hashes[:, 0].tolist())) == 4


def test_recall_is_the_chance_of_an_equal_band():
    assert Bands(2, 1).recall(0.5) == 0.75

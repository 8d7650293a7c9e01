"""Verified pairs of buckets: all of a small one, stars of a large one, the same whether it fits in memory or not."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.select.near import buckets as module
from pipeline.select.near.buckets import bucket_edges, group_buckets
from pipeline.select.rows import SHIFT


class Table:
    """Sketches from lists; document n has address n, in part 0."""

    def __init__(self, sketches, sorted_sets):
        self.sorted_sets = sorted_sets
        self._sketches = [np.array(sketch, np.uint32) for sketch in sketches]

    def sizes(self, addresses):
        return np.array([len(self._sketches[n]) for n in addresses.astype(int)], np.int64)

    def gather(self, addresses):
        chosen = [self._sketches[n] for n in addresses.astype(int)]
        return np.concatenate(chosen), np.concatenate([[0], np.cumsum([len(sketch) for sketch in chosen])])


def one_bucket(sketches, sorted_sets=False, floor=0.5, join=0.5, pair_limit=64):
    members = np.arange(len(sketches), dtype=np.uint64)
    edges = bucket_edges(members, np.array([0, len(sketches)]), Table(sketches, sorted_sets), floor, join, pair_limit)
    return {(int(a), int(b)): similarity for a, b, similarity in edges.tolist()}


def share(a, b):
    return sum(x == y for x, y in zip(a, b, strict=True)) / len(a)


signatures = st.lists(st.lists(st.integers(0, 1), min_size=4, max_size=4), min_size=2, max_size=12)


@settings(max_examples=80, deadline=None)
@given(signatures)
def test_of_a_small_bucket_every_similar_pair_is_found(sketches):
    expected = {
        (a, b): share(sketches[a], sketches[b])
        for a in range(len(sketches))
        for b in range(a + 1, len(sketches))
        if share(sketches[a], sketches[b]) >= 0.5
    }
    assert one_bucket(sketches) == expected


@settings(max_examples=80, deadline=None)
@given(signatures)
def test_of_a_large_bucket_everyone_is_joined_to_a_centre_or_is_one(sketches):
    edges = one_bucket(sketches, floor=0.75, join=0.75, pair_limit=1)
    assert all(similarity == share(sketches[a], sketches[b]) >= 0.75 for (a, b), similarity in edges.items())
    centres = [n for n in range(len(sketches)) if not any(b == n for _, b in edges)]
    assert all(a in centres for a, _ in edges)
    assert all(share(sketches[a], sketches[b]) < 0.75 for a in centres for b in centres if a < b)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=2, max_size=8))
def test_by_sets_the_similarity_is_the_jaccard_similarity(sets):
    edges = one_bucket([sorted(one) for one in sets], sorted_sets=True, floor=0.0, join=0.0)
    pairs = itertools.combinations(range(len(sets)), 2)
    assert edges == {(a, b): len(sets[a] & sets[b]) / len(sets[a] | sets[b]) for a, b in pairs}


@settings(max_examples=60, deadline=None)
@given(signatures, st.sampled_from([(0.5, 0.75), (0.75, 0.75), (0.25, 1.0)]), st.integers(1, 3))
def test_a_bucket_that_does_not_fit_in_memory_has_the_same_pairs(sketches, levels, pair_limit):
    whole = one_bucket(sketches, False, *levels, pair_limit)
    before = module.BATCH_BYTES
    module.BATCH_BYTES = 48  # three signatures of four hashes
    try:
        assert one_bucket(sketches, False, *levels, pair_limit) == whole
    finally:
        module.BATCH_BYTES = before


def test_a_member_below_the_highest_level_is_compared_again_and_its_edge_kept():
    sketches = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]]
    assert one_bucket(sketches, floor=0.75, join=1.0, pair_limit=1) == {(0, 1): 0.75, (0, 2): 0.75, (1, 2): 1.0}


def test_boilerplate_costs_a_line_not_a_square():
    sketches = [[7] * 4] * 20_000
    assert len(one_bucket(sketches)) == 19_999


@pytest.mark.parametrize("seed", range(3))
def test_buckets_are_the_same_in_any_order_of_arrival(seed):
    draw = np.random.default_rng(seed)
    hashes = draw.integers(0, 6, 40).astype(np.uint64)
    addresses = np.arange(40, dtype=np.uint64) << SHIFT
    order = draw.permutation(40)
    members, bounds = group_buckets(hashes, addresses)
    again, again_bounds = group_buckets(hashes[order], addresses[order])
    assert members.tolist() == again.tolist()
    assert bounds.tolist() == again_bounds.tolist()


def test_who_is_alone_in_a_bucket_is_left_out():
    members, bounds = group_buckets(np.array([5, 9, 5], np.uint64), np.array([3, 2, 1], np.uint64))
    assert (members.tolist(), bounds.tolist()) == ([1, 3], [0, 2])
    members, bounds = group_buckets(np.array([5], np.uint64), np.array([3], np.uint64))
    assert (members.tolist(), bounds.tolist()) == ([], [0])

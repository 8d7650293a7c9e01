"""trainer.order.permutation: the contract's vectors, the laws of a permutation, and that it mixes."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.slow_order import make_key, permuted, source_cycle
from trainer.order.permutation import cycle_ranks, hash32, inverse, key, mix64, mix64_array, permute

ROWS_KEY = key(7, "rows", "web", 0, -1, 0)


@pytest.mark.parametrize(
    ("z", "mixed"),
    [
        (0, 0),
        (1, 0x5692161D100B05E5),
        (0x0123456789ABCDEF, 0xB2C058E4EBB5112C),
        (2**64 - 1, 0xB4D055FCF2CBBD7B),
    ],
)
def test_mix64_has_the_contracts_values(z: int, mixed: int) -> None:
    assert mix64(z) == mixed
    assert mix64_array(np.array([z], np.uint64)).tolist() == [mixed]


def test_keys_have_the_contracts_values() -> None:
    assert key(0, "shards", "web", 0, -1) == 0xA9C872CE1E63A6C0
    assert key(7, "rows", "web", 0, -1, 3) == 0x010191AB0B32BC94
    assert key(7, "cycle", "wiki-é", 0, 2) == 0x4521B12A5292103D


def test_hash32_has_the_contracts_values() -> None:
    k = key(7, "cycle", "web", 0, 0)
    assert k == 0x8CF2DED142523333
    assert [hash32(k, j) for j in range(4)] == [0x7DC41419, 0x0D16D4EC, 0xF593E953, 0x07E02EC6]


def test_the_permutation_has_the_contracts_values() -> None:
    assert permute(np.arange(5), 5, ROWS_KEY).tolist() == [3, 1, 4, 0, 2]
    assert permute(np.arange(10), 10, ROWS_KEY).tolist() == [5, 9, 4, 0, 2, 6, 7, 3, 1, 8]
    assert permute(np.arange(5), 1000, ROWS_KEY).tolist() == [618, 138, 633, 242, 926]


def test_every_size_up_to_2000_is_permuted_and_comes_back() -> None:
    for size in range(1, 2001):
        x = np.arange(size)
        y = permute(x, size, ROWS_KEY)
        assert np.array_equal(np.sort(y), x), size
        assert np.array_equal(inverse(y, size, ROWS_KEY), x), size


def test_a_million_and_three_are_permuted_and_come_back() -> None:
    x = np.arange(1_000_003)
    y = permute(x, len(x), ROWS_KEY)
    assert np.array_equal(np.sort(y), x)
    assert np.array_equal(inverse(y, len(x), ROWS_KEY), x)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 2**60), st.integers(0, 2**64 - 1), st.data())
def test_any_single_position_is_that_of_the_plain_rule(size: int, k: int, data: st.DataObject) -> None:
    x = data.draw(st.integers(0, size - 1))
    y = permuted(x, size, k)
    assert permute(np.array([x]), size, k).tolist() == [y]
    assert inverse(np.array([y]), size, k).tolist() == [x]


def test_neighbours_are_no_more_alike_than_chance() -> None:
    size = 100_000
    y = permute(np.arange(size), size, ROWS_KEY).astype(float)
    assert abs(np.corrcoef(y[:-1], y[1:])[0, 1]) < 4 / math.sqrt(size)


def test_every_stretch_of_positions_reads_from_everywhere() -> None:
    # Of 1,000 positions in a row, 10 are due in each hundredth of the rows; chi-square with 99 degrees of freedom,
    # averaged over 100 stretches, is 99 with a deviation of 1.4.
    y = permute(np.arange(100_000), 100_000, ROWS_KEY).reshape(100, 1000)
    counts = np.array([np.bincount(stretch // 1000, minlength=100) for stretch in y])
    assert 92 < ((counts - 10.0) ** 2 / 10).sum(axis=1).mean() < 106


def test_a_cycles_ranks_sort_as_the_rule_says() -> None:
    quotas = {"a": 40_000, "b": 25_535, "c": 1}
    keys = np.array([make_key(7, "cycle", name, 5, 3) for name in quotas], np.uint64)
    ranks = cycle_ranks(keys, np.array(list(quotas.values())))
    expected = sorted(entry for name, quota in quotas.items() for entry in source_cycle(7, name, 5, 3, quota))
    assert [b"abc"[source : source + 1] for source in (np.sort(ranks) & np.uint64(0xFFFF)).tolist()] == [
        name for _, name, _ in expected
    ]
    assert (np.sort(ranks) >> np.uint64(16)).tolist() == [rank for rank, _, _ in expected]

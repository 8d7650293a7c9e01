"""trainer.order.shard_table: rows of shards, equal generations, datasets put together."""

from dataclasses import replace

import numpy as np
import pytest

from tests.trainer.made_runs import make_shards
from trainer.order.shard_table import NOT_COUNTED, concatenate


def test_windows_are_whole_sequences_of_tokens() -> None:
    assert make_shards([("web", 0, 31), ("web", 1, 32)]).rows(16, "windows").tolist() == [1, 2]


def test_packed_rows_are_those_that_were_counted() -> None:
    assert make_shards([("web", 0, 31), ("web", 1, 32)]).rows(8, "documents").tolist() == [2, 3]


def test_uncounted_packed_rows_are_refused_with_the_cure() -> None:
    shards = make_shards([("web", 0, 31)])
    with pytest.raises(ValueError, match=r"sequence_length=16 with packing: documents.*packed_row_counts"):
        shards.rows(16, "documents")
    partly = replace(shards, packed_rows={8: np.array([NOT_COUNTED])})
    with pytest.raises(ValueError, match="sequence_length=8 with packing: documents"):
        partly.rows(8, "documents")


def test_a_generation_is_its_shards_in_any_order() -> None:
    one = make_shards([("web", 0, 31), ("web", 1, 32), ("wiki", 2, 5)])
    other = make_shards([("wiki", 2, 5), ("web", 1, 32), ("web", 0, 31)])
    fewer = make_shards([("web", 0, 31), ("wiki", 2, 5)])
    changed = make_shards([("web", 0, 31), ("web", 3, 32), ("wiki", 2, 5)])
    moved = make_shards([("web", 0, 31), ("wiki", 1, 32), ("wiki", 2, 5)])
    assert one.equals(one)
    assert one.equals(other)
    assert one.digest() == other.digest()
    for shards in (fewer, changed, moved):
        assert not one.equals(shards)
        assert one.digest() != shards.digest()


def test_datasets_are_put_together_by_names() -> None:
    left = make_shards([("b:web", 0, 31)], {0: [7]})
    right = replace(make_shards([("a:web", 1, 32), ("a:wiki", 2, 16)], {1: [8]}), packed_rows={8: np.array([3, 1])})
    both = concatenate([left, right])
    assert both.sources == ("a:web", "a:wiki", "b:web")
    assert both.source_N.tolist() == [2, 0, 1]
    assert both.tokens_N.tolist() == [31, 32, 16]
    assert {length: rows.tolist() for length, rows in both.packed_rows.items()} == {8: [2, 3, 1]}
    assert both.replaces == {**left.replaces, **right.replaces}


def test_one_source_in_two_datasets_is_refused() -> None:
    with pytest.raises(ValueError, match="source 'web' is in two datasets: give each dataset a name of its own"):
        concatenate([make_shards([("web", 0, 31)]), make_shards([("web", 1, 31)])])


def test_columns_that_do_not_fit_are_refused() -> None:
    shards = make_shards([("web", 0, 31), ("wiki", 1, 32)])
    with pytest.raises(ValueError, match="columns of 2 sources, 1 token counts"):
        replace(shards, tokens_N=shards.tokens_N[:1])
    with pytest.raises(ValueError, match=r"packed_rows\[8\] has 1 entries for 2 shards"):
        replace(shards, packed_rows={8: np.array([1])})
    with pytest.raises(ValueError, match="expected each once, sorted by UTF-8 bytes"):
        replace(shards, sources=("wiki", "web"))

"""Sides of the split, hashed or recorded; sampling of heavy buckets; keys of preferences."""

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.select.columns import Parts, as_ids
from pipeline.select.decision.split import NO_SIDE, TRAIN, VALIDATION, Recorded, recorded_batch, sides_of_clusters
from pipeline.select.decision.survivor_order import preference_keys
from pipeline.select.rows import pack, partition_of
from tests.made_parts import write_part


@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.5])
def test_a_cluster_is_held_out_when_its_hash_lies_below_the_fraction(fraction):
    ids = np.random.default_rng(1).integers(0, 1 << 64, (2000, 2), dtype=np.uint64)
    names = as_ids(ids).to_pylist()
    expected = [VALIDATION if xxhash.xxh3_64_intdigest(name, 7) < int(fraction * 2**64) else TRAIN for name in names]
    assert sides_of_clusters(ids, 7, fraction).tolist() == expected
    assert abs(expected.count(VALIDATION) / 2000 - fraction) < 0.04


def test_another_seed_holds_out_other_clusters():
    ids = np.arange(200, dtype=np.uint64).reshape(100, 2)
    assert sides_of_clusters(ids, 1, 0.5).tolist() != sides_of_clusters(ids, 2, 0.5).tolist()


pairs = st.tuples(st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=60, deadline=None)
@given(known=st.dictionaries(pairs, st.sampled_from(["train", "validation"]), max_size=9), asked=st.lists(pairs))
def test_recorded_sides_are_found_by_all_bits_of_the_doc_id(known, asked):
    ids = np.array(list(known), np.uint64).reshape(-1, 2)
    table = pa.table({"doc_id": as_ids(ids), "split": pa.array(list(known.values()), pa.string())})
    recorded = Recorded(pa.Table.from_batches([recorded_batch(table)]))
    numbers = {None: NO_SIDE, "train": TRAIN, "validation": VALIDATION}
    found = recorded.sides(np.array(asked, np.uint64).reshape(-1, 2))
    assert found.tolist() == [numbers[known.get(pair)] for pair in asked]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("longer_text", [-4.0, -6.0, -2.0]),
        ("shorter_text", [4.0, 6.0, 2.0]),
        ("earlier_date", [5.0, np.inf, 1.0]),
        ("later_date", [-5.0, np.inf, -1.0]),
        ("highest:language.score", [-0.5, -0.25, np.inf]),
        ("lowest:language.score", [0.5, 0.25, np.inf]),
    ],
)
def test_the_better_document_has_the_smaller_key_and_the_unknown_one_the_largest(tmp_path, wish, expected):
    rows = [
        {"text": "four", "date": 5, "language.score": 0.5},
        {"text": "longer", "language.score": 0.25},
        {"text": "is", "date": 1, "language.score": None},
    ]
    columns = Parts([write_part(tmp_path, 0, rows)]).open(0)
    assert preference_keys(columns, [wish], np.arange(3)).tolist() == [expected]
    assert preference_keys(columns, [wish], np.array([2, 0])).tolist() == [[expected[2], expected[0]]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=40), st.integers(1, 9), st.data())
def test_each_row_is_packed_once_into_the_partition_of_its_hash(hashes, partitions, data):
    rows = np.array(hashes, np.uint64)
    of_row = partition_of(rows, partitions)
    assert all(0 <= partition < partitions for partition in of_row)
    assert of_row.tolist() == [hash_ * partitions >> 64 for hash_ in (h >> 32 << 32 for h in hashes)]
    start = data.draw(st.integers(0, partitions - 1))
    stop = data.draw(st.integers(start, partitions))
    packed = {p: np.frombuffer(b, np.uint64).tolist() for p, b in pack(rows, of_row, range(start, stop))}
    assert packed == {
        p: [h for h, q in zip(hashes, of_row, strict=True) if q == p] for p in range(start, stop) if p in of_row
    }

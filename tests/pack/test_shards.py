"""Cutting and writing shards."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pack.shards import cut, tags_of
from tests.pack.corpus import Corpus, Doc, recipe


def test_a_run_closes_before_the_item_that_would_exceed():
    assert cut(np.array([4, 3, 3, 1, 9]), 10) == [(0, 3), (3, 5)]
    assert cut(np.array([4, 3, 4]), 10) == [(0, 2), (2, 3)]


def test_a_larger_item_stands_alone():
    assert cut(np.array([1, 50, 1, 1]), 10) == [(0, 1), (1, 2), (2, 4)]


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60))
def test_runs_tile_the_items_and_none_could_take_one_more(sizes, limit):
    runs = cut(np.array(sizes, dtype=np.int64), limit)
    assert [index for start, end in runs for index in range(start, end)] == list(range(len(sizes)))
    for start, end in runs:
        assert end - start == 1 or sum(sizes[start:end]) <= limit
        assert end == len(sizes) or sum(sizes[start : end + 1]) > limit


def test_tags_are_canonical_json():
    assert tags_of(["en", None, "en"], ["language"]) == ['{"language":"en"}', '{"language":null}', '{"language":"en"}']
    assert tags_of(["en", None], []) == ["{}", "{}"]


@pytest.fixture
def shard(tmp_path):
    corpus = Corpus(tmp_path / "in")
    corpus.add("web", [Doc(f"d{n}", "x" * (40 + n)) for n in range(60)])
    shards = {"shard_bytes": 1 << 20, "batch_bytes": 1024}
    corpus.pack(recipe(tokenizer={"vocab_size": 257}, shards=shards), tmp_path / "ds")
    (path,) = (tmp_path / "ds" / "shards").iterdir()
    return path


def test_batches_end_between_rows_at_about_batch_bytes(shard):
    with pa.ipc.open_file(pa.memory_map(str(shard))) as reader:
        sizes = [
            [24 + 2 * len(tokens) for tokens in reader.get_batch(index)["tokens"].to_pylist()]
            for index in range(reader.num_record_batches)
        ]
    assert [start for start, _ in cut(np.array([size for batch in sizes for size in batch]), 1024)] == list(
        np.cumsum([0] + [len(batch) for batch in sizes[:-1]])
    )
    assert all(sum(batch) <= 1024 for batch in sizes)


def test_a_shard_holds_no_bytes_of_its_neighbours(shard):
    """Written from values: rebuilding every batch from Python lists gives the same file."""
    with pa.ipc.open_file(pa.memory_map(str(shard))) as reader:
        schema = reader.schema
        batches = [reader.get_batch(index).to_pylist() for index in range(reader.num_record_batches)]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for rows in batches:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=schema))
    assert sink.getvalue().to_pybytes() == shard.read_bytes()


def test_documents_stand_in_the_order_of_their_seeded_hash(shard):
    with pa.ipc.open_file(pa.memory_map(str(shard))) as reader:
        ids = reader.read_all()["doc_id"].to_pylist()
    names = {Doc(f"d{n}").doc_id: n for n in range(60)}
    # xxh3_64 of the doc_id with seed 0, computed once.
    assert [names[doc_id] for doc_id in ids[:6]] == [16, 52, 56, 47, 36, 9]

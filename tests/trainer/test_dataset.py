"""A dataset as the trainer opens it: columns of its train shards, and what is refused before a step."""

import json
from pathlib import Path

import numpy as np
import pytest

from schemas.manifest import DatasetError
from schemas.packing import packed_rows
from tests.made_dataset import made, some_documents
from trainer.data.shard_files import ShardFiles
from trainer.data.train_split import open_train_split
from trainer.order.batch_order import Order, Phase


def test_a_dataset_opens_as_columns_of_its_train_shards(tmp_path: Path) -> None:
    data = made(tmp_path, {"wiki": [50], "web": [100, 90]}, sequence_lengths=[16])
    data.add("web", some_documents(70, seed=3), split="validation")
    data.commit()
    dataset = open_train_split(data.uri)
    assert (dataset.generation, dataset.vocab_size, dataset.end_of_text) == (2, 1000, 0)
    assert dataset.shards.sources == ("web", "wiki")
    assert dataset.shards.source_N.tolist() == [1, 0, 0]
    assert dataset.shards.tokens_N.tolist() == [50, 100, 90]
    assert [digest.tobytes() for digest in dataset.shards.sha256_N] == [data.sha256(n) for n in (0, 1, 2)]
    counts = [packed_rows(np.array([len(d) for d in shard.documents]), 16) for shard in data.shards[:3]]
    assert dataset.shards.rows(16, "documents").tolist() == counts
    assert [Path(dataset.file_uri(n)) for n in range(3)] == [data.path(n) for n in (0, 1, 2)]
    assert dataset.bytes_N.tolist() == [data.path(n).stat().st_size for n in (0, 1, 2)]


def test_an_older_generation_has_the_shards_that_were_in_use_then(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [100, 90]})
    data.add("web", some_documents(80, seed=8), replaces=[0])
    data.commit()
    assert open_train_split(data.uri, 1).shards.tokens_N.tolist() == [100, 90]
    newest = open_train_split(data.uri)
    assert newest.shards.tokens_N.tolist() == [90, 80]
    assert newest.shards.replaces == {data.sha256(2): (data.sha256(0),)}


def test_a_named_dataset_puts_its_name_before_its_sources(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [100], "a": [90]})
    assert open_train_split(data.uri, name="crawl").shards.sources == ("crawl:a", "crawl:web")


def test_what_is_no_dataset_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset there"):
        open_train_split(str(tmp_path / "nowhere"))
    data = made(tmp_path / "data", {"web": [100]})
    with pytest.raises(DatasetError, match="no generation 4; the newest is 1"):
        open_train_split(data.uri, 4)
    manifest = tmp_path / "data" / "manifest" / "g1.json"
    text = manifest.read_text()
    manifest.write_text(json.dumps(json.loads(text) | {"version": 99}))
    with pytest.raises(DatasetError, match="manifest version 99"):
        open_train_split(data.uri)
    manifest.write_text(text)
    table = next((tmp_path / "data" / "manifest").glob("g1-shards-*"))
    table.write_bytes(table.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"g1-shards-.* has sha256"):
        open_train_split(data.uri)
    table.unlink()
    with pytest.raises(DatasetError, match=r"g1-shards-.*arrow is missing; the dataset is not complete"):
        open_train_split(data.uri)


def test_a_dataset_of_validation_shards_alone_is_refused(tmp_path: Path) -> None:
    data = made(tmp_path, {})
    data.add("web", some_documents(70, seed=3), split="validation")
    data.commit()
    with pytest.raises(DatasetError, match="generation 2 has no shard of split train"):
        open_train_split(data.uri)


def test_local_shards_that_are_missing_or_cut_short_are_named(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [100, 90, 80]})
    assert open_train_split(data.uri).faults == {}
    data.path(1).write_bytes(data.path(1).read_bytes()[:-1])
    data.path(2).unlink()
    faults = open_train_split(data.uri).faults
    size = data.shards[1].row["bytes"]
    assert sorted(faults) == [1, 2]
    assert f"{data.path(1)} has {size - 1:,} bytes, the manifest says {size:,}" in faults[1]
    assert "No such file or directory; the dataset is not complete" in faults[2]


def phase_of(*datasets: object, start: int = 0, weights: dict[str, str]) -> Phase:
    shards = datasets[0].shards  # type: ignore[attr-defined]
    return Phase(start, 2, 16, "windows", weights, shards)


def test_every_shard_of_a_run_finds_its_file_whichever_generation_it_is_of(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [100, 90]})
    first = open_train_split(data.uri)
    data.add("web", some_documents(80, seed=8), replaces=[0])
    data.commit()
    second = open_train_split(data.uri)
    weights = {"web": "1"}
    order = Order(0, [phase_of(first, weights=weights), phase_of(second, start=3, weights=weights)])
    files = ShardFiles(order.shards, [first, second])
    for shard, digest in enumerate(order.shards.sha256_N):
        number = next(n for n in range(3) if data.sha256(n) == digest.tobytes())
        assert files.path(shard) == str(data.path(number))
        assert files.tokens_N[shard] == data.shards[number].row["tokens"]
    assert not files.remote_N().any()


def test_a_shard_of_a_dataset_that_was_not_given_is_refused(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [100, 90]})
    first = open_train_split(data.uri)
    data.add("web", some_documents(80, seed=8))
    data.commit()
    order = Order(0, [phase_of(open_train_split(data.uri), weights={"web": "1"})])
    with pytest.raises(ValueError, match=f"shard {data.sha256(2).hex()} of source 'web' is in the phases"):
        ShardFiles(order.shards, [first])


def test_the_tokenizer_is_held_against_its_digest(tmp_path: Path) -> None:
    data = made(tmp_path, {"web": [100]})
    with pytest.raises(DatasetError, match=r"tokenizer.json is missing"):
        _ = open_train_split(data.uri).tokenizer
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    with pytest.raises(DatasetError, match=r"tokenizer.json has sha256 44136fa"):
        _ = open_train_split(data.uri).tokenizer

"""The manifest: digests, probing for generations, and the create-only commit."""

import hashlib
import json

import pyarrow as pa
import pytest

from schemas import storage
from schemas.arrow import SHARDS
from schemas.generation import Digests, EndOfText, FileRef, Funnel, Manifest, Tables, Tokenizer
from schemas.json_schema import MODELS, json_schema
from schemas.manifest import (
    CommitRefused,
    DatasetError,
    commit,
    generation_digest,
    newest_generation,
    order_digest,
    read_manifest,
    read_shards,
    shard_group,
)


def manifest(generation=1, digest="aa", previous=None, **changes):
    file = FileRef(path="manifest/g1-shards-00.arrow", bytes=3, sha256="00")
    fields = {
        "generation": generation,
        "name": "demo",
        "digests": Digests(generation=digest, recipe="rr", order="oo", previous=previous),
        "tokenizer": Tokenizer(
            path="tokenizer-00.json",
            sha256="tt",
            vocab_size=300,
            token_type="uint16",
            end_of_text=EndOfText(token="<|endoftext|>", id=0),
            special_tokens={"<|endoftext|>": 0},
            options={},
        ),
        "parts": [],
        "groups": [],
        "funnel": Funnel(records_read=0, kept=0, dropped={}, splits={}, sources={}),
        "assets": {},
        "code": {"gristmill": "1"},
        "decision": "",
        "platform": {},
        "tables": Tables(shards=file, files=file, inputs=file),
    }
    return Manifest(**(fields | changes))


def test_a_committed_generation_is_read_back(tmp_path):
    dataset = str(tmp_path)
    commit(dataset, 1, manifest().to_json())
    assert read_manifest(dataset) == manifest()
    assert json.loads((tmp_path / "manifest.json").read_text()) == {
        "format": "gristmill",
        "generation": 1,
        "path": "manifest/g1.json",
        "version": 1,
    }


def test_a_driver_that_finds_its_own_digest_repairs_the_hint(tmp_path):
    dataset = str(tmp_path)
    commit(dataset, 1, manifest().to_json())
    (tmp_path / "manifest.json").unlink()
    commit(dataset, 1, manifest(platform={"machine": "another"}).to_json())
    assert (tmp_path / "manifest.json").exists()
    assert read_manifest(dataset).platform == {}, "what was committed first stays"


def test_a_second_driver_is_told_that_it_lost_and_leaves_everything_as_it_is(tmp_path):
    dataset = str(tmp_path)
    commit(dataset, 1, manifest(digest="theirs").to_json())
    before = (tmp_path / "manifest" / "g1.json").read_bytes()
    with pytest.raises(CommitRefused, match=r"another run committed generation 1 first .*theirs.*ours.*run again"):
        commit(dataset, 1, manifest(digest="ours").to_json())
    assert (tmp_path / "manifest" / "g1.json").read_bytes() == before


def test_a_generation_made_on_another_one_is_refused(tmp_path):
    dataset = str(tmp_path)
    commit(dataset, 1, manifest(digest="first").to_json())
    with pytest.raises(CommitRefused, match="made on top of elsewhere, but generation 1 is first"):
        commit(dataset, 2, manifest(2, "second", previous="elsewhere").to_json())
    assert newest_generation(dataset) == 1
    commit(dataset, 2, manifest(2, "second", previous="first").to_json())
    assert newest_generation(dataset) == 2


@pytest.mark.parametrize(
    "hint", [None, b"", b"{", b'{"generation": 1, "path": "x"}', b'{"generation": 7, "path": "x"}']
)
def test_readers_probe_beyond_a_hint_that_is_old_wrong_or_missing(tmp_path, hint):
    dataset = str(tmp_path)
    for generation, previous in ((1, None), (2, "d1"), (3, "d2")):
        commit(dataset, generation, manifest(generation, f"d{generation}", previous).to_json())
    place = tmp_path / "manifest.json"
    place.unlink() if hint is None else place.write_bytes(hint)
    assert newest_generation(dataset) == 3
    assert read_manifest(dataset).generation == 3
    assert read_manifest(dataset, 2).digests.generation == "d2"


def test_what_is_no_dataset_is_said_so(tmp_path):
    with pytest.raises(DatasetError, match=r"no dataset there \(it has no manifest/g1.json\): check the path"):
        read_manifest(str(tmp_path))
    commit(str(tmp_path), 1, manifest().to_json())
    with pytest.raises(DatasetError, match="no generation 5; the newest is 1"):
        read_manifest(str(tmp_path), 5)
    (tmp_path / "manifest" / "g1.json").write_text("[]")
    with pytest.raises(DatasetError, match=r"g1\.json: not a manifest"):
        read_manifest(str(tmp_path))


def test_a_manifest_of_a_later_version_is_refused(tmp_path):
    storage.write(f"{tmp_path}/manifest/g1.json", manifest(version=2).to_json())
    with pytest.raises(DatasetError, match="manifest version 2, this program reads up to 1: update it"):
        read_manifest(str(tmp_path))


def test_a_table_with_other_bytes_than_listed_is_refused(tmp_path):
    storage.write(f"{tmp_path}/manifest/g1-shards-00.arrow", b"abc")
    with pytest.raises(DatasetError, match=r"g1-shards-00\.arrow has sha256 ba78"):
        read_shards(str(tmp_path), manifest())


def shards_table(*rows):
    blank = {"path": "p", "bytes": 1, "text_bytes": 1, "tags": "{}", "longest_document": 1, "packed_rows": None}
    blank |= {"generation": 1, "replaces": [], "retired_in": None}
    return pa.Table.from_pylist([blank | row for row in rows], schema=SHARDS)


A = {"sha256": "aa", "source": "web", "split": "train", "rows": 2, "tokens": 30}
B = {"sha256": "bb", "source": "wiki", "split": "validation", "rows": 1, "tokens": 5}


def test_the_order_digest_is_the_sha256_of_this_text():
    text = '{"end_of_text":0,"shards":[["aa","web","train",2,30],["bb","wiki","validation",1,5]],"tokenizer":"tt"}'
    assert order_digest(shards_table(B, A), "tt", 0) == hashlib.sha256(text.encode()).hexdigest()


def test_retired_shards_and_paths_do_not_enter_the_order_digest():
    retired = A | {"sha256": "cc", "retired_in": 2}
    moved = A | {"path": "elsewhere", "generation": 2, "replaces": [0]}
    assert order_digest(shards_table(retired, moved, B), "tt", 0) == order_digest(shards_table(A, B), "tt", 0)


@pytest.mark.parametrize("change", [{"sha256": "ab"}, {"source": "x"}, {"split": "x"}, {"rows": 3}, {"tokens": 31}])
def test_everything_that_orders_samples_enters_the_order_digest(change):
    assert order_digest(shards_table(A | change, B), "tt", 0) != order_digest(shards_table(A, B), "tt", 0)


def test_the_generation_digest_is_the_sha256_of_this_text():
    text = (
        '{"assets":{"lid":"11"},"code":{"pack":"1"},"inputs":[["web","a",0,9,"22"],["web","b",0,9,"33"]],'
        '"ledger":["44","55"],"previous":null,"recipe":"66","shards":["77","88"]}'
    )
    digest = generation_digest(
        code={"pack": "1"},
        recipe="66",
        assets={"lid": "11"},
        previous=None,
        inputs=[("web", "b", 0, 9, "33"), ("web", "a", 0, 9, "22")],
        shards=["88", "77"],
        ledger=["55", "44"],
    )
    assert digest == hashlib.sha256(text.encode()).hexdigest()


def test_a_shard_says_which_group_planned_it():
    assert shard_group("shards/g1-00003-we-b-train-000-ab.arrow", "we-b") == "g1-00003"
    assert shard_group("shards/g12-all-web-validation-000-ab.arrow", "web") == "g12-all-web"
    with pytest.raises(DatasetError, match=r"x\.arrow: not the name of a shard"):
        shard_group("x.arrow", "web")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_json_schemas_are_current(name):
    path = storage.local_path(__file__).parents[2] / "schemas" / name
    assert path.read_text(encoding="utf-8") == json_schema(name), "run python -m schemas.json_schema"

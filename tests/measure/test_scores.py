"""Scores made elsewhere, joined as signals."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.measure.measure import Measurer
from pipeline.measure.registry import asset_digests, check_assets, load_registry
from schemas.recipe import Recipe
from tests.measure.measuring import column

URLS = ["http://a.test/", "http://b.test/", None]


def recipe_of(file: Path, **scores: Any) -> Recipe:
    return Recipe.model_validate(
        {"sources": {"web": {"root": "."}}, "scores": {"judge": {"file": str(file), **scores}}}
    )


def joined(recipe: Recipe, **columns: pa.Array) -> list[float | None]:
    (name,) = [group.name for group in load_registry(recipe).groups if group.name.startswith("scores.")]
    measurer = Measurer(load_registry(recipe), [name])
    found = measurer.measure(column("a", "b", "c"), columns or {"url": pa.array(URLS)})
    return found["scores.judge"].to_pylist()


def lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_jsonl_file_joins_by_url_and_what_it_lacks_is_null(tmp_path: Path) -> None:
    file = lines(tmp_path / "judge.jsonl", {"url": URLS[1], "score": 3}, {"url": "http://nobody.test/", "score": 9})
    assert joined(recipe_of(file)) == [None, 3.0, None]
    assert joined(recipe_of(file, missing=-1)) == [-1.0, 3.0, -1.0]


def test_a_parquet_file_joins_by_record_id_under_other_names(tmp_path: Path) -> None:
    file = tmp_path / "judge.parquet"
    pq.write_table(pa.table({"id": ["x", "y"], "quality": pa.array([0.5, None]), "other": [1, 2]}), file)
    recipe = recipe_of(file, key="record_id", key_column="id", column="quality")
    assert joined(recipe, record_id=pa.array(["y", "x", "z"])) == [None, 0.5, None]


@pytest.mark.parametrize("as_hex", [True, False])
def test_a_doc_id_is_hex_digits_or_bytes(tmp_path: Path, as_hex: bool) -> None:
    file, ids = tmp_path / "judge.parquet", [bytes([number] * 16) for number in range(3)]
    keys = pa.array([each.hex() for each in ids]) if as_hex else pa.array(ids, pa.binary(16))
    pq.write_table(pa.table({"doc_id": keys, "score": [1.0, 2.0, 3.0]}), file)
    assert joined(recipe_of(file, key="doc_id"), doc_id=pa.array(ids[::-1], pa.binary(16))) == [3.0, 2.0, 1.0]


def test_other_scores_are_another_identity_and_another_place_is_not(tmp_path: Path) -> None:
    first = lines(tmp_path / "a.jsonl", {"url": "u", "score": 1})
    copy = lines(tmp_path / "b.jsonl", {"url": "u", "score": 1})
    other = lines(tmp_path / "c.jsonl", {"url": "u", "score": 2})
    digests = [asset_digests(recipe_of(file))["scores.judge.file"] for file in (first, copy, other)]
    assert digests[0] == digests[1] != digests[2]
    identities = [load_registry(recipe_of(file)).identities()["measure.scores.judge"] for file in (first, copy, other)]
    assert identities[0] == identities[1] != identities[2]
    assert recipe_of(first).digest() == recipe_of(other).digest()  # assets enter the generation's digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"url": "u", "score": 1}, {"url": "u", "score": 1}], "u has 2 rows: a document needs one score"),
        ([{"url": "u", "score": "high"}], "column score holds what is not a number"),
        ([{"url": "u", "mark": 1}], "there is no column score"),
        ([{"score": 1}], "there is no column url"),
        ([{"url": None, "score": 1}], "row 0 has no key"),
        ([{"url": "u", "score": float("nan")}], "row 0 has the score nan"),
    ],
)
def test_a_file_that_cannot_be_joined_is_one_clear_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        check_assets(recipe_of(lines(tmp_path / "judge.jsonl", *rows)))
    assert str(error.value).startswith("scores.judge.file: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_something_else_or_nowhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\x00\x01")
    with pytest.raises(ValueError, match="neither Parquet nor JSONL"):
        check_assets(recipe_of(tmp_path / "x"))
    with pytest.raises(ValueError, match=r"scores\.judge\.file: .*nowhere"):
        check_assets(recipe_of(tmp_path / "nowhere"))

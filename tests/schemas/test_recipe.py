"""The recipe: what is refused, and how the message helps."""

from pathlib import Path

import pytest

from schemas.recipe import Recipe, RecipeError, canonical_json
from schemas.recipe_file import load_recipe

RECIPE = """
sources:
  web: {root: crawl}
near: {threshold: 0.8}
rules:
  gopher.too_few_words: 50
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("near.treshold=0.7", "near.treshold: unknown key; did you mean threshold?"),
        ("seeed=1", "seeed: unknown key; did you mean seed?"),
        ("sources.web.formt=warc", "sources.web.formt: unknown key; did you mean format?"),
        ("edits.c4.min_wrds=3", "edits.c4.min_wrds: unknown key; did you mean min_words?"),
        ("measure.minhash.num_hash=3", "measure.minhash.num_hash: unknown key; did you mean num_hashes?"),
        ("near.threshold=1.5", "near.threshold=1.5: expected at most 1"),
        ("near.threshold=.nan", "near.threshold=NaN: expected a finite number"),
        ("rules.gopher.too_few_words=nan", 'rules.gopher.too_few_words="nan": expected a finite number'),
        ("rules.x={signal: gopher.num_words, min: -.inf}", "rules.x.min=-Infinity: expected a finite number"),
        ("shards.sequence_lengths=[0]", "shards.sequence_lengths.0=0: expected at least 1"),
        ("near.threshold=high", 'near.threshold="high": expected a number'),
        ("near.threshold=null", "near.threshold=null: expected a number"),
        ("seed=1.5", "seed=1.5: expected a whole number"),
        ("exact=false", "exact=false: expected a section with keys of its own"),
        ("sources=web", 'sources="web": expected a mapping of names'),
        ("sources={}", "sources={}: expected at least 1 of them"),
        ("sources.web=crawl", 'sources.web="crawl": expected a section with keys of its own'),
        ("sources.wet={}", "sources.wet.root: is missing"),
        ("edits.mask=email", 'edits.mask="email": expected a list, as in [a, b]'),
        ("edits.mask=[mail]", "edits.mask.0=\"mail\": expected 'email' or 'ip'"),
        ("rules.language.not_wanted=[en, false]", "rules.language.not_wanted.1=false: expected text (in quotes"),
        ("rules.mine={signal: x, mim: 3}", "rules.mine.mim: unknown key; did you mean min?"),
        ("read.conversions=7", "read.conversions=7: expected true or false"),
        ("name=a b", 'name="a b": expected text that matches ^[A-Za-z0-9]'),
        ("near.bands=4", "near: bands and rows go together: give both or neither"),
        ("rules.short={signal: gopher.num_words, min: 9, max: 3}", "min=9 exceeds max=3: swap them or widen the range"),
        ("prefer=[longest]", "prefer: 'longest' is none of longer_text"),
        ("near={bands: 20, rows: 20}", "near: bands=20 times rows=20 exceeds measure.minhash.num_hashes=112"),
        ("near.threshold", "write key.path=value"),
        ("seed.x=1", "seed is not a section"),
    ],
)
def test_a_mistake_is_one_message_with_its_place(recipe: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(recipe), ["seed=0", override])
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_key_given_twice_is_refused(recipe: Path) -> None:
    recipe.write_text(RECIPE + "near: {threshold: 0.7}\n")
    with pytest.raises(RecipeError, match="'near' is given twice"):
        load_recipe(str(recipe))


@pytest.mark.parametrize("text", ["- 1\n", "sources: [", "\x00"])
def test_what_is_no_recipe_is_refused(recipe: Path, text: str) -> None:
    recipe.write_text(text)
    with pytest.raises(RecipeError):
        load_recipe(str(recipe))


def test_a_missing_recipe_is_named() -> None:
    with pytest.raises(RecipeError, match=r"no-such\.yaml: cannot read it"):
        load_recipe("no-such.yaml")


def test_a_rules_name_keeps_its_dots_in_an_override(recipe: Path) -> None:
    assert load_recipe(str(recipe), ["rules.gopher.too_few_words=70"]).rules == {"gopher.too_few_words": 70.0}


def test_the_digest_leaves_out_where_things_lie_and_nothing_else(recipe: Path) -> None:
    same = load_recipe(str(recipe), ["output=s3://b/d", "work=/tmp/w", "sources.web={root: s3://x, inputs: [a, b]}"])
    assert same.digest() == load_recipe(str(recipe)).digest()
    for override in ("seed=2", "sources.web.format=warc", "near=null", "rules.gopher.too_few_words=51", "name=x"):
        assert load_recipe(str(recipe), [override]).digest() != same.digest(), override


def test_the_order_of_rules_is_part_of_the_digest() -> None:
    sources = {"web": {"root": "x"}}
    one = Recipe.model_validate({"sources": sources, "rules": {"a": 1, "b": 2}})
    other = Recipe.model_validate({"sources": sources, "rules": {"b": 2, "a": 1}})
    assert one.digest() != other.digest()


def test_canonical_json_is_sorted_utf8_without_spaces() -> None:
    assert canonical_json({"b": [1, "é"], "a": None}) == '{"a":null,"b":[1,"é"]}'.encode()


def test_brackets_without_end_are_no_recipe(tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text("a: " + "[" * 5000)
    with pytest.raises(RecipeError, match=r"deep\.yaml: nested too deeply"):
        load_recipe(str(path))

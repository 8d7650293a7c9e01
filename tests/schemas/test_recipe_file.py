"""What a recipe's file extends, and the modules beside it."""

import sys
from pathlib import Path

import pytest

from schemas.recipe import RecipeError
from schemas.recipe_file import load_recipe

BASE = """
sources: {web: {root: base}}
rules: {gopher.too_few_words: 50, gopher.too_many_words: 1000}
near: {threshold: 0.8}
edits: {mask: [email]}
"""


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_a_recipe_takes_over_what_it_does_not_change(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", BASE)
    mine = "extends: base.yaml\nsources: {mine: {root: here}}\nrules: {gopher.too_few_words: 20, c4.lorem_ipsum: 0}\n"
    recipe = load_recipe(write(tmp_path / "mine.yaml", mine), ["near.verify=exact"])
    assert list(recipe.sources) == ["mine"]
    assert list(recipe.rules.items()) == [
        ("gopher.too_few_words", 20.0),
        ("gopher.too_many_words", 1000.0),
        ("c4.lorem_ipsum", 0.0),
    ]
    assert recipe.near is not None
    assert (recipe.near.threshold, recipe.near.verify, recipe.edits.mask) == (0.8, "exact", ["email"])


def test_null_turns_a_section_or_a_rule_of_the_base_off(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", BASE)
    mine = write(tmp_path / "mine.yaml", "extends: base\nnear: null\nrules: {gopher.too_many_words: null}\n")
    recipe = load_recipe(mine)
    assert recipe.near is None
    assert recipe.rules == {"gopher.too_few_words": 50.0, "gopher.too_many_words": None}


def test_a_shipped_recipe_and_one_of_a_package_are_extended_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "our_recipes"
    write(package / "__init__.py", "")
    write(package / "presets" / "web.yaml", BASE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    by_package = load_recipe(write(tmp_path / "a.yaml", "extends: our_recipes:presets/web\nseed: 3\n"))
    shipped = {"web": package / "presets" / "web.yaml"}
    by_name = load_recipe(write(tmp_path / "b.yaml", "extends: web\nseed: 3\n"), (), shipped)
    assert by_package == by_name
    assert by_name.seed == 3
    monkeypatch.delitem(sys.modules, "our_recipes", raising=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: fineweb2", r"there is no recipe fineweb2; did you mean fineweb\?"),
        ("extends: zzz", r"there is no recipe zzz; shipped: fineweb"),
        ("extends: no_such_package:web", "no package no_such_package is installed"),
        ("extends: [a]", "is not the name of a recipe"),
        ("extends: mine.yaml", "16 recipes extend each other"),
    ],
)
def test_what_cannot_be_extended_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    mine = write(tmp_path / "mine.yaml", text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(mine, (), {"fineweb": tmp_path / "fineweb.yaml"})


def test_a_module_beside_the_base_comes_with_it(tmp_path: Path) -> None:
    write(tmp_path / "shared" / "base.yaml", BASE + "modules: [our_rules]\n")
    write(tmp_path / "shared" / "our_rules.py", "GROUPS = []\n")
    recipe = load_recipe(write(tmp_path / "mine.yaml", "extends: shared/base.yaml\n"))
    assert [(module.name, module.source) for module in recipe.modules] == [("our_rules", "GROUPS = []\n")]

"""Signal groups and rules of a user's own: a module beside the recipe, an installed one, and faulty ones."""

import math
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.measure.measure import MeasureError, Measurer
from pipeline.measure.registry import Registry, load_registry
from schemas.recipe import Recipe, RecipeError
from schemas.recipe_file import load_recipe
from tests.measure.measuring import column

QUESTIONS = """
import pyarrow.compute as pc
from pipeline.measure.signal_group import Rule, SignalGroup

def count_questions(batch):
    return {"my.questions": pc.count_substring(batch.texts, "?")}

SIGNALS = {"my.questions": "question marks"}
GROUPS = [SignalGroup("my_questions", version="1", signals=SIGNALS, measure=count_questions)]
RULES = [Rule("my.too_many_questions", "my.questions", ">", 2, "our own reading")]
"""


def module_of(measure: str, **fields: str) -> str:
    """The source of a module with one group, whose measure is this expression of `batch`."""
    given = "".join(f", {name}={value}" for name, value in fields.items())
    return (
        "import numpy as np, pyarrow as pa, pyarrow.compute as pc\n"
        "from pipeline.measure.signal_group import Rule, SignalGroup\n"
        "SIGNALS = {'my.signal': 'x'}\n"
        f"GROUPS = [SignalGroup('mine', version='1', signals=SIGNALS, measure=lambda batch: {measure}{given})]\n"
    )


def recipe_of(folder: Path, source: str = QUESTIONS, more: str = "") -> Recipe:
    (folder / "my_rules.py").write_text(source)
    (folder / "recipe.yaml").write_text("sources: {web: {root: .}}\nmodules: [my_rules]\n" + more)
    return load_recipe(str(folder / "recipe.yaml"))


def measured(registry: Registry, *texts: str, **columns: pa.Array) -> dict[str, list[Any]]:
    """The columns of the user's groups; those of a record are null unless given."""
    known = dict.fromkeys(("url", "mime"), pa.nulls(len(texts), pa.string())) | columns
    found = Measurer(registry).measure(column(*texts), known)
    return {name: array.to_pylist() for name, array in found.items()}


def test_a_module_beside_the_recipe_gives_a_signal_and_a_rule(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, more="rules: {my.too_many_questions: 1, mine: {signal: my.questions, min: 3}}")
    registry = load_registry(recipe)
    found = measured(registry, "Who? Where? When?", "Here.")
    assert (found["my.questions"], found["my_questions.failed"]) == ([3.0, 0.0], [None, None])
    rules = [(rule.name, rule.signal, rule.comparison, rule.threshold) for rule in registry.resolve_rules(recipe.rules)]
    assert rules == [("my.too_many_questions", "my.questions", ">", 1.0), ("mine", "my.questions", "<", 3.0)]
    group = registry.measures()["my_questions"]
    assert (group.version, group.signals) == ("1", {"my.questions": "question marks"})
    assert group.module.startswith("my_rules ")


def test_the_recipe_carries_the_source_to_every_worker(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    (tmp_path / "my_rules.py").unlink()
    carried = Recipe.model_validate_json(recipe.model_dump_json())
    assert measured(load_registry(carried), "Who?")["my.questions"] == [1.0]


def test_a_groups_identity_follows_source_version_options_and_assets(tmp_path: Path) -> None:
    def identity(source: str, more: str = "") -> str:
        return next(group.identity for group in load_registry(recipe_of(tmp_path, source, more)).groups if group.module)

    with_options = module_of(
        "{'my.signal': [0.0] * len(batch)}", options="{'limit': 1, 'list': None}", assets="('list',)"
    )
    (tmp_path / "list").write_text("a")
    listed = f"measure: {{groups: {{mine: {{list: {tmp_path / 'list'}}}}}}}"
    digests = [
        identity(QUESTIONS),
        identity(QUESTIONS.replace('version="1"', 'version="2"')),
        identity(QUESTIONS + "# a comment\n"),
        identity(with_options),
        identity(with_options, "measure: {groups: {mine: {limit: 2}}}"),
        identity(with_options, listed),
    ]
    (tmp_path / "list").write_text("bc")
    digests.append(identity(with_options, listed))
    assert len(set(digests)) == len(digests)
    assert identity(QUESTIONS) == digests[0]


def test_a_group_may_read_a_view_the_record_and_another_group(tmp_path: Path) -> None:
    source = module_of(
        "{'my.signal': pc.add(pc.utf8_length(batch.texts), pc.if_else(pc.equal(batch.column('url'), 'a'), 100, 0))}",
        view="'c4'",
        reads="('url', 'language')",
    )
    registry = load_registry(recipe_of(tmp_path, source, "edits: {c4: {}}"))
    kept = "A whole sentence of words that stays."
    found = measured(registry, f"{kept}\nmenu", url=pa.array(["a"]))
    assert found["my.signal"] == [100.0 + len(kept)]
    (mine,) = [group for group in registry.groups if group.module]
    assert sorted(mine.builds_on) == ["c4_lines", "language"]


def test_the_text_that_a_group_fails_on_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    source = (
        "from pipeline.measure.signal_group import SignalGroup\n"
        "def measure(batch):\n"
        "    return {'my.signal': [1 / len(text.as_py().strip()) for text in batch.texts]}\n"
        "GROUPS = [SignalGroup('mine', version='1', signals={'my.signal': 'x'}, measure=measure)]\n"
    )
    found = measured(load_registry(recipe_of(tmp_path, source)), "four", " ", "ab")
    assert found["my.signal"] == [0.25, None, 0.5]
    assert found["mine.failed"] == [None, "ZeroDivisionError: division by zero", None]


def test_a_signal_that_is_not_finite_is_a_failure_and_null_is_not(tmp_path: Path) -> None:
    source = module_of("{'my.signal': pa.array([1.0, float('nan'), None, float('inf')])}")
    found = measured(load_registry(recipe_of(tmp_path, source)), "a", "b", "c", "d")
    assert found["my.signal"] == [1.0, None, None, None]
    assert found["mine.failed"] == [None, "my.signal is nan", None, "my.signal is inf"]


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        ("{'my.signal': [1.0]}", r"^signal group mine: my\.signal has 1 values for 2 texts$"),
        ("{'my.signal': ['a', 'b']}", r"^signal group mine: my\.signal is not double: "),
        ("{'other': [1.0, 2.0]}", r"^signal group mine gives no column my\.signal: it returned other$"),
        ("None", r"^signal group mine gives no column my\.signal: it returned NoneType$"),
    ],
)
def test_a_group_that_is_wrong_whatever_the_text_is_ends_the_run(tmp_path: Path, measure: str, message: str) -> None:
    with pytest.raises(MeasureError, match=message):
        measured(load_registry(recipe_of(tmp_path, module_of(measure))), "a", "b")


def test_a_group_that_fails_on_many_texts_at_once_ends_the_run_and_few_are_rows(tmp_path: Path) -> None:
    registry = load_registry(recipe_of(tmp_path, module_of("1 / 0")))
    assert measured(registry, "a", "b")["mine.failed"] == ["ZeroDivisionError: division by zero"] * 2
    with pytest.raises(MeasureError, match=r"^signal group mine fails on every text: ZeroDivisionError: division by"):
        measured(registry, *["text"] * 64)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_of_this_name", "my_rules: it imports nothing_of_this_name, which is not installed"),
        ("GROUPS = [", r"my_rules: it cannot be imported: SyntaxError: .* \(line 1\)"),
        ("1 / 0", "my_rules: it cannot be imported: ZeroDivisionError: division by zero"),
        ("x = 1", "my_rules: it has neither GROUPS nor RULES"),
        ("GROUPS = [1]", "my_rules: GROUPS is not a list of SignalGroup"),
        (QUESTIONS.replace("my.questions", "gopher.num_words"), "gopher.num_words is a name of gopher already"),
        (QUESTIONS.replace('"my_questions"', '"gopher"'), "is a name of gopher already"),
        (QUESTIONS.replace('"my.too_many_questions"', '"c4.lorem_ipsum"'), "there is a rule c4.lorem_ipsum already"),
        (QUESTIONS.replace('Rule("my.too_many_questions", "my.questions"', 'Rule("x", "my.question"'), "did you mean"),
        (module_of("{}", reads="('nothing',)"), "signal group mine reads: there is no column nothing"),
        (module_of("{}", reads="('my.signal',)"), "read each other in a circle"),
    ],
)
def test_a_module_that_cannot_work_is_one_clear_line(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_registry(recipe_of(tmp_path, source))
    assert "\n" not in str(error.value)


def test_a_module_that_is_nowhere_is_told_where_it_was_looked_for(tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"sources": {"web": {"root": "."}}, "modules": ["no_such_module"]})
    with pytest.raises(ValueError, match=r"there is no file no_such_module\.py beside the recipe, and no module"):
        load_registry(recipe)


def test_an_option_that_a_group_does_not_have_is_refused(tmp_path: Path) -> None:
    source = module_of("{}", options="{'limit': 1}")
    with pytest.raises(ValueError, match=r"measure\.groups\.mine: there is no option limits; did you mean limit\?"):
        load_registry(recipe_of(tmp_path, source, "measure: {groups: {mine: {limits: 2}}}"))
    with pytest.raises(ValueError, match=r"there is no signal group of your own mina; did you mean mine\?"):
        load_registry(recipe_of(tmp_path, source, "measure: {groups: {mina: {limit: 2}}}"))


def test_an_installed_package_is_measured_when_the_recipe_names_what_it_offers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "asking"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "signals.py").write_text(QUESTIONS)
    info = tmp_path / "site" / "asking-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: asking\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gristmill.signals]\nasking = asking.signals\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    sources = {"sources": {"web": {"root": "."}}}
    plain = load_registry(Recipe.model_validate(sources))
    assert "my_questions" not in plain.measures()
    named = load_registry(Recipe.model_validate(sources | {"rules": {"my.too_many_questions": 5}}))
    assert named.measures()["my_questions"].module.startswith("asking.signals ")
    own = {"mine": {"signal": "my.questions", "max": 3}}
    assert "my_questions" in load_registry(Recipe.model_validate(sources | {"rules": own})).measures()
    for name in [name for name in sys.modules if name.startswith("asking")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "my_rules.py").write_bytes(b"\xff")
    (tmp_path / "recipe.yaml").write_text("sources: {web: {root: .}}\nmodules: [my_rules]\n")
    with pytest.raises(RecipeError, match=r"modules: .*my_rules\.py: cannot read it"):
        load_recipe(str(tmp_path / "recipe.yaml"))


def test_values_do_not_depend_on_the_batch(tmp_path: Path) -> None:
    registry = load_registry(recipe_of(tmp_path))
    texts = ["?" * count for count in range(5)]
    together = measured(registry, *texts)["my.questions"]
    assert together == [measured(registry, text)["my.questions"][0] for text in texts]
    assert all(math.isfinite(value) for value in together)

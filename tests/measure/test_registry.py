from pathlib import Path

import pytest

from pipeline.measure.built_in import PUBLISHED_RULES
from pipeline.measure.registry import ResolvedRule, load_registry
from schemas.recipe import Rule
from schemas.recipe_file import load_recipe
from tests.measure.measuring import registry

RECIPES = Path(__file__).parents[2] / "pipeline/recipes"


def test_every_published_rule_asks_a_signal_that_there_is():
    assert {rule.signal for rule in PUBLISHED_RULES.values()} - {"language"} <= set(registry().signals)
    assert all(name == rule.name and rule.source for name, rule in PUBLISHED_RULES.items())


def test_every_signal_says_what_it_means():
    groups = registry().groups
    assert [group.name for group in groups] == [
        *("invisible", "language", "urls", "gopher", "c4_lines", "c4", "fineweb", "edits", "final", "signature")
    ]
    meanings = {name: meaning for group in groups for name, meaning in group.group.signals.items()}
    assert len(meanings) == 30
    assert all(meanings.values())
    assert meanings["gopher.top_3_gram_character_fraction"] == "Share of characters in the most frequent 3-gram."


def test_a_recipe_gives_thresholds_lists_own_rules_and_null():
    rules = registry().resolve_rules(
        {
            "language.not_wanted": ["en", "de"],
            "gopher.too_few_words": 100,
            "gopher.too_many_words": None,
            "mine": Rule(signal="gopher.num_words", min=3, max=5),
            "c4.curly_bracket": 0,
        }
    )
    assert rules == [
        ResolvedRule("language.not_wanted", "language", "not in", ("en", "de")),
        ResolvedRule("gopher.too_few_words", "gopher.num_words", "<", 100.0),
        ResolvedRule("mine", "gopher.num_words", "<", 3.0),
        ResolvedRule("mine", "gopher.num_words", ">", 5.0),
        ResolvedRule("c4.curly_bracket", "c4.num_curly_brackets", ">", 0.0),
    ]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"gopher.to_few_words": 5},
            r"there is no rule gopher\.to_few_words; did you mean gopher\.too_few_words\?",
        ),
        ({"gopher.to_few_words": None}, "did you mean"),
        ({"zzz": 1}, "known: c4.curly_bracket, "),
        (
            {"mine": Rule(signal="gopher.num_word", min=1)},
            r"rules\.mine: there is no signal gopher\.num_word; did you mean gopher\.num_words\?",
        ),
        ({"language.not_wanted": 0.5}, r"0\.5 is no list: give the labels to keep"),
        ({"language.not_wanted": []}, "the list is empty, which drops everything"),
        ({"gopher.too_few_words": ["en"]}, "a list, where one number is expected; published is 50"),
        ({"c4.lorem_ipsum": Rule(signal="c4.num_lorem_ipsum", max=2)}, "is a published rule of"),
    ],
)
def test_what_a_recipe_cannot_mean_is_refused_with_the_cure(rules: dict, message: str):
    with pytest.raises(ValueError, match=message):
        registry().resolve_rules(rules)


@pytest.mark.parametrize("recipe", ["gopher", "c4", "fineweb"])
def test_the_presets_hold_the_published_thresholds(recipe: str):
    loaded = load_recipe(str(RECIPES / f"{recipe}.yaml"))
    assert load_registry(loaded).resolve_rules(loaded.rules)
    for name, bound in loaded.rules.items():
        if name != "language.not_wanted":
            assert bound == PUBLISHED_RULES[name].threshold, name


def test_the_fineweb_preset_is_gopher_then_c4_then_its_own_rules():
    recipe = load_recipe(str(RECIPES / "fineweb.yaml"))
    families = list(dict.fromkeys(name.split(".")[0] for name in recipe.rules))
    assert families == ["url", "language", "gopher", "c4", "fineweb"]
    assert recipe.edits.c4 is not None
    assert not recipe.edits.c4.end_mark
    assert recipe.edits.mask == ["email", "ip"]
    gopher = {name for name in PUBLISHED_RULES if name.startswith("gopher.")}
    assert gopher <= set(recipe.rules)

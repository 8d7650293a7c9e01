"""What a row comes to by itself: the first rule it breaks in the recipe's order, with its value and threshold."""

import pyarrow as pa
import pytest

from pipeline.select.columns import Parts
from pipeline.select.exact.record_identity import IDENTITIES
from pipeline.select.rules import judge, reasons
from tests.made_parts import make_recipe, write_part
from tests.measure.measuring import registry

NONE = pa.Table.from_batches([], IDENTITIES)


def judged(folder, rows, rules):
    """(rule, value, threshold) of each row; None: passed."""
    part = write_part(folder, 0, rows)
    resolved = registry().resolve_rules(make_recipe(rules=rules).rules)
    found = judge(Parts([part]).open(0), NONE, resolved)
    names = [*(rule for _, rule in reasons(resolved)), None]
    assert (found.reason == -1).tolist() == found.passed.tolist()
    columns = (found.reason.tolist(), found.value.tolist(), found.threshold.tolist())
    return [None if code == -1 else (names[code], value, bound) for code, value, bound in zip(*columns, strict=True)]


def num_words(*values):
    return [{"text": "some text", "gopher.num_words": value} for value in values]


def test_a_lower_bound_drops_what_lies_below_it_alone(tmp_path):
    assert judged(tmp_path, num_words(49.0, 50.0, 51.0), {"gopher.too_few_words": 50}) == [
        ("gopher.too_few_words", 49.0, 50.0),
        None,
        None,
    ]


def test_an_upper_bound_drops_what_lies_above_it_alone(tmp_path):
    assert judged(tmp_path, num_words(9.0, 10.0, 11.0), {"gopher.too_many_words": 10}) == [
        None,
        None,
        ("gopher.too_many_words", 11.0, 10.0),
    ]


def test_the_first_rule_of_the_recipe_is_the_reason(tmp_path):
    bounds = {"gopher.too_few_words": 50, "own": {"signal": "gopher.num_words", "min": 40}}
    for rules in (bounds, dict(reversed(bounds.items()))):
        ((rule, _, threshold),) = judged(tmp_path, num_words(5.0), rules)
        assert (rule, threshold) == (next(iter(rules)), 50.0 if rule.startswith("gopher") else 40.0)


def test_a_rule_of_ones_own_bounds_on_both_sides(tmp_path):
    rules = {"own": {"signal": "gopher.num_words", "min": 2, "max": 4}}
    assert judged(tmp_path, num_words(1.0, 2.0, 4.0, 5.0), rules) == [("own", 1.0, 2.0), None, None, ("own", 5.0, 4.0)]


def test_a_signal_that_was_not_measured_breaks_no_rule(tmp_path):
    found = judged(tmp_path, num_words(None, 1.0), {"gopher.too_few_words": 50})
    assert found == [None, ("gopher.too_few_words", 1.0, 50.0)]


def test_a_label_outside_the_list_is_dropped_and_has_no_value(tmp_path):
    rows = [{"text": "x", "language": label} for label in ("en", "de", None)]
    found = judged(tmp_path, rows, {"language.not_wanted": ["en"]})
    assert [entry and entry[0] for entry in found] == [None, "language.not_wanted", "language.not_wanted"]
    assert found[1][1] != found[1][1]


def test_a_document_of_which_nothing_is_left_is_dropped_after_the_rules(tmp_path):
    rows = [{"text": "stored", "num_bytes": 0, "gopher.num_words": value} for value in (1.0, 99.0)]
    assert judged(tmp_path, rows, {"gopher.too_few_words": 50}) == [
        ("gopher.too_few_words", 1.0, 50.0),
        ("edits.empty", 0.0, 1.0),
    ]


def test_what_ingest_dropped_keeps_its_value(tmp_path):
    ((rule, value, threshold),) = judged(tmp_path, [{"text": None}], {"gopher.too_few_words": 50})
    assert (rule, value, threshold) == (None, 404.0, 200.0)


def test_a_signal_that_the_parts_do_not_hold_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"rule gopher.words_too_short: the parts hold no signal"):
        judged(tmp_path, num_words(1.0), {"gopher.words_too_short": 3})

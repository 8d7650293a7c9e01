"""The funnel: its figures add up, in the drawing and in words."""

import re
from xml.etree import ElementTree

import pytest

from pipeline.report.funnel import funnel_picture, steps
from pipeline.report.report_data import Drop, Facts


def facts_with(kept: int, *drops: Drop) -> Facts:
    """A report's facts as far as the funnel needs them."""
    return Facts("x", 1, rows=kept + sum(drop.count for drop in drops), kept=kept, drops=list(drops))


def test_stages_stand_in_the_order_of_the_work_and_only_if_they_dropped_something() -> None:
    facts = facts_with(
        10, Drop("near", "near.duplicate", 3), Drop("read", "read.status", 2), Drop("rules", "gopher.x", 0)
    )
    assert [(step.title, step.dropped, step.survivors) for step in steps(facts)] == [
        ("Reading", 2, 13),
        ("Near duplicates", 3, 10),
    ]


def test_weaker_rules_share_a_line_and_no_record_is_lost() -> None:
    facts = facts_with(1, *(Drop("rules", f"gopher.rule_{number}", number) for number in range(1, 9)))
    (step,) = steps(facts)
    assert step.reasons == [("rule 8", 8), ("rule 7", 7), ("rule 6", 6), ("rule 5", 5), ("4 other rules", 10)]


def test_a_funnel_that_does_not_add_up_is_refused() -> None:
    facts = facts_with(10, Drop("read", "read.status", 2))
    facts.kept = 9
    with pytest.raises(AssertionError, match="funnel"):
        steps(facts)


def test_both_drawings_are_well_formed_and_described_for_screen_readers() -> None:
    picture = funnel_picture(facts_with(7, Drop("read", "read.<b>", 2), Drop("exact", "exact.duplicate", 1)))
    figure = ElementTree.fromstring(picture)
    assert [drawing.get("class") for drawing in figure.findall("svg")] == ["funnel-wide", "funnel-narrow"]
    labels = [drawing.findtext("desc") for drawing in figure.findall("svg")]
    assert (
        labels[0]
        == "Of 10 records read, 7 documents are kept. Reading: 2 dropped, 8 left. Exact copies: 1 dropped, 7 left."
    )
    assert "<b>" not in picture


@pytest.mark.parametrize("facts", [facts_with(0), facts_with(5), facts_with(0, Drop("read", "read.type", 4))])
def test_empty_and_extreme_funnels_are_drawn(facts: Facts) -> None:
    ElementTree.fromstring(funnel_picture(facts))


def test_the_stream_is_as_thick_as_its_records() -> None:
    picture = funnel_picture(facts_with(50, Drop("rules", "gopher.x", 50)))
    stream = re.findall(r'<path class="keep" d="M([^"]*)Z"', picture)[0]
    across = [float(point.split()[1]) for point in stream.split(" L")]
    assert max(across) - min(across) == pytest.approx(170)
    assert sorted(set(across))[-2] - min(across) == pytest.approx(85)

"""The funnel: in the order of the stages, complete, and the same when it is read again."""

import json

import pytest

from pipeline.ingest.records import ConservationError
from pipeline.select.context import Decision
from pipeline.select.decision.funnel import Drop, Funnel, add_up, funnel_lines, load_funnel
from pipeline.select.decision.verdict import CloseDecision
from tests.made_parts import make_recipe


def summary(part, rows, drops, kept=0, **more):
    known = {"kept": kept, "kept_bytes": 10 * kept, "drops": drops, "splits": {"train": kept}, "renamed": 1}
    verdict = {"part": part, "path": f"{part}.arrow", "rows": rows, "sha256": "0"}
    return {**known, "clusters": 1, "largest_cluster": part + 2, "verdict": verdict, **more}


SUMMARIES = [
    summary(1, 6, [["near", "near.duplicate", 1, 5], ["rules", "late", 1, 5], ["read", "read.status", 2, 0]], kept=2),
    summary(0, 7, [["exact", "exact.same_record", 3, 9], ["rules", "early", 1, 5], ["rules", "late", 2, 5]], kept=1),
]


def test_drops_stand_in_the_order_in_which_documents_meet_them():
    funnel = add_up(SUMMARIES, ["early", "late"])
    assert funnel.drops == (
        Drop("read", "read.status", 2, 0),
        Drop("exact", "exact.same_record", 3, 9),
        Drop("rules", "early", 1, 5),
        Drop("rules", "late", 3, 10),
        Drop("near", "near.duplicate", 1, 5),
    )
    assert (funnel.records_read, funnel.kept, funnel.bytes, funnel.renamed) == (13, 3, 59, 2)
    assert (funnel.splits, funnel.clusters, funnel.largest_cluster) == ({"train": 3}, 2, 3)
    assert [file.part for file in funnel.verdicts] == [0, 1]
    assert add_up(reversed(SUMMARIES), ["early", "late"]) == funnel
    assert Funnel.from_dict(json.loads(json.dumps(funnel.to_dict()))) == funnel


def test_the_lines_say_every_rule_and_what_is_left():
    assert funnel_lines(add_up(SUMMARIES, ["early", "late"])) == [
        "records read        13",
        "read.status         -2   15.4 %",
        "exact.same_record   -3   23.1 %",
        "early               -1    7.7 %",
        "late                -3   23.1 %",
        "near.duplicate      -1    7.7 %",
        "kept                 3   23.1 %",
    ]


def close(folder, rows, *summaries):
    recipe = make_recipe(rules={"gopher.too_few_words": 5}).model_dump_json()
    decision = Decision(str(folder), recipe, rows, (), (), None, None, None)
    return list(CloseDecision(decision).process((0, [json.dumps(one).encode() for one in summaries])))


@pytest.mark.parametrize(
    ("rows", "summaries"),
    [
        (13, SUMMARIES[:1]),
        (6, [summary(0, 6, [], kept=5)]),
        (6, [summary(0, 6, [], kept=6), summary(0, 6, [], kept=6)]),
    ],
)
def test_a_record_that_is_lost_or_counted_twice_fails_the_run(tmp_path, rows, summaries):
    with pytest.raises(ConservationError, match=f"{rows} records in the parts"):
        close(tmp_path, rows, *summaries)
    assert load_funnel(str(tmp_path)) is None


def test_a_decision_whose_verdicts_are_gone_is_not_complete(tmp_path):
    close(tmp_path, 13, *SUMMARIES)
    assert load_funnel(str(tmp_path)) is None
    for part in (0, 1):
        (tmp_path / f"{part}.arrow").touch()
    assert load_funnel(str(tmp_path)) is not None
    (tmp_path / "decision.json").write_text("{")
    assert load_funnel(str(tmp_path)) is None

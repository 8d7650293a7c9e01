"""What differs between two decisions and between two datasets."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.diff import decision_diff, diff
from pipeline.ingest.receipts import PartRef
from schemas.arrow import VERDICT
from tests.report.handmade import RECIPE, document, write_dataset


def write_verdicts(path: Path, rules: list[str | None]) -> str:
    """A verdict file: None is kept."""
    rows = [
        dict.fromkeys(VERDICT.names) | {"doc_id": bytes(16), "kept": rule is None, "rule": rule, "passed": False}
        for rule in rules
    ]
    with pa.ipc.new_file(str(path), VERDICT) as writer:
        writer.write_table(pa.Table.from_pylist(rows, VERDICT))
    return str(path)


def write_part(path: Path, number: int, urls: list[str | None]) -> PartRef:
    """As much of a part as is looked at."""
    table = pa.table(
        {"url": pa.array(urls, pa.string()), "input": ["in.gz"] * len(urls), "position": list(range(len(urls)))}
    )
    with pa.ipc.new_file(str(path), table.schema) as writer:
        for batch in table.to_batches(2):
            writer.write_batch(batch)
    return PartRef(number, "web", str(path), len(urls), 0, "")


def test_a_decision_tells_what_it_lost_and_gained_by_rule_with_examples(tmp_path: Path) -> None:
    part = write_part(tmp_path / "part", 0, ["http://a/", "http://b/", None, "http://d/", "http://e/"])
    before = write_verdicts(tmp_path / "old", [None, "short", "short", "long", None])
    after = write_verdicts(tmp_path / "new", ["long", None, None, "short", None])
    changes = decision_diff([before], [after], [part])
    assert changes.to_dict() == {
        "kept_before": 2,
        "kept_after": 3,
        "lost": {"long": 1},
        "gained": {"short": 2},
        "moved": [["long", "short", 1]],
        "new": {"rows": 0, "kept": 0},
        "examples": {"gained short": ["http://b/", "in.gz at 2"], "lost long": ["http://a/"]},
    }
    assert changes.lines() == [
        "kept 2 before, 3 now (+1)",
        "  -1 now dropped by long",
        "      http://a/",
        "  +2 no longer dropped by short",
        "      http://b/",
        "      in.gz at 2",
        "   1 dropped by short, before by long",
    ]


def test_no_more_than_three_examples_of_a_change_are_shown_over_all_parts(tmp_path: Path) -> None:
    parts = [
        write_part(tmp_path / f"part{number}", number, [f"u{number}{row}" for row in range(4)]) for number in range(2)
    ]
    before = [write_verdicts(tmp_path / f"old{number}", [None] * 4) for number in range(2)]
    after = [write_verdicts(tmp_path / f"new{number}", [None, None, "short", "short"]) for number in range(2)]
    changes = decision_diff(before, after, parts)
    assert changes.lost == {"short": 4}
    assert changes.examples == {"lost short": ["u02", "u03", "u12"]}


def test_parts_that_were_not_decided_before_are_new_and_equal_decisions_change_nothing(tmp_path: Path) -> None:
    parts = [write_part(tmp_path / f"part{number}", number, ["u", "v"]) for number in range(2)]
    old = write_verdicts(tmp_path / "old", [None, "short"])
    new = write_verdicts(tmp_path / "new", [None, "long"])
    assert decision_diff([old], [old], parts[:1]).lines() == ["no verdict changes"]
    assert decision_diff([old], [old, new], parts).to_dict()["new"] == {"rows": 2, "kept": 1}
    with pytest.raises(ValueError, match="not of the same part"):
        decision_diff([old], [write_verdicts(tmp_path / "other", [None])], parts[:1])


def crawl(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    """Four records; `changes` replaces fields of those named."""
    names = ["a", "b", "c", "d"]
    fields: dict[str, dict[str, Any]] = {name: {"position": place} for place, name in enumerate(names)}
    fields["d"] |= {"kept": False, "stage": "read", "rule": "read.status"}
    return [
        document(
            f"http://x/{name}", None if name == "d" else f"some text of {name}", **fields[name] | changes.get(name, {})
        )
        for name in names
    ]


def test_equal_generations_are_the_same(tmp_path: Path) -> None:
    a, b = write_dataset(tmp_path / "a", crawl()), write_dataset(tmp_path / "b", crawl())
    assert diff(a, b) == (True, [f"the same generation: digest {'1' * 64}"])


def test_datasets_differ_by_recipe_funnel_and_documents_with_reasons(tmp_path: Path) -> None:
    a = write_dataset(tmp_path / "a", crawl())
    dropped = {"kept": False, "stage": "rules", "rule": "gopher.too_few_words", "num_tokens": None, "split": None}
    recipe = RECIPE.replace("too_few_words: 5", "too_few_words: 50")
    b = write_dataset(tmp_path / "b", crawl(a=dropped, b={"num_tokens": 99})[:3], recipe, digest="5")
    same, lines = diff(a, f"{b}@1")
    assert not same
    text = "\n".join(lines)
    assert "rules.gopher.too_few_words: 5.0 -> 50.0" in text
    assert "kept by both: 2, 1 of them with another number of tokens" in text
    assert "    1 gopher.too_few_words in the other\n          http://x/a" in text
    assert "only in b" not in text
    assert "read.status" in text
    assert "records read" in text


def test_documents_that_the_other_never_read_are_said_to_be_so(tmp_path: Path) -> None:
    a = write_dataset(tmp_path / "a", crawl()[:1])
    b = write_dataset(tmp_path / "b", crawl(), digest="5")
    text = "\n".join(diff(a, b)[1])
    assert "only in b: 2\n      2 not read in the other\n" in text.replace("          http", "http")

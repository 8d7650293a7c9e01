"""An input without a record makes a part without rows: every command works on a dataset that has some."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from pipeline.report.decisions import decision_diff
from tests.test_curate import text
from tests.test_diff import write_part, write_verdicts


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Three sources of one part each, the first and the last without a record."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "in.jsonl").touch()
    rows = [{"id": f"d{n}", "url": f"http://x.test/{n}", "text": text(n, 20 + 10 * n)} for n in range(8)]
    (tmp_path / "b" / "in.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "sources": {name: {"root": str(tmp_path / name), "inputs": ["*.jsonl"]} for name in ("a", "b", "c")},
                "rules": {"gopher.too_few_words": 25},
                "tokenizer": {"vocab_size": 300},
            }
        )
    )
    return path


def test_every_command_works_on_parts_without_rows(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out, to = str(tmp_path / "out"), str(tmp_path / "tokenizer.json")
    job = [str(recipe), "--output", out, "--quiet", "--workers", "1"]
    changed = [*job, "--set", "rules.gopher.too_few_words=45"]

    assert main(["plan", *job]) == 0
    assert main(["run", *job]) == 0
    capsys.readouterr()
    assert main(["plan", *job, "--json"]) == 0
    assert [row["parts_done"] for row in json.loads(capsys.readouterr().out)["sources"].values()] == [1, 1, 1]
    assert main(["decide", *job]) == 0
    assert "no verdict changes" in capsys.readouterr().out
    assert main(["decide", *changed, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changes"]["lost"] == {"gopher.too_few_words": 2}
    assert main(["run", *changed]) == 0
    assert main(["verify", out]) == 0
    assert main(["report", out]) == 0
    assert main(["tokenizer", "train", *job, "--to", to]) == 0
    for generation in ("1", "2"):
        assert main(["explain", out, "http://x.test/5", "--generation", generation]) == 0
    for kind in ("shards", "ledger", "index"):
        assert main(["files", out, kind]) == 0
    capsys.readouterr()
    assert main(["diff", f"{out}@1", f"{out}@2"]) == 1
    assert "kept" in capsys.readouterr().out


def test_parts_that_are_all_without_rows_keep_nothing_and_say_so(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "b" / "in.jsonl").write_text("")
    job = [str(recipe), "--output", str(tmp_path / "out"), "--quiet", "--workers", "1"]
    assert main(["run", *job]) == 1
    assert "the inputs hold no record" in capsys.readouterr().err
    assert main(["decide", *job]) == 0


@pytest.mark.parametrize("rows", [0, 1])
def test_decisions_on_a_part_without_rows_or_batches_compare(tmp_path: Path, rows: int) -> None:
    part = write_part(tmp_path / "part", 0, ["u"] * rows)
    uris = [write_verdicts(tmp_path / name, [None] * rows) for name in ("old", "new")]
    assert decision_diff(uris[:1], uris[1:], [part]).lines() == ["no verdict changes"]

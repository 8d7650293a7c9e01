"""What the command line says to someone who tries it for the first time."""

import json
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main
from tests.test_curate import recipe, run, text

__all__ = ["recipe"]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "full"),
    [
        (["run", "quickstart", "--out", "x"], "--out: write the option in full: --output"),
        (["plan", "quickstart", "--out=x"], "--out: write the option in full: --output"),
        (["verify", "x", "--gen", "1"], "--gen: write the option in full: --generation"),
        (["diff", "a", "b", "--jsn"], "unknown option --jsn"),
    ],
)
def test_abbreviated_options_are_refused(arguments: list[str], full: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert full in said(capsys)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[english]", "rules.language.not_wanted: the language model has no label 'english'; did you mean en?"),
        ("[en, deu]", "the language model has no label 'deu'; did you mean de?"),
        ("[qqqqqq]", "no label 'qqqqqq'; known: af, als, am,"),
        ("en", "rules.language.not_wanted: 'en': expected a number, or for labels a list, as in [en, de]"),
    ],
)
def test_labels_that_no_model_gives_are_refused(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], value: str, message: str
) -> None:
    arguments = ["plan", str(recipe), "--output", str(tmp_path / "out"), "--set", f"rules.language.not_wanted={value}"]
    assert main(arguments) == 2
    assert message in said(capsys)


def test_a_shipped_recipe_says_how_to_name_the_crawl(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "fineweb", "--output", "out"]) == 2
    assert "fineweb is a shipped recipe: give --set sources.web.root=FOLDER for your crawl" in said(capsys)
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert "shipped recipe: c4, fineweb, gopher, quickstart" in " ".join(capsys.readouterr().out.split())


def test_a_plan_writes_nothing_and_warns_of_what_may_surprise(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "work" / ".lock").mkdir(parents=True)  # no user can open it as a file to write
    with (tmp_path / "crawl" / "c.jsonl").open("w") as file:
        for number in range(40_000):
            file.write(json.dumps({"id": f"n{number}", "text": text(number % 50, 60)}) + "\n")
    arguments = ["plan", str(recipe), "--output", str(tmp_path / "out"), "--workers", "2"]
    assert main([*arguments, "--set", "rules.language.not_wanted=[en, de]"]) == 0
    out = capsys.readouterr().out
    assert "note: 1 task to read for 2 workers: 1 will wait." in out
    assert "note: language.not_wanted keeps en, de and drops every other language" in out
    assert main([*arguments, "--set", "read.part_bytes=4_194_304"]) == 0
    assert "note:" not in capsys.readouterr().out


def test_the_text_and_the_page_of_a_document_are_printed_whole(
    recipe: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    out = str(tmp_path / "out")
    assert run(recipe, tmp_path / "out") == 0
    capsysbinary.readouterr()
    for option in ("--text", "--page"):
        assert main(["explain", out, "http://x.test/7", option]) == 0
        assert capsysbinary.readouterr().out.decode() == text(7)
    (tmp_path / "crawl" / "a.jsonl").unlink()
    assert main(["explain", out, "http://x.test/7", "--page"]) == 1
    assert b"is not there any more" in capsysbinary.readouterr().err
    assert main(["explain", out, "http://x.test/nowhere", "--text"]) == 1


def test_a_recipe_for_ones_own_crawl_works_as_it_is(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    (tmp_path / "crawl" / "notes.txt").write_text("no crawl")
    assert main(["init", "../crawl"]) == 0
    assert "next: gristmill plan recipe.yaml" in capsys.readouterr().out.replace("\u202f", " ")
    written = yaml.safe_load(Path("recipe.yaml").read_text())
    assert written["sources"] == {"crawl": {"root": str(tmp_path / "crawl"), "inputs": ["**/*.jsonl"]}}
    assert main(["plan", "recipe.yaml"]) == 0
    assert main(["init", "../crawl"]) == 2
    assert "recipe.yaml: there already" in said(capsys)
    assert main(["init", "no such folder", "--to", "b.yaml"]) == 2
    Path("empty").mkdir()
    assert main(["init", "empty", "--to", "b.yaml"]) == 2
    assert "none that ends in .warc" in said(capsys)

"""The whole way, through the command: runs, reruns, changed thresholds, and what is refused."""

import json
import os
from pathlib import Path

import pytest
import yaml

from pipeline.cli import main

WORDS = [
    "river",
    "mountain",
    "letter",
    "window",
    "garden",
    "story",
    "weather",
    "number",
    "village",
    "answer",
    "machine",
    "picture",
    "science",
    "morning",
]


def text(seed: int, words: int = 120) -> str:
    """Prose enough for the rules, another one for each seed."""
    state, lines = seed * 7919 + 1, []
    for place in range(words):
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        lines.append(WORDS[state >> 8 & 0x7FFF % len(WORDS)] if place % 7 else f"page{seed}n{place}")
    return " ".join(lines)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Forty documents: an exact copy, a near copy, short ones, one that is not JSON."""
    crawl = tmp_path / "crawl"
    crawl.mkdir()
    documents = [{"id": f"d{n}", "url": f"http://x.test/{n}", "text": text(n)} for n in range(30)]
    documents += [{"id": f"s{n}", "url": f"http://x.test/s{n}", "text": text(100 + n, 20 + n)} for n in range(8)]
    documents.append({"id": "copy", "url": "http://x.test/copy", "text": text(3)})
    documents.append({"id": "near", "url": "http://x.test/near", "text": text(4) + " and one more"})
    lines = [json.dumps(document) for document in documents]
    (crawl / "a.jsonl").write_text("\n".join(lines[:20]) + "\n")
    (crawl / "b.jsonl").write_text("\n".join([*lines[20:], "{not json"]) + "\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "sources": {"x": {"root": str(crawl), "inputs": ["*.jsonl"]}},
                "rules": {"gopher.too_few_words": 25},
                "tokenizer": {"vocab_size": 300},
                "split": {"validation": 0.1},
            }
        )
    )
    return path


def run(recipe: Path, output: Path, *more: str) -> int:
    """One run in this process, without progress."""
    return main(["run", str(recipe), "--output", str(output), "--quiet", "--workers", "1", *more])


def checked(output: Path, capsys: pytest.CaptureFixture[str]) -> dict:
    """What `verify --json` says of a valid dataset."""
    capsys.readouterr()
    assert main(["verify", str(output), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def shards(output: Path, capsys: pytest.CaptureFixture[str]) -> list[bytes]:
    """The bytes of the shards in use. (A shard that a generation did not change keeps its old name.)"""
    capsys.readouterr()
    assert main(["files", str(output), "shards"]) == 0
    return sorted(Path(line).read_bytes() for line in capsys.readouterr().out.split())


def test_every_record_is_kept_or_dropped_with_a_reason(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(recipe, tmp_path / "out") == 0
    result = checked(tmp_path / "out", capsys)
    assert result["records_read"] == 41
    assert result["dropped"] == {
        "exact.duplicate": 1,
        "gopher.too_few_words": 5,
        "near.duplicate": 1,
        "read.damaged": 1,
    }
    assert result["kept"] == 33


def test_a_run_leaves_nothing_where_temporary_files_are(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    assert run(recipe, tmp_path / "out") == 0
    assert list(temporary.iterdir()) == []


def test_a_rerun_finds_the_dataset_up_to_date(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    before = checked(out, capsys)
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*.arrow")}
    assert run(recipe, out) == 0
    assert checked(out, capsys) == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.arrow")} == files


def test_a_changed_threshold_makes_the_shards_of_a_fresh_run(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    original = shards(out, capsys)
    # Down: more is kept. The tokenizer is frozen at generation 1, so the fresh run is given it.
    tokenizer = next(out.glob("tokenizer-*.json"))
    for threshold in ("10", "25"):
        assert run(recipe, out, "--set", f"rules.gopher.too_few_words={threshold}") == 0
        checked(out, capsys)
        fresh = tmp_path / f"fresh-{threshold}"
        assert (
            run(
                recipe,
                fresh,
                "--set",
                f"rules.gopher.too_few_words={threshold}",
                "--set",
                f"tokenizer.file={tokenizer}",
            )
            == 0
        )
        assert shards(out, capsys) == shards(fresh, capsys)
    assert shards(out, capsys) == original


def test_a_renamed_rule_leaves_the_order_digest_as_it_was(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(recipe, tmp_path / "out") == 0
    before = checked(tmp_path / "out", capsys)
    own = "rules={short_pages: {signal: gopher.num_words, min: 25}}"
    assert run(recipe, tmp_path / "out", "--set", own) == 0
    after = checked(tmp_path / "out", capsys)
    assert after["order"] == before["order"]
    assert after["digest"] != before["digest"]
    assert after["dropped"]["short_pages"] == before["dropped"]["gopher.too_few_words"]


def test_decide_tells_the_effect_and_writes_no_generation(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    capsys.readouterr()
    arguments = [
        "decide",
        str(recipe),
        "--output",
        str(out),
        "--quiet",
        "--json",
        "--set",
        "rules.gopher.too_few_words=10",
    ]
    assert main(arguments) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["funnel"]["kept"] == 38
    assert answer["changes"]["gained"] == {"gopher.too_few_words": 5}
    assert checked(out, capsys)["generation"] == 1


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("seed=5", 2, "  seed: 0 -> 5\n"),
        ("tokenizer.vocab_size=400", 2, "  tokenizer.vocab_size: 300 -> 400\n"),
        ("sources.x.inputs=[a.jsonl]", 2, "holds 1 input file (x: b.jsonl) that the recipe no longer finds"),
        ("rules.gopher.too_few_wrds=3", 2, "did you mean gopher.too_few_words"),
        ("sources.x.root=/no/such/folder", 2, "/no/such/folder"),
    ],
)
def test_what_does_not_fit_the_dataset_is_refused_and_nothing_changes(
    recipe: Path, tmp_path: Path, capsys, override: str, code: int, message: str  # type: ignore[no-untyped-def]
) -> None:  # fmt: skip
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    before = checked(out, capsys)
    assert run(recipe, out, "--set", override) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert checked(out, capsys) == before


def test_new_inputs_are_refused_until_a_dataset_can_be_appended_to(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    (tmp_path / "crawl" / "c.jsonl").write_text(json.dumps({"id": "new", "text": text(77)}) + "\n")
    assert run(recipe, out) == 2
    assert "does not hold 1 input file (x: c.jsonl)" in capsys.readouterr().err


def test_an_input_without_a_kept_document_makes_no_dataset(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(recipe, tmp_path / "out", "--set", "rules.gopher.too_few_words=100000") == 1
    error = capsys.readouterr().err
    assert "no document was kept of 41 read, nothing was written; dropped most by gopher.too_few_words 40" in error
    assert "try another rules.gopher.too_few_words" in error
    assert not list((tmp_path / "out").glob("manifest*"))


def test_an_input_of_junk_is_told_as_such_and_no_threshold_is_blamed(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    for path in (tmp_path / "crawl").iterdir():
        path.write_text("{not json\n")
    assert run(recipe, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "dropped most by read.damaged 2; read.damaged: bytes that are not a record" in error
    assert "rules." not in error


def test_another_recipe_is_told_from_the_datasets_key_by_key(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    capsys.readouterr()
    change = (
        "--set",
        "seed=3",
        "--set",
        "extract.main_content=false",
        "--set",
        "split.similarity=0.9",
        "--set",
        "rules.gopher.too_few_words=9",
    )
    assert run(recipe, out, *change) == 2
    title, *lines = capsys.readouterr().err.splitlines()
    assert title.endswith("holds a dataset of another recipe: choose another --output, or set back (there -> here)")
    assert lines == ["  extract.main_content: true -> false", "  seed: 0 -> 3", "  split.similarity: null -> 0.9"]


def test_nothing_is_decided_before_it_is_read(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decide", str(recipe), "--output", str(tmp_path / "out")]) == 1
    assert "parts or their measures are missing (1 of 1), the first of" in capsys.readouterr().err


def test_an_output_that_no_store_can_have_is_wrong_usage(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for output, message in (
        ("s4://x", "s4://x: unknown scheme"),
        ("s3://", "s3://: no bucket"),
        ("https://h.test/x", "https://h.test/x: a web server is only read from"),
    ):
        assert main(["run", str(recipe), "--output", output]) == 2
        assert message in capsys.readouterr().err


def test_a_shipped_recipe_is_found_by_its_name_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "quikstart", "--output", str(tmp_path)]) == 2
    assert "no such file, and no shipped recipe; did you mean quickstart?" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["ledger/*", "index/documents/*", "index/urls/*", "recipe-*", "tokenizer-*"])
def test_a_dataset_with_a_file_missing_or_cut_is_not_up_to_date(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], pattern: str
) -> None:
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    (path,) = out.glob(pattern)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert run(recipe, out) == 1
    assert path.name in capsys.readouterr().err
    path.unlink()
    assert run(recipe, out) == 1
    assert path.name in capsys.readouterr().err
    path.write_bytes(whole)
    assert run(recipe, out) == 0


def test_a_corrupt_shard_is_named(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert run(recipe, tmp_path / "out") == 0
    shard = next((tmp_path / "out" / "shards").iterdir())
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    capsys.readouterr()
    assert main(["verify", str(tmp_path / "out")]) == 1
    assert shard.name in capsys.readouterr().out


@pytest.mark.parametrize("split", ["train", "validation"])
def test_nothing_is_copied_from_a_corrupt_shard_into_the_next_generation(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    shard = next((out / "shards").glob(f"*-{split}-*"))
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    change = ("--set", "rules.gopher.too_few_words=10")
    assert run(recipe, out, *change) == 1
    said = capsys.readouterr().err
    assert f"{shard.name}: it has sha256" in said
    assert "Traceback" not in said
    assert not (out / "manifest" / "g2.json").exists()
    shard.write_bytes(whole)
    assert run(recipe, out, *change) == 0
    checked(out, capsys)


@pytest.mark.parametrize("damage", ["cut", "gone", "flipped"])
def test_any_damaged_file_of_a_dataset_is_named(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    look, report = ["explain", str(out), "http://x.test/1"], ["report", str(out)]
    again = ["run", str(recipe), "--output", str(out), "--quiet", "--set", "rules.gopher.too_few_words=10"]
    for pattern, commands in {
        "ledger/*": [look, report, again],
        "index/urls/*": [look, again],
        "index/documents/*": [again],
        "recipe-*": [report, again],
        "tokenizer-*": [again],
    }.items():
        (path,) = out.glob(pattern)
        whole = path.read_bytes()
        path.unlink()
        half = len(whole) // 2
        if damage == "cut":
            path.write_bytes(whole[:half])
        elif damage == "flipped":
            path.write_bytes(whole[:half] + bytes([whole[half] ^ 1]) + whole[half + 1 :])
            commands = [again]  # those that only look read no digests
        for command in commands:
            capsys.readouterr()
            assert main(command) == 1, (pattern, command[0])
            assert path.name in (said := capsys.readouterr().err)
            assert said.count("\n") == 1
        path.write_bytes(whole)
    assert not (out / "manifest" / "g2.json").exists()


def test_a_missing_shard_is_no_dataset_that_is_up_to_date(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run(recipe, out) == 0
    shard = next((out / "shards").iterdir())
    shard.unlink()
    assert run(recipe, out) == 1
    assert f"{shard.name}: it is missing: copy it again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "rules.gopher.too_few_wrds=3",
            "rules: there is no rule gopher.too_few_wrds; did you mean gopher.too_few_words",
        ),
        (
            "rules.mine={signal: gopher.num_wrds, min: 3}",
            "rules.mine: there is no signal gopher.num_wrds; did you mean",
        ),
        ("prefer=[highest:gopher.num_wrds]", "did you mean gopher.num_words"),
        ("tokenizer.file=recipe.yaml", "tokenizer.file: recipe.yaml: not a tokenizer.json"),
        ("tokenizer.file=nowhere", "tokenizer.file: nowhere: no such tokenizer file"),
        (
            "tokenizer={vocab_size: 257, special_tokens: [x]}",
            "tokenizer.vocab_size=257: 256 bytes and 2 special tokens",
        ),
        ("measure.language_model=recipe.yaml", "measure.language_model: recipe.yaml: not a fastText model"),
        ("measure.language_model=nowhere", "measure.language_model: nowhere: no such file"),
        ("measure.language_model=builtin:x", "measure.language_model: builtin:x: no such model is shipped"),
        ("measure.url_block_list=nowhere", "measure.url_block_list: nowhere: no such file"),
        ("measure.url_block_list=crawl/a.jsonl", "measure.url_block_list: crawl/a.jsonl: line 1: "),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_before_anything_is_read(
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    override: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(recipe, tmp_path / "out", "--set", override) == 2
    assert message in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_an_output_that_cannot_be_is_one_message(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").touch()
    assert run(recipe, tmp_path / "file" / "out") == 1
    assert "cannot be written to: a file stands where its folder would be" in capsys.readouterr().err


def test_plan_tells_what_is_left_and_makes_nothing(recipe: Path, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    arguments = ["plan", str(recipe), "--output", str(tmp_path / "out"), "--json"]
    size = sum(path.stat().st_size for path in (tmp_path / "crawl").iterdir())
    row = {"files": 2, "bytes": size, "parts": 1}
    assert main(arguments) == 0
    left = json.loads(capsys.readouterr().out)
    assert left["sources"] == {"x": {**row, "parts_done": 0, "bytes_left": size}}
    assert left["generation"] is None
    assert not (tmp_path / "out").exists()
    assert run(recipe, tmp_path / "out") == 0
    capsys.readouterr()
    assert main(arguments) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["sources"] == {"x": {**row, "parts_done": 1, "bytes_left": 0}}
    assert done["generation"] == 1


QUESTIONS = """
import pyarrow.compute as pc
from pipeline.measure.signal_group import Rule, SignalGroup

def count_pages(batch):
    return {"my.pages": pc.count_substring(batch.texts, "page1")}

GROUPS = [SignalGroup("my_pages", version="1", signals={"my.pages": "page1"}, measure=count_pages)]
RULES = [Rule("my.too_many_pages", "my.pages", ">", 10, "our own reading")]
"""


def emptied(crawl: Path) -> None:
    """Leave nothing of the crawl but its files' names, sizes and ages, so that whoever reads it reads zeros."""
    for path in crawl.iterdir():
        found = path.stat()
        path.write_bytes(b"\0" * found.st_size)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def with_changes(recipe: Path, changes: dict) -> Path:
    changed = recipe.with_name("changed.yaml")
    changed.write_text(yaml.safe_dump(yaml.safe_load(recipe.read_text()) | changes))
    return changed


@pytest.mark.parametrize(
    ("changes", "groups"),
    [
        ({"modules": ["my_rules"], "rules": {"gopher.too_few_words": 25, "my.too_many_pages": 12}}, ["my_pages"]),
        ({"measure": {"minhash": {"num_hashes": 64}}}, ["signature"]),
        ({"edits": {"mask": ["email"]}}, ["edits", "final", "signature"]),
        (
            {"scores": {"judge": {"file": "judge.jsonl"}}, "rules": {"low": {"signal": "scores.judge", "min": 0.5}}},
            ["scores.judge"],
        ),
    ],
)
def test_what_is_measured_anew_is_measured_from_the_stored_texts_and_nothing_of_the_crawl_is_read(
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict,
    groups: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rules.py").write_text(QUESTIONS)
    (tmp_path / "judge.jsonl").write_text(
        "".join(json.dumps({"url": f"http://x.test/{n}", "score": n / 30}) + "\n" for n in range(30))
    )
    out, fresh, changed = tmp_path / "out", tmp_path / "fresh", with_changes(recipe, changes)
    assert run(recipe, out) == 0
    tokenizer = str(next(out.glob("tokenizer-*.json")))
    assert run(changed, fresh, "--set", f"tokenizer.file={tokenizer}") == 0
    emptied(tmp_path / "crawl")
    capsys.readouterr()
    assert main(["plan", str(changed), "--output", str(out), "--json"]) == 0
    assert {name for each in json.loads(capsys.readouterr().out)["measure"] for name in each["groups"]} == set(groups)
    assert main(["decide", str(changed), "--output", str(out), "--quiet"]) == 0
    assert run(changed, out) == 0
    again, anew = checked(out, capsys), checked(fresh, capsys)
    assert (again["kept"], again["dropped"]) == (anew["kept"], anew["dropped"])
    assert shards(out, capsys) == shards(fresh, capsys)
    capsys.readouterr()
    assert main(["plan", str(changed), "--output", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["measure"] == []


def test_a_text_that_a_group_of_the_users_fails_on_is_a_row_of_the_ledger(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = QUESTIONS.replace(
        'return {"my.pages": pc.count_substring(batch.texts, "page1")}',
        'return {"my.pages": [1 / ("page7n0" not in each.as_py()) for each in batch.texts]}',
    )
    (tmp_path / "my_rules.py").write_text(failing)
    changed = with_changes(recipe, {"modules": ["my_rules"]})
    assert run(changed, tmp_path / "out") == 0
    assert checked(tmp_path / "out", capsys)["dropped"]["my_pages.failed"] == 1
    (tmp_path / "my_rules.py").unlink()  # explaining a dataset takes no code of the user's
    assert main(["explain", str(tmp_path / "out"), "http://x.test/7"]) == 0
    explained = capsys.readouterr().out
    assert "DROPPED in measure by my_pages.failed" in explained
    assert "my_pages.failed: ZeroDivisionError: division by zero" in explained


def test_a_group_that_fails_on_every_text_ends_the_run_with_one_line(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_rules.py").write_text(QUESTIONS.replace('return {"my.pages"', 'return {"my.page"'))
    assert run(with_changes(recipe, {"modules": ["my_rules"]}), tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "signal group my_pages gives no column my.pages: it returned my.page" in said
    assert "Traceback" not in said

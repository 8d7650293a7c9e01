"""From tasks to parts and receipts: nothing lost, the same bytes whoever makes them, nothing made twice."""

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from pipeline.ingest import part_file, part_writer, parts
from pipeline.ingest.parts import fingerprint, ingest_task, load_parts, stage_versions
from pipeline.ingest.plan import plan_tasks
from pipeline.ingest.receipts import ColumnsReceipt, Receipt, Task
from pipeline.ingest.records import ConservationError
from pipeline.measure.registry import load_registry
from schemas import storage
from schemas.recipe import Recipe
from schemas.storage import StorageError

ROOT = Path(__file__).parents[2]
CRAWL = ROOT / "tests/data/crawl/web"
MIB = 1 << 20


def recipe_of(root: Path, inputs: str = "**", **sections: Any) -> Recipe:
    return Recipe.model_validate({"sources": {"web": {"root": str(root), "inputs": [inputs]}}, **sections})


def with_parts_of(part_bytes: int, recipe: Recipe) -> Recipe:
    """The recipe with parts smaller than a recipe may ask for."""
    return recipe.model_copy(update={"read": recipe.read.model_copy(update={"part_bytes": part_bytes})})


@pytest.fixture(autouse=True, scope="module")
def _small_batches() -> Iterator[None]:
    """Batches of some kilobytes, so that small inputs make many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part_writer, "BATCH_BYTES", 16 << 10)
        yield


def tasks_of(recipe: Recipe) -> list[Task]:
    return plan_tasks(recipe.sources, recipe.read, fingerprint(recipe))


def table_of(work: Path, receipt: Receipt) -> pa.Table:
    """A text part with its measure columns beside it."""
    with pa.OSFile(str(work / receipt.path)) as file:
        table = pa.ipc.open_file(file).read_all()
    (columns,) = [each for each in passes_over(work) if each.part == receipt.sha256]
    with pa.OSFile(str(work / columns.path)) as file:
        measured = pa.ipc.open_file(file).read_all()
    for name in measured.column_names:
        table = table.append_column(name, measured[name])
    return table


def passes_over(work: Path) -> list[ColumnsReceipt]:
    """The receipts of all files of measure columns."""
    found = sorted((work / "receipts" / "columns").iterdir())
    return [ColumnsReceipt.from_json(path.read_bytes()) for path in found]


def contents(receipts: list[Receipt]) -> list[tuple[int, int, str, bool]]:
    """What must not differ between attempts."""
    return [(receipt.rows, receipt.bytes, receipt.sha256, receipt.last) for receipt in receipts]


def sentences(seed: int, num_bytes: int) -> str:
    """Text of words without meaning."""
    letters = np.random.default_rng(seed).integers(97, 123, num_bytes, np.uint8)
    letters[::6] = 32
    return letters.tobytes().decode()


@pytest.fixture(scope="module")
def long_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One gzip member of 200 kB of text: a file that cannot be cut, and gives several parts."""
    root = tmp_path_factory.mktemp("long")
    rows = [{"id": f"d{row}", "text": sentences(row, 4_000), "url": f"http://a.test/{row}"} for row in range(50)]
    rows[7] = {"id": "d7"}
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "long.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 1, mtime=0))
    return root


@pytest.fixture(scope="module")
def rolled(long_source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Task, Path, list[Receipt]]:
    """The long source as parts of about 50 kB of text: (recipe, task, work folder, receipts)."""
    work = tmp_path_factory.mktemp("rolled")
    # The plan is made with the default part size, which leaves the file whole.
    (task,) = tasks_of(recipe_of(long_source))
    recipe = with_parts_of(50_000, recipe_of(long_source))
    return recipe, task, work, ingest_task(task, recipe, str(work))


def test_every_record_of_the_sample_is_a_row_in_its_order(tmp_path: Path) -> None:
    recipe = recipe_of(CRAWL, "[cls]*")
    (task,) = tasks_of(recipe)
    (receipt,) = ingest_task(task, recipe, str(tmp_path))
    table = table_of(tmp_path, receipt)
    rows = table.to_pylist()
    assert len(rows) == receipt.rows == sum(piece.rows for piece in receipt.pieces)
    assert [piece.name for piece in receipt.pieces] == [
        "cut-short.warc.gz",
        "legacy-charsets.warc.gz",
        "second-visit.warc.gz",
    ]
    assert receipt.last
    places = [(row["input"], row["position"], row["offset"]) for row in rows]
    assert places == sorted(places)
    alive = [row for row in rows if row["rule"] is None]
    assert receipt.alive == len(alive) > 40
    assert receipt.text_bytes == sum(len(row["text"].encode()) for row in alive)
    for row in rows:
        if row["rule"] is None:
            assert row["stage"] is None
            assert row["text_hash"] == xxhash.xxh3_128_digest(row["text"].encode())
            assert row["language"] is not None
            assert row["gopher.num_words"] > 0 or len(row["text"]) < 20
        else:
            assert row["stage"] in ("read", "extract")
            assert row["rule"].startswith(row["stage"] + ".")
            unmeasured = ("text", "text_hash", "final_hash", "num_bytes", "edits", "language", "signature")
            assert [row[name] for name in unmeasured] == [None] * 7


def test_pages_are_decoded_and_extracted_on_the_way(tmp_path: Path) -> None:
    recipe = recipe_of(CRAWL, "legacy-charsets.warc.gz")
    (task,) = tasks_of(recipe)
    (receipt,) = ingest_task(task, recipe, str(tmp_path))
    rows = table_of(tmp_path, receipt).to_pylist()
    assert {"koi8-r", "shift_jis", "euc-kr", "windows-1256"} <= {row["charset"] for row in rows}
    assert not any("\ufffd" in (row["text"] or "") for row in rows)
    assert not any("<html" in (row["text"] or "") for row in rows)


def test_the_columns_of_a_row_say_where_it_comes_from(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    lines = [
        '{"id": "a", "text": "One short text of some words.", "url": "http://a.test/", "date": "2024-02-01"}',
        '{"text": " \\n"}',
        "no json",
    ]
    (source / "b.jsonl").write_text("\n".join(lines))
    recipe = recipe_of(source)
    (task,) = tasks_of(recipe)
    (receipt,) = ingest_task(task, recipe, str(tmp_path / "work"))
    first, second, third = table_of(tmp_path / "work", receipt).to_pylist()
    assert first["doc_id"] == xxhash.xxh3_128_digest(b"web\0a")
    assert (first["record_id"], first["url"], first["input"]) == ("a", "http://a.test/", "b.jsonl")
    assert (first["date"], first["text"], first["edits"]) == (1706745600000, "One short text of some words.", [])
    assert second["doc_id"] == xxhash.xxh3_128_digest(b"web\0b.jsonl\0" + b"%d\x000" % (len(lines[0]) + 1))
    assert (second["stage"], second["rule"]) == ("extract", "extract.empty")
    assert third["stage"] == "read"


def test_equal_input_gives_equal_parts_wherever_it_lies(tmp_path: Path) -> None:
    for folder in ("here", "elsewhere"):
        (tmp_path / folder).mkdir()
        shutil.copyfile(CRAWL / "legacy-charsets.warc.gz", tmp_path / folder / "pages.warc.gz")
    made = []
    for root, work in ((tmp_path / "here", tmp_path / "one"), (tmp_path / "elsewhere", tmp_path / "two")):
        recipe = recipe_of(root)
        (task,) = tasks_of(recipe)
        made.append(ingest_task(task, with_parts_of(100_000, recipe), str(work)))
    one, two = made
    assert len(one) > 2
    assert contents(one) == contents(two)
    assert {receipt.key for receipt in one}.isdisjoint(receipt.key for receipt in two)
    data = (tmp_path / "one" / one[0].path).read_bytes()
    for word in (one[0].key, str(tmp_path)):
        assert word.encode() not in data


PERTURBED = """
import sys
from pipeline.ingest import part_writer
from pipeline.ingest.parts import fingerprint, ingest_task
from pipeline.ingest.plan import plan_tasks
from schemas.recipe import Recipe
part_writer.BATCH_BYTES = 16 << 10
recipe = Recipe.model_validate_json(sys.argv[1])
(task,) = plan_tasks(recipe.sources, recipe.read, fingerprint(recipe))
print(*(receipt.sha256 for receipt in ingest_task(task, recipe, sys.argv[2])))
"""


def test_no_byte_of_a_part_is_left_to_chance(tmp_path: Path) -> None:
    # Fresh memory full of a pattern, in another process with another hash seed: padding and nulls must not show it.
    (tmp_path / "in").mkdir()
    shutil.copyfile(CRAWL / "legacy-charsets.warc.gz", tmp_path / "in/pages.warc.gz")
    short = [{"text": "word " * number} for number in range(9)]
    (tmp_path / "in/short.jsonl").write_text("\n".join(map(json.dumps, short)))
    recipe = recipe_of(tmp_path / "in")
    (task,) = tasks_of(recipe)
    here = ingest_task(task, recipe, str(tmp_path / "here"))
    perturbed = {"MALLOC_PERTURB_": "165", "ARROW_DEFAULT_MEMORY_POOL": "system", "PYTHONHASHSEED": "77"}
    there = subprocess.run(
        [sys.executable, "-c", PERTURBED, recipe.model_dump_json(), str(tmp_path / "there")],
        env={**os.environ, **perturbed, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert there.stdout.split() == [receipt.sha256 for receipt in here]


def test_a_long_file_gives_a_part_every_so_often(rolled: tuple[Recipe, Task, Path, list[Receipt]]) -> None:
    recipe, task, work, receipts = rolled
    assert [receipt.number for receipt in receipts] == [0, 1, 2, 3, 4]
    assert [receipt.last for receipt in receipts] == [False] * 4 + [True]
    assert all(receipt.text_bytes <= 50_000 for receipt in receipts)
    assert [len(receipt.pieces) for receipt in receipts] == [0, 0, 0, 0, 1]
    tables = [table_of(work, receipt) for receipt in receipts]
    assert [table.num_rows for table in tables] == [receipt.rows for receipt in receipts]
    ids = pa.concat_tables(tables)["record_id"].to_pylist()
    assert ids == [f"d{row}" for row in range(50)]
    parts, _ = load_parts(str(work), [task], load_registry(recipe))
    assert [part.number for part in parts] == [0, 1, 2, 3, 4]
    assert {(part.name, part.start) for part in parts} == {("long.jsonl.gz", 0)}


def copy_of(work: Path, to: Path) -> Path:
    shutil.copytree(work, to)
    return to


def forbid(*arguments: object) -> None:
    raise AssertionError("not to be called")


def test_what_is_there_is_not_made_again(
    rolled: tuple[Recipe, Task, Path, list[Receipt]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, task, work, receipts = rolled
    work = copy_of(work, tmp_path / "work")
    monkeypatch.setattr(part_writer, "read_piece", forbid)
    assert ingest_task(task, recipe, str(work)) == receipts


@pytest.mark.parametrize("kept", [0, 1, 3, 4])
def test_a_killed_task_goes_on_behind_its_last_receipt(
    rolled: tuple[Recipe, Task, Path, list[Receipt]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    recipe, task, work, receipts = rolled
    work = copy_of(work, tmp_path / "work")
    for receipt in receipts[kept:]:
        (work / "receipts" / f"{task.key}-{receipt.number:03d}.json").unlink()
    extracted: list[str] = []
    submit = part_writer.Extractor.submit

    def counting(self: part_writer.Extractor, records: list[Any]) -> None:
        extracted.extend(record.record_id for record in records)
        submit(self, records)

    monkeypatch.setattr(part_writer.Extractor, "submit", counting)
    again = ingest_task(task, recipe, str(work))
    assert again[:kept] == receipts[:kept]
    assert contents(again) == contents(receipts)
    assert [receipt.pieces for receipt in again] == [receipt.pieces for receipt in receipts]
    assert extracted == [f"d{row}" for row in range(sum(receipt.rows for receipt in receipts[:kept]), 50)]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"short")])
def test_a_part_that_is_gone_or_cut_is_made_again(
    rolled: tuple[Recipe, Task, Path, list[Receipt]], tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    recipe, task, work, receipts = rolled
    work = copy_of(work, tmp_path / "work")
    damage(work / receipts[1].path)
    assert load_parts(str(work), [task], load_registry(recipe), missing_ok=True) == ([], [])
    again = ingest_task(task, recipe, str(work))
    assert contents(again) == contents(receipts)
    assert [old == new for old, new in zip(receipts, again, strict=True)] == [True, False, True, True, True]
    assert load_parts(str(work), [task], load_registry(recipe))[1] == again


def test_of_two_attempts_the_first_receipt_counts(
    rolled: tuple[Recipe, Task, Path, list[Receipt]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, task, work, receipts = rolled
    work = copy_of(work, tmp_path / "work")
    # This attempt began before the other one had written any receipt.
    monkeypatch.setattr(parts, "_discard_broken", lambda task, work: [])
    assert ingest_task(task, recipe, str(work)) == receipts
    assert sorted(path.name for path in (work / "parts").iterdir()) == sorted(
        Path(receipt.path).name for receipt in receipts
    )


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data.replace(b'"rows": 1', b'"rows": 3', 1)])
def test_a_damaged_receipt_chooses_nothing_and_is_written_anew(
    rolled: tuple[Recipe, Task, Path, list[Receipt]], tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    recipe, task, work, receipts = rolled
    work = copy_of(work, tmp_path / "work")
    path = work / "receipts" / f"{task.key}-001.json"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    again = ingest_task(task, recipe, str(work))
    assert contents(again) == contents(receipts)
    assert Receipt.from_json(path.read_bytes()) == again[1]


def test_an_attempt_goes_on_where_the_chosen_part_ends(
    rolled: tuple[Recipe, Task, Path, list[Receipt]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, task, work, receipts = rolled
    work = copy_of(work, tmp_path / "work")
    monkeypatch.setattr(parts, "_discard_broken", lambda task, work: [])
    # This attempt's parts end elsewhere, as if it had found another page too slow.
    larger = with_parts_of(90_000, recipe)
    assert ingest_task(task, larger, str(work)) == receipts
    for number in (2, 3, 4):
        (work / "receipts" / f"{task.key}-{number:03d}.json").unlink()
    mixed = ingest_task(task, larger, str(work))
    assert mixed[:2] == receipts[:2]
    assert [receipt.rows for receipt in mixed] != [receipt.rows for receipt in receipts]
    ids = pa.concat_tables([table_of(work, receipt) for receipt in mixed])["record_id"].to_pylist()
    assert ids == [f"d{row}" for row in range(50)]


def test_a_lost_row_breaks_the_task(long_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(long_source)
    (task,) = tasks_of(recipe)
    read_piece = part_writer.read_piece

    class Losing:
        def __init__(self, *arguments: Any) -> None:
            self.reader = read_piece(*arguments)

        def __iter__(self) -> Any:
            return (record for number, record in enumerate(self.reader) if number != 3)

        @property
        def receipt(self) -> Any:
            return self.reader.receipt

    monkeypatch.setattr(part_writer, "read_piece", Losing)
    with pytest.raises(ConservationError, match=r"49 rows in its parts, 50 read in 1 of 1 pieces"):
        ingest_task(task, recipe, str(tmp_path))


def test_an_input_without_records_is_a_part_without_rows(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        (source / name).write_bytes(b"")
    recipe = recipe_of(source)
    (task,) = tasks_of(recipe)
    (receipt,) = ingest_task(task, recipe, str(tmp_path / "work"))
    assert (receipt.rows, receipt.last, [piece.name for piece in receipt.pieces]) == (0, True, ["a.jsonl", "b.jsonl"])
    assert table_of(tmp_path / "work", receipt).num_rows == 0


def test_empty_inputs_belong_to_the_part_before_them(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.jsonl").write_bytes(b"")
    for name, seed in (("b.jsonl", 1), ("d.jsonl", 2)):
        rows = [json.dumps({"text": sentences(seed + row, 10_000)}) for row in range(3)]
        (source / name).write_text("\n".join(rows))
    for name in ("c.jsonl", "e.jsonl"):
        (source / name).write_bytes(b"")
    recipe = with_parts_of(35_000, recipe_of(source))
    (task,) = tasks_of(recipe_of(source))
    receipts = ingest_task(task, recipe, str(tmp_path / "work"))
    assert [[piece.name for piece in receipt.pieces] for receipt in receipts] == [
        ["a.jsonl", "b.jsonl", "c.jsonl"],
        ["d.jsonl", "e.jsonl"],
    ]
    (tmp_path / "work/receipts" / f"{task.key}-001.json").unlink()
    again = ingest_task(task, recipe, str(tmp_path / "work"))
    assert [receipt.pieces for receipt in again] == [receipt.pieces for receipt in receipts]


def test_parts_are_numbered_by_source_name_start_and_number(tmp_path: Path) -> None:
    for source in ("zeta", "alpha"):
        (tmp_path / source).mkdir()
        for name in ("b.jsonl", "a.jsonl"):
            rows = [json.dumps({"id": f"{source}/{name}/{row}", "text": sentences(row, 8_000)}) for row in range(8)]
            (tmp_path / source / name).write_text("\n".join(rows))
    sources = {source: {"root": str(tmp_path / source)} for source in ("zeta", "alpha")}
    recipe = with_parts_of(40_000, Recipe.model_validate({"sources": sources}))
    tasks = tasks_of(recipe)
    work = str(tmp_path / "work")
    for task in reversed(tasks):
        ingest_task(task, recipe, work)
    parts, receipts = load_parts(work, reversed(tasks), load_registry(recipe))
    order = [(part.source, part.name, part.start) for part in parts]
    assert order == sorted(order)
    assert {source for source, _, _ in order} == {"alpha", "zeta"}
    assert len(parts) == len(receipts) == 8
    assert [storage.join(work, receipt.path) for receipt in receipts] == [part.uri for part in parts]
    assert [part.number for part in parts] == list(range(len(parts)))


def test_missing_parts_are_told_unless_they_may_be(long_source: Path, tmp_path: Path) -> None:
    recipe = recipe_of(long_source)
    tasks = tasks_of(recipe)
    assert load_parts(str(tmp_path), tasks, load_registry(recipe), missing_ok=True) == ([], [])
    with pytest.raises(
        FileNotFoundError,
        match=r"or their measures are missing \(1 of 1\), the first of .*long\.jsonl\.gz: `gristmill run` makes them",
    ):
        load_parts(str(tmp_path), tasks, load_registry(recipe))


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    long_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(part_file._HashedFile, "write", full)
    recipe = recipe_of(long_source)
    (task,) = tasks_of(recipe)
    with pytest.raises(StorageError, match="the disk is full"):
        ingest_task(task, recipe, str(tmp_path))
    assert list((tmp_path / "parts").iterdir()) == []
    assert not (tmp_path / "receipts").exists()


def test_a_part_in_a_bucket_is_uploaded_whole(
    long_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket: dict[str, bytes] = {}

    def write(uri: str, data: "bytes | Path", create_only: bool = False) -> None:
        if create_only and uri in bucket:
            raise FileExistsError(uri)
        bucket[uri] = data if isinstance(data, bytes) else data.read_bytes()

    def read(uri: str) -> bytes:
        if uri not in bucket:
            raise FileNotFoundError(uri)
        return bucket[uri]

    recipe = recipe_of(long_source)
    (task,) = tasks_of(recipe)
    (local,) = ingest_task(task, recipe, str(tmp_path))
    monkeypatch.setattr(storage, "write", write)
    monkeypatch.setattr(storage, "read", read)
    monkeypatch.setattr(storage, "stat", lambda uri: storage.Stat(uri, len(read(uri)), ""))
    (receipt,) = ingest_task(task, recipe, "s3://bucket/work")
    assert contents([receipt]) == contents([local])
    assert bucket[f"s3://bucket/work/{receipt.path}"] == (tmp_path / local.path).read_bytes()
    assert Receipt.from_json(bucket[f"s3://bucket/work/receipts/{task.key}-000.json"]) == receipt


def test_the_fingerprint_covers_what_decides_a_text_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fingerprint(recipe_of(tmp_path))
    model = ROOT / "pipeline/assets/lid.176.ftz"
    other = Recipe.model_validate({"sources": {"web": {"root": "x"}, "more": {"root": "y"}}})
    same = [
        recipe_of(Path("/elsewhere"), "*.warc.gz", seed=7, output="/o", near=None, shards={"shard_bytes": MIB}),
        # What is measured lies beside the texts, under keys of its own.
        recipe_of(tmp_path, measure={"language_model": str(model), "minhash": {"seed": 2}}, edits={"mask": ["email"]}),
        other,
    ]
    assert {fingerprint(recipe) for recipe in same} == {plain}
    fields = Recipe.model_validate({"sources": {"web": {"root": "x", "text_field": "content"}}})
    different = [
        recipe_of(tmp_path, read={"max_ratio": 50}),
        recipe_of(tmp_path, extract={"main_content": False}),
        fields,
    ]
    digests = [plain, *(fingerprint(recipe) for recipe in different)]
    monkeypatch.setattr(parts, "PART_VERSION", parts.PART_VERSION + 1)
    digests.append(fingerprint(recipe_of(tmp_path)))
    assert len(set(digests)) == len(digests)


def test_a_part_names_its_source_and_the_versions_that_made_it(
    rolled: tuple[Recipe, Task, Path, list[Receipt]],
) -> None:
    recipe, _, work, receipts = rolled
    metadata = {key.decode(): value.decode() for key, value in table_of(work, receipts[0]).schema.metadata.items()}
    assert metadata == {"source": "web", **stage_versions(recipe)}


def test_record_batches_follow_rows_and_carry_no_neighbours(tmp_path: Path) -> None:
    schema = pa.schema([pa.field("row", pa.int64()), pa.field("text", pa.large_string())])
    with part_file.PartFile(str(tmp_path / "p.arrow"), schema) as part:
        for start in range(0, 9000, 500):
            rows = list(range(start, start + 500))
            part.write(pa.RecordBatch.from_pydict({"row": rows, "text": ["x"] * 500}, schema), 500)
        part.write(pa.RecordBatch.from_pydict({"row": [9000], "text": ["y" * 100]}, schema), 17 << 20)
        part.write(pa.RecordBatch.from_pydict({"row": [9001], "text": ["z"]}, schema), 1)
        part.publish()
    with pa.OSFile(str(tmp_path / "p.arrow")) as file:
        reader = pa.ipc.open_file(file)
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    assert [batch.num_rows for batch in batches] == [4000, 4000, 1000, 1, 1]
    assert pa.Table.from_batches(batches)["row"].to_pylist() == list(range(9002))

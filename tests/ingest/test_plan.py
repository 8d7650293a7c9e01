"""From globs to tasks: which files, in which pieces, in which parts, under which key."""

import dataclasses
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ingest.formats.parquet import WHOLE
from pipeline.ingest.plan import check_abutting, plan_tasks
from pipeline.ingest.read import read_piece
from pipeline.ingest.receipts import Piece, PieceReceipt, Receipt, Task
from pipeline.ingest.records import ConservationError
from pipeline.ingest.sources import format_of, glob_pattern, is_side_file
from schemas.recipe import Read, Source
from tests.ingest.archives import CONTAINERS, page
from tests.servers import web_server

MIB = 1 << 20


@pytest.fixture
def crawl(tmp_path: Path) -> Path:
    root = tmp_path / "crawl"
    for name in (
        "b.warc.gz",
        "a.warc",
        "2024/c.jsonl",
        "2024/05/d.wet.gz",
        ".hidden.warc",
        "_SUCCESS.warc",
        "2024/_tmp/e.warc",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 10)
    return root


def plan(root: Path | str, *inputs: str, read: Read | None = None, fingerprint: str = "f", **fields: str) -> list[Task]:
    source = Source(root=str(root), inputs=list(inputs) or ["**"], **fields)  # type: ignore[arg-type]
    return plan_tasks({"web": source}, read or Read(), fingerprint)


def names(tasks: list[Task]) -> list[str]:
    return [piece.name for task in tasks for piece in task.pieces]


def test_files_come_in_name_order_without_bookkeeping(crawl: Path) -> None:
    assert names(plan(crawl)) == ["2024/05/d.wet.gz", "2024/c.jsonl", "a.warc", "b.warc.gz"]
    (task,) = plan(str(crawl) + "/", "b.*")
    (piece,) = task.pieces
    stat = (crawl / "b.warc.gz").stat()
    assert piece == Piece("b.warc.gz", str(crawl / "b.warc.gz"), "warc", 0, 10, 10, str(stat.st_mtime_ns))
    assert (task.source, task.bytes) == ("web", 10)


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        (["*"], ["a.warc", "b.warc.gz"]),
        (["*.warc*", "a.warc", "**/*.gz", "[ab].*"], ["2024/05/d.wet.gz", "a.warc", "b.warc.gz"]),
        (["2024/**"], ["2024/05/d.wet.gz", "2024/c.jsonl"]),
        (["2024/*/*"], ["2024/05/d.wet.gz"]),
        (["**/?.jsonl"], ["2024/c.jsonl"]),
        (["[!a].warc.gz"], ["b.warc.gz"]),
        ([".hidden.warc", "_*"], [".hidden.warc", "_SUCCESS.warc"]),
    ],
)
def test_globs_find_files_each_once(crawl: Path, inputs: list[str], found: list[str]) -> None:
    assert names(plan(crawl, *inputs)) == found


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("**/*.gz", "a.gz", True),
        ("**/*.gz", "x/y/a.gz", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**", "a/x/y", True),
        ("a/**", "b/x", False),
        ("*", "x/y", False),
        ("a+b[(]c.gz", "a+b(c.gz", True),
        ("a?c", "a/c", False),
        ("[!x]b", "/b", False),
        ("[]]a", "]a", True),
        ("x[", "x[", True),
        ("**", ".git/config", False),
    ],
)
def test_globs_mean_what_they_say(pattern: str, name: str, matches: bool) -> None:
    assert (glob_pattern(pattern).fullmatch(name) is not None) == matches


def test_a_list_names_files_below_the_root(crawl: Path, tmp_path: Path) -> None:
    paths = tmp_path / "paths.txt"
    paths.write_text("a.warc\n\n 2024/c.jsonl \r\na.warc\n")
    assert names(plan(crawl, f"@{paths}", "*.warc")) == ["2024/c.jsonl", "a.warc"]
    packed = tmp_path / "paths.gz"
    packed.write_bytes(gzip.compress(paths.read_bytes()))
    assert plan(crawl, f"@{packed}") == plan(crawl, f"@{paths}")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["*.zip"], r"source web: '\*\.zip' matches no file: \d files below .*crawl; check root and inputs"),
        (["*.jsonl"], r"'\*\*/\*\.jsonl' matches \d of them"),
        (["x/*.warc"], r"source web: there is no folder /.*crawl/x: check root and inputs"),
        (["a.warc/*"], r"source web: /.*crawl/a\.warc is a file: give its folder as root, and its name in inputs"),
        (["a.warc", "b.warc", "c.warc"], r"source web: no such file: .*crawl/b\.warc, named in inputs"),
        (["@nowhere.txt"], r"source web: inputs name the list @nowhere\.txt, which is not there"),
        (["../a.warc"], r"source web: '\.\./a\.warc', named in inputs, is no path below the root"),
        (["../*.warc"], r"'\.\./\*\.warc', a glob of inputs, is no path below the root"),
        (["/a.warc"], r"is no path below the root .*: leave out the root"),
        (["2024/c.jsonl", "2024"], r"no such file: .*crawl/2024, named in inputs"),
    ],
)
def test_what_is_not_there_is_one_clear_message(crawl: Path, inputs: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(crawl, *inputs)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("nowhere", r"source web: there is no folder /.*/nowhere: check root and inputs"),
        ("s4://x", r"sources\.web\.root: s4://x: unknown scheme s4://"),
    ],
)
def test_a_root_that_is_not_there_is_said_to_be_so(root: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(root)


def test_a_list_with_missing_files_names_the_first_and_counts_the_rest(crawl: Path, tmp_path: Path) -> None:
    paths = tmp_path / "paths.txt"
    paths.write_text("a.warc\nx.warc\ny.warc\n")
    with pytest.raises(ValueError, match=r"no such file: .*x\.warc \(and 1 more\), named in .*paths\.txt"):
        plan(crawl, f"@{paths}")
    paths.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        plan(crawl, f"@{paths}")
    paths.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="is not UTF-8"):
        plan(crawl, f"@{paths}")


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("CC-MAIN-2024.warc.gz", "warc"),
        ("x.warc.wet.gz", "warc"),
        ("x.ARC", "warc"),
        ("x.warc.zst", "warc"),
        ("x.warc.lz4", "warc"),
        ("c4-train.00000.json.gz", "jsonl"),
        ("x.ndjson.zstd", "jsonl"),
        ("x.parquet", "parquet"),
        ("x.txt.gz", "text"),
        ("x.jsonl.bz2", "jsonl"),
        ("x.csv.xz", "csv"),
        ("x.tsv", "tsv"),
        ("data-00000-of-00001.arrow", "arrow"),
        ("x.html", None),
        ("warc", None),
    ],
)
def test_formats_are_told_by_the_name(name: str, form: str | None) -> None:
    assert format_of(name) == form


def test_a_name_without_a_known_ending_needs_a_format(crawl: Path) -> None:
    (crawl / "x.html").write_text("x")
    with pytest.raises(ValueError, match=r"source web: x\.html has none of the endings .*set the source's format"):
        plan(crawl)
    assert {piece.format for task in plan(crawl, "*", format="warc") for piece in task.pieces} == {"warc"}


def test_side_files_are_passed_over_by_name_unless_they_are_named(crawl: Path) -> None:
    before = names(plan(crawl))
    for name in (
        *("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json", "README.md", "LICENSE"),
        *("2024/SHA256SUMS", "2024/checksums.txt", "a.warc.md5", "2024/c.jsonl.sha256", "a.cdx.gz", "warc.paths.gz"),
        *("cache-0a1b.arrow", "loader.py", "readme.txt"),
    ):
        assert is_side_file(name)
        (crawl / name).write_text("{}")
    assert names(plan(crawl)) == before
    assert names(plan(crawl, "state.json", format="jsonl")) == ["state.json"]
    with pytest.raises(ValueError, match="are side files by their names"):
        plan(crawl, "*.json")
    assert not any(is_side_file(name) for name in ("a/readme/x.jsonl", "states.json", "licenses/a.jsonl", "sums.jsonl"))


def test_text_files_are_a_source_of_their_own(crawl: Path) -> None:
    (crawl / "note.txt").write_text("x")
    with pytest.raises(ValueError, match=r"note\.txt is plain text among other files"):
        plan(crawl)
    (piece,) = [piece for task in plan(crawl, "*.txt") for piece in task.pieces]
    assert piece.format == "text"


def test_a_name_that_is_not_utf8_is_escaped(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"text": "a"}\n')
    (task,) = plan(tmp_path)
    (piece,) = task.pieces
    assert piece.name == "caf\\xe9.jsonl"
    (record,) = read_piece(piece, Source(root=str(tmp_path)), Read())
    assert (record.text, record.input) == ("a", "caf\\xe9.jsonl")


def test_a_field_that_no_record_has_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "a", "meta": {"url": "u"}}\n' * 3)
    with pytest.raises(
        ValueError, match=r"no record of a\.jsonl has the field 'text' \(text_field\); it has body, meta"
    ):
        plan(tmp_path)
    plan(tmp_path, text_field="body")
    plan(tmp_path, text_field="body", url_field="meta.url")
    with pytest.raises(ValueError, match=r"has the field 'meta\.link' \(url_field\)"):
        plan(tmp_path, text_field="body", url_field="meta.link")
    # A later file, or a later record, may have it.
    (tmp_path / "b.jsonl").write_text('{"body": "a"}\n{"body": "a", "meta": {"link": null}}\n')
    plan(tmp_path, text_field="body", url_field="meta.link")


def test_a_column_that_no_file_has_is_one_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1], "doc": [{"text": "a"}]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"has the field 'text' \(text_field\); it has text \(int64\), doc: "):
        plan(tmp_path)
    plan(tmp_path, text_field="doc.text")
    pq.write_table(pa.table({"text": pa.nulls(2)}), tmp_path / "b.parquet")
    plan(tmp_path)


def test_small_files_are_bundled_and_large_ones_are_cut(tmp_path: Path) -> None:
    for name, size in (("a", MIB // 2), ("b", MIB // 2), ("c", 1), ("d", MIB * 5 // 2), ("e", MIB // 4), ("f", MIB)):
        (tmp_path / f"{name}.warc").write_bytes(bytes(size))
    tasks = plan(tmp_path, read=Read(part_bytes=MIB))
    assert [[(piece.name, piece.start, piece.end) for piece in task.pieces] for task in tasks] == [
        [("a.warc", 0, MIB // 2), ("b.warc", 0, MIB // 2)],
        [("c.warc", 0, 1)],
        [("d.warc", 0, MIB)],
        [("d.warc", MIB, 2 * MIB)],
        [("d.warc", 2 * MIB, MIB * 5 // 2), ("e.warc", 0, MIB // 4)],
        [("f.warc", 0, MIB)],
    ]
    assert [task.bytes for task in tasks] == [MIB, 1, MIB, MIB, MIB * 3 // 4, MIB]


def test_sources_are_never_mixed(crawl: Path) -> None:
    sources = {name: Source(root=str(crawl), inputs=["a.warc"]) for name in ("wiki", "books")}
    tasks = plan_tasks(sources, Read(), "f")
    assert [(task.source, names([task])) for task in tasks] == [("books", ["a.warc"]), ("wiki", ["a.warc"])]
    assert tasks[0].key != tasks[1].key


def test_compressed_lines_are_not_cut_and_plain_ones_are_by_their_content(tmp_path: Path) -> None:
    lines = b'{"text": "%s"}\n' % (b"a" * 500) * 4000
    for name, data in (
        ("a.jsonl", lines),
        ("b.jsonl.gz", lines),
        ("c.jsonl", gzip.compress(lines, 0)),
        ("d.json.gz", b""),
    ):
        (tmp_path / name).write_bytes(data)
    tasks = plan(tmp_path, read=Read(part_bytes=MIB))
    assert names(tasks) == ["a.jsonl", "a.jsonl", "b.jsonl.gz", "b.jsonl.gz", "c.jsonl", "d.json.gz"]
    counts = []
    for task in tasks:
        for piece in task.pieces:
            reader = read_piece(piece, Source(root=""), Read())
            assert all(record.rule is None for record in reader)
            counts.append(reader.receipt.rows)
    assert [sum(counts[:2]), sum(counts[2:4]), counts[4]] == [4000] * 3


def test_large_parquet_files_are_cut_at_row_groups_and_small_ones_not_opened(tmp_path: Path) -> None:
    texts = [f"{number:02x}" * 100_000 for number in range(50)]
    table = pa.table({"text": texts})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=10, compression="none", use_dictionary=False)
    (tmp_path / "b.parquet").write_bytes(b"never opened")
    group = (tmp_path / "a.parquet").stat().st_size // 5
    for part_bytes, cuts in ((2 * group + 50_000, [(0, 2), (2, 4), (4, 5)]), (MIB, [(at, at + 1) for at in range(5)])):
        tasks = plan(tmp_path, read=Read(part_bytes=part_bytes))
        pieces = [piece for task in tasks for piece in task.pieces]
        assert [(piece.start, piece.end) for piece in pieces] == [*cuts, (0, WHOLE)]
        assert all(task.bytes < part_bytes or len(task.pieces) == 1 for task in tasks)


def test_a_large_parquet_file_without_a_footer_is_one_piece(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(bytes(2 * MIB))
    ((piece,),) = [task.pieces for task in plan(tmp_path, read=Read(part_bytes=MIB))]
    assert (piece.start, piece.end) == (0, WHOLE)


def test_the_key_changes_with_what_decides_a_part_and_with_nothing_else(crawl: Path, tmp_path: Path) -> None:
    key = plan(crawl, "a.warc", "b.warc.gz")[0].key
    assert len(key) == 32
    assert plan(crawl, "*.gz", "*.warc")[0].key == key
    assert plan(crawl, "a.warc", "b.warc.gz", fingerprint="g")[0].key != key
    assert plan(crawl, "a.warc")[0].key != key
    (crawl / "a.warc").write_bytes(b"y" * 11)
    assert plan(crawl, "a.warc", "b.warc.gz")[0].key != key


def test_a_web_server_has_files_but_no_listing(crawl: Path, tmp_path: Path) -> None:
    paths = tmp_path / "paths.txt"
    paths.write_text("2024/c.jsonl\n")
    (crawl / "b.warc.gz").write_bytes(CONTAINERS["members.warc.gz"]([page(1), page(2)]))
    with web_server(crawl) as root:
        (task,) = plan(root, "b.warc.gz", f"@{paths}")
        assert [(piece.name, piece.uri) for piece in task.pieces] == [
            ("2024/c.jsonl", f"{root}/2024/c.jsonl"), ("b.warc.gz", f"{root}/b.warc.gz")
        ]  # fmt: skip
        assert len(list(read_piece(task.pieces[1], Source(root=root), Read()))) == 2
        with pytest.raises(ValueError, match=r"web servers have no listing; name the files, or give @FILE"):
            plan(root)


@pytest.mark.slow
def test_a_bucket_is_planned_and_read_like_a_folder(
    s3: Callable[[str], str], s3_buckets: tuple[dict[str, str], Path]
) -> None:
    root = s3("plan")
    folder = s3_buckets[1] / "plan" / "crawl"
    folder.mkdir(parents=True)
    (folder / "a.warc.gz").write_bytes(CONTAINERS["members.warc.gz"]([page(number) for number in range(300)]))
    (folder / "b.warc").write_bytes(page(1))
    tasks = plan(f"{root}/crawl", "**/*.warc*")
    assert names(tasks) == ["a.warc.gz", "b.warc"]
    local = plan(folder, "**/*.warc*")
    for far, near in zip(tasks[0].pieces, local[0].pieces, strict=True):
        cut = far.size // 2
        for start, end in ((0, cut), (cut, far.size)):
            readers = [
                read_piece(dataclasses.replace(piece, start=start, end=end), Source(root=""), Read())
                for piece in (far, near)
            ]
            assert list(readers[0]) == list(readers[1])
            assert readers[0].receipt == readers[1].receipt


def test_receipts_of_parts_are_checked_file_by_file() -> None:
    def receipt(source: str, *pieces: tuple[str, int, int]) -> Receipt:
        made = tuple(PieceReceipt(name, start, end, 9, start, end, "", 0, {}) for name, start, end in pieces)
        return Receipt("k", 0, True, source, "p", 0, 0, 0, 0, "", made)

    check_abutting([receipt("a", ("x", 4, 9)), receipt("a", ("x", 0, 4), ("y", 0, 9)), receipt("b", ("x", 0, 9))])
    with pytest.raises(ConservationError, match="x: an input split from 4 follows one that ends at 0"):
        check_abutting([receipt("a", ("x", 4, 9)), receipt("b", ("x", 0, 4))])

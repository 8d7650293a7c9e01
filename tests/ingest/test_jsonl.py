"""JSON Lines: every line that is not blank is a record."""

import gzip
import json
import random
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.records import Record
from schemas.recipe import Read, Source
from tests.ingest.archives import noise, read_bytes, read_pieces


def read(folder: Path, data: bytes, name: str = "a.jsonl", **options: object) -> list[Record]:
    return read_bytes(folder, data, name, "jsonl", **options)[0]  # type: ignore[arg-type]


def test_a_line_is_a_document(tmp_path: Path) -> None:
    line = b'{"id": "x", "text": "Gr\\u00fc\xc3\x9fe", "url": "http://a.test/", "date": "2024-05-06T07:08:09Z"}\n'
    (record,) = read(tmp_path, b"\n" + line)
    assert record == Record(
        type="document",
        input="a.jsonl",
        position=1,
        offset=0,
        record_id="x",
        url="http://a.test/",
        date=1_714_979_289_000,
        text="Grüße",
    )


def test_fields_have_the_names_of_the_recipe(tmp_path: Path) -> None:
    source = Source(root="", text_field="content", id_field="key", url_field="link", date_field="when")
    data = b'{"key": 7, "content": "a", "link": "b", "when": "2024", "text": 1, "id": 2, "url": 3, "date": 4}'
    (record,) = read(tmp_path, data, source=source)
    assert (record.record_id, record.text, record.url, record.date) == ("7", "a", "b", 1_704_067_200_000)


@pytest.mark.parametrize(
    ("literal", "record_id"),
    [
        ('"x"', "x"),
        ('"7"', "7"),
        ("7", "7"),
        ("-0", "-0"),
        ("1.50", "1.50"),
        ("1E3", "1E3"),
        ("9" * 5000, "9" * 5000),
        ("true", "true"),
        ("null", None),
        ('{"a": [1, "}"]}', '{"a": [1, "}"]}'),
        ("[ 1 ,2]", "[ 1 ,2]"),
        ('"\\ud83d\\ude00"', "😀"),
        ('"\\ud83d"', "\ufffd"),
    ],
)
def test_an_id_that_is_no_string_is_taken_as_written(tmp_path: Path, literal: str, record_id: str | None) -> None:
    line = f'{{"id" : 1, "a": {{"id": 2}}, "text": "t" , "id" :\t{literal} }}\r\n'
    assert [(r.record_id, r.text, r.rule) for r in read(tmp_path, line.encode())] == [(record_id, "t", None)]


@pytest.mark.parametrize(
    ("line", "kind", "rule"),
    [
        (b"not JSON", "damage", "read.damaged"),
        (b'{"text": "a"', "damage", "read.damaged"),
        (b'{"text": "a"} {"text": "b"}', "damage", "read.damaged"),
        (b'{"text": NaN}', "damage", "read.damaged"),
        (b'{"text": "\xff"}', "damage", "read.damaged"),
        (b"[" * 100_000, "damage", "read.damaged"),
        (b'{"id": "x"}', "document", "read.no_text"),
        (b'{"id": "x", "text": null}', "document", "read.no_text"),
        (b'{"id": "x", "text": 12}', "document", "read.no_text"),
        (b'["text"]', "document", "read.no_text"),
        (b'"text"', "document", "read.no_text"),
        (b'{"text": ""}', "document", None),
        (b'{"text": "\\ud800 a \\udc00\\u0000"}', "document", None),
    ],
)
def test_a_line_without_a_text_is_dropped_alone(tmp_path: Path, line: bytes, kind: str, rule: str | None) -> None:
    before, bad, after = read(tmp_path, b'{"text": "1"}\n' + line + b'\n{"text": "2"}\n')
    assert (before.text, after.text) == ("1", "2")
    assert (bad.type, bad.rule, bad.position) == (kind, rule, 14)
    if rule is None:
        assert bad.text in ("", "\ufffd a \ufffd\0")


def test_blank_lines_are_separators(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"text": "1"}\r\n\r\n  \t\n{"text": "2"}'
    records, receipt = read_bytes(tmp_path, data, "a.jsonl", "jsonl")
    assert [(record.text, record.position) for record in records] == [("1", 0), ("2", 24)]
    assert receipt.records == {"document": 2}
    assert read(tmp_path, b"\xef\xbb\xbf\r\n \n") == []
    assert read(tmp_path, b"") == []


def test_a_line_above_the_limit_is_passed_over(tmp_path: Path) -> None:
    long = b'{"text": "' + b"x" * (3 << 20) + b'"}'
    limit = Read(max_record_bytes=1 << 20)
    data = b'{"text": "1"}\n' + long + b'\n{"text": "2"}\n' + long
    for name, packed in (("a.jsonl", data), ("a.jsonl.gz", gzip.compress(data))):
        records = read(tmp_path, packed, name, read=limit)
        assert [(r.rule, r.value) for r in records] == [
            (None, None), ("read.too_long", len(long)), (None, None), ("read.too_long", len(long))
        ]  # fmt: skip
        assert records[1].threshold == 1 << 20
    exact = b'{"text": "%s"}' % (b"x" * ((1 << 20) - 12))
    assert [r.rule for r in read(tmp_path, exact + b"\n" + exact + b" \n", read=limit)] == [None, "read.too_long"]


def test_compressed_lines_are_placed_by_frame_and_offset(tmp_path: Path) -> None:
    lines = [b'{"text": "%d"}\n' % number for number in range(6)]
    # The third line begins in one frame and ends in the next.
    parts = [b"".join(lines[:2]) + lines[2][:5], lines[2][5:] + b"".join(lines[3:])]
    for name, pack in (("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)):
        first = pack(parts[0])
        records = read(tmp_path, first + pack(parts[1]), name)
        assert [(r.text, r.position, r.offset) for r in records] == [
            ("0", 0, 0), ("1", 0, 14), ("2", 0, 28), ("3", len(first), 9), ("4", len(first), 23), ("5", len(first), 37)
        ]  # fmt: skip


def test_lines_before_damage_are_kept_and_the_rest_is_one_row(tmp_path: Path) -> None:
    lines = [json.dumps({"text": noise(3000, number).hex()}).encode() + b"\n" for number in range(100)]
    data = gzip.compress(b"".join(lines), mtime=0)
    whole = read(tmp_path, data, "a.jsonl.gz")
    for damaged in (data[: len(data) // 2], data[: len(data) // 2] + b"\xff" * 5000 + data[len(data) // 2 + 5000 :]):
        records, receipt = read_bytes(tmp_path, damaged, "a.jsonl.gz", "jsonl")
        kept = [record.rule for record in records].index("read.damaged")
        assert 20 < kept < 60
        assert records[:kept] == whole[:kept]
        assert {record.type for record in records[kept:]} == {"damage"}
        assert receipt.covered_end == len(damaged)
    nothing = read(tmp_path, gzip.compress(lines[0])[:-9] + gzip.compress(lines[1]), "a.jsonl.gz")
    assert [record.type for record in nothing] == ["damage", "document"]
    assert (nothing[0].rule, nothing[0].position, nothing[0].offset) == ("read.damaged", 0, 0)
    behind = read(tmp_path, data[:-9] + gzip.compress(lines[0]), "a.jsonl.gz")
    assert [record.rule for record in behind[-2:]] == ["read.damaged", None]


@given(
    cuts=st.lists(st.integers(1, 400), max_size=5), sizes=st.lists(st.integers(0, 90), max_size=8), last=st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_pieces_give_what_the_whole_file_gives(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], sizes: list[int], last: bool
) -> None:
    data = b"\n".join(b'{"text": "%s"}' % (b"x" * size) for size in sizes) + (b"\n" if last else b"")
    folder = tmp_path_factory.mktemp("cut")
    whole = read(folder, data)
    pieces, _ = read_pieces(folder / "a.jsonl", sorted({cut for cut in cuts if cut < len(data)}), "jsonl")
    assert pieces == whole


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst"])
def test_damage_anywhere_loses_nothing_before_it(tmp_path: Path, name: str) -> None:
    lines = [b'{"id": %d, "text": "%s"}\n' % (number, noise(40, number).hex().encode()) for number in range(40)]
    pack = {"a.jsonl": bytes, "a.jsonl.gz": gzip.compress, "a.jsonl.zst": zstandard.compress}[name]
    data = b"".join(pack(b"".join(lines[at : at + 10])) for at in range(0, 40, 10))
    whole = read(tmp_path, data, name)
    starts = [record.position for record in whole]
    ends = [min((start for start in starts if start > mine), default=len(data)) for mine in starts]
    seeded = random.Random(7)
    for _ in range(100):
        at = seeded.randrange(len(data))
        flipped = bytearray(data)
        flipped[at] ^= 1 << seeded.randrange(8)
        for damaged in (data[:at], bytes(flipped)):
            records, receipt = read_bytes(tmp_path, damaged, name, "jsonl")
            before = sum(end <= at for end in ends)
            assert records[:before] == whole[:before]
            assert receipt.covered_end == len(damaged)


@given(data=st.binary(max_size=100), name=st.sampled_from(["a.jsonl", "a.jsonl.gz"]))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_accounted_for(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    for start in (b"", b'{"text": "a"}\n', gzip.compress(b'{"text": "a"}\n')):
        assert read_bytes(folder, start + data, name, "jsonl")[1].covered_end == len(start + data)

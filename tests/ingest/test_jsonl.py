"""JSON Lines: every line that is not blank is a record."""

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.formats.json_values import end_of_value
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
        (b'{"text": NaN}', "document", "read.no_text"),
        (b"[" * 100_000, "damage", "read.damaged"),
        (b'{"id": "x"}', "document", "read.no_text"),
        (b'{"id": "x", "text": null}', "document", "read.no_text"),
        (b'{"id": "x", "text": 12}', "document", "read.no_text"),
        (b'{"id": "x", "text": [1, "a"]}', "document", "read.no_text"),
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


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"id": 7, "n": NaN, "m": -Infinity, "text": "a"}', "a"),
        (b'{"id": 7, "text": "a\tb\x01\x1f\x7f"}', "a\tb\x01\x1f\x7f"),
        (b'{"no\tte": "\x02", "id": 7, "text": "a"}', "a"),
        (b'{"id": 7, "note": "caf\xe9", "text": "a"}', "a"),
        (b'{"id": 7, "text": ["a", null, "b"]}', "a\nb"),
    ],
)
def test_what_is_wrong_beside_the_text_costs_nothing(tmp_path: Path, line: bytes, text: str) -> None:
    records, receipt = read_bytes(tmp_path, line, "a.jsonl", "jsonl")
    assert [(record.record_id, record.text, record.rule) for record in records] == [("7", text, None)]
    assert receipt.records == {"document": 1}


def test_what_is_wrong_in_the_text_is_replaced_and_counted(tmp_path: Path) -> None:
    lines = [
        b'{"id": 1, "text": "caf\xe9 \xff"}',
        b'{"id": 2, "text": "\\ud800"}',
        '{"id": 3, "text": "\ufffd"}'.encode(),
    ]
    records, receipt = read_bytes(tmp_path, b"\n".join(lines), "a.jsonl", "jsonl")
    assert [(record.record_id, record.text) for record in records] == [
        ("1", "caf\ufffd \ufffd"),
        ("2", "\ufffd"),
        ("3", "\ufffd"),
    ]
    assert receipt.records == {"document": 3, "read.replaced": 2}


def test_fields_are_found_by_dotted_paths(tmp_path: Path) -> None:
    source = Source(root="", text_field="doc.text", id_field="meta.id", url_field="a.b", date_field="list.1.day")
    line = b'{"doc": {"text": "t"}, "meta": {"id": 1.50}, "a.b": "u", "a": {"b": "v"}, "list": [1, {"day": "2024"}]}'
    (record,) = read(tmp_path, line, source=source)
    assert (record.text, record.record_id, record.url, record.date) == ("t", "1.50", "u", 1_704_067_200_000)
    (other,) = read(tmp_path, b'{"doc": "x", "meta": {"id": true, "x": {"id": 2}}}', source=source)
    assert (other.rule, other.record_id, other.url) == ("read.no_text", "true", None)


DOCUMENTS = [{"id": str(number), "text": f'Text {number}, "quoted" [and] {{so}} \\ on. é\n'} for number in range(40)]
SHAPES = {
    "an array": json.dumps(DOCUMENTS),
    "an array of lines": "[" + ",\n".join(map(json.dumps, DOCUMENTS)) + "]\n",
    "an indented array": json.dumps(DOCUMENTS, indent=2),
    "indented values": "\n".join(json.dumps(document, indent=1, ensure_ascii=False) for document in DOCUMENTS),
    "indented values with carriage returns": "\r\n".join(
        json.dumps(document, indent=1).replace("\n", "\r\n") for document in DOCUMENTS
    ),
    "carriage returns": "\r".join(map(json.dumps, DOCUMENTS)) + "\r",
    "lines": "\n".join(map(json.dumps, DOCUMENTS)),
}


@pytest.mark.parametrize("shape", sorted(SHAPES))
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.jsonl.bz2", "a.jsonl.xz", "a.jsonl.zst"])
def test_values_are_read_however_they_are_laid_out(tmp_path: Path, shape: str, encoding: str, name: str) -> None:
    data = PACKERS[name.rpartition(".")[2]](SHAPES[shape].encode(encoding))
    records, receipt = read_bytes(tmp_path, data, name, "jsonl")
    assert [(record.record_id, record.text) for record in records] == [(d["id"], d["text"]) for d in DOCUMENTS]
    assert receipt.records == {"document": 40}
    assert len({(record.position, record.offset) for record in records}) == 40


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "jsonl": bytes,
    "gz": lambda data: gzip.compress(data[:1000]) + gzip.compress(data[1000:]),
    "bz2": lambda data: bz2.compress(data[:1000]) + bz2.compress(data[1000:]),
    "xz": lambda data: lzma.compress(data[:1000]) + bytes(8) + lzma.compress(data[1000:], check=lzma.CHECK_CRC32),
    "zst": zstandard.compress,
}


def test_values_that_are_too_long_or_no_documents_or_break_off_are_rows(tmp_path: Path) -> None:
    long = json.dumps({"text": "x" * (3 << 20)})
    data = f'[{{"text": "1"}}, {long}, 7, "a", {{"text": "2"}}, {{"text": '.encode()
    for name, packed in (("a.json", data), ("a.json.gz", gzip.compress(data))):
        records, receipt = read_bytes(tmp_path, packed, name, "jsonl", read=Read(max_record_bytes=1 << 20))
        assert [(record.text, record.rule, record.value) for record in records] == [
            ("1", None, None),
            (None, "read.too_long", len(long)),
            (None, "read.no_text", None),
            (None, "read.no_text", None),
            ("2", None, None),
            (None, "read.damaged", None),
        ]
        assert receipt.records == {"damage": 1, "document": 5}
    damaged = gzip.compress(json.dumps([{"text": noise(3000, n).hex()} for n in range(60)], indent=1).encode(), mtime=0)
    records = read(tmp_path, damaged[: len(damaged) // 2], "b.json.gz")
    assert 10 < len(records) < 40
    assert [record.rule for record in records] == [None] * (len(records) - 1) + ["read.damaged"]


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=3), st.text() | st.integers() | st.lists(st.text()))), st.integers(1, 40)
)
def test_the_end_of_a_value_does_not_depend_on_where_chunks_end(values: list[dict[str, object]], step: int) -> None:
    for value in values:
        data = json.dumps(value, ensure_ascii=False).encode()
        rest, state, end = data + b", {", (0, 0, False), None
        for size in range(0, len(rest) + step, step):
            end, state = end_of_value(rest[:size], 0, state)
            if end is not None:
                break
        assert end == len(data)


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

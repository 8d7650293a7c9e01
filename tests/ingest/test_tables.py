"""CSV, TSV, Arrow and plain text: rows and files as documents."""

import bz2
import csv
import gzip
import io
import lzma
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.ingest.plan import plan_tasks
from pipeline.ingest.records import Record
from schemas.recipe import Read, Source
from tests.ingest.archives import noise, read_bytes

ROWS = [{"id": str(n), "text": f'Text {n}, "quoted"\nand on\r\nand é', "url": f"u{n}"} for n in range(30)]


def written(rows: list[dict[str, str]], delimiter: str = ",", header: bool = True, line_end: str = "\r\n") -> bytes:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator=line_end)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def read(folder: Path, data: bytes, name: str, form: str, **fields: object) -> list[Record]:
    return read_bytes(folder, data, name, form, Source(root="", **fields))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "delimiter", "fields"), [("csv", ",", {}), ("tsv", "\t", {}), ("csv", ";", {"delimiter": ";"})]
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_row_is_a_document(
    tmp_path: Path, form: str, delimiter: str, fields: dict[str, str], pack: object, encoding: str
) -> None:
    data = written(ROWS, delimiter).decode().encode(encoding)
    records = read(tmp_path, pack(data), f"a.{form}", form, **fields)  # type: ignore[operator]
    assert [{"id": r.record_id, "text": r.text, "url": r.url} for r in records] == ROWS
    assert len({(record.position, record.offset) for record in records}) == 30


def test_columns_may_be_stated_by_the_recipe(tmp_path: Path) -> None:
    data = written(ROWS, header=False)
    records = read(tmp_path, data, "a.csv", "csv", columns=["name", "body"], text_field="body", id_field="name")
    assert [(r.record_id, r.text) for r in records] == [(row["id"], row["text"]) for row in ROWS]


def test_stated_columns_are_part_of_a_parts_key(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(written(ROWS, header=False))
    keys = set()
    for fields in ({"columns": ["id", "text"]}, {"columns": ["text", "id"]}, {"columns": ["text"], "delimiter": ";"}):
        (task,) = plan_tasks({"s": Source(root=str(tmp_path), **fields)}, Read(), "f")  # type: ignore[arg-type]
        keys.add(task.key)
    assert len(keys) == 3
    with pytest.raises(ValueError, match=r"no record of a\.csv has the field 'text' \(text_field\); it has 0, "):
        plan_tasks({"s": Source(root=str(tmp_path))}, Read(), "f")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_rows_end_with_any_line_end(tmp_path: Path, line_end: str) -> None:
    rows = [{"id": str(n), "text": f"Text {n}"} for n in range(5)]
    records = read(tmp_path, written(rows, line_end=line_end) + line_end.encode(), "a.csv", "csv")
    assert [r.text for r in records] == [row["text"] for row in rows]


def test_rows_that_are_short_or_no_utf8_or_too_long_cost_themselves_alone(tmp_path: Path) -> None:
    data = b"id,text\n1,a\n2\n3,caf\xe9\n4," + b"x" * (2 << 20) + b"\n5,b,c\n"
    records, receipt = read_bytes(tmp_path, data, "a.csv", "csv", read=Read(max_record_bytes=1 << 20))
    assert [(r.record_id, r.text, r.rule) for r in records] == [
        ("1", "a", None),
        ("2", None, "read.no_text"),
        ("3", "caf\ufffd", None),
        (None, None, "read.damaged"),
        ("5", "b", None),
    ]
    assert receipt.records == {"document": 5, "read.replaced": 1}


def test_rows_before_damage_are_kept_and_the_rest_is_one_row(tmp_path: Path) -> None:
    data = gzip.compress(written([{"id": str(n), "text": noise(3000, n).hex()} for n in range(60)]), mtime=0)
    records, receipt = read_bytes(tmp_path, data[: len(data) // 2], "a.csv.gz", "csv")
    assert 10 < len(records) < 40
    assert [r.rule for r in records] == [None] * (len(records) - 1) + ["read.damaged"]
    assert all(len(r.text or "") == 6000 for r in records[:-1])
    assert receipt.records == {"damage": 1, "document": len(records) - 1}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")), min_size=2, max_size=2
        ),
        min_size=1,
    )
)
def test_what_is_written_is_read(tmp_path: Path, rows: list[list[str]]) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["id", "text"], *rows])
    records = read(tmp_path, file.getvalue().encode(), "a.csv", "csv")
    assert [(r.record_id, r.text) for r in records] == [(row[0] or None, row[1]) for row in rows]


def ipc(table: pa.Table, is_file: bool, **options: object) -> bytes:
    sink = io.BytesIO()
    new = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=7)
    return sink.getvalue()


@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_arrow_files_and_streams_are_read(tmp_path: Path, is_file: bool, compression: str | None) -> None:
    table = pa.table({"text": [row["text"] for row in ROWS], "id": list(range(30)), "n": pa.nulls(30)})
    records, receipt = read_bytes(tmp_path, ipc(table, is_file, compression=compression), "a.arrow", "arrow")
    assert [(r.text, r.record_id, r.position) for r in records] == [
        (row["text"], str(n), n) for n, row in enumerate(ROWS)
    ]
    assert receipt.records == {"document": 30}


def test_nested_and_missing_columns_of_arrow_files(tmp_path: Path) -> None:
    data = ipc(pa.table({"doc": [{"text": b"a"}, {"text": b"\xff"}, None]}), False)
    assert [(r.text, r.rule) for r in read(tmp_path, data, "a.arrow", "arrow", text_field="doc.text")] == [
        ("a", None), (None, "read.damaged"), (None, "read.no_text")
    ]  # fmt: skip
    assert [r.rule for r in read(tmp_path, data, "a.arrow", "arrow")] == ["read.no_text"] * 3


def test_a_corrupt_arrow_file_keeps_the_rows_before(tmp_path: Path) -> None:
    data = ipc(pa.table({"text": [noise(900, n).hex() for n in range(30)]}), False)
    records, receipt = read_bytes(tmp_path, data[: len(data) // 2], "a.arrow", "arrow")
    assert [r.rule for r in records] == [None] * 14 + ["read.damaged"]
    assert receipt.covered_end == len(data) // 2
    (nothing,) = read(tmp_path, b"not Arrow", "b.arrow", "arrow")
    assert nothing.rule == "read.damaged"
    # Offsets that point outside are not followed.
    broken = bytearray(ipc(pa.table({"text": ["abc" * 5] * 7}), False))
    at = broken.index((15).to_bytes(4, "little"), 200)
    broken[at : at + 4] = (1 << 30).to_bytes(4, "little")
    assert [(r.rule, r.value) for r in read(tmp_path, bytes(broken), "c.arrow", "arrow")] == [("read.damaged", 7)]


def test_a_folder_of_save_to_disk_is_read(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"text": row["text"], "id": row["id"]} for row in ROWS]).save_to_disk(tmp_path / "d")
    source = Source(root=str(tmp_path / "d"))
    (task,) = plan_tasks({"s": source}, Read(), "f")
    assert [(piece.name, piece.format) for piece in task.pieces] == [("data-00000-of-00001.arrow", "arrow")]
    data = (tmp_path / "d" / task.pieces[0].name).read_bytes()
    assert [r.text for r in read(tmp_path, data, "a.arrow", "arrow")] == [row["text"] for row in ROWS]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_a_text_file_is_a_document(tmp_path: Path, pack: object) -> None:
    text = "Grüße.\r\n\r\nZweiter Absatz.\n".encode("cp1252")
    records, receipt = read_bytes(tmp_path, pack(text), "a.txt", "text")  # type: ignore[operator]
    assert [(r.body, r.mime, r.record_id, r.position, r.rule) for r in records] == [(text, "text/plain", None, 0, None)]
    assert receipt.records == {"document": 1}


def test_a_text_file_may_be_empty_too_long_or_corrupt(tmp_path: Path) -> None:
    assert [(r.body, r.rule) for r in read(tmp_path, b"", "a.txt", "text")] == [(b"", None)]
    limit = Read(max_record_bytes=1 << 20)
    long = noise((1 << 20) + 1)
    ((record,), _) = read_bytes(tmp_path, gzip.compress(long), "a.txt.gz", "text", read=limit)
    assert (record.rule, record.value, record.threshold) == ("read.too_long", len(long), 1 << 20)
    ((exact,), _) = read_bytes(tmp_path, gzip.compress(long[:-1]), "a.txt.gz", "text", read=limit)
    assert exact.body == long[:-1]
    ((corrupt,), receipt) = read_bytes(tmp_path, gzip.compress(long)[:-9], "a.txt.gz", "text")
    assert (corrupt.type, corrupt.rule, receipt.records) == ("damage", "read.damaged", {"damage": 1})

"""Parquet: rows against the footer, row groups as units of cutting and of damage."""

import datetime
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.ingest.formats.parquet import WHOLE, row_group_bytes
from pipeline.ingest.read import check_pieces, read_piece
from pipeline.ingest.receipts import Piece, PieceReceipt
from pipeline.ingest.records import Record
from schemas.recipe import Read, Source
from schemas.storage import StorageError

TEXTS = [f"Text {number} " * (number % 7 + 1) for number in range(100)]


def write(path: Path, columns: dict[str, Any], rows: int = 30, **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=rows, **options)
    return path


def read(
    path: Path, start: int = 0, end: int = WHOLE, source: Source | None = None, limits: Read | None = None
) -> tuple[list[Record], PieceReceipt]:
    piece = Piece(path.name, str(path), "parquet", start, end, path.stat().st_size, "")
    reader = read_piece(piece, source or Source(root=""), limits or Read())
    return list(reader), reader.receipt


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(
        tmp_path / "a.parquet", {"text": TEXTS, "id": [f"d{number}" for number in range(100)], "n": range(100)}
    )


def test_a_row_is_a_document(tmp_path: Path) -> None:
    date = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc)
    path = write(
        tmp_path / "a.parquet", {"text": ["a", "Grüße"], "id": ["x", "y"], "url": ["u", None], "date": [date] * 2}
    )
    records, receipt = read(path)
    assert records == [
        Record("document", "a.parquet", 0, 0, record_id="x", url="u", date=1_714_979_289_000, text="a"),
        Record("document", "a.parquet", 1, 0, record_id="y", date=1_714_979_289_000, text="Grüße"),
    ]
    assert (receipt.rows, receipt.records, receipt.start, receipt.end) == (2, {"document": 2}, 0, 1)


@pytest.mark.parametrize(
    ("values", "record_id"),
    [
        (pa.array(["x"]), "x"),
        (pa.array([7], pa.int64()), "7"),
        (pa.array([True]), "true"),
        (pa.array([b"x\xff"]), "x\ufffd"),
        (pa.array(["x"]).dictionary_encode(), "x"),
        (pa.array([None], pa.string()), None),
    ],
)
def test_ids_of_any_type_are_text(tmp_path: Path, values: pa.Array, record_id: str | None) -> None:
    ((record,), _) = read(write(tmp_path / "a.parquet", {"id": values, "text": ["a"]}))
    assert (record.record_id, record.text) == (record_id, "a")


@pytest.mark.parametrize(
    ("values", "date"),
    [
        (pa.array([datetime.date(2024, 5, 6)]), 1_714_953_600_000),
        (pa.array([1_714_979_289_123_456_789], pa.timestamp("ns")), 1_714_979_289_123),
        (pa.array([1 << 40], pa.timestamp("s")), 1000 << 40),
        (pa.array(["2024-05-06"]), 1_714_953_600_000),
        (pa.array(["soon"]), None),
        (pa.array([20240506]), None),
        (pa.array([None], pa.timestamp("us")), None),
    ],
)
def test_dates_are_milliseconds(tmp_path: Path, values: pa.Array, date: int | None) -> None:
    ((record,), _) = read(write(tmp_path / "a.parquet", {"date": values, "text": ["a"]}))
    assert (record.date, record.text) == (date, "a")


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
def test_text_may_be_any_kind_of_string(tmp_path: Path, kind: pa.DataType) -> None:
    records, _ = read(write(tmp_path / "a.parquet", {"text": pa.array(TEXTS).cast(kind)}))
    assert [record.text for record in records] == TEXTS


def test_rows_without_a_text_or_with_too_much_of_it_are_dropped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"text": ["a", None, "ä" * 500, "ä" * 499]})
    records, _ = read(path, limits=Read(max_record_bytes=999))
    assert [(r.rule, r.value, r.threshold) for r in records] == [
        (None, None, None), ("read.no_text", None, None), ("read.too_long", 1000, 999), (None, None, None)
    ]  # fmt: skip


def test_bytes_that_are_not_utf8_cost_their_row(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"b"]).cast(pa.binary()).view(pa.string())
    records, _ = read(write(tmp_path / "a.parquet", {"text": texts}))
    assert [(record.text, record.rule) for record in records] == [("a", None), (None, "read.damaged"), ("b", None)]


def test_row_groups_may_be_read_apart(file: Path) -> None:
    whole, receipt = read(file)
    pieces = [read(file, start, end) for start, end in ((0, 1), (1, 3), (3, 4))]
    assert [record for records, _ in pieces for record in records] == whole
    assert [record.position for record in whole] == list(range(100))
    check_pieces([receipt for _, receipt in pieces])
    assert [receipt.rows for _, receipt in pieces] == [30, 60, 10]
    assert receipt.rows == 100


def test_the_digest_covers_what_was_read(tmp_path: Path, file: Path) -> None:
    assert read(file)[1].sha256 == read(file)[1].sha256
    options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    digests = set()
    for last in ("a", "b"):
        path = write(tmp_path / "b.parquet", {"text": TEXTS, "id": [*"x" * 99, last]}, **options)
        digests.add(read(path)[1].sha256)
    assert len(digests) == 2


def chunk_of(path: Path, group: int, column: int) -> int:
    return pq.ParquetFile(path).metadata.row_group(group).column(column).data_page_offset


def overwrite(path: Path, at: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def test_a_damaged_row_group_is_one_row_that_counts_the_lost_ones(file: Path) -> None:
    whole, receipt = read(file)
    overwrite(file, chunk_of(file, 1, 0), b"\xff" * 60)
    records, damaged = read(file)
    assert records[:30] == whole[:30]
    assert records[31:] == whole[60:]
    assert (records[30].type, records[30].rule, records[30].value, records[30].position) == (
        "damage", "read.damaged", 30, 30
    )  # fmt: skip
    assert damaged.records == {"damage": 1, "document": 70}
    assert damaged.sha256 != receipt.sha256


def test_a_damaged_column_that_is_not_needed_does_no_harm(file: Path) -> None:
    whole, receipt = read(file)
    overwrite(file, chunk_of(file, 1, 2), b"\xff" * 60)
    records, damaged = read(file)
    assert (records, damaged.sha256) == (whole, receipt.sha256)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"not parquet at all"])
def test_a_file_without_a_footer_is_one_row_of_damage(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    records, receipt = read(path)
    assert [(record.type, record.rule) for record in records] == [("damage", "read.damaged")]
    assert receipt.records == {"damage": 1}
    with path.open("rb") as opened:
        assert row_group_bytes(opened) == []


def test_a_file_without_the_text_column_has_rows_without_text(file: Path) -> None:
    for field in ("body", "n"):
        records, receipt = read(file, source=Source(root="", text_field=field))
        assert {(record.rule, record.text) for record in records} == {("read.no_text", None)}
        assert records[3].record_id == "d3"
        assert receipt.records == {"document": 100}
    none = Source(root="", text_field="a", id_field="b", url_field="c", date_field="d")
    assert [(record.rule, record.position) for record in read(file, source=none)[0]] == [
        ("read.no_text", number) for number in range(100)
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.nulls(2), ["read.no_text", "read.no_text"]),
        (pa.array([b"a", b"\xc3\xa9"]), ["a", "é"]),
        (pa.array([b"a", b"\xff", None]), ["a", "read.damaged", "read.no_text"]),
        (pa.array([b"a", b"b"], pa.large_binary()), ["a", "b"]),
        (pa.array([b"a", b"b"], pa.binary(1)), ["a", "b"]),
        (pa.array(["a", None], pa.large_string()), ["a", "read.no_text"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([b"a", b"\xff"]).dictionary_encode(), ["a", "read.damaged"]),
        (pa.array([["a", "b"], [], None, [None, "c"]]), ["a\nb", "read.no_text", "read.no_text", "c"]),
        (pa.array([["a"], ["b", "c"]], pa.large_list(pa.large_string())), ["a", "b\nc"]),
        (pa.array([[b"a"], [b"\xff"]]), ["a", "read.damaged"]),
        (pa.array([["a", "b"]], pa.list_(pa.string(), 2)), ["a\nb"]),
        (pa.array([[1]]), ["read.no_text"]),
        (pa.array([{"x": "a"}]), ["read.no_text"]),
        (pa.array([1.5]), ["read.no_text"]),
    ],
)
def test_texts_of_any_type_are_read(tmp_path: Path, values: pa.Array, expected: list[str]) -> None:
    path = write(tmp_path / "a.parquet", {"text": values, "id": [str(n) for n in range(len(values))]})
    records, receipt = read(path)
    assert [record.text if record.rule is None else record.rule for record in records] == expected
    assert [record.record_id for record in records] == [str(n) for n in range(len(values))]
    assert receipt.records == {"document": len(values)}


def test_nested_columns_are_found_by_dotted_paths(tmp_path: Path) -> None:
    date = datetime.datetime(2024, 5, 6, tzinfo=datetime.timezone.utc)
    rows = [{"text": "a", "about": {"url": "u", "day": date}}, {"text": None, "about": None}, None]
    path = write(tmp_path / "a.parquet", {"doc": rows, "meta.id": [7, 8, 9], "other": [["x"]] * 3})
    source = Source(
        root="", text_field="doc.text", id_field="meta.id", url_field="doc.about.url", date_field="doc.about.day"
    )
    records, receipt = read(path, source=source)
    assert [(r.text, r.rule, r.record_id, r.url, r.date) for r in records] == [
        ("a", None, "7", "u", 1_714_953_600_000),
        (None, "read.no_text", "8", None, None),
        (None, "read.no_text", "9", None, None),
    ]
    assert receipt.records == {"document": 3}
    (first, *_), _ = read(path, source=Source(root="", text_field="doc.about"))
    assert first.rule == "read.no_text"


@pytest.mark.parametrize("first_bytes_fail", [True, False], ids=["row group", "footer"])
def test_a_failure_of_storage_is_no_damage(file: Path, monkeypatch: pytest.MonkeyPatch, first_bytes_fail: bool) -> None:
    class Failing(io.BytesIO):
        def read(self, length: int | None = -1) -> bytes:
            if (self.tell() < 10) == first_bytes_fail:
                raise StorageError("s3://b/a.parquet: connection lost")
            return super().read(length)

    monkeypatch.setattr("schemas.storage.open_input", lambda uri: Failing(Path(uri).read_bytes()))
    with pytest.raises(StorageError, match="connection lost"):
        read(file)


def test_a_page_checksum_is_believed(tmp_path: Path) -> None:
    columns = {"text": [f"{number:02}" * 40 for number in range(100)]}
    options = {"compression": "none", "use_dictionary": False}
    for checked in (True, False):
        path = write(tmp_path / "a.parquet", columns, write_page_checksum=checked, **options)
        overwrite(path, path.read_bytes().index(b"35" * 40), b"XY")
        records, _ = read(path)
        assert [record.rule for record in records if record.rule] == (["read.damaged"] if checked else [])

"""Frames, damage and cuts: every byte is in one frame or damaged range, and every piece begins where the last ended."""

import gzip
import hashlib
import random
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.ingest.bytes.compression import GZIP, ZSTD, find_codec
from pipeline.ingest.bytes.decoded_stream import Decoded
from pipeline.ingest.bytes.frame_boundaries import VALID, Probe
from pipeline.ingest.bytes.frames import Frame, Frames
from pipeline.ingest.formats.warc_headers import WARC
from pipeline.ingest.read import check_pieces
from pipeline.ingest.receipts import PieceReceipt
from pipeline.ingest.records import ConservationError, Record
from schemas.recipe import Read
from tests.ingest.archives import (
    CONTAINERS,
    gzip_member,
    http,
    in_blocks,
    lz4_frame,
    noise,
    page,
    read_bytes,
    read_pieces,
    warc,
    zstd_frame,
)

PAGES = [page(number, 200 + 37 * number) for number in range(12)]
ARC_PAGES = [
    b"http://a.test/%d 1.2.3.4 20240506070809 text/html %d\n%s\n" % (number, len(block), block)
    for number, block in enumerate(http(b"<p>%s</p>" % noise(400, number).hex().encode()) for number in range(12))
]
CHECKED = ["members.warc.gz", "frames.warc.zst", "frames.warc.lz4"]


def what(records: list[Record]) -> list[tuple[object, ...]]:
    """What a reader must agree on."""
    return [(r.type, r.position, r.offset, r.url, r.rule, r.body) for r in records]


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_records_are_the_same_in_every_container(tmp_path: Path, name: str) -> None:
    plain, _ = read_bytes(tmp_path, b"".join(PAGES))
    records, receipt = read_bytes(tmp_path, CONTAINERS[name](PAGES), name)
    assert [record.body for record in records] == [record.body for record in plain]
    assert receipt.records == {"response": 12}
    assert (receipt.covered_start, receipt.covered_end) == (0, receipt.size)
    assert receipt.sha256 == hashlib.sha256(CONTAINERS[name](PAGES)).hexdigest()


def test_a_record_is_placed_by_its_frame_and_the_bytes_before_it(tmp_path: Path) -> None:
    first, second = gzip_member(PAGES[0] + PAGES[1]), gzip_member(PAGES[2])
    records, _ = read_bytes(tmp_path, first + second, "a.warc.gz")
    assert [(r.position, r.offset) for r in records] == [(0, 0), (0, len(PAGES[0])), (len(first), 0)]


def test_skippable_frames_and_a_dictionary_are_read(tmp_path: Path) -> None:
    dictionary = zstandard.train_dictionary(2000, [page(number) for number in range(200)])
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, write_checksum=True)
    frames = b"".join(compressor.compress(record) for record in PAGES)
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
    for stored in (dictionary.as_bytes(), zstandard.compress(dictionary.as_bytes())):
        start = b"\x5d\x2a\x4d\x18" + len(stored).to_bytes(4, "little") + stored
        records, _ = read_bytes(tmp_path, start + skippable + frames, "a.warc.zst")
        assert [record.rule for record in records] == [None] * 12
        assert (records[0].position, records[0].offset) == (len(start + skippable), 0)
        whole, _ = read_pieces(tmp_path / "a.warc.zst", [len(start) + 3000, len(start) + 4000])
        assert what(whole) == what(records)
    assert what(read_bytes(tmp_path, lz4_frame(PAGES[0]) + skippable, "a.warc.lz4")[0])[0][4] is None


def test_a_frame_that_is_none_is_one_row_of_damage(tmp_path: Path) -> None:
    first = gzip_member(PAGES[0])
    records, _ = read_bytes(tmp_path, first + b"not gzip" + gzip_member(PAGES[1]) + bytes(100), "a.warc.gz")
    assert [(r.type, r.position, r.offset) for r in records] == [
        ("response", 0, 0),
        ("damage", len(first), 0),
        ("response", len(first) + 8, 0),
        ("damage", len(first) + 8 + len(gzip_member(PAGES[1])), 0),
    ]


@pytest.mark.parametrize("name", CHECKED)
def test_a_damaged_frame_costs_its_record_alone(tmp_path: Path, name: str) -> None:
    frames = [CONTAINERS[name]([record]) for record in PAGES]
    middle = sum(map(len, frames[:5])) + len(frames[5]) // 2
    data = bytearray(b"".join(frames))
    data[middle] ^= 255
    records, _ = read_bytes(tmp_path, bytes(data), name)
    assert [record.type for record in records] == ["response"] * 5 + ["damage"] + ["response"] * 6
    assert (records[5].position, records[5].offset) == (sum(map(len, frames[:5])), 0)


def long_pages() -> list[bytes]:
    return [page(number, 20_000) for number in range(12)]


def overwrite(data: bytes, at: int) -> bytes:
    """A stretch of a file gone bad, as on a failing disk."""
    return data[:at] + b"\xff" * 4096 + data[at + 4096 :]


def archived(number: int) -> bytes:
    return warc("response", http(noise(3000, number)), f"http://inner.test/{number}", number)


def frame_of(name: str, record: bytes) -> bytes:
    """A record as its file holds it; gzip stores it as it is, so that an archive in it looks like the file's own."""
    return gzip.compress(record, 0, mtime=0) if name.endswith(".gz") else record


def archive(name: str) -> bytes:
    return b"".join(frame_of(name, archived(number)) for number in range(20))


def test_complete_records_before_the_error_are_kept_and_none_goes_on_past_it(tmp_path: Path) -> None:
    pages = long_pages()
    data = gzip_member(b"".join(pages))
    whole, _ = read_bytes(tmp_path, data, "a.warc.gz")
    for at in (len(data) // 3, len(data) * 3 // 4):
        records, _ = read_bytes(tmp_path, overwrite(data, at), "a.warc.gz")
        kept = [record.rule for record in records].index("read.damaged")
        assert 1 < kept < 12
        assert what(records[:kept]) == what(whole[:kept])
        assert {record.type for record in records[kept:]} == {"damage"}
        # The place is where the first record begins that is not whole.
        assert (records[kept].position, records[kept].offset) == (0, sum(map(len, pages[:kept])))


def test_of_a_damaged_frame_only_records_with_a_right_digest_are_kept(tmp_path: Path) -> None:
    pages = long_pages()
    pages[1] = pages[1].replace(b"WARC-Block-Digest", b"X-Digest")
    data = gzip_member(b"".join(pages))
    assert [r.type for r in read_bytes(tmp_path, data, "a.warc.gz")[0]] == ["response"] * 12
    # Truncation shows no wrong byte: what is whole is kept. Corruption may be anywhere.
    cut, _ = read_bytes(tmp_path, data[: len(data) * 3 // 4], "a.warc.gz")
    assert [r.type for r in cut] == ["response"] * (len(cut) - 1) + ["damage"]
    corrupt, _ = read_bytes(tmp_path, overwrite(data, len(data) * 3 // 4), "a.warc.gz")
    assert [r.type for r in corrupt[:4]] == ["response", "damage", "response", "response"]
    assert corrupt[1].url == "http://a.test/1"


def test_where_corruption_shows_in_a_short_frame_nothing_without_a_digest_is_kept(tmp_path: Path) -> None:
    pages = [page(number, 20_000).replace(b"WARC-Block-Digest", b"X-Digest") for number in range(5)]
    data = gzip_member(b"".join(pages))
    assert len(data) > 90_000
    records, _ = read_bytes(tmp_path, data[:80_000] + noise(20_000), "a.warc.gz")
    assert {record.type for record in records} == {"damage"}
    assert records[0].url == "http://a.test/0"


def test_in_the_rest_of_a_damaged_frame_no_record_begins(tmp_path: Path) -> None:
    outer = warc("response", http(b"<pre>\n" + page(9) + noise(200_000)))
    for pack in (gzip_member, zstd_frame):
        records, _ = read_bytes(tmp_path, pack(page(1) + outer)[:-500], "a.warc.gz")
        assert [(record.type, record.url) for record in records] == [
            ("response", "http://a.test/1"),
            ("damage", "http://a.test/"),
        ]


def test_in_a_large_frame_that_is_sound_the_digest_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ingest.bytes.frames.HOLD_BYTES", 1000)
    wrong = [warc("response", http(noise(300)), WARC_Block_Digest="sha1:" + "A" * 32)] * 3
    wrong += [page(number).replace(b"sha1:", b"md5:") for number in range(3)]
    pages = [*wrong, *long_pages()]
    data = gzip_member(b"".join(pages))
    records, _ = read_bytes(tmp_path, data, "a.warc.gz")
    assert [record.rule for record in records] == [None] * len(pages)
    truncated, _ = read_bytes(tmp_path, data[:-9], "a.warc.gz")
    assert [record.rule for record in truncated[:6]] == ["read.damaged"] * 3 + [None] * 3
    corrupt, _ = read_bytes(tmp_path, overwrite(data, len(data) * 3 // 4), "a.warc.gz")
    assert [record.rule for record in corrupt[:7]] == ["read.damaged"] * 6 + [None]


def test_a_frame_that_a_crash_cut_off_does_not_swallow_the_ones_behind_it(tmp_path: Path) -> None:
    # A stored block that promises 65,535 bytes takes in whatever follows, down to the end of the file.
    undigested = PAGES[0].replace(b"WARC-Block-Digest", b"X-Digest")
    crashed = b"\x1f\x8b\x08\x00\0\0\0\0\0\x03" + b"\0\xff\xff\0\0" + PAGES[1] + undigested + PAGES[2][:100]
    records, _ = read_bytes(tmp_path, crashed + b"".join(map(gzip_member, PAGES[3:6])), "a.warc.gz")
    assert [(record.type, record.url) for record in records] == [
        ("response", "http://a.test/1"),
        ("damage", "http://a.test/0"),
        ("damage", None),
        ("response", "http://a.test/3"),
        ("response", "http://a.test/4"),
        ("response", "http://a.test/5"),
    ]


def test_what_only_looks_like_a_frame_is_part_of_the_damage(tmp_path: Path) -> None:
    false_start = b"\x1f\x8b\x08\x00" + noise(500)
    records, _ = read_bytes(
        tmp_path, gzip_member(PAGES[0]) + noise(300) + 5 * false_start + gzip_member(PAGES[1]), "a.warc.gz"
    )
    assert [record.type for record in records] == ["response", "damage", "response"]


def test_in_a_block_compressed_archive_reading_goes_on_in_the_block_after_the_damage(tmp_path: Path) -> None:
    pages = [page(number, 1500) for number in range(12)]
    data = in_blocks(pages)
    records, _ = read_bytes(tmp_path, data[: len(data) // 2] + b"\xff" * 9 + data[len(data) // 2 + 9 :], "a.warc.gz")
    # The block held the end of one record and the start of another.
    assert sum(record.type == "response" for record in records) == 10
    assert records[0].url == "http://a.test/0"
    assert records[-1].url == "http://a.test/11"


def test_salvage_does_not_depend_on_the_file_around_the_frame(tmp_path: Path) -> None:
    damaged = gzip_member(b"".join(long_pages()))
    damaged = overwrite(damaged, len(damaged) // 2)
    alone, _ = read_bytes(tmp_path, damaged, "a.warc.gz")
    before = b"".join(map(gzip_member, PAGES))
    among, _ = read_bytes(tmp_path, before + damaged + gzip_member(PAGES[0]), "a.warc.gz")
    inside = among[12:-1]
    assert [(r.type, r.offset, r.body) for r in inside] == [(r.type, r.offset, r.body) for r in alone]
    assert among[-1].type == "response"


@pytest.mark.parametrize("name", [*sorted(CONTAINERS), "plain.arc", "members.arc.gz"])
@given(
    cuts=st.lists(st.integers(1, 20_000), max_size=6), damage=st.none() | st.tuples(st.integers(0), st.integers(1, 255))
)
@settings(max_examples=40, deadline=None)
@example(cuts=list(range(500, 20_000, 500)), damage=None)
@example(cuts=[1], damage=(1516, 1))  # the end mark of an lz4 frame just before a boundary
def test_pieces_abut_and_give_what_the_whole_file_gives(
    tmp_path_factory: pytest.TempPathFactory, name: str, cuts: list[int], damage: tuple[int, int] | None
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    if ".arc" in name:
        data = bytearray(b"".join(map(gzip_member, ARC_PAGES)) if name.endswith("gz") else b"".join(ARC_PAGES))
    else:
        data = bytearray(CONTAINERS[name](PAGES))
    if damage:
        data[damage[0] % len(data)] ^= damage[1]
    whole, receipt = read_bytes(folder, bytes(data), name)
    places = sorted({cut for cut in cuts if cut < len(data)})
    pieces, receipts = read_pieces(folder / name, places)
    assert what(pieces) == what(whole)
    assert sum(piece.rows for piece in receipts) == receipt.rows


def test_most_pieces_of_a_large_archive_have_work(tmp_path: Path) -> None:
    for name in ("members.warc.gz", "plain.warc", "frames.warc.zst", "frames.warc.lz4"):
        path = tmp_path / name
        path.write_bytes(CONTAINERS[name]([page(number) for number in range(300)]))
        size = path.stat().st_size
        _, receipts = read_pieces(path, list(range(size // 8, size - 8, size // 8)))
        assert all(receipt.rows > 20 for receipt in receipts[:8]), name


def test_a_file_of_one_frame_is_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "single.warc.gz"
    path.write_bytes(CONTAINERS["single.warc.gz"](PAGES))
    _, receipts = read_pieces(path, [1000, 2000, 3000])
    assert [receipt.rows for receipt in receipts] == [12, 0, 0, 0]
    assert [(receipt.covered_start, receipt.covered_end) for receipt in receipts[1:]] == [
        (1000, 1000), (2000, 2000), (3000, 3000)
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_a_cut_inside_an_archived_archive_is_not_taken_in(tmp_path: Path, name: str) -> None:
    path, start = tmp_path / name, frame_of(name, PAGES[0])
    inner = archive(name)
    outer = frame_of(name, warc("response", http(inner, "application/warc"), "http://a.test/inner"))
    path.write_bytes(start + outer + frame_of(name, PAGES[1]) + frame_of(name, PAGES[2]))
    assert frame_of(name, archived(10)) in path.read_bytes()
    whole, _ = read_pieces(path, [])
    assert [record.url for record in whole] == [f"http://a.test/{page}" for page in ("0", "inner", "1", "2")]
    for cut in range(len(start) + 700, len(start) + len(inner), len(inner) // 5):
        pieces, _ = read_pieces(path, [cut])
        assert what(pieces) == what(whole)


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_a_boundary_inside_an_archived_archive_is_refused_with_a_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for module in ("bytes.frame_boundaries", "formats.plain_boundaries"):
        monkeypatch.setattr(f"pipeline.ingest.{module}.CHAIN_BYTES", 10_000)
    path, inner = tmp_path / name, archive(name)
    path.write_bytes(frame_of(name, warc("response", http(inner, "application/warc"))) + frame_of(name, PAGES[1]))
    with pytest.raises(ConservationError, match=r"a.warc.*archive in the archive: raise read.part_bytes"):
        read_pieces(path, [len(inner) // 3])


def test_large_frames_and_records_are_read_in_bounded_memory(tmp_path: Path) -> None:
    big = noise(1 << 20).hex().encode() * 16  # 32 MiB
    path = tmp_path / "a.warc.gz"
    member = gzip.compress(PAGES[0] + warc("response", http(big)) + PAGES[1], 1)
    path.write_bytes(member + gzip_member(PAGES[2]))
    limit = Read(max_record_bytes=1 << 20)
    tracemalloc.start()
    records, _ = read_pieces(path, [], read=limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [record.rule for record in records] == [None, "read.too_long", None, None]
    assert peak < 45 << 20
    records, _ = read_pieces(path, [])
    assert [len(record.body or b"") for record in records] == [415, len(big), 489, 563]


@pytest.mark.parametrize("name", [*sorted(CONTAINERS), "plain.arc"])
def test_truncation_anywhere_loses_nothing_before_it(tmp_path: Path, name: str) -> None:
    records = ARC_PAGES if name == "plain.arc" else PAGES
    data = b"".join(records) if name == "plain.arc" else CONTAINERS[name](records)
    whole, _ = read_bytes(tmp_path, data, name)
    seeded = random.Random(name)
    for _ in range(100):
        end = seeded.randrange(len(data))
        found, receipt = read_bytes(tmp_path, data[:end], name)
        alive = [record for record in found if record.rule is None]
        assert what(alive) == what(whole[: len(alive)])
        assert receipt.covered_end == end
        if name in CHECKED:
            # Of the last frame, all but the checksum may be there.
            assert len(alive) - sum(record.position <= end for record in whole[1:]) in (0, 1)


@pytest.mark.parametrize("name", [*sorted(CONTAINERS), "plain.arc"])
def test_a_flipped_bit_anywhere_loses_nothing_before_it(tmp_path: Path, name: str) -> None:
    records = ARC_PAGES if name == "plain.arc" else PAGES
    data = b"".join(records) if name == "plain.arc" else CONTAINERS[name](records)
    whole, _ = read_bytes(tmp_path, data, name)
    starts = [record.position for record in whole]
    seeded = random.Random(name)
    for _ in range(100):
        at = seeded.randrange(len(data))
        flipped = bytearray(data)
        flipped[at] ^= 1 << seeded.randrange(8)
        found, receipt = read_bytes(tmp_path, bytes(flipped), name)
        assert receipt.covered_end == len(data)
        if "single" not in name and "blocks" not in name:
            hit = sum(start <= at for start in starts) - 1
            assert what(found[:hit]) == what(whole[:hit])
            assert what(found)[-(11 - hit) :] == what(whole)[hit + 1 :] or hit == 11


@given(data=st.binary(max_size=400), name=st.sampled_from(["a.warc", "a.warc.gz", "a.warc.zst", "a.warc.lz4", "a.arc"]))
@settings(max_examples=200, deadline=None)
@example(data=b"\x28\xb5\x2f\xfd", name="a.warc.zst")
@example(data=b"\x5d\x2a\x4d\x18\xff\xff\xff\xff", name="a.warc.zst")
@example(data=b"\x1f\x8b\x08\x00" * 5, name="a.warc")
@example(data=b"WARC/1.0\r\n", name="a.warc")
@example(data=b"\r\n\r\n", name="a.warc")
@example(data=b"", name="a.warc.gz")
def test_any_bytes_are_accounted_for(tmp_path_factory: pytest.TempPathFactory, data: bytes, name: str) -> None:
    for start in (b"", gzip_member(PAGES[0]), zstd_frame(PAGES[0])[:-1], PAGES[0]):
        _, receipt = read_bytes(tmp_path_factory.mktemp("any"), start + data, name)
        assert receipt.covered_end == len(start + data)


def test_the_name_tells_the_compression_where_the_first_byte_is_damaged(tmp_path: Path) -> None:
    data = bytearray(CONTAINERS["members.warc.gz"](PAGES))
    data[0] ^= 1
    records, _ = read_bytes(tmp_path, bytes(data), "a.warc.gz")
    assert [record.type for record in records] == ["damage"] + ["response"] * 11
    assert find_codec(b"WARC/1.0", "a.warc.gz", is_plain=True) is None
    assert find_codec(b"\x1f\x8b\x08\x00", "a.warc", is_plain=False) is GZIP
    assert find_codec(b"????", "a.warc.zst", is_plain=False) is ZSTD


def test_bytes_that_nobody_speaks_for_end_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.warc.gz"
    path.write_bytes(gzip_member(b"0123456789"))
    with path.open("rb") as file:
        size = path.stat().st_size
        frames = Frames(file, 0, size, Probe(file, size, GZIP, WARC.begins))
        stream = Decoded(frames, WARC.begins)
        assert stream.advance()
        stream.account(0, 4)
        with pytest.raises(ConservationError, match="do not follow 4"):
            stream.account(5, 10)
        with pytest.raises(ConservationError, match="4 of 10 decoded bytes"):
            stream.check()
        with pytest.raises(ConservationError, match="does not follow"):
            frames._cover(3, 4)
        assert frames.fate(Frame(0)) == VALID


def receipt(start: int, end: int, covered_start: int, covered_end: int) -> PieceReceipt:
    return PieceReceipt("a.warc.gz", start, end, 30, covered_start, covered_end, "", 0, {})


def test_pieces_that_do_not_abut_are_refused() -> None:
    check_pieces([receipt(20, 30, 22, 30), receipt(0, 10, 0, 22), receipt(10, 20, 10, 10)])
    for wrong in (
        [receipt(0, 10, 0, 12), receipt(10, 30, 13, 30)],
        [receipt(0, 10, 0, 12), receipt(10, 30, 11, 30)],
        [receipt(0, 10, 0, 12), receipt(12, 30, 12, 30)],
        [receipt(0, 30, 0, 29)],
        [receipt(10, 30, 10, 30)],
        [receipt(0, 30, 0, 0)],
    ):
        with pytest.raises(ConservationError, match=r"a\.warc\.gz"):
            check_pieces(wrong)

"""Records of WARC, WET and ARC archives: types, headers, what is dropped and why."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.ingest.receipts import PieceReceipt
from pipeline.ingest.records import Record
from schemas.recipe import Read
from tests.ingest.archives import (
    CONTAINERS,
    DATE_MILLIS,
    SAMPLES,
    gzip_member,
    http,
    noise,
    page,
    read_bytes,
    read_pieces,
    warc,
)

PAGE = b"<html>hello</html>"


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[Record]]:
    """`read(data)` gives the ledger records of a file of these bytes."""
    return lambda data, **options: read_bytes(tmp_path, data, **options)[0]


def fates(records: list[Record]) -> list[tuple[str, str | None, float | None]]:
    return [(record.type, record.rule, record.value) for record in records]


def test_a_response_is_a_whole_record(read: Callable[..., list[Record]]) -> None:
    before = warc("warcinfo", b"software: x\r\n")
    (record,) = read(before + warc("response", http(PAGE, "Text/HTML; charset=UTF-8"), "<http://a.test/é>", 7))
    assert record == Record(
        type="response",
        input="a.warc",
        position=len(before),
        offset=0,
        record_id="urn:uuid:7",
        url="http://a.test/é",
        date=DATE_MILLIS,
        status=200,
        mime="text/html",
        charset="utf-8",
        body=PAGE,
    )


def test_types_that_are_not_read_are_rows_and_requests_are_only_counted(tmp_path: Path) -> None:
    kinds = ["warcinfo", "request", "metadata", "revisit", "resource", "continuation", "Unknown", "odd", "RESPONSE"]
    records, receipt = read_bytes(tmp_path, b"".join(warc(kind, http(PAGE)) for kind in kinds))
    assert fates(records) == [
        ("revisit", "read.type", None),
        ("resource", "read.mime", None),
        ("continuation", "read.type", None),
        ("unknown", "read.type", None),
        ("unknown", "read.type", None),
        ("response", None, None),
    ]
    assert receipt.records == {
        "continuation": 1, "metadata": 1, "request": 1, "resource": 1, "response": 1, "revisit": 1, "unknown": 2,
        "warcinfo": 1,
    }  # fmt: skip
    assert receipt.rows == 6


@pytest.mark.parametrize(
    ("status", "rule", "value"),
    [
        ("200 OK", None, None),
        ("301 Moved", "read.redirect", 301),
        ("304 Not Modified", "read.redirect", 304),
        ("404 Not Found", "read.status", 404),
        ("206 Partial Content", "read.status", 206),
        ("500", "read.status", 500),
    ],
)
def test_only_status_200_is_a_page(
    read: Callable[..., list[Record]], status: str, rule: str | None, value: float | None
) -> None:
    (record,) = read(warc("response", http(PAGE, status=status)))
    assert (record.rule, record.value, record.status, record.body) == (
        rule, value, int(status[:3]), PAGE if rule is None else None
    )  # fmt: skip


def test_other_types_of_content_are_dropped_before_they_are_decoded(read: Callable[..., list[Record]]) -> None:
    (image,) = read(warc("response", http(b"no gzip at all", "image/png", Content_Encoding="gzip")))
    assert (image.rule, image.mime) == ("read.mime", "image/png")
    (binary,) = read(warc("response", http(b"\x00\x01\x02", "")))
    assert (binary.rule, binary.mime) == ("read.mime", "application/octet-stream")
    (unnamed,) = read(warc("response", http(PAGE, "")))
    assert (unnamed.rule, unnamed.mime, unnamed.body) == (None, "text/html", PAGE)
    (wanted,) = read(warc("response", http(PAGE, "image/svg+xml")), read=Read(mime_types=["image/svg+xml"]))
    assert wanted.rule is None


def test_a_fault_in_one_body_costs_that_record_alone(read: Callable[..., list[Record]]) -> None:
    encoded = gzip.compress(PAGE * 100, mtime=0)
    bomb = gzip.compress(bytes(20 << 20), mtime=0)
    records = read(
        warc("response", http(encoded[:-9], Content_Encoding="gzip"))
        + warc("response", http(b"1\r\na\r\nx", Transfer_Encoding="chunked"))
        + warc("response", http(bomb, Content_Encoding="gzip"))
        + warc("response", b"no head")
        + warc("response", http(b"5\r\n<html\r\n1\r\n>\r\n0\r\n\r\n", Transfer_Encoding="chunked"))
    )
    assert [(record.rule, record.body) for record in records] == [
        ("read.bad_encoding", None),
        ("read.bad_chunk", None),
        ("read.ratio", None),
        ("read.bad_http", None),
        (None, b"<html>"),
    ]
    assert records[2].threshold == 200


def test_answers_of_name_servers_are_no_pages(read: Callable[..., list[Record]]) -> None:
    (answer,) = read(warc("response", b"20240101\na.test. 5 IN A 1.2.3.4\n", "dns:a.test", Content_Type="text/plain"))
    assert (answer.rule, answer.mime) == ("read.mime", "text/dns")


def test_a_page_over_another_protocol_has_no_head(read: Callable[..., list[Record]]) -> None:
    (file,) = read(warc("response", PAGE, "ftp://a.test/x.html", Content_Type="text/html; charset=latin1"))
    assert (file.rule, file.status, file.mime, file.charset, file.body) == (None, None, "text/html", "latin1", PAGE)


def test_resources_are_pages_unless_turned_off(read: Callable[..., list[Record]]) -> None:
    page = warc("resource", PAGE, "file:///a.html", Content_Type="text/html; charset=latin1")
    (html,) = read(page)
    assert (html.type, html.rule, html.body, html.mime, html.charset) == ("resource", None, PAGE, "text/html", "latin1")
    (text,) = read(warc("resource", b"Dear reader", Content_Type="text/plain"))
    assert (text.rule, text.body, text.mime) == (None, b"Dear reader", "text/plain")
    (unnamed,) = read(warc("resource", PAGE, Content_Type=""))
    assert (unnamed.rule, unnamed.mime) == (None, "text/html")
    assert fates(read(warc("resource", b"\xff\xd8\xff", Content_Type="image/jpeg"))) == [
        ("resource", "read.mime", None)
    ]
    assert fates(read(page, read=Read(resources=False))) == [("resource", "read.type", None)]


def test_a_type_that_lies_is_found_out(read: Callable[..., list[Record]]) -> None:
    (plain,) = read(warc("response", http(PAGE, "text/plain")))
    assert (plain.rule, plain.mime, plain.body) == (None, "text/html", PAGE)
    (binary,) = read(warc("response", http(gzip.compress(PAGE), "application/octet-stream", Content_Encoding="gzip")))
    assert (binary.rule, binary.mime, binary.body) == (None, "text/html", PAGE)
    (pdf,) = read(warc("response", http(b"%PDF-1.4 ...", "text/html")))
    assert (pdf.rule, pdf.mime, pdf.body) == ("read.mime", "application/pdf", None)
    (named,) = read(
        warc("response", http(b"a page", "application/x-foo"), WARC_Identified_Payload_Type="application/xhtml+xml")
    )
    assert (named.rule, named.mime) == (None, "application/xhtml+xml")


def test_pages_that_break_off_are_kept_and_counted_or_dropped(tmp_path: Path) -> None:
    data = warc("response", http(PAGE), WARC_Truncated="length") + warc(
        "response", http(b"6\r\n<html>\r\n", Transfer_Encoding="chunked")
    )
    records, receipt = read_bytes(tmp_path, data)
    assert fates(records) == [("response", None, None)] * 2
    assert [record.body for record in records] == [PAGE, b"<html>"]
    assert receipt.records == {"read.truncated": 2, "response": 2}
    records, receipt = read_bytes(tmp_path, data, read=Read(truncated="drop"))
    assert fates(records) == [("response", "read.truncated", None)] * 2
    assert receipt.records == {"read.truncated": 2, "response": 2}


@pytest.mark.parametrize("container", ["plain.warc", "members.warc.gz", "single.warc.gz", "single.warc.zst"])
@pytest.mark.parametrize("excess", [9, 40, 300])
def test_a_length_that_is_too_long_costs_that_record_alone(tmp_path: Path, container: str, excess: int) -> None:
    records = [warc("response", http(PAGE), number=number) for number in range(4)]
    length = len(http(PAGE))
    records[1] = records[1].replace(b"Content-Length: %d" % length, b"Content-Length: %d" % (length + excess))
    found, _ = read_bytes(tmp_path, CONTAINERS[container](records), container)
    assert [(record.record_id, record.rule) for record in found] == [
        ("urn:uuid:0", None),
        ("urn:uuid:1", "read.damaged"),
        ("urn:uuid:2", None),
        ("urn:uuid:3", None),
    ]


def test_conversions_are_text_unless_turned_off(read: Callable[..., list[Record]]) -> None:
    text = "Grüße\n".encode() + b"\xff"
    record = warc("conversion", text, Content_Type="text/plain")
    (wet,) = read(record)
    assert (wet.rule, wet.text, wet.body, wet.mime) == (None, "Grüße\n\ufffd", None, "text/plain")
    assert fates(read(record, read=Read(conversions=False))) == [("conversion", "read.type", None)]
    (markup,) = read(warc("conversion", PAGE, Content_Type="text/html; charset=utf-8"))
    assert (markup.rule, markup.text, markup.body, markup.charset) == (None, None, PAGE, "utf-8")
    assert fates(read(warc("conversion", PAGE, Content_Type="image/png"))) == [("conversion", "read.mime", None)]


@pytest.mark.parametrize(
    "header",
    [
        b"WARC/1.1\r\nWARC-Type: response\r\nContent-Length: 22\r\nWARC-Target-URI: http://a.test/\r\n\r\n",
        b"warc/0.17\nwarc-type:RESPONSE\ncontent-length : 22 \nwarc-target-uri:\n <http://a.test/>\n\n",
        b"WARC/1.0 \r\nno field\r\nWARC-Type:\r\n\tresponse\r\nContent-Length: 22\r\nContent-Length: 9\r\n"
        b"WARC-Target-URI: http://a.test/\r\nX: y\r\n\n",
    ],
    ids=["1.1", "lower case, bare line feeds, folded", "no colon, given twice"],
)
def test_sloppy_record_headers_are_read(read: Callable[..., list[Record]], header: bytes) -> None:
    (record,) = read(b"\r\n" + header + b"HTTP/1.1 200 OK\n\n<br/>")
    assert (record.type, record.url, record.body, record.rule) == ("response", "http://a.test/", b"<br/>", None)


def test_a_record_that_does_not_say_its_length_is_damage_up_to_the_next(read: Callable[..., list[Record]]) -> None:
    for length in ("", "-1", "1e3", "very long", "9" * 19):
        records = read(warc("response", http(PAGE), Content_Length=length) + page(2))
        assert fates(records) == [("damage", "read.damaged", None), ("response", None, None)]
        assert records[1].url == "http://a.test/2"


def test_bytes_between_records_are_one_row_of_damage(read: Callable[..., list[Record]]) -> None:
    records = read(page(1) + b"lost words\nand more\n" + page(2) + b"\0\0\0")
    assert [(record.type, record.position) for record in records] == [
        ("response", 0),
        ("damage", len(page(1))),
        ("response", len(page(1)) + 20),
        ("damage", len(page(1)) + 20 + len(page(2))),
    ]


def test_a_truncated_record_is_one_row_of_damage_that_knows_its_name(read: Callable[..., list[Record]]) -> None:
    whole = page(1) + page(2)
    for end in (len(whole) - 5, len(page(1)) + 400, len(page(1)) + 3):
        records = read(whole[:end])
        assert fates(records) == [("response", None, None), ("damage", "read.damaged", None)]
    assert read(whole[:-5])[1].url == "http://a.test/2"


def test_a_record_too_short_for_its_length_does_not_swallow_the_next_ones(read: Callable[..., list[Record]]) -> None:
    records = read(warc("response", http(PAGE), Content_Length="99999") + page(2) + page(3))
    assert fates(records) == [("damage", "read.damaged", None), ("response", None, None), ("response", None, None)]


def test_a_record_truncated_in_its_own_member_does_not_swallow_the_next_one(read: Callable[..., list[Record]]) -> None:
    data = gzip_member(page(1)[:-50]) + gzip_member(page(2))
    records = read(data, name="a.warc.gz")
    assert fates(records) == [("damage", "read.damaged", None), ("response", None, None)]


def test_a_record_may_go_on_in_the_next_member(read: Callable[..., list[Record]]) -> None:
    whole = page(1)
    data = gzip_member(whole[:500]) + gzip_member(whole[500:-2]) + gzip_member(b"\r\n" + page(2))
    records = read(data, name="a.warc.gz")
    assert fates(records) == [("response", None, None)] * 2
    third = len(gzip_member(whole[:500]) + gzip_member(whole[500:-2]))
    assert [(record.position, record.offset) for record in records] == [(0, 0), (third, 2)]


def test_a_digest_is_checked_where_nothing_else_vouches_for_the_block(read: Callable[..., list[Record]]) -> None:
    wrong = warc("response", http(PAGE), WARC_Block_Digest="sha1:" + "A" * 32)
    assert fates(read(wrong + page(2))) == [("damage", "read.damaged", None), ("response", None, None)]
    assert read(wrong)[0].url == "http://a.test/"
    # A gzip member has a checksum of its own; then a wrong digest is a fault of the writer.
    assert fates(read(gzip_member(wrong), name="a.warc.gz")) == [("response", None, None)]
    revisit = warc("revisit", http(b""), WARC_Block_Digest="sha1:" + "A" * 32)
    assert fates(read(revisit)) == [("revisit", "read.type", None)]


@pytest.mark.parametrize(
    ("digest", "agrees"),
    [
        ("md5:e59ff97941044f85df5297e1c302d260", True),
        ("SHA-256:d2a84f4b8b650937ec8f73cd8be2c74add5a911ba64df27458ed8229da804a26", True),
        ("sha256:2KUE6S4LMUETP3EPOPGYXYWHJLOVVEI3UZG7E5CY5WBCTWUAJITA====", True),
        ("sha256:d2a84f4b8b650937ec8f73cd8be2c74add5a911ba64df27458ed8229da804a27", False),
        ("sha1:    ", True),
        ("sharif-1; omar", True),
        ("crc32:00000000", True),
    ],
)
def test_digests_of_several_kinds_are_checked_and_others_are_none(
    read: Callable[..., list[Record]], digest: str, agrees: bool
) -> None:
    (record,) = read(warc("conversion", b"Hello World\n", Content_Type="text/plain", WARC_Block_Digest=digest))
    assert record.rule == (None if agrees else "read.damaged")


def test_a_record_above_the_limit_is_passed_over(tmp_path: Path) -> None:
    limit = Read(max_record_bytes=5000)
    long = warc("response", http(noise(9000)), "http://a.test/long")
    for name, pack in (("a.warc", bytes), ("a.warc.gz", gzip_member)):
        data = pack(page(1)) + pack(long) + pack(warc("request", noise(9000))) + pack(page(2))
        records, receipt = read_bytes(tmp_path, data, name, read=limit)
        assert fates(records) == [
            ("response", None, None), ("response", "read.too_long", 9000 + 59), ("response", None, None)
        ]  # fmt: skip
        assert (records[1].threshold, records[1].url) == (5000, "http://a.test/long")
        assert receipt.records == {"request": 1, "response": 3}
        records, _ = read_bytes(tmp_path, pack(page(1) + long)[:-500], name, read=limit)
        assert fates(records) == [("response", None, None), ("damage", "read.damaged", None)]


VERSION = b"1 0 Mill\nURL IP-address Archive-date Content-type Archive-length\n"
ARC = b"filedesc://x.arc 0.0.0.0 20240101000000 text/plain %d\n%s\n" % (len(VERSION), VERSION)


def test_arc_records_read_as_responses(tmp_path: Path) -> None:
    block = http(PAGE)
    first = b"http://a.test/with a space 1.2.3.4 20240506070809 text/html %d\n" % len(block) + block + b"\n"
    second = b"http://a.test/2 1.2.3.4 202405060708 no-type 200 - - 77 x.arc %d\r\n" % len(block) + block
    records, receipt = read_bytes(tmp_path, ARC + first + second, "a.arc")
    assert [(r.type, r.url, r.date, r.status, r.mime, r.body, r.record_id) for r in records] == [
        ("response", "http://a.test/with a space", DATE_MILLIS, 200, "text/html", PAGE, None),
        ("response", "http://a.test/2", DATE_MILLIS - 9000, 200, "text/html", PAGE, None),
    ]
    assert receipt.records == {"response": 2, "warcinfo": 1}
    assert [record.position for record in records] == [len(ARC), len(ARC) + len(first)]
    packed, _ = read_bytes(tmp_path, b"".join(map(gzip_member, (ARC, first, second))), "a.arc.gz")
    assert [record.body for record in packed] == [PAGE, PAGE]
    damaged, _ = read_bytes(tmp_path, ARC + first[:-40] + second, "a.arc")
    assert fates(damaged) == [("damage", "read.damaged", None), ("response", None, None)]


# Records by type, ledger rows by rule. `damage` says where the two known readers see another number of records.
ALIVE = "alive"
SAMPLE_READS = {
    "gowarc/corrupted-mid-record.warc.gz.open": ({"damage": 1, "response": 12}, {ALIVE: 12, "read.damaged": 1}),
    "gowarc/empty.warc.gz.open": ({}, {}),
    "gowarc/good.warc.gz.open": ({"response": 50}, {ALIVE: 50}),
    "ia-web-commons/html-lang-attribute.warc": ({"response": 5}, {ALIVE: 5}),
    "ia-web-commons/mutliple-headers.warc": ({"response": 1}, {ALIVE: 1}),
    "ia-web-commons/text-extraction-test.warc": (
        {"metadata": 1, "response": 2, "warcinfo": 1}, {ALIVE: 1, "read.mime": 1}
    ),
    "ia-web-commons/title-extraction-embedded-SVG.warc": ({"response": 1}, {ALIVE: 1}),
    "jwat/invalid-warcfile-contenttype-recommended.warc": (
        {"conversion": 1, "metadata": 1, "request": 1, "resource": 1, "response": 1, "revisit": 1, "warcinfo": 1},
        {ALIVE: 2, "read.mime": 1, "read.type": 1},
    ),
    "jwat/invalid-warcfile-digest-fields.warc": ({"damage": 1, "response": 3}, {ALIVE: 3, "read.damaged": 1}),
    "jwat/invalid-warcfile-encoding-headers.warc.gz": ({"response": 3, "warcinfo": 1}, {ALIVE: 2, "read.mime": 1}),
    "jwat/invalid-warcfile-fields-invalidformat.warc": ({"damage": 1}, {"read.damaged": 1}),
    "jwat/invalid-warcfile-lonely-continuation.warc": ({"damage": 1}, {"read.damaged": 1}),
    "jwat/invalid-warcfile-lonely-request-response-resource-conversion.warc": ({"damage": 4}, {"read.damaged": 4}),
    "jwat/invalid-warcfile-lonely-warcinfo-metadata.warc": ({"damage": 2}, {"read.damaged": 2}),
    "jwat/invalid-warcfile-segment-number-continuation.warc": ({"continuation": 2}, {"read.type": 2}),
    "jwat/test-arc-1.0-dashed-fields.arc": (
        {"damage": 1, "response": 1, "warcinfo": 1}, {ALIVE: 1, "read.damaged": 1}
    ),
    "jwat/valid-warcfile-contenttype-continuation.warc": ({"continuation": 1}, {"read.type": 1}),
    "jwat/valid-warcfile-fields-continuation.warc": ({"continuation": 1}, {"read.type": 1}),
    "jwat/valid-warcfile-fields-warcinfo.warc": ({"warcinfo": 1}, {}),
    "jwat/valid-warcfile-upper-lower-case.warc": ({"response": 4, "warcinfo": 1}, {"read.mime": 4}),
    "resiliparse/block-sized-records.warc.gz": ({"unknown": 3}, {"read.type": 3}),
    "resiliparse/block-sized-records.warc.lz4": ({"unknown": 3}, {"read.type": 3}),
    "warcio/bad.arc": ({"damage": 2, "response": 1}, {"read.bad_http": 1, "read.damaged": 2}),
    "warcio/example-bad-non-chunked.warc.gz": (
        {"request": 2, "response": 1, "revisit": 1, "warcinfo": 2}, {ALIVE: 1, "read.type": 1}
    ),
    "warcio/example-bad.warc.gz.bad": (
        {"request": 2, "response": 2, "revisit": 1, "warcinfo": 1}, {ALIVE: 1, "read.redirect": 1, "read.type": 1}
    ),
    "warcio/example-digest.warc": ({"request": 4}, {}),
    "warcio/example-iana.org-chunked.warc": ({"request": 1, "response": 1, "warcinfo": 1}, {ALIVE: 1}),
    "warcio/example-resource.warc.gz": ({"resource": 1, "warcinfo": 2}, {ALIVE: 1}),
    "warcio/example-space-in-target-uri.warc.gz": ({"resource": 1, "warcinfo": 1}, {"read.mime": 1}),
    "warcio/example-space-in-url.arc": ({"damage": 1, "warcinfo": 1}, {"read.damaged": 1}),
    "warcio/example-trunc.warc": ({"damage": 2, "request": 1, "warcinfo": 2}, {"read.damaged": 2}),
    "warcio/example-wget-bad-target-uri.warc.gz": (
        {"metadata": 1, "request": 1, "resource": 2, "response": 1, "warcinfo": 1}, {ALIVE: 1, "read.type": 2}
    ),
    "warcio/example-wrong-chunks.warc.gz": ({"request": 1, "response": 1}, {ALIVE: 1}),
    "warcio/example.arc.gz": ({"response": 1, "warcinfo": 1}, {ALIVE: 1}),
    "warcio/example.warc.gz": (
        {"request": 2, "response": 1, "revisit": 1, "warcinfo": 2}, {ALIVE: 1, "read.type": 1}
    ),
    "warcio/post-test.warc.gz": ({"request": 3, "response": 3}, {"read.mime": 3}),
}  # fmt: skip


def read_sample(name: str) -> tuple[list[Record], PieceReceipt]:
    records, (receipt,) = read_pieces(SAMPLES / name, [])
    return records, receipt


@pytest.mark.parametrize("name", sorted(SAMPLE_READS))
def test_samples_of_other_projects_read_as_known(name: str) -> None:
    records, receipt = read_sample(name)
    rules: dict[str, int] = {}
    for record in records:
        rules[record.rule or ALIVE] = rules.get(record.rule or ALIVE, 0) + 1
    assert (receipt.records, rules) == SAMPLE_READS[name]


def test_every_sample_is_in_the_table() -> None:
    files = {path.relative_to(SAMPLES).as_posix() for path in SAMPLES.rglob("*") if path.is_file()}
    assert files == {*SAMPLE_READS, "NOTICE"}


def test_sample_bodies_are_decoded() -> None:
    (chunked,) = [record for record in read_sample("warcio/example-iana.org-chunked.warc")[0] if record.body]
    assert chunked.body is not None
    assert (chunked.url, len(chunked.body), chunked.body[-8:]) == ("http://www.iana.org/", 7223, b"</html>\n")
    (decoded,) = [record for record in read_sample("warcio/example-wrong-chunks.warc.gz")[0] if record.body]
    assert decoded.body is not None
    assert (decoded.body[:15], len(decoded.body)) == (b"<!doctype html>", 1270)

"""HTTP responses as archives hold them."""

import contextlib
import functools
import gzip
import random
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ingest.bytes.http_body import CODINGS, Dropped, decode_body, media_type, parse_response
from pipeline.ingest.formats.media_types import resolve_type, sniff
from schemas.recipe import Read

PAGE = b"<html>" + "Grüße aus der Mühle. ".encode() * 200 + b"</html>"
CHUNKED = ("chunked",)


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def chunked(data: bytes, size: int = 1000) -> bytes:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


ENCODE = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": functools.partial(brotli.compress, quality=4),
    "zstd": zstandard.compress,
    "chunked": chunked,
}


def head(data: bytes) -> tuple[int, str | None, str | None, bytes]:
    response = parse_response(data, 0, len(data))
    assert response is not None
    return response.status, response.mime, response.charset, data[response.body :]


def undo(body: bytes, *content: str, transfer: tuple[str, ...] = (), read: Read | None = None) -> bytes:
    return decode_body(body, transfer, content, read or Read())[0]


def dropped(body: bytes, *content: str, transfer: tuple[str, ...] = (), read: Read | None = None) -> Dropped:
    with pytest.raises(Dropped) as caught:
        undo(body, *content, transfer=transfer, read=read)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b'HTTP/1.1 200 OK\r\nContent-Type: Text/HTML; Charset="UTF-8"\r\n\r\n<p>',
        b"HTTP/1.1 200 OK\nCONTENT-TYPE:text/html;charset=utf-8\n\n<p>",
        b"HTTP/1.0 200\r\ncontent-type : text/html;\r\n charset = 'utf-8'\r\n\r\n<p>",
        b"HTTP/2 200 \r\ncontent-type: image/png\r\ncontent-type: text/html; charset=utf-8\r\n\r\n<p>",
        b"\r\nICY 200 OK\r\nno field\r\nContent-Type: text/html; charset=utf-8; x=y\r\n\r\n<p>",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n<p>",
    ],
    ids=["usual", "bare line feeds", "folded", "given twice", "a line without a colon", "no end of the header"],
)
def test_a_sloppy_header_is_read(data: bytes) -> None:
    assert head(data) == (200, "text/html", "utf-8", b"<p>")


def test_a_page_is_not_taken_for_header_up_to_its_first_empty_line() -> None:
    assert head(b"HTTP/1.1 200 OK\r\nServer: x\r\n<html>\n<p>\n\n</html>")[3] == b"<html>\n<p>\n\n</html>"


def test_a_header_without_fields_has_a_body() -> None:
    assert head(b"HTTP/1.1 404 Not Found\r\n\r\nbody") == (404, None, None, b"body")
    assert head(b"HTTP/1.1 200 OK\n\nbody") == (200, None, None, b"body")
    assert head(b"HTTP/1.1 200 OK") == (200, None, None, b"")


@pytest.mark.parametrize("data", [b"", b"<html>", b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 2000\r\n", b"HTTP/1.1\r\n\r\n"])
def test_without_a_status_line_there_is_no_response(data: bytes) -> None:
    assert parse_response(data, 0, len(data)) is None


def test_only_the_block_is_searched() -> None:
    data = b"xxHTTP/1.1 200 OK\r\nServer: y\r\n\r\nbodyzz\r\n\r\n"
    response = parse_response(data, 2, len(data) - 6)
    assert response is not None
    assert data[response.body : -6] == b"body"


def test_media_types_are_lower_cased_and_nonsense_is_none() -> None:
    assert media_type("Text/HTML") == ("text/html", None)
    assert media_type("text/html; charset=ISO-8859-1, text/html") == ("text/html", "iso-8859-1")
    assert media_type("html") == (None, None)
    assert media_type("; charset=utf-8") == (None, "utf-8")


@pytest.mark.parametrize(
    ("body", "mime"),
    [
        (b"\xef\xbb\xbf \n<!DOCTYPE html>", "text/html"),
        (b"<p>", "text/html"),
        (b"Dear reader", "text/plain"),
        ("Lieber Läser".encode("latin-1"), "text/plain"),
        (b"", "text/plain"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "image/png"),
        (b"a\x00\x01", "application/octet-stream"),
    ],
)
def test_a_body_without_a_type_is_looked_at(body: bytes, mime: str) -> None:
    assert sniff(body) == mime


HTML, PLAIN, BINARY, PDF = "text/html", "text/plain", "application/octet-stream", "application/pdf"


@pytest.mark.parametrize(
    ("declared", "identified", "body", "mime"),
    [
        (HTML, None, b"<html><p>", HTML),
        (HTML, "application/xhtml+xml", b"<!-- a --><!DOCTYPE html>", HTML),
        (PLAIN, None, b"\n<!DOCTYPE HTML PUBLIC>", HTML),
        (PLAIN, None, b"<!-- a\n --> <?xml version='1.0'?>\n<html>", HTML),
        (PLAIN, None, "<html>".encode("utf-16"), HTML),
        (PLAIN, None, b"A text that says <html> is a tag", PLAIN),
        (PLAIN, None, b"<stdio.h> is included", PLAIN),
        (PLAIN, HTML, b"a fragment", HTML),
        (PLAIN, None, b"%PDF-1.4", PDF),
        (BINARY, None, b"<!doctype html><p>", HTML),
        (BINARY, None, b"Dear reader", PLAIN),
        (BINARY, None, b"\x00\x01", BINARY),
        (BINARY, HTML, b"Dear reader", HTML),
        (HTML, None, b"%PDF-1.7\n", PDF),
        (HTML, PDF, b"\r\n%PDF-1.7\n", PDF),
        (HTML, None, b"\x89PNG\r\n\x1a\n", "image/png"),
        (HTML, None, b"PK\x03\x04", "application/zip"),
        (HTML, None, b"<?xml version='1.0'?><rss version='2.0'>", "application/xml"),
        (HTML, None, b'{"a": "<p>"}', "application/json"),
        (HTML, None, b"[a] text without a tag", PLAIN),
        (HTML, None, b"a fragment<br>of a page", HTML),
        (HTML, None, b"", HTML),
        (HTML, None, b"<custom-element>", HTML),
        ("application/xhtml+xml", None, b"<?xml version='1.0'?><html>", "application/xhtml+xml"),
        ("image/jpeg", None, b"<html>Not found", HTML),
        ("image/jpeg", None, b"\xff\xd8\xff", "image/jpeg"),
        ("application/json", HTML, b"x", HTML),
        (None, PDF, b"x", PDF),
        (None, None, b"<p>", HTML),
    ],
)
def test_the_type_of_a_body_is_that_of_its_bytes(
    declared: str | None, identified: str | None, body: bytes, mime: str
) -> None:
    assert resolve_type(declared, identified, body) == mime


@pytest.mark.parametrize("coding", sorted(ENCODE))
def test_a_coding_is_undone(coding: str) -> None:
    assert undo(ENCODE[coding](PAGE), coding) == PAGE


@given(st.binary(max_size=3000), st.lists(st.sampled_from(["gzip", "br", "zstd", "deflate"]), max_size=3))
def test_stacked_codings_are_undone_in_reverse(data: bytes, content: list[str]) -> None:
    body = data
    for coding in content:
        body = ENCODE[coding](body)
    # What is stored decoded cannot be told from what is encoded by its first bytes alone: begin with none.
    if not content and data[:2] == b"\x1f\x8b":
        return
    assert undo(chunked(body), *content, transfer=CHUNKED) == data


def test_raw_deflate_is_undone_as_well() -> None:
    assert undo(raw_deflate(PAGE), "deflate") == PAGE


def test_a_gzip_body_of_several_members_is_one_and_what_follows_is_left_out() -> None:
    assert undo(gzip.compress(b"a") + gzip.compress(b"b") + b"\n", "gzip") == b"ab"


def test_a_transfer_coding_may_be_gzip() -> None:
    assert undo(chunked(gzip.compress(PAGE)), transfer=("gzip", "chunked")) == PAGE


@pytest.mark.parametrize("coding", sorted(ENCODE))
def test_a_body_stored_decoded_is_taken_as_it_is(coding: str) -> None:
    assert undo(PAGE, coding) == PAGE
    assert undo(b"", coding) == b""


def test_an_unknown_coding_is_ignored_over_text_only() -> None:
    assert undo(PAGE, "utf-8") == PAGE
    assert dropped(b"\x1f\x9d\x90\x00\x01", "compress").rule == "read.bad_encoding"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_truncated_body_is_dropped_not_kept_by_half(coding: str) -> None:
    data = random.Random(0).randbytes(3000).hex().encode()
    encoded = ENCODE[coding](data)
    assert undo(encoded, coding) == data
    for length in (len(encoded) - 1, len(encoded) // 2, 20):
        assert dropped(encoded[:length], coding).rule == "read.bad_encoding"


def test_a_wrong_checksum_drops_the_body() -> None:
    encoded = bytearray(gzip.compress(PAGE))
    encoded[-6] ^= 1
    assert dropped(bytes(encoded), "gzip").rule == "read.bad_encoding"


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n9\r\nworld\r\n0\r\n\r\n",
        b"5\r\nhello\r\n3\r\nworld\r\n0\r\n\r\n",
        b"5\r\nhello\r\nx\r\n",
    ],
    ids=["too long a chunk", "too short a chunk", "no size"],
)
def test_a_wrong_chunk_drops_the_body(body: bytes) -> None:
    assert dropped(body, transfer=CHUNKED).rule == "read.bad_chunk"


@pytest.mark.parametrize(
    "body",
    [
        b"2024\n\nA year and what came of it.",
        b"2024\r\nA year and what came of it.",
        b"5\r\nhello world\r\n0\r\n\r\n",
        b"ffffffffff\r\nhello",
        b"c\nis not a chunk",
        b"<html>",
    ],
)
def test_a_body_that_only_looks_chunked_is_taken_as_it_is(body: bytes) -> None:
    assert decode_body(body, CHUNKED, (), Read()) == (body, False)


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        (chunked(PAGE)[:-5], PAGE),
        (chunked(PAGE)[:-7], PAGE),
        (chunked(PAGE)[:3000], chunked(PAGE)[5:1005] + chunked(PAGE)[1012:2012] + chunked(PAGE)[2019:3000]),
        (chunked(PAGE)[:500], PAGE[:495]),
    ],
    ids=["no last chunk", "no line break either", "inside a chunk", "inside the first"],
)
def test_chunks_that_break_off_give_what_is_there(body: bytes, rest: bytes) -> None:
    assert decode_body(body, CHUNKED, (), Read()) == (rest, True)
    assert decode_body(chunked(PAGE), CHUNKED, (), Read()) == (PAGE, False)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_is_known_to_break_off_gives_what_can_be_decoded(coding: str) -> None:
    data = b"<html>" + random.Random(0).randbytes(200_000).hex().encode()
    encoded = ENCODE[coding](data)
    body, is_truncated = decode_body(encoded[: len(encoded) * 3 // 4], (), (coding,), Read(), is_truncated=True)
    assert is_truncated
    assert data.startswith(body)
    assert len(body) > 50_000
    assert decode_body(chunked(encoded, 1 << 16)[: 3 << 16], CHUNKED, (coding,), Read())[1]


def test_chunks_may_have_extensions_bare_line_feeds_and_trailers() -> None:
    body = b"5;name=value\r\nhello\r\n1\n!\n0\r\nX-Trailer: y\r\n\r\nrest"
    assert undo(body, transfer=CHUNKED) == b"hello!"


def test_a_bomb_is_dropped_with_its_ratio() -> None:
    bomb = gzip.compress(bytes(20 << 20))
    fault = dropped(bomb, "gzip", read=Read(max_ratio=100))
    assert (fault.rule, fault.threshold) == ("read.ratio", 100)
    assert 100 < (fault.value or 0) < 101


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_longer_than_allowed_is_dropped_without_being_unpacked(coding: str) -> None:
    read = Read(max_decoded_bytes=2 << 20, max_ratio=1e9)
    exact, over = bytes(2 << 20), bytes((2 << 20) + 1)
    assert undo(ENCODE[coding](exact), coding, read=read) == exact
    assert dropped(ENCODE[coding](over), coding, read=read).rule == "read.decoded_too_long"
    fault = dropped(ENCODE[coding](bytes(80 << 20)), coding, read=read)
    assert (fault.rule, fault.threshold) == ("read.decoded_too_long", 2 << 20)
    assert (fault.value or 0) < 70 << 20


def test_small_bodies_may_have_any_ratio() -> None:
    data = bytes(1 << 20)
    assert undo(gzip.compress(data), "gzip", read=Read(max_ratio=2)) == data
    assert dropped(gzip.compress(data + b"\0"), "gzip", read=Read(max_ratio=2)).rule == "read.ratio"


@pytest.mark.parametrize("coding", sorted(CODINGS))
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_dropped(coding: str, body: bytes) -> None:
    for data in (body, ENCODE[coding](PAGE)[:50] + body):
        with contextlib.suppress(Dropped):
            undo(data, coding)

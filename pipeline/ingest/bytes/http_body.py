"""HTTP responses as archives hold them: status, headers, and the body with its encodings undone.

Tolerant where archives are sloppy (bare line feeds, folded lines, no end of the header, bodies stored decoded under the
headers of the encoded ones), strict where a page would be half: a truncated or wrong encoding costs the record.
"""

import functools
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import brotli

from pipeline.ingest.bytes.compression import ZSTD, Decoder
from schemas.recipe import Read

__all__ = ["Dropped", "Response", "decode_body", "media_type", "parse_response"]

STATUS = re.compile(rb"\s*(?:HTTP|ICY)(?:/\d+(?:\.\d+)?)?[ \t]+(\d{3})(?!\d)[^\n]*(?:\n|\Z)", re.IGNORECASE)
FIELDS = re.compile(
    rb"^(content-type|content-encoding|transfer-encoding)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)",
    re.IGNORECASE | re.MULTILINE,
)
FOLD = re.compile(rb"\r?\n[ \t]+")
END_OF_HEADER = re.compile(rb"\n\r?\n")
CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';,]+)")
MEDIA_TYPE = re.compile(r"[\w.+*-]+/[\w.+*-]+", re.ASCII)
LAST_CHUNK = b"0\r\n\r\n"
CHUNK_END = re.compile(rb"\r?\n")
CHUNK = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")
BINARY = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<")
SNIFF_BYTES = 1024
MAX_HEADER_BYTES = 1 << 20
RATIO_FREE_BYTES = 1 << 20  # read.max_ratio applies above
BROTLI_BYTES = 1 << 20  # unpacked at once
NO_CODING = frozenset({"", "identity", "none", "8bit", "binary"})


class Dropped(Exception):
    """A record is dropped: rule, measured value, threshold."""

    def __init__(self, rule: str, value: float | None = None, threshold: float | None = None) -> None:
        super().__init__(rule)
        self.rule, self.value, self.threshold = rule, value, threshold


@dataclass(slots=True)
class Response:
    """A response's head, and where its body begins in the block."""

    status: int
    body: int
    mime: str | None
    charset: str | None
    transfer: tuple[str, ...]  # transfer codings in the order they were applied
    content: tuple[str, ...]  # content codings likewise


def parse_response(data: bytes, start: int, end: int) -> Response | None:
    """The head of the response in data[start:end]; None without a status line."""
    status = STATUS.match(data, start, end)
    if status is None:
        return None
    body = _end_of_header(data, status.end(), end)
    kind = transfer = content = ""
    # A field given twice: codings add up, of types the last counts (as in browsers).
    for name, value in FIELDS.findall(data, status.end() - 1, body):
        if b"\n" in value:
            value = FOLD.sub(b" ", value)
        match name[8:9].lower():
            case b"t":  # content-type
                kind = value.decode("latin-1")
            case b"e":  # content-encoding
                content += "," + value.decode("latin-1")
            case _:  # transfer-encoding
                transfer += "," + value.decode("latin-1")
    mime, charset = media_type(kind)
    return Response(int(status[1]), body, mime, charset, _codings(transfer), _codings(content))


def _end_of_header(data: bytes, start: int, end: int) -> int:
    """Index of the body: past the blank line, or before the first line of markup where there is none."""
    if data[start : start + 1] == b"\n":
        return start + 1
    if data[start : start + 2] == b"\r\n":
        return start + 2
    blank = END_OF_HEADER.search(data, start, min(end, start + MAX_HEADER_BYTES))
    limit = blank.end() if blank else end
    # Without a blank line of its own the header would swallow the page up to the first empty line in it.
    markup = data.find(b"\n<", start - 1, limit)
    return limit if markup < 0 else markup + 1


@functools.lru_cache(256)
def _codings(value: str) -> tuple[str, ...]:
    names = [name.strip().strip("\"'").lower() for name in value.split(",")]
    return tuple(name.removeprefix("x-") for name in names if name not in NO_CODING)


@functools.lru_cache(1024)
def media_type(value: str) -> tuple[str | None, str | None]:
    """(type, charset) of a Content-Type, lower-cased; None for what is missing or no media type."""
    lowered = value.lower()
    mime = lowered.partition(";")[0].partition(",")[0].strip()
    charset = CHARSET.search(lowered)
    return (mime if MEDIA_TYPE.fullmatch(mime) else None), (charset[1] if charset else None)


def decode_body(
    body: bytes, transfer: tuple[str, ...], content: tuple[str, ...], read: Read, is_truncated: bool = False
) -> tuple[bytes, bool]:
    """Return the body with its codings undone, the last applied first, and whether it breaks off. Raises Dropped.

    A body that is known to break off gives what can be decoded of it; so does one whose chunks end before the last.
    """
    room = _Room(len(body), read, is_truncated)
    for coding in [*reversed(transfer), *reversed(content)]:
        undo = CODINGS.get(coding)
        if undo is not None:
            body = undo(body, room)
        elif not _is_text(body):
            raise Dropped("read.bad_encoding")
    if len(body) > read.max_decoded_bytes:
        raise Dropped("read.decoded_too_long", len(body), read.max_decoded_bytes)
    return body, room.is_truncated


class _Room:
    """How far a body of `stored` bytes may unpack, and whether it breaks off."""

    def __init__(self, stored: int, read: Read, is_truncated: bool = False) -> None:
        self._stored, self._read, self.is_truncated = stored, read, is_truncated
        self.bytes = min(read.max_decoded_bytes, max(RATIO_FREE_BYTES, int(read.max_ratio * stored)))

    def collect(self, parts: Iterator[bytes]) -> bytes:
        """All parts, unless they outgrow the room: a bomb is not unpacked further than that."""
        held, size = [], 0
        for part in parts:
            held.append(part)
            size += len(part)
            if size > self.bytes:
                raise self._overflow(size)
        return held[0] if len(held) == 1 else b"".join(held)

    def _overflow(self, size: int) -> Dropped:
        if size > self._read.max_decoded_bytes:
            return Dropped("read.decoded_too_long", size, self._read.max_decoded_bytes)
        return Dropped("read.ratio", size / self._stored, self._read.max_ratio)


def _is_text(body: bytes) -> bool:
    return MARKUP.match(body) is not None or not BINARY.search(body[:SNIFF_BYTES])


def _unchunk(body: bytes, room: _Room) -> bytes:
    """Undo chunked; a body whose first line and what follows are no chunk was stored decoded.

    Chunks that end before the last one, which is empty, give what is there: the body breaks off.
    """
    parts: list[bytes] = []
    at = 0
    while at < len(body):
        size = CHUNK.match(body, at)
        if size is None:
            return _not_chunked(body, parts)
        length = int(size[1], 16)
        if length == 0:
            return b"".join(parts)
        end = size.end() + length
        if end > len(body):
            if not parts and not _begins_like_a_page(body[size.end() :]):
                return body
            if body.endswith(LAST_CHUNK):
                raise Dropped("read.bad_chunk")
            room.is_truncated = True
            return b"".join([*parts, body[size.end() :]])
        parts.append(body[size.end() : end])
        if end == len(body):
            at = end
        elif line_break := CHUNK_END.match(body, end):
            at = line_break.end()
        else:
            return _not_chunked(body, parts[:-1])
    room.is_truncated = room.is_truncated or bool(parts)
    return b"".join(parts)


def _not_chunked(body: bytes, parts: list[bytes]) -> bytes:
    """The body as stored where not even its first chunk was one. Raises Dropped where later ones are wrong."""
    if parts:
        raise Dropped("read.bad_chunk")
    return body


def _begins_like_a_page(chunk: bytes) -> bool:
    """Whether a first chunk that is not complete begins as bodies do: with markup or a compression's magic."""
    return MARKUP.match(chunk) is not None or chunk[:2] == b"\x1f\x8b"


def _ungzip(body: bytes, room: _Room) -> bytes:
    """Undo gzip; a body without its magic was stored decoded."""
    return room.collect(_members(body, room)) if body[:2] == b"\x1f\x8b" else body


def _members(body: bytes, room: _Room) -> Iterator[bytes]:
    """A gzip body's members; what follows the last one is ignored, as browsers do."""
    while body[:2] == b"\x1f\x8b":
        decoder = zlib.decompressobj(31)
        yield _inflate(decoder, body, room)
        body = decoder.unused_data


def _inflate(decoder: "zlib._Decompress", body: bytes, room: _Room) -> bytes:
    try:
        data = decoder.decompress(body, room.bytes + 1)
    except zlib.error:
        raise Dropped("read.bad_encoding") from None
    if not decoder.eof and len(data) <= room.bytes and not room.is_truncated:
        raise Dropped("read.bad_encoding")
    return data


def _undeflate(body: bytes, room: _Room) -> bytes:
    """Undo deflate, with zlib's header or raw: servers send both."""
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
    for window_bits in (15, -15) if has_header else (-15,):
        try:
            return room.collect(iter([_inflate(zlib.decompressobj(window_bits), body, room)]))
        except Dropped as dropped:
            if dropped.rule != "read.bad_encoding":
                raise
    return _stored_decoded(body)


def _unbrotli(body: bytes, room: _Room) -> bytes:
    decoder = brotli.Decompressor()

    def parts() -> Iterator[bytes]:
        part = decoder.process(body, output_buffer_limit=BROTLI_BYTES)
        while part:
            yield part
            part = b"" if decoder.is_finished() else decoder.process(b"", output_buffer_limit=BROTLI_BYTES)

    try:
        data = room.collect(parts())
    except brotli.error:
        return _stored_decoded(body)
    return data if decoder.is_finished() or (room.is_truncated and data) else _stored_decoded(body)


def _unzstd(body: bytes, room: _Room) -> bytes:
    return room.collect(_zstd_parts(body, room)) if ZSTD.start.match(body) else _stored_decoded(body)


def _zstd_parts(body: bytes, room: _Room) -> Iterator[bytes]:
    rest = memoryview(body)
    while ZSTD.start.match(rest):
        decoder = Decoder(ZSTD)
        try:
            while rest and not decoder.ended:
                block = rest[: ZSTD.feed_bytes]
                yield decoder.decode(block)
                rest = rest[len(block) - decoder.unused :]
        except ZSTD.errors:
            raise Dropped("read.bad_encoding") from None
        if not decoder.ended and not room.is_truncated:
            raise Dropped("read.bad_encoding")


def _stored_decoded(body: bytes) -> bytes:
    """A body that is text already although its header says otherwise; encodings without a magic are told that way."""
    if _is_text(body):
        return body
    raise Dropped("read.bad_encoding")


CODINGS: dict[str, Callable[[bytes, _Room], bytes]] = {
    "chunked": _unchunk,
    "gzip": _ungzip,
    "deflate": _undeflate,
    "br": _unbrotli,
    "zstd": _unzstd,
}

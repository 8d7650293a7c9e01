"""Headers of WARC (0.17 to 1.1) and ARC (1.0, 1.1) records, and the digests that they declare."""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from pipeline.ingest.records import COUNTED_TYPES, LEDGER_TYPES, arc_millis, iso_millis

__all__ = ["ARC", "MAX_HEADER_BYTES", "WARC", "Format", "Header", "digest_agrees"]

MAX_HEADER_BYTES = 1 << 20
DIGEST_BYTES = {"md5": 16, "sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}

WARC_VERSION = rb"WARC/\d+\.\d+[ \t]*\r?\n"
ARC_LINE = (
    rb"(?:filedesc:[^\r\n]{0,8192} (?P<rest>\d{1,18})"
    rb"|(?P<url>[A-Za-z][A-Za-z0-9+.-]*:[^\r\n]{0,8192}?) (?P<ip>\S+) (?P<date>\d{12}|\d{14}) "
    rb"(?:(?P<mime>[^\r\n]{0,1024}?) )?(?P<length>\d{1,18}))[ \t]*\r?\n"
)
FIELDS = re.compile(
    rb"^(warc-type|content-length|warc-record-id|warc-target-uri|warc-date|content-type|warc-block-digest"
    rb"|warc-truncated|warc-identified-payload-type)"
    rb"[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)",
    re.IGNORECASE | re.MULTILINE,
)
FOLD = re.compile(rb"\r?\n[ \t]+")  # a folded line goes on with the one before
END_OF_HEADER = re.compile(rb"\n\r?\n")


@dataclass(slots=True)
class Header:
    """What the reader needs of a record's header."""

    size: int  # bytes of the header, its blank line included
    length: int  # bytes of the block
    type: str
    record_id: str | None = None
    url: str | None = None
    date: int | None = None
    mime: str | None = None  # of the block; ARC: of the payload
    digest: bytes | None = None  # WARC-Block-Digest
    identified: str | None = None  # WARC-Identified-Payload-Type
    is_truncated: bool = False  # WARC-Truncated


@dataclass(frozen=True)
class Format:
    """WARC or ARC: how a record begins, at the start of a frame and elsewhere, and where its header ends."""

    name: str
    start: re.Pattern[bytes]
    find: re.Pattern[bytes]
    is_line: bool  # the header is one line

    def begins(self, data: bytes) -> bool:
        """Whether a record begins with `data`."""
        return self.start.match(data) is not None

    def end_of_header(self, data: bytes | memoryview, at: int) -> int | None:
        """Index past the header that begins at `at`; None where `data` ends in it."""
        match = self.start.match(data, at) if self.is_line else END_OF_HEADER.search(data, at)
        return match.end() if match else None

    def parse(self, head: bytes) -> Header | None:
        """A header; None where it does not say how long its record is."""
        return _parse_arc(head) if self.is_line else _parse_warc(head)


WARC = Format(
    "warc", re.compile(WARC_VERSION, re.IGNORECASE), re.compile(rb"(?<=\n)" + WARC_VERSION, re.IGNORECASE), False
)
ARC = Format("arc", re.compile(ARC_LINE), re.compile(rb"(?<=\n)" + ARC_LINE), True)


def _parse_warc(head: bytes) -> Header | None:
    fields: dict[bytes, bytes] = {}
    for name, value in FIELDS.findall(head):
        value = value.strip()
        fields.setdefault(name.lower(), FOLD.sub(b" ", value) if b"\n" in value else value)
    length = fields.get(b"content-length", b"")
    if not length.isdigit() or len(length) > 18:
        return None
    kind = fields.get(b"warc-type", b"").lower().decode("latin-1")
    date = fields.get(b"warc-date")
    return Header(
        size=len(head),
        length=int(length),
        type=kind if kind in LEDGER_TYPES or kind in COUNTED_TYPES else "unknown",
        record_id=_bare(fields.get(b"warc-record-id")),
        url=_bare(fields.get(b"warc-target-uri")),
        date=iso_millis(date.decode("latin-1")) if date else None,
        mime=_text(fields.get(b"content-type")),
        digest=fields.get(b"warc-block-digest"),
        identified=_text(fields.get(b"warc-identified-payload-type")),
        is_truncated=bool(fields.get(b"warc-truncated")),
    )


def _parse_arc(head: bytes) -> Header | None:
    match = ARC.start.match(head)
    if match is None:
        return None
    if match["rest"] is not None:
        return Header(size=len(head), length=int(match["rest"]), type="warcinfo")
    return Header(
        size=len(head),
        length=int(match["length"]),
        type="response",
        url=_text(match["url"]),
        date=arc_millis(match["date"].decode()),
        # ARC 1.1 has status, checksum and more behind the type.
        mime=_text((match["mime"] or b"").split(b" ")[0]),
    )


def _text(value: bytes | None) -> str | None:
    return value.decode("utf-8", "replace") if value else None


def _bare(value: bytes | None) -> str | None:
    """A URI without the angle brackets that WARC puts around ids and wget around URLs."""
    if value and value[:1] == b"<" and value[-1:] == b">":
        value = value[1:-1].strip()
    return _text(value)


def digest_agrees(declared: bytes | None, block: bytes | memoryview) -> bool | None:
    """Whether a block has the digest declared for it; None where none is declared that can be checked."""
    if declared is None:
        return None
    label, _, digits = declared.partition(b":")
    algorithm = label.strip().lower().replace(b"-", b"").decode("latin-1")
    size = DIGEST_BYTES.get(algorithm)
    expected = _digest_bytes(digits.strip(), size) if size else None
    if expected is None:
        return None
    return hashlib.new(algorithm, block, usedforsecurity=False).digest() == expected


def _digest_bytes(digits: bytes, size: int) -> bytes | None:
    """The digest of `size` bytes that is written in hex or base32."""
    digits = digits.rstrip(b"=")
    try:
        if len(digits) == 2 * size:
            return binascii.unhexlify(digits)
        if len(digits) == -(-8 * size // 5):
            return base64.b32decode(digits.upper() + b"=" * (-len(digits) % 8))
    except ValueError:
        pass
    return None

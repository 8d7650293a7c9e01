"""Archives made for the tests of reading, and a way to read bytes as if they were a crawl file."""

import base64
import gzip
import hashlib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import lz4.frame
import zstandard

from pipeline.ingest.read import check_pieces, read_piece
from pipeline.ingest.receipts import Piece, PieceReceipt
from pipeline.ingest.records import Record
from schemas.recipe import Read, Source

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
DATE = "2024-05-06T07:08:09Z"
DATE_MILLIS = 1_714_979_289_000


def warc(kind: str, block: bytes, url: str = "http://a.test/", number: int = 0, **fields: str) -> bytes:
    """A WARC record with a right block digest; a field given as "" is left out (`Content_Length=""`)."""
    digest = base64.b32encode(hashlib.sha1(block).digest()).decode()
    header = {
        "WARC-Type": kind,
        "WARC-Record-ID": f"<urn:uuid:{number}>",
        "WARC-Target-URI": url,
        "WARC-Date": DATE,
        "WARC-Block-Digest": f"sha1:{digest}",
        "Content-Type": f"application/http; msgtype={kind}",
        "Content-Length": str(len(block)),
    }
    header.update({name.replace("_", "-"): value for name, value in fields.items()})
    lines = "".join(f"{name}: {value}\r\n" for name, value in header.items() if value)
    return f"WARC/1.0\r\n{lines}\r\n".encode() + block + b"\r\n\r\n"


def http(body: bytes, kind: str = "text/html; charset=utf-8", status: str = "200 OK", **fields: str) -> bytes:
    """An HTTP response."""
    lines = [f"HTTP/1.1 {status}", *([f"Content-Type: {kind}"] if kind else [])]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, always the same."""
    blocks = (hashlib.sha256(b"%d %d" % (seed, at)).digest() for at in range(-(-size // 32)))
    return b"".join(blocks)[:size]


def page(number: int, size: int = 300) -> bytes:
    """The record of a page whose text is hard to compress."""
    text = noise(size, number).hex().encode()
    return warc("response", http(b"<html>%d %s</html>" % (number, text)), f"http://a.test/{number}", number)


def zstd_frame(data: bytes, checksum: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=checksum).compress(data)


def lz4_frame(data: bytes, checksum: bool = True) -> bytes:
    return lz4.frame.compress(data, content_checksum=checksum)


def gzip_member(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)


def in_blocks(records: Iterable[bytes]) -> bytes:
    """Block compression: members of 1,000 bytes, wherever records end."""
    data = b"".join(records)
    return b"".join(gzip_member(data[at : at + 1000]) for at in range(0, len(data), 1000))


# Name -> how records become a file.
CONTAINERS: dict[str, Callable[[list[bytes]], bytes]] = {
    "plain.warc": b"".join,
    "members.warc.gz": lambda records: b"".join(map(gzip_member, records)),
    "single.warc.gz": lambda records: gzip_member(b"".join(records)),
    "blocks.warc.gz": in_blocks,
    "frames.warc.zst": lambda records: b"".join(map(zstd_frame, records)),
    "unchecked.warc.zst": lambda records: b"".join(zstd_frame(record, False) for record in records),
    "single.warc.zst": lambda records: zstd_frame(b"".join(records)),
    "frames.warc.lz4": lambda records: b"".join(map(lz4_frame, records)),
    "unchecked.warc.lz4": lambda records: b"".join(lz4_frame(record, False) for record in records),
}


def read_pieces(
    path: Path, cuts: list[int], form: str = "warc", source: Source | None = None, read: Read | None = None
) -> tuple[list[Record], list[PieceReceipt]]:
    """The records of a file read in pieces between `cuts`, which are checked to abut, and their receipts."""
    size = path.stat().st_size
    source = source or Source(root=str(path.parent))
    records, receipts = [], []
    for start, end in itertools.pairwise([0, *cuts, size]):
        reader = read_piece(Piece(path.name, str(path), form, start, end, size, ""), source, read or Read())
        records += list(reader)
        receipts.append(reader.receipt)
    check_pieces(receipts)
    return records, receipts


def read_bytes(
    folder: Path,
    data: bytes,
    name: str = "a.warc",
    form: str = "warc",
    source: Source | None = None,
    read: Read | None = None,
) -> tuple[list[Record], PieceReceipt]:
    """The records of a file of these bytes, read in one piece, and its receipt."""
    path = folder / name
    path.write_bytes(data)
    records, receipts = read_pieces(path, [], form, source, read)
    return records, receipts[0]

"""The compressions of crawl files, one frame at a time: gzip members, zstd and lz4 frames, bzip2 and xz streams.

A frame is the unit of damage: a decoder is fed from the frame's start and knows where it ends.
"""

import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lz4.frame
import zstandard

__all__ = ["BLOCK_BYTES", "BZIP2", "GZIP", "LZ4", "XZ", "ZSTD", "Codec", "Decoder", "find_codec", "zstd_codec"]

BLOCK_BYTES = 1 << 16  # salvage from a damaged gzip member varies with the feed, so it is fixed
HEAD_BYTES = 18  # a gzip header without extra fields; more than enough to tell a frame's kind
# Pushshift and others compress with a window of 2 GiB (`zstd --long=31`); a decoder takes what the frame asks for.
MAX_WINDOW_BYTES = 1 << 31


@dataclass(frozen=True)
class Codec:
    """One compression: how a frame begins, how it is decoded, whether it attests its content."""

    name: str
    start: re.Pattern[bytes]
    new_decoder: Callable[[], Any]
    errors: tuple[type[Exception], ...]
    has_checksum: Callable[[bytes], bool]  # of a frame's first bytes
    feed_bytes: int = BLOCK_BYTES  # what a decoder takes at once; bounds what a bomb unpacks at once to 66 MB
    has_skippable: bool = True
    has_padding: bool = False  # zeros, four at a time, may stand between frames

    def skippable_bytes(self, head: bytes) -> int | None:
        """Length of the skippable frame or padding that begins with `head`; None where it is none."""
        if self.has_padding:
            zeros = len(head) - len(head.lstrip(b"\0"))
            return zeros // 4 * 4 or None
        if not self.has_skippable or len(head) < 8 or not SKIPPABLE.match(head):
            return None
        return 8 + int.from_bytes(head[4:8], "little")


class Decoder:
    """Decodes one frame, a block at a time; `ended` once its last byte was fed, with `unused` bytes left over."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._decoder = codec.new_decoder()
        self.ended = False
        self.unused = 0

    def decode(self, block: memoryview) -> bytes:
        """The decoded bytes of a block. Raises one of `codec.errors`; what the block gave until then is lost."""
        step = self._codec.feed_bytes
        if len(block) <= step:
            return self._feed(block, 0)
        parts = []
        for start in range(0, len(block), step):
            parts.append(self._feed(block[start : start + step], max(0, len(block) - start - step)))
            if self.ended:
                break
        return b"".join(parts)

    def _feed(self, block: memoryview, rest: int) -> bytes:
        data: bytes = self._decoder.decompress(block)
        if self._decoder.eof:
            self.ended = True
            self.unused = len(self._decoder.unused_data or b"") + rest
        return data


SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")

GZIP = Codec(
    name="gzip",
    start=re.compile(rb"\x1f\x8b\x08[\x00-\x1f]"),
    new_decoder=lambda: zlib.decompressobj(31),
    errors=(zlib.error,),
    has_checksum=lambda head: True,
    has_skippable=False,
)

LZ4 = Codec(
    name="lz4",
    start=re.compile(rb"\x04\x22\x4d\x18"),
    new_decoder=lz4.frame.LZ4FrameDecompressor,
    errors=(RuntimeError, ValueError),
    has_checksum=lambda head: len(head) > 4 and bool(head[4] & 0b10100),  # of the content, or of each block
)


BZIP2 = Codec(
    name="bzip2",
    start=re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
    new_decoder=bz2.BZ2Decompressor,
    errors=(OSError, ValueError),
    has_checksum=lambda head: True,
    feed_bytes=256,  # a block of 40 bytes may hold 46 MB
    has_skippable=False,
)

XZ = Codec(
    name="xz",
    start=re.compile(rb"\xfd7zXZ\0"),
    new_decoder=lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW_BYTES),
    errors=(lzma.LZMAError,),
    has_checksum=lambda head: len(head) > 7 and bool(head[7] & 0x0F),
    feed_bytes=2048,
    has_skippable=False,
    has_padding=True,
)


def zstd_codec(dictionary: bytes = b"") -> Codec:
    """zstd, with the dictionary that a `.warc.zst` may begin with."""
    trained = zstandard.ZstdCompressionDict(dictionary) if dictionary else None
    return Codec(
        name="zstd",
        start=re.compile(rb"\x28\xb5\x2f\xfd"),
        # A decompressor of its own for each frame: two frames may be open at once.
        new_decoder=lambda: zstandard.ZstdDecompressor(trained, max_window_size=MAX_WINDOW_BYTES).decompressobj(),
        errors=(zstandard.ZstdError,),
        has_checksum=lambda head: len(head) > 4 and bool(head[4] & 0b100),
        feed_bytes=2048,  # 64 KiB may hold 16,384 blocks of 128 KiB of one byte each
    )


ZSTD = zstd_codec()
EXTENSIONS = {".gz": GZIP, ".zst": ZSTD, ".zstd": ZSTD, ".lz4": LZ4, ".bz2": BZIP2, ".xz": XZ}


def find_codec(head: bytes, name: str, is_plain: bool) -> Codec | None:
    """The compression of a file, by its first bytes, then by its name; None: not compressed.

    The name decides only where the first bytes are neither a frame nor, by `is_plain`, the content itself: a file
    whose first byte is damaged keeps its other frames.
    """
    for codec in (GZIP, ZSTD, LZ4, BZIP2, XZ):
        if codec.start.match(head):
            return codec
    named = next((codec for extension, codec in EXTENSIONS.items() if name.lower().endswith(extension)), None)
    if SKIPPABLE.match(head):
        return named if named in (ZSTD, LZ4) else ZSTD
    return None if is_plain else named


def dictionary_of(frame: bytes) -> bytes:
    """The dictionary in a file's first skippable frame (0x184D2A5D), itself compressed or not; empty: none there.

    IIPC WARC specifications, "Zstandard compression".
    """
    content = frame[8:]
    if not frame.startswith(b"\x5d\x2a\x4d\x18"):
        return b""
    if not ZSTD.start.match(content):
        return content
    try:
        return zstandard.ZstdDecompressor().decompress(content, max_output_size=1 << 27)
    except zstandard.ZstdError:
        return b""

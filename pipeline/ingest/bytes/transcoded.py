"""UTF-16 streams as UTF-8: frames keep their places, offsets count decoded UTF-8."""

import codecs
import re
from collections.abc import Iterator

from pipeline.ingest.bytes.decoded_stream import FrameSource
from pipeline.ingest.bytes.frames import Frame

__all__ = ["Transcoded", "utf16_of"]

# Text in ASCII characters makes every other byte zero.
LITTLE, BIG = re.compile(rb"(?:[\t\r\n -~]\0){2}"), re.compile(rb"(?:\0[\t\r\n -~]){2}")


def utf16_of(head: bytes) -> str | None:
    """Return the UTF-16 that a stream begins in, by its mark or its zeros; None for any other."""
    if head.startswith(codecs.BOM_UTF16_LE) or LITTLE.match(head):
        return "utf-16-le"
    return "utf-16-be" if head.startswith(codecs.BOM_UTF16_BE) or BIG.match(head) else None


class Transcoded:
    """The frames of a UTF-16 stream with their bytes as UTF-8; what is no UTF-16 becomes U+FFFD.

    Plain bytes count as decoded: a record is placed by its offset in the UTF-8.
    """

    def __init__(self, source: FrameSource, encoding: str) -> None:
        self._source, self._encoding = source, encoding
        self.decoded = 0

    @property
    def limit(self) -> int:
        """The end of the input split."""
        return self._source.limit

    @property
    def covered(self) -> int:
        """How far frames and damaged ranges tile the file."""
        return self._source.covered

    def __iter__(self) -> Iterator[tuple[Frame, bytes]]:
        decoder = codecs.getincrementaldecoder(self._encoding)("replace")
        held: tuple[Frame, bytes] | None = None
        for frame, data in self._source:
            frame.is_plain = False
            if held is not None:
                yield self._counted(*held)
            held = (frame, decoder.decode(data).encode())
        if held is not None:
            frame, data = held
            yield self._counted(frame, data + decoder.decode(b"", final=True).encode())

    def fate(self, frame: Frame) -> str:
        """What the frame is or turns out to be."""
        return self._source.fate(frame)

    def digest(self) -> str:
        """sha256 of the bytes read (hex)."""
        return self._source.digest()

    def _counted(self, frame: Frame, data: bytes) -> tuple[Frame, bytes]:
        self.decoded += len(data)
        return frame, data

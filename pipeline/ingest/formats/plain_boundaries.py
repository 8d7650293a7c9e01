"""Where uncompressed files may be cut: WARC and ARC before a record, JSONL before a line."""

from collections.abc import Iterator
from typing import BinaryIO

from pipeline.ingest.bytes.frame_boundaries import CHAIN_BYTES, READ_BYTES, Window
from pipeline.ingest.formats.warc_headers import MAX_HEADER_BYTES, Format, Header
from pipeline.ingest.records import ConservationError

__all__ = ["PlainRecords", "line_boundary"]

LOOK_BYTES = 1 << 13
OVERLAP_BYTES = 1 << 15  # an ARC header is one line, with a URL in it


class PlainRecords:
    """The records of an uncompressed archive as their headers tell them: the counterpart of frames."""

    def __init__(self, file: BinaryIO, size: int, form: Format) -> None:
        self.size, self._format = size, form
        self._window = Window(file, 0, size)

    def find(self, cut: int, end: int) -> int | None:
        """The first boundary in [cut, end): a record whose followers are records too, as far as CHAIN_BYTES.

        Records are followed from CHAIN_BYTES before the cut on, so that an archive stored inside a record is passed
        over: its records look like any others.
        """
        if cut == 0:
            return 0
        at = self._next_chain(max(0, cut - CHAIN_BYTES), end)
        while at is not None and at < cut:
            after = self._after(at)
            at = self._next_chain(at + 1, end) if after is None else after
        if at is not None and not self.chain(at)[0]:
            at = self._next_chain(at + 1, end)
        return at if at is not None and at < min(end, self.size) else None

    def _next_chain(self, start: int, end: int) -> int | None:
        """The first record in [start, end) with a chain."""
        at = self._next_start(start, end)
        while at is not None:
            holds, reached = self.chain(at)
            if holds:
                return at
            # Every record of a broken chain has a broken chain.
            at = self._next_start(max(at, reached) + 1, end)
        return None

    def _after(self, position: int) -> int | None:
        """Where the record after the one at `position` begins; None where there is none, or it has no end."""
        header = self._header(position)
        if header is None or position + header.size + header.length > self.size:
            return None
        return self._pass_line_breaks(position + header.size + header.length)

    def chain(self, position: int) -> tuple[bool, int]:
        """Whether records follow each other from `position` on for CHAIN_BYTES or to the end, and how far."""
        at = position
        while at < self.size:
            after = self._after(at)
            if after is None:
                return False, at
            if at - position >= CHAIN_BYTES:
                return True, at
            at = after
        return True, at

    def refuse_straddling(self, end: int) -> None:
        """Raise where a record that goes past a boundary to `end` is a true one: the boundary is none."""
        if end <= self.size and self.chain(self._pass_line_breaks(end))[0]:
            raise ConservationError(
                f"a record ends at byte {end}, past a boundary that seems to lie in an archive in the archive: "
                "raise read.part_bytes above the file's size to leave it whole"
            )

    def _next_start(self, start: int, end: int) -> int | None:
        at = max(0, start - 1)  # a record begins behind a line break
        while at < end:
            block = bytes(self._window.view(at, READ_BYTES))
            for match in self._format.find.finditer(block):
                if match.start() + at >= end:
                    return None
                if match.start() + at >= start:
                    return at + match.start()
            at += max(1, len(block) - OVERLAP_BYTES) if len(block) == READ_BYTES else len(block)
        return None

    def _header(self, position: int) -> Header | None:
        for length in (LOOK_BYTES, MAX_HEADER_BYTES):
            block = self._window.view(position, length)
            if not self._format.is_line and not self._format.start.match(block):
                return None
            end = self._format.end_of_header(block, 0)
            if end is not None:
                return self._format.parse(bytes(block[:end]))
        return None

    def _pass_line_breaks(self, position: int) -> int:
        while block := self._window.view(position, 64):
            rest = bytes(block).lstrip(b"\r\n")
            position += len(block) - len(rest)
            if rest:
                break
        return position


def line_boundary(file: BinaryIO, size: int, cut: int) -> int:
    """The first line start at or after `cut`; `size` if there is none."""
    if cut == 0:
        return 0
    window = Window(file, cut - 1, size)
    for at in _blocks(cut - 1, size):
        line_break = bytes(window.view(at, READ_BYTES)).find(b"\n")
        if line_break >= 0:
            return at + line_break + 1
    return size


def _blocks(start: int, end: int) -> Iterator[int]:
    yield from range(start, end, READ_BYTES)

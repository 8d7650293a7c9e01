"""JSON in files: a document a line, or an array or run of values over several lines; plain or compressed."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from pipeline.ingest.bytes.decoded_stream import Decoded
from pipeline.ingest.bytes.frames import Frame
from pipeline.ingest.formats.fields import FieldNames
from pipeline.ingest.formats.json_document import BOM, JsonDocuments
from pipeline.ingest.formats.json_values import end_of_value
from pipeline.ingest.records import Record
from schemas.recipe import Read

__all__ = ["SHAPE_BYTES", "LineRecords", "Shape", "json_shape", "looks_like_jsonl"]

# How values are laid out: a line each (ended by line feeds, or by carriage returns alone), or wherever they end.
Shape = Literal["lines", "returns", "values"]
SHAPE_BYTES = 1 << 16  # of a file, to tell its shape
RETURNS = re.compile(rb"[}\]]\s*\r\s*[{\[]")


def looks_like_jsonl(head: bytes) -> bool:
    """Whether a file's first bytes are JSON, not compressed."""
    return head.removeprefix(BOM).lstrip()[:1] in (b"{", b"[")


def json_shape(head: bytes) -> Shape:
    """Return how the values of a file lie, by its first SHAPE_BYTES."""
    head = head.removeprefix(BOM).lstrip()
    line, line_feed, rest = head.partition(b"\n")
    if not line_feed and RETURNS.search(head):
        return "returns"
    if line[:1] not in (b"{", b"["):
        return "lines"
    end, _ = end_of_value(line, 0)
    if end is None:
        # A line that breaks off among others that begin anew is a corrupt line.
        is_line = line[:1] == b"{" and (not line_feed or rest.lstrip()[:1] == b"{")
        return "lines" if is_line else "values"
    return "values" if line[:1] == b"[" and not rest.strip() else "lines"


class LineRecords:
    """The ledger records of an input split, one a line that is not blank.

    `counts` says how many of each type were met; lines end with `line_end`, one byte.
    """

    def __init__(self, stream: Decoded, name: str, names: FieldNames, read: Read, line_end: bytes = b"\n") -> None:
        self._stream, self._name, self._line_end = stream, name, line_end
        self._max_bytes = read.max_record_bytes
        self._reported: Frame | None = None  # the damaged range that has its row
        self.counts: Counter[str] = Counter()
        self._documents = JsonDocuments(names, self.counts)

    def __iter__(self) -> Iterator[Record]:
        stream = self._stream
        searched = 0  # unread bytes known to hold no line break
        while True:
            end = stream.data.find(self._line_end, stream.at + searched)
            length = (end if end >= 0 else len(stream.data)) - stream.at
            if length > self._max_bytes:
                yield self._too_long()
            elif end >= 0:
                record = self._line(length, length + 1)
                if record is not None:
                    yield record
            elif stream.extend():
                searched = length
                continue
            elif stream.is_broken and stream.frame is not self._reported:
                yield self._damage()
            elif length:
                record = self._line(length, length)
                if record is not None:
                    yield record
            elif not stream.advance():
                break
            searched = 0
        stream.check()

    def _line(self, length: int, size: int) -> Record | None:
        """The record of the next line, None for a blank one; `size` counts its line break."""
        stream, start = self._stream, self._stream.tell()
        line = stream.data[stream.at : stream.at + length]
        record = None
        if line.strip().removeprefix(BOM):
            record = Record("document", self._name, *stream.place(stream.at))
            self._documents.fill(record, line)
            self.counts[record.type] += 1
        stream.at += size
        stream.account(start, stream.tell())
        return record

    def _too_long(self) -> Record:
        """Pass over a line without holding it."""
        stream, start = self._stream, self._stream.tell()
        record = Record("document", self._name, *stream.place(stream.at), rule="read.too_long")
        while (end := stream.data.find(self._line_end, stream.at)) < 0:
            stream.at = len(stream.data)
            if not stream.extend():
                break
        stream.at = end + 1 if end >= 0 else len(stream.data)
        stream.account(start, stream.tell())
        record.value, record.threshold = stream.tell() - start - (end >= 0), self._max_bytes
        if end < 0 and stream.is_broken:
            self._reported = stream.frame
            record.type, record.rule, record.value, record.threshold = "damage", "read.damaged", None, None
        self.counts[record.type] += 1
        return record

    def _damage(self) -> Record:
        """One row for a line that damage cuts off and the rest of the damaged frame."""
        stream, start = self._stream, self._stream.tell()
        record = Record("damage", self._name, *stream.place(stream.at), rule="read.damaged")
        stream.at = len(stream.data)
        stream.account(start, stream.tell())
        self._reported = stream.frame
        self.counts["damage"] += 1
        return record

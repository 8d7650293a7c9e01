"""JSON Lines: one document a line, plain or compressed."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from pipeline.ingest.bytes.decoded_stream import Decoded
from pipeline.ingest.bytes.frames import Frame
from pipeline.ingest.records import Record, iso_millis
from schemas.recipe import Read, Source

__all__ = ["LineRecords", "looks_like_jsonl"]

BOM = b"\xef\xbb\xbf"
# Escapes are the only way for half a surrogate pair into valid UTF-8.
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
WHITESPACE = re.compile(r"[ \t\r\n]*")


class Literal(str):
    """A number as it is written in the JSON."""

    __slots__ = ()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


DECODER = json.JSONDecoder(parse_int=Literal, parse_float=Literal, parse_constant=_refuse)


def looks_like_jsonl(head: bytes) -> bool:
    """Whether a file's first bytes are JSON Lines, not compressed."""
    return head.removeprefix(BOM).lstrip()[:1] in (b"{", b"[")


class LineRecords:
    """The ledger records of a piece, one a line that is not blank; `counts` says how many of each type were met."""

    def __init__(self, stream: Decoded, name: str, source: Source, read: Read) -> None:
        self._stream, self._name, self._source = stream, name, source
        self._max_bytes = read.max_record_bytes
        self._reported: Frame | None = None  # the damaged range that has its row
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Record]:
        stream = self._stream
        searched = 0  # unread bytes known to hold no line break
        while True:
            end = stream.data.find(b"\n", stream.at + searched)
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
            self._interpret(record, line)
            self.counts[record.type] += 1
        stream.at += size
        stream.account(start, stream.tell())
        return record

    def _interpret(self, record: Record, line: bytes) -> None:
        """Fill in the record's fields from its JSON."""
        try:
            text = line.decode("utf-8").removeprefix("\ufeff")
            fields = DECODER.decode(text)
        except (ValueError, RecursionError):
            record.type, record.rule = "damage", "read.damaged"
            return
        source = self._source
        if not isinstance(fields, dict):
            record.rule = "read.no_text"
            return
        whole = SURROGATE_ESCAPE.search(text) is None
        record.record_id = _clean(_id_of(fields.get(source.id_field), text, source.id_field), whole)
        record.url = _clean(_string(fields.get(source.url_field)), whole)
        date = _string(fields.get(source.date_field))
        record.date = iso_millis(date) if date else None
        record.text = _clean(_string(fields.get(source.text_field)), whole)
        if record.text is None:
            record.rule = "read.no_text"

    def _too_long(self) -> Record:
        """Pass over a line without holding it."""
        stream, start = self._stream, self._stream.tell()
        record = Record("document", self._name, *stream.place(stream.at), rule="read.too_long")
        while (end := stream.data.find(b"\n", stream.at)) < 0:
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


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and not isinstance(value, Literal) else None


def _id_of(value: Any, line: str, field: str) -> str | None:
    """An id as contracts section 1 has it: a string as it is, else the literal as written; null is none."""
    if value is None:
        return None
    if isinstance(value, str):
        return str(value)
    return _literal(line, field)


def _literal(line: str, field: str) -> str | None:
    """The text of a top-level field's value, the last one where it is given twice."""
    found = None
    at = _skip(line, line.index("{") + 1)
    while line[at] == '"':
        key, at = scanstring(line, at + 1)
        start = _skip(line, _skip(line, at) + 1)  # past the colon
        _, end = DECODER.scan_once(line, start)  # type: ignore[attr-defined]
        if key == field:
            found = line[start:end]
        at = _skip(line, end)
        if line[at] == ",":
            at = _skip(line, at + 1)
    return found


def _skip(line: str, at: int) -> int:
    match = WHITESPACE.match(line, at)
    assert match is not None
    return match.end()


def _clean(value: str | None, whole: bool) -> str | None:
    """A string that UTF-8 can hold: half a surrogate pair becomes U+FFFD."""
    if value is None or whole:
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

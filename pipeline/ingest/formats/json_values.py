"""JSON values that are not a line each: the elements of an array, or values laid out over several lines."""

import re
from collections import Counter
from collections.abc import Iterator

from pipeline.ingest.bytes.decoded_stream import Decoded
from pipeline.ingest.bytes.frames import Frame
from pipeline.ingest.formats.fields import FieldNames
from pipeline.ingest.formats.json_document import JsonDocuments
from pipeline.ingest.records import Record
from schemas.recipe import Read

__all__ = ["ValueRecords", "end_of_value"]

BETWEEN = re.compile(rb"(?:[\s,\[\]]|\xef\xbb\xbf)*")
OTHER = re.compile(rb"[^,\]\[{}\r\n]+|.", re.DOTALL)  # a number, a string or what is no value
BRACKETS = re.compile(rb"[\"{}\[\]]")
STRING_END = re.compile(rb"[\"\\]")

State = tuple[int, int, bool]  # bytes looked at, open brackets, inside a string


def end_of_value(data: bytes, at: int, state: State = (0, 0, False)) -> tuple[int | None, State]:
    """Return the index past the object or array that begins at `at`; None, and where to go on, if it does not end."""
    done, depth, in_string = state
    place = at + done
    while True:
        found = (STRING_END if in_string else BRACKETS).search(data, place)
        if found is None:
            return None, (max(place, len(data)) - at, depth, in_string)
        byte, place = found[0], found.end()
        if in_string:
            place += byte == b"\\"  # and what it escapes
            in_string = byte == b"\\"
        elif byte == b'"':
            in_string = True
        else:
            depth += 1 if byte in b"{[" else -1
            if depth <= 0:
                return place, (0, 0, False)


class ValueRecords:
    """The ledger records of an input split, one an object at the top or in an array that stands there.

    `counts` says how many of each type were met.
    """

    def __init__(self, stream: Decoded, name: str, names: FieldNames, read: Read) -> None:
        self._stream, self._name, self._max_bytes = stream, name, read.max_record_bytes
        self._reported: Frame | None = None  # the damaged range that has its row
        self.counts: Counter[str] = Counter()
        self._documents = JsonDocuments(names, self.counts)

    def __iter__(self) -> Iterator[Record]:
        stream = self._stream
        while True:
            self._skip()
            if stream.at < len(stream.data):
                yield self._value()
            elif stream.extend():
                continue
            elif stream.is_broken and stream.frame is not self._reported:
                yield self._close(Record("damage", self._name, *stream.place(stream.at), rule="read.damaged"), 0)
            elif not stream.advance():
                break
        stream.check()

    def _skip(self) -> None:
        """Pass over what stands between values."""
        stream, start = self._stream, self._stream.tell()
        between = BETWEEN.match(stream.data, stream.at)
        assert between is not None
        stream.at = between.end()
        stream.account(start, stream.tell())

    def _value(self) -> Record:
        stream, start = self._stream, self._stream.tell()
        record = Record("document", self._name, *stream.place(stream.at))
        if stream.data[stream.at : stream.at + 1] != b"{":
            other = OTHER.match(stream.data, stream.at)
            assert other is not None
            record.rule = "read.no_text"
            return self._close(record, other.end() - stream.at)
        end, state = end_of_value(stream.data, stream.at)
        while end is None and state[0] <= self._max_bytes and stream.extend():
            end, state = end_of_value(stream.data, stream.at, state)
        if end is None and state[0] > self._max_bytes:
            return self._too_long(record, start, state)
        if end is None:
            record.type, record.rule = "damage", "read.damaged"
            return self._close(record, len(stream.data) - stream.at)
        length = end - stream.at
        if length > self._max_bytes:
            record.rule, record.value, record.threshold = "read.too_long", length, self._max_bytes
        else:
            self._documents.fill(record, stream.data[stream.at : end])
        return self._close(record, length)

    def _too_long(self, record: Record, start: int, state: State) -> Record:
        """Pass over a value without holding it."""
        stream, end = self._stream, None
        while end is None:
            done, depth, in_string = state
            passed = min(done, len(stream.data) - stream.at)
            stream.at += passed
            if not stream.extend():
                break
            end, state = end_of_value(stream.data, stream.at, (done - passed, depth, in_string))
        if end is None:
            stream.at = len(stream.data)
            record.type, record.rule = "damage", "read.damaged"
        else:
            stream.at = end
            record.rule, record.value, record.threshold = "read.too_long", stream.tell() - start, self._max_bytes
        return self._close(record, 0, start)

    def _close(self, record: Record, length: int, start: int | None = None) -> Record:
        """Count a record whose value is the next `length` bytes."""
        stream = self._stream
        start = stream.tell() if start is None else start
        stream.at += length
        stream.account(start, stream.tell())
        if record.type == "damage" and stream.is_broken:
            self._reported = stream.frame
        self.counts[record.type] += 1
        return record

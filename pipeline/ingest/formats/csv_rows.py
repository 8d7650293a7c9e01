"""CSV and TSV: one document a row, with columns named by the file's first row or by the recipe.

Quoting is that of RFC 4180, in both: a quoted field may hold the delimiter, line ends and doubled quotes.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterator

from pipeline.ingest.bytes.decoded_stream import Decoded
from pipeline.ingest.bytes.frames import Frame
from pipeline.ingest.formats.fields import FieldNames
from pipeline.ingest.formats.json_document import REPLACED
from pipeline.ingest.records import Record, iso_millis
from schemas.recipe import Read

__all__ = ["CsvRecords"]

LINE_END = re.compile(rb"\r\n?|\n")


class CsvRecords:
    """The ledger records of a file, one a row that is not blank; `counts` says how many of each type were met."""

    def __init__(
        self, stream: Decoded, name: str, names: FieldNames, read: Read, delimiter: str, columns: list[str] | None
    ) -> None:
        self._stream, self._name, self._names, self._delimiter = stream, name, names, delimiter
        self._max_bytes = read.max_record_bytes
        self._columns = columns
        self._place: tuple[int, int] | None = None  # of the first line of the row that is being read
        self._is_valid = True  # the lines of that row are UTF-8
        self._reported: Frame | None = None  # the damaged range that has its row
        self.counts: Counter[str] = Counter()
        if columns:
            names.note(columns, columns.__contains__)

    def __iter__(self) -> Iterator[Record]:
        csv.field_size_limit(self._max_bytes)  # of the process: every reader of CSV in it is ours
        stream = self._stream
        while True:
            yield from self._rows()
            if stream.is_broken and stream.frame is not self._reported:
                yield self._damage()
            if not stream.advance():
                break
        stream.check()

    def _rows(self) -> Iterator[Record]:
        """The rows up to damage or the end."""
        reader = csv.reader(self._lines(), delimiter=self._delimiter)
        while True:
            self._place, self._is_valid = None, True
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                assert self._place is not None
                yield self._count(Record("document", self._name, *self._place, rule="read.damaged"))
                continue
            if self._stream.is_broken and self._stream.at == len(self._stream.data):
                return  # its end may be what is damaged
            if row and self._columns is None:
                self._columns = row
                self._names.note(row, row.__contains__)
            elif row:
                yield self._count(self._record(dict(zip(self._columns or (), row, strict=False))))

    def _lines(self) -> Iterator[str]:
        """The lines of the file as the parser takes them, each spoken for when it is taken."""
        stream, searched = self._stream, 0
        while True:
            found = LINE_END.search(stream.data, stream.at + searched)
            length = (found.end() if found else len(stream.data)) - stream.at
            # A line feed may follow the carriage return that is the last byte.
            is_open = found is None or (found[0] == b"\r" and found.end() == len(stream.data))
            if is_open and length <= self._max_bytes and stream.extend():
                searched = max(0, length - 1)
                continue
            if found is None and (stream.is_broken or not length):
                return
            yield self._line(length)
            if found is None:
                self._skip_line()
            searched = 0

    def _skip_line(self) -> None:
        """Pass over the rest of a line that is too long, without holding it."""
        stream, start = self._stream, self._stream.tell()
        while (found := LINE_END.search(stream.data, stream.at)) is None:
            stream.at = len(stream.data)
            if not stream.extend():
                break
        stream.at = found.end() if found else stream.at
        stream.account(start, stream.tell())

    def _line(self, length: int) -> str:
        stream, start = self._stream, self._stream.tell()
        if self._place is None:
            self._place = stream.place(stream.at)
        line = stream.data[stream.at : stream.at + length]
        stream.at += length
        stream.account(start, stream.tell())
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text, self._is_valid = line.decode("utf-8", "replace"), False
        return text.removeprefix("\ufeff").replace("\0", "\ufffd")

    def _record(self, fields: dict[str, str]) -> Record:
        assert self._place is not None
        names = self._names
        record = Record("document", self._name, *self._place)
        record.record_id = fields.get(names.id) or None
        record.url = fields.get(names.url) or None
        record.date = iso_millis(fields.get(names.date, ""))
        record.text = fields.get(names.text)
        if record.text is None:
            record.rule = "read.no_text"
        elif not self._is_valid and "\ufffd" in record.text:
            self.counts[REPLACED] += 1
        return record

    def _damage(self) -> Record:
        """One row for a row of the file that damage cuts off and the rest of the damaged frame."""
        stream, start = self._stream, self._stream.tell()
        place = stream.place(min(stream.at, len(stream.data)))
        stream.at = len(stream.data)
        stream.account(start, stream.tell())
        self._reported = stream.frame
        return self._count(Record("damage", self._name, *place, rule="read.damaged"))

    def _count(self, record: Record) -> Record:
        self.counts[record.type] += 1
        return record

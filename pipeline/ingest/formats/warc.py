"""Records of WARC and ARC archives out of decoded bytes.

A parser of our own: FastWARC stops silently at a chunked and gzipped record, neither it nor warcio says which bytes it
left out, and both go on past damage.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator

from pipeline.ingest.bytes.decoded_stream import Decoded
from pipeline.ingest.bytes.frame_boundaries import CORRUPT, VALID
from pipeline.ingest.bytes.frames import Frame
from pipeline.ingest.bytes.http_body import Dropped, Response, decode_body, media_type, parse_response
from pipeline.ingest.formats.media_types import OPAQUE, resolve_type
from pipeline.ingest.formats.warc_headers import MAX_HEADER_BYTES, Format, Header, digest_agrees
from pipeline.ingest.records import COUNTED_TYPES, Record
from schemas.recipe import Read

__all__ = ["WarcRecords"]

MAX_LINE_BYTES = 1 << 14  # of an ARC header
VERSION_BYTES = 64  # a record's first line, at least its recognisable part
LINE_BREAKS = (10, 13)
LINE_BREAK_RUN = re.compile(rb"[\r\n]+")
END_OF_RECORD = b"\r\n\r\n"
TRUNCATED = "read.truncated"


class WarcRecords:
    """The ledger records of an input split, in order; `counts` says how many of each type were met.

    `refuse_straddling` is told where a record would end that goes past the input split's end.
    """

    def __init__(
        self,
        stream: Decoded,
        form: Format,
        name: str,
        read: Read,
        refuse_straddling: Callable[[int], None] | None = None,
    ) -> None:
        self._stream, self._format, self._name, self._read = stream, form, name, read
        self._refuse_straddling = refuse_straddling
        self._mime_types = frozenset(read.mime_types)
        self._believed = self._mime_types - OPAQUE - {"application/xhtml+xml"}  # types that need no look at the bytes
        self._reported: Frame | None = None  # the damaged range that has its row
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Record]:
        stream = self._stream
        while True:
            if stream.at >= len(stream.data):
                if stream.is_broken and stream.frame is not self._reported:
                    yield self._damage(None)
                elif not stream.advance():
                    break
            elif stream.data[stream.at] in LINE_BREAKS:
                self._pass_line_breaks()
            else:
                header = self._header()
                record = self._damage(None) if header is None else self._record(header)
                if record is not None:
                    yield record
        stream.check()

    def _pass_line_breaks(self) -> None:
        stream, start = self._stream, self._stream.tell()
        run = LINE_BREAK_RUN.match(stream.data, stream.at)
        assert run is not None
        stream.at = run.end()
        stream.account(start, stream.tell())

    def _header(self) -> Header | None:
        """The header of the record that begins at the next byte; None if none does."""
        stream = self._stream
        if len(stream.data) - stream.at < VERSION_BYTES:
            stream.need(VERSION_BYTES)
        if not self._format.is_line and not self._format.start.match(stream.data, stream.at):
            return None
        while (end := self._format.end_of_header(stream.data, stream.at)) is None:
            if len(stream.data) - stream.at > MAX_HEADER_BYTES or not stream.extend():
                return None
        return self._format.parse(stream.data[stream.at : end])

    def _record(self, header: Header) -> Record | None:
        """Read one record whose header is known; None for a type that is only counted."""
        stream, start = self._stream, self._stream.tell()
        size = header.size + header.length
        remaining = stream.remaining()
        if remaining is not None and size > remaining:
            if self._refuse_straddling:
                self._refuse_straddling(size - remaining)
            return self._damage(header)
        if header.length > self._read.max_record_bytes:
            return self._too_long(header)
        if not stream.need(size):
            return self._damage(header)
        trust = self._trust(header)
        if self._overruns(header):
            return self._damage(header)
        at, first = stream.at, stream.at + header.size
        record = self._interpret(header, at, first, first + header.length, trust is not False)
        stream.at = first + header.length
        if stream.data.startswith(END_OF_RECORD, stream.at):
            stream.at += len(END_OF_RECORD)
        stream.account(start, stream.tell())
        return record

    def _interpret(self, header: Header, at: int, first: int, end: int, trusted: bool) -> Record | None:
        if not trusted:
            self.counts["damage"] += 1
            return self._row(header, at, "damage", Dropped("read.damaged"))
        self.counts[header.type] += 1
        if header.type in COUNTED_TYPES:
            return None
        record = self._row(header, at, header.type)
        try:
            if header.type == "response":
                self._read_response(record, header, first, end)
            elif header.type == "resource" and self._read.resources:
                self._read_resource(record, header, first, end)
            elif header.type == "conversion" and self._read.conversions:
                self._read_conversion(record, header, first, end)
            else:
                raise Dropped("read.type")
        except Dropped as dropped:
            record.body = record.text = None
            record.rule, record.value, record.threshold = dropped.rule, dropped.value, dropped.threshold
        return record

    def _trust(self, header: Header) -> bool | None:
        """Whether the next record's block is as it was written: by its frame's checksum, or by its own digest.

        None: nothing attests it, and nothing speaks against it. Revisits are not asked for their digest: wget gives
        them the one of what was there before.
        """
        stream = self._stream
        first = stream.at + header.size
        end = first + header.length
        frames = stream.frames(stream.at, end)
        if frames[-1].is_attested and all(frame.is_attested for frame in frames):
            return True
        if header.type == "revisit":
            return None
        agrees = digest_agrees(header.digest, memoryview(stream.data)[first:end])
        if agrees:
            return True
        fates = [(stream.source.fate(frame), frame.has_checksum) for frame in frames]
        if all(fate == VALID and has_checksum for fate, has_checksum in fates):
            return True
        if any(fate == CORRUPT for fate, _ in fates) and header.type not in COUNTED_TYPES:
            return False
        return agrees

    def _overruns(self, header: Header) -> bool:
        """Whether the next record's length is wrong: another one begins inside, and no line break follows its end."""
        stream, size = self._stream, header.size + header.length
        if not stream.need(size + 1) or stream.data[stream.at + size] in LINE_BREAKS:
            return False
        end = stream.at + size
        inside = self._format.find.search(stream.data, stream.at + header.size, end + MAX_LINE_BYTES)
        return inside is not None and inside.start() < end

    def _read_response(self, record: Record, header: Header, first: int, end: int) -> None:
        data = self._stream.data
        response = parse_response(data, first, end)
        if response is None:
            response = self._without_http(header, first)
        else:
            record.status = response.status
            record.mime, record.charset = response.mime, response.charset
            if response.status != 200:
                raise Dropped("read.redirect" if 300 <= response.status < 400 else "read.status", response.status)
        self._read_payload(record, header, data[response.body : end], response)

    def _read_resource(self, record: Record, header: Header, first: int, end: int) -> None:
        """A resource is its payload alone, of the type that its record declares; a crawler's own logs are no page."""
        if (header.url or "").startswith("metadata:"):
            raise Dropped("read.type")
        mime, charset = media_type(header.mime or "")
        self._read_payload(record, header, self._stream.data[first:end], Response(0, first, mime, charset, (), ()))

    def _without_http(self, header: Header, first: int) -> Response:
        """A response over another protocol (dns, ftp, file) is its payload alone; over HTTP it lacks its head."""
        mime, charset = media_type(header.mime or "")
        scheme = (header.url or "http:").partition(":")[0].lower()
        if mime == "application/http" or scheme in ("http", "https"):
            raise Dropped("read.bad_http")
        # The answer of a name server is no page, whatever type it was given.
        return Response(0, first, "text/dns" if scheme == "dns" else mime, charset, (), ())

    def _read_payload(self, record: Record, header: Header, body: bytes, response: Response) -> None:
        identified = media_type(header.identified or "")[0]
        record.mime, record.charset = response.mime, response.charset
        # The declared type first: an image is not worth decoding.
        if self._is_unwanted(response.mime, identified, body if not response.content else b""):
            record.mime = identified or response.mime
            raise Dropped("read.mime")
        is_truncated = header.is_truncated
        if response.transfer or response.content or len(body) > self._read.max_decoded_bytes:
            body, is_truncated = decode_body(body, response.transfer, response.content, self._read, is_truncated)
        if is_truncated:
            self.counts[TRUNCATED] += 1
            if self._read.truncated == "drop":
                raise Dropped(TRUNCATED)
        if response.mime not in self._believed:
            record.mime = resolve_type(response.mime, identified, body)
        if record.mime not in self._mime_types:
            raise Dropped("read.mime")
        record.body = body

    def _is_unwanted(self, declared: str | None, identified: str | None, body: bytes) -> bool:
        """Whether a body's type is certain before it is decoded, and none that the recipe reads."""
        if declared is None or declared in OPAQUE or {declared, identified} & self._mime_types:
            return False
        return resolve_type(declared, identified, body) not in self._mime_types

    def _read_conversion(self, record: Record, header: Header, first: int, end: int) -> None:
        """WET: the block is text; a conversion to another type is a page of that type."""
        block = self._stream.data[first:end]
        record.mime, record.charset = media_type(header.mime or "text/plain")
        if len(block) > self._read.max_decoded_bytes:
            raise Dropped("read.decoded_too_long", len(block), self._read.max_decoded_bytes)
        if record.mime in ("text/plain", None):
            record.text = block.decode("utf-8", "replace")
        elif record.mime in self._mime_types:
            record.body = block
        else:
            raise Dropped("read.mime")

    def _too_long(self, header: Header) -> Record | None:
        """Pass over a record without holding it."""
        stream, start = self._stream, self._stream.tell()
        dropped = Dropped("read.too_long", header.length, self._read.max_record_bytes)
        record = self._row(header, stream.at, header.type, dropped)
        whole = stream.skip(header.size + header.length)
        stream.account(start, stream.tell())
        if not whole:
            self._reported = stream.frame if stream.is_broken else None
            record.type, record.rule, record.value, record.threshold = "damage", "read.damaged", None, None
        self.counts[record.type] += 1
        return None if record.type in COUNTED_TYPES else record

    def _damage(self, header: Header | None) -> Record:
        """One row for the bytes up to where the next record begins; none begins in the rest of a damaged frame."""
        stream, start = self._stream, self._stream.tell()
        record = self._row(header, stream.at, "damage", Dropped("read.damaged"))
        stream.at = min(stream.at + (header.size if header else 1), len(stream.data))
        self._find_record()
        stream.account(start, stream.tell())
        if stream.is_broken:
            self._reported = stream.frame
        self.counts["damage"] += 1
        return record

    def _find_record(self) -> None:
        """Move to the next byte at which a record begins, or to the end of what belongs together."""
        stream = self._stream
        while not stream.is_broken:
            found = self._format.find.search(stream.data, stream.at)
            if found:
                stream.at = found.start()
                return
            # A header may begin with the last line.
            last_line = stream.data.rfind(b"\n", max(stream.at, len(stream.data) - MAX_HEADER_BYTES))
            stream.at = last_line if last_line >= 0 else len(stream.data)
            if not stream.extend():
                break
        stream.at = len(stream.data)

    def _row(self, header: Header | None, at: int, kind: str, dropped: Dropped | None = None) -> Record:
        record = Record(kind, self._name, *self._stream.place(at))
        if header is not None:
            record.record_id, record.url, record.date = header.record_id, header.url, header.date
        if dropped is not None:
            record.rule, record.value, record.threshold = dropped.rule, dropped.value, dropped.threshold
        return record

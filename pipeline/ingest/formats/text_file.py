"""Plain text files: a document a file, known by its name."""

from collections import Counter
from collections.abc import Iterator

from pipeline.ingest.bytes.decoded_stream import Decoded
from pipeline.ingest.records import Record
from schemas.recipe import Read

__all__ = ["TextFile"]


class TextFile:
    """The one ledger record of a file; `counts` says of which type it is."""

    def __init__(self, stream: Decoded, name: str, read: Read) -> None:
        self._stream, self._name, self._max_bytes = stream, name, read.max_record_bytes
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Record]:
        stream = self._stream
        record = Record("document", self._name, 0, 0, mime="text/plain")
        is_long = stream.need(self._max_bytes + 1)
        body = stream.data
        is_broken, size = stream.is_broken, 0
        while True:
            size += len(stream.data) - stream.at
            start, stream.at = stream.tell(), len(stream.data)
            stream.account(start, stream.tell())
            if not stream.advance():
                break
            is_broken = is_broken or stream.is_broken
        if is_broken:
            record.type, record.rule, record.mime = "damage", "read.damaged", None
        elif is_long:
            record.rule, record.value, record.threshold = "read.too_long", size, self._max_bytes
        else:
            record.body = body
        self.counts[record.type] += 1
        yield record
        stream.check()

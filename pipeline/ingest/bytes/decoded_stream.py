"""The decoded bytes of an input split as one sliding window, and the place of each byte: frame and offset in it."""

from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from pipeline.ingest.bytes.frame_boundaries import READ_BYTES, VALID, Window
from pipeline.ingest.bytes.frames import GARBAGE, OPEN, Frame
from pipeline.ingest.records import ConservationError

__all__ = ["Decoded", "FrameSource", "PlainBytes"]


class FrameSource(Protocol):
    """What gives frames with their bytes: `frames.Frames`, `PlainBytes` or `transcoded.Transcoded`."""

    decoded: int

    @property
    def limit(self) -> int:
        """The end of the input split."""

    @property
    def covered(self) -> int:
        """How far frames and damaged ranges tile [start, covered) so far."""

    def __iter__(self) -> Iterator[tuple[Frame, bytes]]: ...

    def fate(self, frame: Frame) -> str: ...

    def digest(self) -> str: ...


class PlainBytes:
    """An uncompressed input split [start, limit) as one frame."""

    def __init__(self, file: BinaryIO, start: int, limit: int) -> None:
        self._window = Window(file, start, limit, hashed=limit)
        self._start, self.limit = start, limit
        self.covered = start
        self.decoded = 0

    def __iter__(self) -> Iterator[tuple[Frame, bytes]]:
        frame = Frame(self._start, is_plain=True)
        while self.covered < self.limit:
            data = bytes(self._window.view(self.covered, READ_BYTES))
            self.covered += len(data)
            self.decoded += len(data)
            frame.state = VALID if self.covered == self.limit else OPEN
            yield frame, data

    def fate(self, frame: Frame) -> str:
        return VALID

    def digest(self) -> str:
        return self._window.finish()


class Decoded:
    """Frames laid end to end: `data` is the window, `at` the next unread byte in it.

    A record may go on into the next frame (block-compressed archives, writers that cut a record in chunks), unless
    that one begins a record of its own by `begins`, or something between is damaged.
    """

    def __init__(self, source: FrameSource, begins: Callable[[bytes], bool]) -> None:
        self.source = source
        self._events, self._begins = iter(source), begins
        self._waiting: tuple[Frame, bytes] | None = None
        self.data, self.at = b"", 0
        self.frame: Frame | None = None  # the last one in the window
        self._base = 0  # decoded bytes of the input split before the window
        self._frames: list[tuple[int, Frame]] = []  # (decoded bytes before it, frame) of the window, in order
        self._accounted = 0

    @property
    def is_broken(self) -> bool:
        """Whether the window ends in a damaged range: nothing goes on past it."""
        return self.frame is not None and self.frame.is_broken

    def advance(self) -> bool:
        """Append the next chunk whatever it is; False at the end of the input split."""
        event = self._peek()
        if event is None:
            return False
        self._drop()
        self._take(event[0], len(self.data))
        self.data = self.data + event[1] if self.data else event[1]
        return True

    def extend(self) -> bool:
        """Append the next chunk if a record may go on into it. Indices shift: `at` is 0 afterwards."""
        self._drop()
        chunk = self._following(len(self.data))
        if chunk is None:
            return False
        self.data += chunk
        return True

    def need(self, count: int) -> bool:
        """Have `count` unread bytes in the window; False if the bytes end before. Indices shift."""
        if count <= len(self.data) - self.at:
            return True
        self._drop()
        parts, have = [self.data], len(self.data)
        while have < count and (chunk := self._following(have)) is not None:
            parts.append(chunk)
            have += len(chunk)
        self.data = b"".join(parts)
        return have >= count

    def skip(self, count: int) -> bool:
        """Pass over `count` bytes without holding them; False, all passed, if the bytes end before."""
        while count > len(self.data) - self.at:
            count -= len(self.data) - self.at
            self.at = len(self.data)
            if not self.extend():
                return False
        self.at += count
        return True

    def tell(self) -> int:
        """Decoded bytes of the input split before `at`."""
        return self._base + self.at

    def remaining(self) -> int | None:
        """Unread bytes of the input split where that is known: it is not compressed."""
        if self.frame is None or not self.frame.is_plain:
            return None
        return self.source.limit - self.frame.position - self.tell()

    def place(self, at: int) -> tuple[int, int]:
        """(position, offset) of the byte at an index into `data`, as contracts section 1 names them."""
        start, frame = self._frame_of(self._base + at)
        offset = self._base + at - start
        return (frame.position + offset, 0) if frame.is_plain else (frame.position, offset)

    def frames(self, start: int, end: int) -> list[Frame]:
        """The frames that hold data[start:end]."""
        if len(self._frames) == 1:
            return [self._frames[0][1]]
        first = self._frame_of(self._base + start)
        inside = [entry for entry in self._frames if self._base + start < entry[0] < self._base + end]
        return [frame for _, frame in (first, *inside)]

    def account(self, start: int, end: int) -> None:
        """Record that decoded bytes [start, end) of the input split are spoken for: ranges must tile them."""
        if start != self._accounted or end < start:
            raise ConservationError(f"decoded bytes [{start}, {end}) do not follow {self._accounted}")
        self._accounted = end

    def check(self) -> None:
        """Raise ConservationError unless every decoded byte is spoken for."""
        if self._accounted != self.source.decoded:
            raise ConservationError(f"{self._accounted} of {self.source.decoded} decoded bytes are accounted for")

    def _peek(self) -> tuple[Frame, bytes] | None:
        if self._waiting is None:
            self._waiting = next(self._events, None)
        return self._waiting

    def _following(self, have: int) -> bytes | None:
        """The next chunk if a record may go on into it, to be laid behind `have` bytes of the window."""
        if self.is_broken:
            return None
        event = self._peek()
        if event is None:
            return None
        frame, chunk = event
        if frame is not self.frame and (frame.state == GARBAGE or self._begins(chunk)):
            return None
        self._take(frame, have)
        return chunk

    def _take(self, frame: Frame, have: int) -> None:
        self._waiting = None
        if frame is not self.frame:
            self._frames.append((self._base + have, frame))
            self.frame = frame

    def _drop(self) -> None:
        """Forget the window's bytes before `at`, and the frames that ended there."""
        if self.at:
            self.data = self.data[self.at :]
            self._base += self.at
            self.at = 0
        while len(self._frames) > 1 and self._frames[1][0] <= self._base:
            del self._frames[0]

    def _frame_of(self, at: int) -> tuple[int, Frame]:
        last = self._frames[-1]
        return last if last[0] <= at else next(entry for entry in reversed(self._frames) if entry[0] <= at)

"""Looking at a file's frames: a window over its bytes, probes out of order, and the boundaries of input splits.

An input split begins and ends at a boundary: the first frame at or after its cut that begins a record and whose
followers are frames too. Both splits at a cut find the boundary by the same search, so they abut.
"""

import hashlib
from collections.abc import Callable, Generator
from typing import BinaryIO

from pipeline.ingest.bytes.compression import BLOCK_BYTES, HEAD_BYTES, Codec, Decoder

__all__ = ["CHAIN_BYTES", "CORRUPT", "FIRST_BYTES", "READ_BYTES", "TRUNCATED", "VALID", "Boundaries", "Probe", "Window"]

READ_BYTES = 1 << 20
FIRST_BYTES = 1 << 13  # most frames end within
CHAIN_BYTES = 8 << 20  # frames that must follow a boundary; crawlers cut a page, which may be an archive, at 5 MiB

VALID = "valid"  # ended as it should
TRUNCATED = "truncated"  # the file ends in it
CORRUPT = "corrupt"  # the decoder refused


class Window:
    """A sliding window over a file of `size` bytes.

    With `hashed`, the end of what is to be hashed, it moves forward only and hashes every byte from `start` to there.
    """

    def __init__(self, file: BinaryIO, start: int, size: int, hashed: int | None = None) -> None:
        self._file, self.size, self._hashed = file, size, hashed
        self._digest = hashlib.sha256()
        self._start, self._buffer = start, b""

    def view(self, position: int, length: int, keep: int | None = None) -> memoryview:
        """Up to `length` bytes from `position`, fewer at the file's end; bytes from `keep` on stay within reach."""
        offset = position - self._start
        missing = offset + length - len(self._buffer)
        if offset < 0 or (missing > 0 and self._start + len(self._buffer) < self.size):
            self._fill(position, length, position if keep is None else keep)
            offset = position - self._start
        return memoryview(self._buffer)[offset : offset + length]

    def finish(self) -> str:
        """Hash what is left and give the digest (hex)."""
        assert self._hashed is not None
        self._pass_over(self._hashed)
        return self._digest.hexdigest()

    def _fill(self, position: int, length: int, keep: int) -> None:
        end = self._start + len(self._buffer)
        if self._start <= keep <= end:
            self._buffer, self._start = self._buffer[keep - self._start :], keep
        else:
            assert self._hashed is None or position > end, "a hashed window moves forward only"
            self._pass_over(position)
            self._buffer, self._start = b"", position
        end = self._start + len(self._buffer)
        wanted = min(max(READ_BYTES, position + length - end), self.size - end)
        self._buffer += self._read(end, wanted)

    def _pass_over(self, position: int) -> None:
        """Hash the bytes between the window and `position`, without keeping them."""
        at = self._start + len(self._buffer)
        while self._hashed is not None and at < position:
            at += len(self._read(at, min(READ_BYTES, position - at)))

    def _read(self, position: int, length: int) -> bytes:
        self._file.seek(position)
        data = self._file.read(length)
        while len(data) < length:
            more = self._file.read(length - len(data))
            if not more:
                name = getattr(self._file, "name", "the input")
                raise ValueError(
                    f"{name} ended at byte {position + len(data)}, before {self.size}: it changed since the plan, "
                    "run again"
                )
            data += more
        if self._hashed is not None:
            self._digest.update(memoryview(data)[: max(0, self._hashed - position)])
        return data


class Probe:
    """Looks at frames out of order: what they begin with, whether they end well, where the next one begins."""

    def __init__(self, file: BinaryIO, size: int, codec: Codec, begins: Callable[[bytes], bool] | None) -> None:
        self.size, self.codec, self._begins = size, codec, begins
        self._window = Window(file, 0, size)

    def starts(self, start: int, end: int) -> Generator[int, int | None, None]:
        """Positions in [start, end) that look like a frame's first bytes; send() one to look from there on."""
        at = start
        while at < end:
            block = self._window.view(at, min(READ_BYTES, end - at) + 3)
            match = self.codec.start.search(block)
            if match is None or at + match.start() >= end:
                at += max(1, len(block) - 3)
                continue
            at += match.start()
            at = max(at + 1, (yield at) or 0)

    def next_start(self, start: int, end: int) -> int:
        """The first frame in [start, end) after damage; `end` if there is none.

        Bytes that look like a frame's are one if a record begins with them, or if they decode to a valid end (in
        block-compressed archives records begin anywhere).
        """
        return next((at for at in self.starts(start, end) if self.is_start(at) or self.fate(at)[0] == VALID), end)

    def is_start(self, position: int) -> bool:
        """Whether a record begins with the frame; where records have no mark, whether the frame is valid."""
        if self._begins is None:
            return self.fate(position)[0] == VALID
        return self._begins(self._first_bytes(position))

    def fate(self, position: int) -> tuple[str, int]:
        """(state, end) of the frame: decoded to its end, nothing kept."""
        decoder, at = Decoder(self.codec), position
        while block := self._window.view(at, BLOCK_BYTES):
            try:
                decoder.decode(block)
            except self.codec.errors:
                return CORRUPT, at
            at += len(block)
            if decoder.ended:
                return VALID, at - decoder.unused
        return TRUNCATED, at

    def chain(self, position: int) -> tuple[bool, int]:
        """Whether valid frames follow each other from `position` on for CHAIN_BYTES or to the end, and how far."""
        at = position
        while at < self.size and at - position < CHAIN_BYTES:
            head = self._window.view(at, HEAD_BYTES)
            skippable = self.codec.skippable_bytes(bytes(head))
            if skippable is None and not self.codec.start.match(head):
                return False, at
            state, end = (VALID, at + skippable) if skippable is not None else self.fate(at)
            if state != VALID:
                return end - position >= CHAIN_BYTES, at
            at = end
        return True, at

    def first_record(self) -> bytes:
        """The file's first decoded bytes."""
        at = 0
        while (skippable := self.codec.skippable_bytes(bytes(self._window.view(at, HEAD_BYTES)))) is not None:
            at += skippable
        return self._first_bytes(at)

    def _first_bytes(self, position: int) -> bytes:
        decoder, data, at = Decoder(self.codec), b"", position
        while len(data) < BLOCK_BYTES and not decoder.ended and (block := self._window.view(at, FIRST_BYTES)):
            try:
                data += decoder.decode(block)
            except self.codec.errors:
                break
            at += len(block)
        return data


class Boundaries:
    """Where the input splits of a compressed file begin: a function of the file and the cut alone."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def find(self, cut: int, end: int) -> int | None:
        """The first boundary in [cut, end).

        A frame stored inside another one (a crawled archive) begins like a boundary, but its chain soon breaks.
        """
        if cut == 0:
            return 0
        starts = self._probe.starts(cut, end)
        at = next(starts, None)
        while at is not None:
            jump = None
            if self._probe.is_start(at):
                holds, reached = self._probe.chain(at)
                if holds:
                    return at
                # Every frame of a broken chain has a broken chain.
                jump = reached
            try:
                at = starts.send(jump)
            except StopIteration:
                return None
        return None

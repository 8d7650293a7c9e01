"""The frames of a compressed file, gzip members or zstd and lz4 frames, with their decoded bytes.

Frames and damaged ranges tile an input split (contracts, section 2).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.ingest.bytes.compression import BLOCK_BYTES, HEAD_BYTES, Decoder
from pipeline.ingest.bytes.frame_boundaries import CORRUPT, FIRST_BYTES, TRUNCATED, VALID, Probe, Window
from pipeline.ingest.records import ConservationError

__all__ = ["GARBAGE", "OPEN", "Frame", "Frames"]

HOLD_BYTES = 8 << 20  # a frame up to this size is handed on whole, decoded

OPEN = "open"  # not decoded to its end yet; then valid, truncated or corrupt
GARBAGE = "garbage"  # not a frame at all


@dataclass(slots=True)
class Frame:
    """One frame or damaged range. Plain bytes are one frame whose records are placed by file offset."""

    position: int
    state: str = OPEN
    has_checksum: bool = False
    is_plain: bool = False
    fate: str | None = None  # what an open frame turns out to be, where that is known already

    @property
    def is_broken(self) -> bool:
        return self.state in (TRUNCATED, CORRUPT, GARBAGE)

    @property
    def is_attested(self) -> bool:
        """Whether a checksum of its own says that it is as it was written."""
        return self.has_checksum and self.state == VALID


class Frames:
    """The frames and damaged ranges of [start, limit), in order, with their decoded bytes.

    Iterating gives (frame, bytes): once for a frame of up to HOLD_BYTES, else in chunks while it is OPEN.
    """

    def __init__(self, file: BinaryIO, start: int, limit: int, probe: Probe) -> None:
        self._probe, self._codec = probe, probe.codec
        # Decoders see past the limit: what a damaged frame gives must not depend on where splits end.
        self._window = Window(file, start, probe.size, hashed=limit)
        self.limit = limit
        self.covered = start  # frames and damaged ranges so far tile [start, covered)
        self.decoded = 0

    def __iter__(self) -> Iterator[tuple[Frame, bytes]]:
        while self.covered < self.limit:
            for frame, data in self._frame(self.covered):
                self.decoded += len(data)
                yield frame, data

    def digest(self) -> str:
        """sha256 of the bytes read (hex), once iterated."""
        return self._window.finish()

    def fate(self, frame: Frame) -> str:
        """What the frame is or turns out to be; an open one is decoded ahead, once."""
        if frame.state != OPEN:
            return frame.state
        if frame.fate is None:
            state, _ = self._probe.fate(frame.position)
            frame.fate = self._damage(frame, state)[0] if state == TRUNCATED else state
        return frame.fate

    def _frame(self, position: int) -> Iterator[tuple[Frame, bytes]]:
        frame = Frame(position)
        head = bytes(self._window.view(position, HEAD_BYTES))
        skippable = self._codec.skippable_bytes(head)
        if skippable is not None and position + skippable <= self.limit:
            frame.state, frame.has_checksum = VALID, True  # nothing in it to attest
            self._cover(position, position + skippable)
            yield frame, b""
        elif skippable is not None or not self._codec.start.match(head):
            yield from self._end(frame, GARBAGE, b"")
        else:
            frame.has_checksum = self._codec.has_checksum(head)
            whole = self._whole(frame)
            if whole is not None:
                yield frame, whole
            else:
                yield from self._chunks(frame)

    def _whole(self, frame: Frame) -> bytes | None:
        """A valid frame's decoded bytes; None where it is large or damaged."""
        decoder, at, step = Decoder(self._codec), frame.position, FIRST_BYTES
        parts: list[bytes] = []
        while block := self._window.view(at, step, keep=frame.position):
            try:
                parts.append(decoder.decode(block))
            except self._codec.errors:
                frame.fate = CORRUPT
                return None
            at += len(block)
            if decoder.ended:
                self._close(frame, at - decoder.unused)
                return parts[0] if len(parts) == 1 else b"".join(parts)
            if max(sum(map(len, parts)), at - frame.position) > HOLD_BYTES:
                return None
            step = min(2 * step, BLOCK_BYTES)
        return None

    def _chunks(self, frame: Frame) -> Iterator[tuple[Frame, bytes]]:
        """A frame from its start in blocks of 64 KiB: what a damaged one gives does not depend on how it was met."""
        decoder, at, state = Decoder(self._codec), frame.position, TRUNCATED
        held = b""
        while block := self._window.view(at, BLOCK_BYTES):
            try:
                data = decoder.decode(block)
            except self._codec.errors:
                state = CORRUPT
                break
            at += len(block)
            if decoder.ended:
                self._close(frame, at - decoder.unused)
                yield frame, held + data
                return
            # One chunk is held back, so that a frame that is given in one is given with its state.
            if held and data:
                yield frame, held
                held = b""
            held += data
        yield from self._end(frame, state, held)

    def _end(self, frame: Frame, state: str, salvage: bytes) -> Iterator[tuple[Frame, bytes]]:
        """Close a damaged range where the next frame begins."""
        frame.state, end = self._damage(frame, state)
        self._cover(frame.position, end)
        yield frame, salvage

    def _damage(self, frame: Frame, state: str) -> tuple[str, int]:
        """State and end of a damaged range; one that runs to the file's end over other frames is not truncated."""
        end = self._probe.next_start(frame.position + 1, self.limit)
        return (CORRUPT if state == TRUNCATED and end < self._probe.size else state), end

    def _close(self, frame: Frame, end: int) -> None:
        """Note that the frame ends well; across the input split's end it means that the boundary there is none."""
        if end > self.limit:
            raise ConservationError(
                f"a frame ends at byte {end}, past a boundary at {self.limit} that seems to lie in an archive in the "
                "archive: raise read.part_bytes above the file's size to leave it whole"
            )
        frame.state = VALID
        self._cover(frame.position, end)

    def _cover(self, start: int, end: int) -> None:
        if start != self.covered or not start < end <= self.limit:
            raise ConservationError(f"[{start}, {end}) does not follow {self.covered} within {self.limit}")
        self.covered = end

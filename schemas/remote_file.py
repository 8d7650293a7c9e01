"""A file in a bucket or on a web server as a seekable Python file."""

import io
import os
import threading
from concurrent.futures import Future
from typing import Any

from schemas import object_stores

__all__ = ["RemoteFile"]

FIRST_BYTES = 256 << 10
WINDOW_BYTES = 8 << 20


class RemoteFile(io.RawIOBase):
    """Reads ranges of a remote file, each twice as long as the last while reading goes straight on.

    A seek starts small again, so that a footer costs kilobytes, not megabytes. Full windows are fetched one ahead
    in a thread: memory stays at two windows.
    """

    def __init__(self, uri: str, size: int, tag: str) -> None:
        self.uri, self.size, self.tag = uri, size, tag
        self._position = 0
        self._start, self._window = 0, memoryview(b"")
        self._length = FIRST_BYTES
        self._ahead: tuple[int, int, Future[bytes]] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"{self.uri}: seek to {base + offset}: before the start of the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the window, fetching the window that holds the position."""
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), self.size - self._position)
        if wanted <= 0:
            return 0
        if not self._start <= self._position < self._start + len(self._window):
            self._fetch(wanted)
        offset = self._position - self._start
        given = min(wanted, len(self._window) - offset)
        target[:given] = self._window[offset : offset + given]
        self._position += given
        return given

    def _fetch(self, wanted: int) -> None:
        """Make the window begin at the position."""
        straight_on = self._position == self._start + len(self._window)
        self._length = min(2 * self._length, WINDOW_BYTES) if straight_on else FIRST_BYTES
        length = min(max(wanted, self._length), WINDOW_BYTES, self.size - self._position)
        ahead, self._ahead = self._ahead, None
        if ahead and ahead[0] == self._position:
            length, data = ahead[1], ahead[2].result()
        else:
            data = self._get(self._position, length)
        if len(data) != length:
            raise object_stores.StorageError(
                f"{self.uri}: {len(data)} bytes of {length} came at {self._position}: shorter than announced"
            )
        self._start, self._window = self._position, memoryview(data)
        end = self._start + length
        if self._length == WINDOW_BYTES and end < self.size:
            following = min(WINDOW_BYTES, self.size - end)
            self._ahead = (end, following, _in_thread(self._get, end, following))

    def _get(self, start: int, length: int) -> bytes:
        return object_stores.get_range(self.uri, start, length, self.tag)

    def close(self) -> None:
        self._window, self._ahead = memoryview(b""), None
        super().close()


def _in_thread(function: Any, *arguments: Any) -> "Future[bytes]":
    """Run a function in a daemon thread: an open request must not hold up the end of the process."""
    future: Future[bytes] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:  # The reader raises it, where it can be handled.
            future.set_exception(error)

    threading.Thread(target=run, name="read-ahead", daemon=True).start()
    return future

"""The progress line: sums over workers, what it says, and that it never stands in the way."""

import io
import threading
from pathlib import Path

import pytest

from pipeline.runtime import progress
from pipeline.runtime.progress import ProgressLine, Reporter, progress_text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers write at once, lines come every few milliseconds."""
    monkeypatch.setattr(progress, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.01)


def shown(stream: io.StringIO, wanted: str) -> None:
    """Wait until the stream holds `wanted`."""
    done = threading.Event()
    for _ in range(1000):
        if wanted in stream.getvalue():
            return
        done.wait(0.01)
    raise AssertionError(stream.getvalue())


def test_workers_sums_are_added_up(tmp_path: Path) -> None:
    stream = io.StringIO()
    with ProgressLine(str(tmp_path), "ingest", 4 << 20, 4, stream):
        for _ in range(2):
            thread = threading.Thread(target=lambda: Reporter(str(tmp_path)).add("ingest", items=1, bytes=1 << 20))
            thread.start()
            thread.join()
        Reporter(str(tmp_path)).add("pack", items=1, bytes=4 << 20)
        Reporter(str(tmp_path)).add("ingest", bytes=1 << 20)
        Reporter(str(tmp_path)).add("ingest", items=1)
        shown(stream, "ingest   75 %   3.0 of 4.0 MB   3 of 4 tasks")
    assert all(line.startswith("ingest") for line in stream.getvalue().splitlines())


def test_a_terminal_has_one_line_that_stands_at_the_end(tmp_path: Path) -> None:
    stream = Terminal()
    with ProgressLine(str(tmp_path), "ingest", 1000, 1, stream):
        shown(stream, "\ringest    0 %")
        Reporter(str(tmp_path)).add("ingest", items=1, bytes=1000)
    assert stream.getvalue().rpartition("\r")[2].startswith("ingest  100 %")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().endswith("\n")


def test_a_failure_wipes_the_line(tmp_path: Path) -> None:
    stream = Terminal()
    line = ProgressLine(str(tmp_path), "ingest", 1000, 1, stream)
    line.__enter__()
    shown(stream, "ingest")
    line.__exit__(KeyError, KeyError(), None)
    assert stream.getvalue().endswith(" \r")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"ingest": 3}', '{"ingest": {"bytes": "x"}}'])
def test_a_damaged_file_is_passed_over(tmp_path: Path, content: str) -> None:
    (tmp_path / "1-2.json").write_text(content)
    stream = io.StringIO()
    with ProgressLine(str(tmp_path), "ingest", 1000, 1, stream):
        shown(stream, "ingest    0 %")


def test_nothing_it_meets_is_an_error(tmp_path: Path) -> None:
    Reporter(None).add("ingest", items=1)
    Reporter(None).close()
    gone = Reporter(str(tmp_path / "no such folder"))
    gone.add("ingest", items=1)
    gone.close()
    closed = io.StringIO()
    closed.close()
    with ProgressLine(str(tmp_path / "no such folder"), "ingest", 1, 1, closed):
        threading.Event().wait(0.05)
    with ProgressLine(None, "ingest", 1, 1, io.StringIO()), ProgressLine(str(tmp_path), "ingest", 1, 1, None):
        pass


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ((31 << 30, 74 << 30), (12, 40), 85 << 20, 1210.4),
            "ingest   42 %   31.0 of 74.0 GB   12 of 40 tasks   85.0 MB/s   1,210 records/s   9 min left",
        ),
        (((0, 900), (0, 1), 0.0, 0.0), "ingest    0 %   0.0 of 0.9 kB   0 of 1 task"),
        (((2000, 900), (1, 1), 0.0, 0.0), "ingest  100 %   0.9 of 0.9 kB   1 of 1 task"),
        (((0, 0), (1, 4), 0.0, 0.0), "ingest   25 %   1 of 4 tasks"),
        (((1 << 30, 1 << 40), (0, 0), 1 << 20, 0.0), "ingest    0 %   0.0 of 1.0 TB   1.0 MB/s   291.0 h left"),
    ],
)
def test_the_line_says_how_much_how_fast_and_what_is_left(arguments: tuple, text: str) -> None:
    assert progress_text("ingest", *arguments) == text

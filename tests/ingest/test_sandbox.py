"""The extracting child: what it survives, what it drops, and that nothing of it is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.ingest.extract.sandbox import CRASHED, OUT_OF_MEMORY, TOO_SLOW, Answer, Limits, PageChild

ROOT = Path(__file__).parents[2]
MISBEHAVING = """
import ctypes, os, signal, sys, time
hoard = []

def extract(body, charset, **options):
    if body == b"abort":
        os.abort()
    elif body == b"segfault":
        ctypes.string_at(0)
    elif body == b"hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        while True:
            pass
    elif body == b"hang in compiled code":
        sum(range(10**15))
    elif body == b"eat":
        return (b"x" * (1 << 40)), "utf-8"
    elif body == b"eat slowly":
        while True:
            hoard.append(bytes(16 << 20))  # address space that nothing writes to: CPU time is limited as well
    elif body == b"leave 90 MB":
        hoard.append(b"x" * (90 << 20))
    elif body == b"leave 90 MB or raise":
        try:
            hoard.append(b"x" * (90 << 20))
        except MemoryError:
            raise RuntimeError("memory, said otherwise") from None
    elif body.startswith(b"wait for "):
        while not os.path.exists(body[9:]):
            time.sleep(0.01)
    elif body == b"exit":
        sys.exit(0)
    elif body == b"raise":
        raise RuntimeError("no text here")
    elif body == b"print":
        print("noise" * 1000, flush=True)
        os.write(2, b"noise" * 2000000)
    elif body == b"pid":
        return str(os.getpid()).encode(), "ascii"
    elif body == b"options":
        return repr(sorted(options.items())).encode(), charset or "none"
    elif body == b"killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return body.upper(), "utf-8"
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageChild]:
    """A child with an extractor that does what the page says."""
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.syspath_prepend(str(tmp_path))
    with PageChild("misbehaving:extract", {"speed": 3}, Limits(cpu_seconds=1, memory_bytes=256 << 20)) as child:
        yield child


def run(child: PageChild, *bodies: bytes) -> list[Answer]:
    child.submit([(body, None) for body in bodies])
    return child.collect()


def fates(answers: list[Answer]) -> list[bytes | str]:
    """The text of each page, or the rule that dropped it."""
    return [answer.rule or answer.text for answer in answers]


def test_pages_come_back_in_their_order(child: PageChild) -> None:
    bodies = [b"page %d" % number for number in range(300)]
    assert fates(run(child, *bodies)) == [body.upper() for body in bodies]
    assert fates(run(child)) == []
    assert fates(run(child, b"", b"b")) == [b"", b"B"]


def test_options_and_the_declared_charset_reach_the_extractor(child: PageChild) -> None:
    child.submit([(b"options", "koi8-r"), (b"options", None)])
    text = b"[('speed', 3)]"
    assert child.collect() == [Answer(text, "koi8-r"), Answer(text, "none")]


def test_a_page_larger_than_any_pipe_goes_both_ways(child: PageChild) -> None:
    large = b"a" * (5 << 20)
    assert fates(run(child, large, b"b", large)) == [large.upper(), b"B", large.upper()]


def test_the_worker_is_free_while_the_child_works(child: PageChild, tmp_path: Path) -> None:
    child.submit([(b"a" * (1 << 20), None), (b"wait for " + bytes(tmp_path / "sign"), None), (b"b", None)])
    (tmp_path / "sign").touch()
    assert [len(answer.text) for answer in child.collect()] == [1 << 20, 9 + len(bytes(tmp_path / "sign")), 1]


@pytest.mark.parametrize(
    ("culprit", "rule"),
    [
        (b"abort", CRASHED),
        (b"segfault", CRASHED),
        (b"exit", CRASHED),
        (b"raise", CRASHED),
        (b"hang", TOO_SLOW),
        (b"hang in compiled code", TOO_SLOW),
        (b"eat", OUT_OF_MEMORY),
        (b"eat slowly", OUT_OF_MEMORY),
        (b"killed", OUT_OF_MEMORY),
    ],
)
def test_only_the_culprit_is_dropped(child: PageChild, culprit: bytes, rule: str) -> None:
    assert fates(run(child, b"a", b"b", culprit, b"c")) == [b"A", b"B", rule, b"C"]
    assert fates(run(child, b"again")) == [b"AGAIN"]


def test_several_culprits_in_one_batch(child: PageChild) -> None:
    answers = run(child, b"abort", b"abort", b"a", b"hang", b"b", b"eat", b"raise", b"c", b"abort")
    assert fates(answers) == [CRASHED, CRASHED, b"A", TOO_SLOW, b"B", OUT_OF_MEMORY, CRASHED, b"C", CRASHED]


def test_limits_are_told_with_the_drop(child: PageChild) -> None:
    slow, hungry = run(child, b"hang", b"eat")
    assert (slow.value, slow.threshold) == (1, 1)
    assert (hungry.value, hungry.threshold) == (None, float(256 << 20))


@pytest.mark.parametrize("body", [b"leave 90 MB", b"leave 90 MB or raise"])
def test_what_neighbours_left_in_memory_drops_no_page(child: PageChild, body: bytes) -> None:
    assert set(fates(run(child, *[body] * 6))) == {body.upper()}


def test_cpu_time_is_counted_for_each_page_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "steady.py").write_text(
        "import time\n"
        "def extract(body, charset):\n"
        "    end = time.process_time() + (0.1 if body else 0.5)\n"
        "    while time.process_time() < end: pass\n"
        "    return body, 'utf-8'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with PageChild("steady:extract", {}, Limits(cpu_seconds=1, memory_bytes=256 << 20)) as child:
        assert fates(run(child, *[b"a"] * 6)) == [b"a"] * 6


def test_what_an_extractor_prints_is_no_answer(child: PageChild) -> None:
    assert fates(run(child, b"print", b"a", b"print", b"print")) == [b"PRINT", b"A", b"PRINT", b"PRINT"]


def test_a_child_that_was_killed_while_idle_is_replaced(child: PageChild) -> None:
    (answer,) = run(child, b"pid")
    os.kill(int(answer.text), signal.SIGKILL)
    assert fates(run(child, b"a" * 100_000, b"b")) == [b"A" * 100_000, b"B"]


def test_a_child_that_cannot_start_is_an_error_with_its_reason() -> None:
    with PageChild("no_such_module:extract", {}, Limits(1, 256 << 20)) as child:
        child.submit([(b"a", None)])
        with pytest.raises(RuntimeError, match=r"(?s)does not start: exit 1: Trace.*No module named 'no_such_module'"):
            child.collect()


def test_the_same_child_serves_all_batches_and_is_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.syspath_prepend(str(tmp_path))
    with PageChild("misbehaving:extract", {}, Limits(1, 256 << 20)) as child:
        (first,) = run(child, b"pid")
        (second,) = run(child, b"pid")
    assert first == second
    assert not psutil.pid_exists(int(first.text))


def test_the_child_imports_nothing_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "telling.py").write_text(
        "import sys\nimport pipeline.ingest.extract.html\n"
        "def extract(body, charset): return ' '.join(sys.modules).encode(), 'ascii'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with PageChild("telling:extract", {}, Limits(1, 256 << 20)) as child:
        (answer,) = run(child, b"")
    heavy = {"apache_beam", "pyarrow", "numpy", "pydantic", "numba", "trafilatura", "obstore"}
    assert heavy & set(answer.text.decode().split()) == set()


def test_each_thread_has_a_child_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    monkeypatch.syspath_prepend(str(tmp_path))
    seen: dict[int, list[bytes | str]] = {}

    def work(number: int) -> None:
        with PageChild("misbehaving:extract", {}, Limits(0.3, 256 << 20)) as child:
            bodies = [b"%d.%d" % (number, page) for page in range(50)] + [b"abort"]
            seen[number] = fates(run(child, *bodies)) + fates(run(child, *bodies))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert seen[number] == ([b"%d.%d" % (number, page) for page in range(50)] + [CRASHED]) * 2


WORKER = textwrap.dedent(
    """
    import os, signal, sys
    from pipeline.ingest.extract.sandbox import Limits, PageChild
    {prelude}
    with PageChild("misbehaving:extract", {{}}, Limits(0.3, 256 << 20)) as child:
        child.submit([(b"pid", None)])
        (answer,) = child.collect()
        child.submit([(b"hang", None), (b"a", None)])
        {action}
        second = child.collect()
    with open({result!r}, "w") as file:
        file.write(repr([answer.text, second[0].rule, second[1].text]))
    """
)


def start_worker(tmp_path: Path, prelude: str, action: str) -> "subprocess.Popen[bytes]":
    """A worker process of its own, with the misbehaving extractor."""
    (tmp_path / "misbehaving.py").write_text(MISBEHAVING)
    code = WORKER.format(prelude=prelude, action=action, result=str(tmp_path / "result"))
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@pytest.mark.parametrize("death", ["os._exit(1)", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_the_child_dies_with_its_worker(tmp_path: Path, death: str) -> None:
    with start_worker(tmp_path, "", f"os.write(1, answer.text); {death}") as worker:
        assert worker.stdout
        pid = int(worker.stdout.read())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the child outlives its worker"
        time.sleep(0.02)


@pytest.mark.parametrize(
    "prelude",
    [
        "for fd in (0, 1, 2): os.close(fd)",
        "os.close(0)",
        "sys.stdin = sys.stdout = sys.stderr = None",
        "signal.signal(signal.SIGPROF, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})",
        "sys.stdout.close()",
    ],
)
def test_odd_workers_get_the_same_answers(tmp_path: Path, prelude: str) -> None:
    with start_worker(tmp_path, prelude, "pass") as worker:
        worker.communicate()
    assert (tmp_path / "result").read_text().endswith(f", '{TOO_SLOW}', b'A']")

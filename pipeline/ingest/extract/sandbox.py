"""A child process that extracts pages under limits of CPU time and memory.

A page can send an extractor into a loop, into gigabytes or into a crash, and neither a thread nor a signal handler
of the worker could stop it: the code that runs is not Python's. So pages go to a child, in batches over a pipe. What
kills the child is found and dropped; all other pages of its batch are done again in the next child. Whether a page
is dropped depends on the page alone, never on its neighbours: a page counts as a culprit when it brings down a child
that was started for it (running out of CPU time is measured a page, so there once is enough).

This module is imported by both sides and must stay light: a child starts in some 60 ms.
"""

import contextlib
import fcntl
import functools
import importlib
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO

__all__ = ["CRASHED", "OUT_OF_MEMORY", "TOO_SLOW", "Answer", "Limits", "PageChild", "serve"]

CRASHED = "extract.crashed"
OUT_OF_MEMORY = "extract.out_of_memory"
TOO_SLOW = "extract.too_slow"

# A page to the child: length of charset and of body. A page back: failed, length of charset and of text.
_COUNT = struct.Struct("<I")
_PAGE = struct.Struct("<BQ")
_ANSWER = struct.Struct("<?BQ")

_MEMORY_EXIT = 77
_LOG_BYTES = 16 << 20  # that a child may print
_STARTS = 3
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from pipeline.ingest.extract.sandbox import serve; serve(*sys.argv[2:])"
)


@dataclass(frozen=True)
class Limits:
    """What a page may take."""

    cpu_seconds: float
    memory_bytes: int  # address space of the child, some 40 MB for the interpreter included


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a page: its text (UTF-8) and encoding, or the rule that dropped it."""

    text: bytes = b""
    charset: str | None = None
    rule: str | None = None
    value: float | None = None
    threshold: float | None = None


class _Death(Exception):
    """The child died at page `index` of what it was given (-1: before the first)."""

    def __init__(self, index: int, answer: Answer, log: str) -> None:
        super().__init__(answer.rule)
        self.index, self.answer, self.log = index, answer, log


Page = tuple[bytes, str | None]  # body, declared charset
Extract = Callable[[bytes, str | None], tuple[bytes, str]]  # to text as UTF-8, and the encoding it was read in


class PageChild:
    """Extracts pages by `function`, "module:name", called in the child as
    `function(body, charset, **options) -> (text as UTF-8, charset)`; an exception of it counts as a crash.

    A context manager; one instance belongs to one thread. `submit` hands over a batch and returns as soon as the
    child has it, so that the worker can do other things until `collect`.
    """

    def __init__(self, function: str, options: Mapping[str, object], limits: Limits) -> None:
        self._function, self._options, self._limits = function, json.dumps(dict(options)), limits
        self._process: subprocess.Popen[bytes] | None = None
        self._pages: Sequence[Page] = ()
        self._log = _scratch_file()  # what the child prints
        self._progress = _scratch_file()  # the number of the page that it works on
        fcntl.fcntl(self._log, fcntl.F_SETFL, os.O_APPEND)

    def __enter__(self) -> "PageChild":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()
        os.close(self._log)
        os.close(self._progress)

    def submit(self, pages: Sequence[Page]) -> None:
        """Hand a batch to the child."""
        assert not self._pages, "collect the batch before"
        self._pages = pages
        if pages:
            self._send(pages)

    def collect(self) -> list[Answer]:
        """The answers to the batch that was submitted, in its order."""
        pages, self._pages = self._pages, ()
        answers: list[Answer] = []
        while len(answers) < len(pages):
            rest = pages[len(answers) :]
            try:
                answers += self._confirmed(rest, self._round_trip(rest, is_sent=not answers))
            except _Death as death:
                # First, while the child that it needs is new.
                culprit = death.answer if death.answer.rule == TOO_SLOW else self._alone(rest[death.index])
                answers += [*self._again(rest[: death.index]), culprit]
        return answers

    def _again(self, pages: Sequence[Page]) -> list[Answer]:
        """The answers to pages that a child got past once; one by one if the next does not."""
        try:
            return self._confirmed(pages, self._round_trip(pages)) if pages else []
        except _Death:
            return [self._alone(page) for page in pages]

    def _confirmed(self, pages: Sequence[Page], answers: list[Answer]) -> list[Answer]:
        """The answers; a page that raised is asked alone, for its neighbours may have left it too little memory."""
        return [self._alone(page) if answer.rule else answer for page, answer in zip(pages, answers, strict=True)]

    def _alone(self, page: Page) -> Answer:
        """The answer to a page that has a new child for itself."""
        self._stop()
        try:
            return self._round_trip([page])[0]
        except _Death as death:
            return death.answer

    def _round_trip(self, pages: Sequence[Page], is_sent: bool = False) -> list[Answer]:
        """Answers from one child; a child that dies before it comes to work is replaced, twice."""
        for attempt in range(_STARTS):
            if attempt or not is_sent:
                self._send(pages)
            try:
                return self._receive(len(pages))
            except _Death as death:
                if death.index >= 0:
                    raise
                log = death.log
        raise RuntimeError(f"the extracting process does not start: {log}")

    def _send(self, pages: Sequence[Page]) -> None:
        """Write a batch to the child; if it is dead, `_receive` will tell."""
        os.ftruncate(self._progress, 0)
        process = self._process or self._start()
        parts = [_COUNT.pack(len(pages))]
        for body, charset in pages:
            label = (charset or "").encode("ascii", "replace")[:255]
            parts += (_PAGE.pack(len(label), len(body)), label, body)
        assert process.stdin
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"".join(parts))
            process.stdin.flush()

    def _receive(self, num_pages: int) -> list[Answer]:
        assert self._process
        assert self._process.stdout
        pipe, answers = self._process.stdout, []
        try:
            for _ in range(num_pages):
                failed, charset_length, length = _ANSWER.unpack(_read(pipe, _ANSWER.size))
                charset, text = _read(pipe, charset_length).decode("ascii") or None, _read(pipe, length)
                answers.append(Answer(rule=CRASHED) if failed else Answer(text, charset))
        except EOFError:
            raise self._post_mortem() from None
        return answers

    def _start(self) -> "subprocess.Popen[bytes]":
        os.ftruncate(self._log, 0)
        # The worker's own paths, so that the child finds the same modules.
        paths = json.dumps([path or os.getcwd() for path in sys.path])
        limits = (repr(self._limits.cpu_seconds), str(self._limits.memory_bytes))
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _BOOT, paths, self._function, self._options, *limits, str(self._progress)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            pass_fds=(self._progress,),
        )
        return self._process

    def _stop(self) -> None:
        """End the child, if there is one, and wait for it, so that no zombie stays."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                if pipe:
                    pipe.close()
        process.wait()

    def _post_mortem(self) -> _Death:
        """Where and of what the child died; the next batch gets a new one."""
        assert self._process
        code = self._process.wait()
        self._stop()
        number, log = os.pread(self._progress, _COUNT.size, 0), os.pread(self._log, _LOG_BYTES, 0)
        index = _COUNT.unpack(number)[0] if number else -1
        if code == -signal.SIGPROF:
            answer = Answer(rule=TOO_SLOW, value=self._limits.cpu_seconds, threshold=self._limits.cpu_seconds)
        # SIGKILL is the machine's own way of ending what takes too much memory.
        elif code in (_MEMORY_EXIT, -signal.SIGKILL) or b"memory allocation of" in log:
            answer = Answer(rule=OUT_OF_MEMORY, threshold=float(self._limits.memory_bytes))
        else:
            answer = Answer(rule=CRASHED)
        return _Death(index, answer, f"exit {code}: {log[-2000:].decode('utf-8', 'replace').strip()}")


def _scratch_file() -> int:
    """The descriptor of a nameless file, never 0, 1 or 2: in a worker without standard streams those are free."""
    with tempfile.TemporaryFile() as file:
        return fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)


def _read(pipe: IO[bytes], length: int) -> bytes:
    data = pipe.read(length)
    if len(data) < length:
        raise EOFError
    return data


def serve(function: str, options: str, cpu_seconds: str, memory_bytes: str, progress: str) -> None:
    """The child: answer batches until the pipe ends, which it does when the worker ends, however it ends."""
    # A Ctrl-C is the worker's affair; SIGPROF must kill even where the worker ignores or blocks it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
    answers = os.fdopen(os.dup(1), "wb")
    # What a library prints must not end up among the answers.
    os.dup2(2, 1)
    module, _, name = function.partition(":")
    extract = functools.partial(getattr(importlib.import_module(module), name), **json.loads(options))
    # What is loaded with the first page is no page's memory and time.
    with contextlib.suppress(Exception):
        extract(b"", None)
    _limit(int(memory_bytes))
    with contextlib.suppress(EOFError, BrokenPipeError):
        try:
            while pages := _request(sys.stdin.buffer):
                # In one piece at the end: while the worker does other things, it does not empty the pipe.
                answers.write(b"".join(_answers(pages, extract, float(cpu_seconds), int(progress))))
                answers.flush()
        except MemoryError:
            # Told by dying: whether the page alone takes too much is found in a child of its own.
            os._exit(_MEMORY_EXIT)


def _request(pipe: IO[bytes]) -> list[Page]:
    """The next batch; empty at the end."""
    pages = []
    header = pipe.read(_COUNT.size)
    for _ in range(_COUNT.unpack(header)[0] if header else 0):
        label_length, length = _PAGE.unpack(_read(pipe, _PAGE.size))
        label = _read(pipe, label_length).decode("ascii")
        pages.append((_read(pipe, length), label or None))
    return pages


def _answers(pages: list[Page], extract: Extract, cpu_seconds: float, progress: int) -> Iterator[bytes]:
    """The packed answer to each page, worked out under a timer of its own."""
    for number, page in enumerate(pages):
        os.pwrite(progress, _COUNT.pack(number), 0)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        answer = _answer(page, extract)
        signal.setitimer(signal.ITIMER_PROF, 0)
        yield answer


def _answer(page: Page, extract: Extract) -> bytes:
    try:
        text, charset = extract(*page)
    except MemoryError:
        raise
    except BaseException:  # a panic of compiled code is no Exception
        return _ANSWER.pack(True, 0, 0)
    return _ANSWER.pack(False, len(charset), len(text)) + charset.encode() + text


def _limit(memory_bytes: int) -> None:
    """Bound the address space (Linux; macOS takes no such limit), the log and core dumps."""
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, _LOG_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(limit, (soft, soft))

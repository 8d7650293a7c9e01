"""Report a hang: the stacks of every rank, and which rank is behind, at which step, in which phase.

The training loop gives a heartbeat as it enters a phase; a thread watches. Without one in N seconds, and so without a
step, each rank writes its own stacks at once, and rank 0 compares the heartbeats of all. In a collective call every
rank stands still when one does, so the one to look at is not the one that has waited longest but the one with the
fewest heartbeats.

Heartbeats go through the store of torch.distributed by a connection of their own, from the thread: the loop pays for an
assignment. Where the interpreter itself is held (a C call that keeps its lock, so that the thread cannot run),
faulthandler's own timer writes the stacks, and the other ranks see that this one has fallen silent.
"""

import contextlib
import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TextIO

__all__ = ["PHASES", "Heartbeat", "Watchdog", "connect_store", "shutdown_warning", "who_is_behind"]

PHASES = ("start", "data", "forward", "backward", "optimizer", "checkpoint", "evaluate", "end")
SILENT = 2.5  # looks without a sign of a rank's thread
MANY = 8  # ranks that are named one by one
PATIENCE = {"checkpoint": 10}  # times as long: a slow store looks like one that hangs


class Store(Protocol):
    """What is used of torch.distributed's stores."""

    def set(self, key: str, value: str) -> None:
        """Put a value."""

    def get(self, key: str) -> bytes:
        """The value; waits where there is none."""

    def check(self, keys: list[str]) -> bool:
        """Whether all keys have values."""


@dataclass(frozen=True)
class Heartbeat:
    """Where a rank's loop was last."""

    step: int
    phase: str
    count: int  # heartbeats within the step: with micro-batches the phases come round again
    seconds: float  # since this heartbeat
    sign: int  # grows as long as the rank's thread lives


def connect_store(address: tuple[str, int] | None, timeout_seconds: float = 20) -> Store | None:
    """Open a connection of our own to the store at which the ranks of this start met; None for a process alone.

    Of our own, because a call on the process group's connection waits behind whatever the loop is doing there.
    """
    if address is None:
        return None
    from torch.distributed import PrefixStore, TCPStore

    timeout = timedelta(seconds=timeout_seconds)
    host, port = address
    return PrefixStore("watchdog", TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout))


class Watchdog:
    """Watches from a thread: call `heartbeat` on entering a phase, `close` in the end.

    `seconds` without a heartbeat (in a checkpoint ten times that) are a hang, reported once. The stacks, and of
    rank 0 the comparison, are appended to `folder`/hang/rank-00000.txt and written to `out`. `store` is needed for
    more than one rank.
    Raises ValueError for `seconds` of 0 or less.
    """

    def __init__(
        self,
        seconds: float,
        folder: str | Path,
        rank: int = 0,
        world: int = 1,
        store: Store | None = None,
        out: TextIO | None = None,
    ) -> None:
        if seconds <= 0:
            raise ValueError(f"hang_seconds={seconds}: it must be above 0")
        self.seconds, self.rank, self.world, self.store = seconds, rank, world, store
        self.path = Path(folder) / "hang" / f"rank-{rank:05}.txt"
        self.out = sys.stderr if out is None else out
        self.interval = min(seconds / 4, 5.0)
        self._last = (0, "start", 0, time.monotonic())
        self._sign, self._reported, self._closing = 0, False, threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def heartbeat(self, step: int, phase: str) -> None:
        """The loop enters a phase, one of PHASES. Costs an assignment."""
        before, _, count, _ = self._last
        self._last = (step, phase, count + 1 if step == before else 0, time.monotonic())

    def close(self) -> None:
        """Stop watching, and let the others know that this rank has ended."""
        self.heartbeat(self._last[0], "end")
        self._closing.set()
        self._thread.join(timeout=self.interval + 1)
        faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        self._arm()
        while not self._closing.wait(self.interval):
            _, phase, _, since = self._last
            stuck, limit = time.monotonic() - since, self.seconds * PATIENCE.get(phase, 1)
            if stuck >= limit and not self._reported:
                self._reported = True
                faulthandler.cancel_dump_traceback_later()
                self._write_stacks(stuck)  # before anything that could wait for others
                self._publish()
                if self.rank in (0, 1):
                    self._compare()
            else:
                self._publish()
                if stuck < limit:
                    self._arm()
                    self._reported = False
        self._publish()

    def _arm(self) -> None:
        """Set faulthandler's timer, which needs no interpreter, to go off after this thread should have reported."""
        with contextlib.suppress(OSError, ValueError, AttributeError):  # `out` need not be a real file
            faulthandler.dump_traceback_later(self.seconds + 2 * self.interval, file=self.out)

    def _write_stacks(self, stuck: float) -> None:
        step, phase, _, _ = self._last
        head = (
            f"rank {self.rank} (process {os.getpid()} on {socket.gethostname()}): no step in {stuck:.0f} s, "
            f"standing at step {step}, {phase}; its stacks:\n"
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a+") as file:
                start = file.seek(0, os.SEEK_END)
                file.write(head)
                file.flush()
                faulthandler.dump_traceback(file)
                file.seek(start)
                self._print(file.read())  # in one piece, so that ranks do not mix their lines
        except OSError as error:  # a full or stuck disk may be the very reason
            self._print(f"{head}(not kept in {self.path}: {error})\n")
            faulthandler.dump_traceback(self.out)

    def _print(self, text: str) -> None:
        self.out.write(text)
        self.out.flush()

    def _publish(self) -> None:
        """Put this rank's heartbeat into the store."""
        if self.store is None:
            return
        step, phase, count, since = self._last
        self._sign += 1
        heartbeat = Heartbeat(step, phase, count, time.monotonic() - since, self._sign)
        with contextlib.suppress(RuntimeError):  # the store has gone: `_compare` reports it when it matters
            self.store.set(f"{self.rank}", json.dumps(asdict(heartbeat)))

    def _compare(self) -> None:
        """Report who is behind; rank 1 does when rank 0 is silent."""
        if self.store is None:
            return
        try:
            before = self._read()
            if self._closing.wait(SILENT * self.interval):
                return
            self._publish()
            now = self._read()
        except RuntimeError as error:
            lines = [f"the store that the ranks met at does not answer, so its process is stopped or gone: {error}"]
        else:
            silent = {rank for rank, heartbeat in now.items() if heartbeat is None or heartbeat == before[rank]}
            if self.rank == 1 and 0 not in silent:
                return
            lines = who_is_behind(now, silent)
        text = "".join(f"hang: {line}\n" for line in lines)
        self._print(text)
        with contextlib.suppress(OSError), self.path.open("a") as file:
            file.write(text)

    def _read(self) -> dict[int, Heartbeat | None]:
        assert self.store is not None
        heartbeats: dict[int, Heartbeat | None] = {}
        for rank in range(self.world):
            there = self.store.check([f"{rank}"])
            heartbeats[rank] = Heartbeat(**json.loads(self.store.get(f"{rank}"))) if there else None
        return heartbeats


def who_is_behind(heartbeats: Mapping[int, Heartbeat | None], silent: set[int]) -> list[str]:
    """Return what the heartbeats of all ranks show of a hang, a line a finding, the most important first.

    `silent`: ranks whose own thread reports nothing any more; a heartbeat of None is a rank that never reported.
    """
    seen = {rank: heartbeat for rank, heartbeat in heartbeats.items() if heartbeat is not None}
    never = [rank for rank in heartbeats if rank not in seen]
    ended = [rank for rank, heartbeat in seen.items() if heartbeat.phase == "end"]
    running = {rank: heartbeat for rank, heartbeat in seen.items() if heartbeat.phase != "end"}
    lines = [f"{_ranks(never)} never reported anything: not started, or ended before the first look"] if never else []
    places = {rank: (heartbeat.step, heartbeat.count) for rank, heartbeat in running.items()}
    first = min(places.values(), default=None)
    behind = [rank for rank, place in places.items() if place == first]
    ahead = Counter((running[rank].step, running[rank].phase) for rank in places if rank not in behind)
    if ahead:
        others = ", ".join(f"{number} at step {step}, {phase}" for (step, phase), number in sorted(ahead.items()))
        lines += [_behind(behind, running[behind[0]], others)]
    elif behind and not never and not ended and not silent:
        heartbeat = running[behind[0]]
        lines += [
            f"no rank is behind, all {len(behind)} stand at step {heartbeat.step}, {heartbeat.phase}: "
            "their stacks show what they wait for"
        ]
    for rank in sorted(silent & set(running)):
        heartbeat = running[rank]
        lines.append(
            f"rank {rank} is silent: its process is stopped or gone, or C code holds its interpreter; "
            f"it last reported step {heartbeat.step}, {heartbeat.phase}"
        )
    if ended:
        lines.append(f"{_ranks(ended)} ended, the others wait")
    return lines


def _behind(ranks: list[int], heartbeat: Heartbeat, others: str) -> str:
    are = "is" if len(ranks) == 1 else "are"
    return (
        f"{_ranks(ranks)} {are} behind: step {heartbeat.step}, {heartbeat.phase}, for {heartbeat.seconds:.0f} s; "
        f"the others: {others}"
    )


def _ranks(ranks: list[int]) -> str:
    names = ", ".join(str(rank) for rank in ranks[:MANY]) + (", ..." if len(ranks) > MANY else "")
    return f"rank {names}" if len(ranks) == 1 else f"{len(ranks)} ranks ({names})"


def shutdown_warning(save_seconds: float, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return a warning when a checkpoint takes longer than torchrun leaves its ranks after SIGTERM, else None.

    torchrun lets its ranks know nothing of its flag `--shutdown-timeout`, only the variable is seen here.
    """
    if "TORCHELASTIC_RUN_ID" not in environ:
        return None  # not started by torchrun: nothing kills this process after a while
    limit = float(environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30"))
    if save_seconds < 0.8 * limit:
        return None
    return (
        f"a checkpoint took {save_seconds:.0f} s, and torchrun kills its ranks {limit:.0f} s after SIGTERM: "
        f"export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={max(60, 2 * round(save_seconds))} before it starts"
    )

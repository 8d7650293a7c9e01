"""A rank that trains for two steps and then hangs as shown: run by test_watchdog.py as a process.

    python hanging_rank.py FOLDER SECONDS KIND     with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT

KIND says what rank 1 does in step 2: sleeps in `data`, holds the interpreter in C code, stops itself, or nothing.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from trainer.monitor.watchdog import Watchdog, connect_store


class FolderStore:
    """A store of files, for ranks that need not wait for the import of torch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def set(self, key: str, value: str) -> None:
        unfinished = self.folder / f".{key}"
        unfinished.write_text(value)
        unfinished.rename(self.folder / key)

    def get(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()

    def check(self, keys: list[str]) -> bool:
        return all((self.folder / key).exists() for key in keys)


def load_a_batch_that_never_comes() -> None:
    time.sleep(600)


def main() -> None:
    folder, seconds, kind = sys.argv[1], float(sys.argv[2]), sys.argv[3]
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    host = None
    if kind == "data":
        from torch.distributed import TCPStore

        if rank == 0:  # as torchrun's agent would
            host = TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), is_master=True, wait_for_workers=False)
        store = connect_store(("127.0.0.1", int(os.environ["MASTER_PORT"])))
    else:
        store = FolderStore(Path(folder) / "store")
    watchdog = Watchdog(seconds, folder, rank, world, store)
    print("ready", flush=True)
    sys.stdin.readline()
    for step in range(2):
        for phase in ("data", "forward", "backward", "optimizer"):
            watchdog.heartbeat(step, phase)
    watchdog.heartbeat(2, "data")
    if rank == 1 and kind == "data":
        load_a_batch_that_never_comes()
    if rank == 1:
        time.sleep(seconds / 2)  # two looks of the thread, so that the others know that it is here
    if rank == 1 and kind == "interpreter":
        ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the interpreter's lock
    if rank == 1 and kind == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    if kind == "fine":
        for step in range(3, 15):
            watchdog.heartbeat(step, "data")
            time.sleep(seconds / 4)
        watchdog.close()
        print("done", flush=True)
        sys.stdin.readline()
        return
    for phase in ("forward", "backward"):
        watchdog.heartbeat(2, phase)
    time.sleep(600)  # the others wait in a collective call
    del host


main()

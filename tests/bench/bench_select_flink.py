"""Seconds and memory of a whole decision on a Flink cluster of fixed heap, over `bench_select`'s synthetic parts.

    python -m tests.bench.bench_select_flink 100000 1000000 10000000 [--folder FOLDER] [--check]

Two TaskManagers of one slot, each with the heap that `deploy/flink/cluster.py` gives, whatever the rows. Parts take
600 bytes a document below FOLDER. Printed: seconds; peaks of the resident memory of the TaskManagers, and of what the
Python workers and the driver hold privately, in MB; how often the job failed. `--check` decides in this process too.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import psutil

from deploy.flink.cluster import Cluster
from pipeline.ingest.receipts import PartRef
from pipeline.runtime.options import runner
from pipeline.select.decision.funnel import Funnel
from pipeline.select.select import decision_digest, select
from schemas.recipe import Recipe
from tests.bench.bench_select import RULES, make_parts


class Peaks(defaultdict[str, int]):
    """The largest sum of the processes of a kind seen so far, and the largest single one, bytes."""

    def see(self, kind: str, processes: list[int], private: bool) -> None:
        """Look once at processes of one kind."""
        held = [_memory(pid, private) for pid in processes]
        self[kind] = max(self[kind], sum(held))
        self[f"largest of {kind}"] = max(self[f"largest of {kind}"], *held, 0)


def _memory(pid: int, private: bool) -> int:
    with contextlib.suppress(psutil.Error):
        memory = psutil.Process(pid).memory_info()
        return int(memory.rss - memory.shared * private)
    return 0


@contextlib.contextmanager
def peaks(running: Cluster) -> Iterator[Peaks]:
    """Looked at five times a second."""
    seen, stop = Peaks(int), threading.Event()
    taskmanagers = [pid for name, pid in running.running().items() if name.startswith("taskmanager")]

    def watch() -> None:
        while not stop.wait(0.2):
            seen.see("taskmanagers", taskmanagers, private=False)
            seen.see("workers", running.workers(), private=True)
            seen.see("driver", [os.getpid()], private=True)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def measure(parts: list[PartRef], recipe: Recipe, folder: Path, flags: list[str], running: Cluster) -> Funnel:
    """One decision; prints its line."""
    started = time.monotonic()
    with peaks(running) as seen:
        funnel = select(parts, recipe, str(folder / "flink"), decision_digest(parts, recipe), runner(flags))
    megabytes = ", ".join(
        f"{kind} {held >> 20:,}" for kind, held in sorted(seen.items()) if kind != "largest of driver"
    )
    failures = list(running.failures().values())[-1:]
    print(
        f"{funnel.records_read:,} documents: {time.monotonic() - started:.1f} s; MB: {megabytes}; failures {failures}"
    )
    print(f"  kept {funnel.kept:,}, largest cluster {funnel.largest_cluster:,}", flush=True)
    return funnel


def main() -> int:
    """Run and print two lines a size; 1 when the decision in this process is another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=int, nargs="*", default=[100_000])
    parser.add_argument("--folder", type=Path, help="of parts and decisions (default: a temporary one)")
    parser.add_argument("--check", action="store_true", help="decide in this process too, and compare")
    options = parser.parse_args()
    recipe = Recipe.model_validate({"sources": {"web": {"root": "/nowhere"}}, "rules": RULES})
    same = True
    for documents in options.documents:
        with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
            folder = Path(scratch)
            parts = make_parts(folder, documents)
            running = Cluster(folder / "cluster")
            flags = running.start(2)
            try:
                funnel = measure(parts, recipe, folder, flags, running)
            finally:
                running.stop()
            if options.check:
                alone = select(parts, recipe, str(folder / "here"), decision_digest(parts, recipe))
                same = same and alone.to_dict() == funnel.to_dict()
                print(f"  in this process: {'equal' if same else 'DIFFERENT'}", flush=True)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

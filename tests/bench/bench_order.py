"""The order of samples: how well it mixes, and what opening, seeking, batches and looking back cost.

    taskset -c 0 python tests/bench/bench_order.py [--shards 100000] [--sources 300]

Mixing: lag-1 correlation, and chi-square of 100 buckets over windows of 10,000 positions, of our permutation beside a
linear congruential order and numpy's shuffle, of a million rows; chance gives about 0.001 and 99. Cost: shards of
14.5 M tokens at T = 2,048, 708 M rows in all, each order in a fresh process; memory is that process's peak above its
imports. Milliseconds are of CPU: one thread does it all, without input or output, so a busy machine changes little.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE = 10_000_000_000
BATCH = 1024
ROWS = 7_080  # of each shard, on average


def mixing(size: int) -> None:
    """Prints both measures for three orders."""
    from trainer.order.permutation import key, permute

    x = np.arange(size)
    orders: dict[str, Callable[[], NDArray[np.int64]]] = {
        "ours": lambda: permute(x, size, key(7, "rows", "web", 0, -1, 0)),
        "LCG": lambda: congruential(size),
        "numpy shuffle": lambda: np.random.default_rng(7).permutation(size),
    }
    print(f"{size:,} rows      lag-1 correlation   chi-square (99 expected)   ns a row")
    for name, make in orders.items():
        make()
        started = time.process_time()
        y = make()
        elapsed = time.process_time() - started
        print(f"{name:15} {lag_1(y):19.5f} {chi_square(y):26.1f} {elapsed / size * 1e9:10.1f}")


def congruential(size: int) -> NDArray[np.int64]:
    """x -> (a x + c) mod p, as Levanter had it: p prime at or above the size, a and c drawn; above the size, again."""
    prime = next(p for p in range(size, 2 * size) if all(p % d for d in range(2, int(p**0.5) + 1)))
    a, c = (int(number) for number in np.random.default_rng(7).integers(1, prime, 2))
    y = (np.arange(prime, dtype=np.int64) * a + c) % prime
    return y[y < size]


def lag_1(y: NDArray[np.int64]) -> float:
    """Correlation of each row with the next, and of each step with the next step, whichever is larger."""
    steps = np.diff(y).astype(float)
    both = [np.corrcoef(y[:-1], y[1:])[0, 1], np.corrcoef(steps[:-1], steps[1:])[0, 1] + 0.5]  # a shuffle's is -1/2
    return float(max(both, key=abs))


def chi_square(y: NDArray[np.int64], window: int = 10_000, buckets: int = 100) -> float:
    """Mean over windows of positions of the chi-square of the rows' histogram."""
    places = (y * buckets // len(y)).reshape(-1, window)
    counts = np.array([np.bincount(row, minlength=buckets) for row in places])
    due = window / buckets
    return float(((counts - due) ** 2 / due).sum(axis=1).mean())


def cost(num_shards: int, num_sources: int, capped: bool) -> dict[str, float]:
    """Milliseconds and MiB of one order, in this process."""
    started = time.process_time()
    from trainer.order.batch_order import Order, Phase
    from trainer.order.shard_table import Shards

    result = {"import_ms": elapsed_ms(started)}
    held = resident()
    generator = np.random.default_rng(0)
    names = tuple(f"s{number:05}" for number in range(num_sources))
    shards = Shards(
        sources=names,
        source_N=(np.arange(num_shards) % num_sources).astype(np.int32),
        sha256_N=generator.integers(0, 256, (num_shards, 32), np.uint8),
        tokens_N=generator.integers(ROWS // 2, ROWS * 3 // 2, num_shards) * 2048,
    )
    weights = {name: str(weight) for name, weight in zip(names, generator.integers(50, 150, num_sources), strict=True)}
    caps = {name: str(4 + number / num_sources) for number, name in enumerate(names)} if capped else {}
    result["rows"] = float(shards.rows(2048, "windows").sum())
    started = time.process_time()
    order = Order(7, [Phase(0, BATCH, 2048, "windows", weights, shards, caps)])
    result["open_ms"] = elapsed_ms(started)
    if capped:
        started = time.process_time()
        last = order.last_batch()
        result["plan_ms"] = elapsed_ms(started)
        assert last is not None
        b = last // 2
    else:
        b = SAMPLE // BATCH
    for name, batch in (("first_seek_ms", b), ("second_seek_ms", b // 3)):
        started = time.process_time()
        order.batch(batch)
        result[name] = elapsed_ms(started)
    started = time.process_time()
    for batch in range(b, b + 500):
        order.batch(batch)
    result["batch_ms"] = elapsed_ms(started) / 500
    started = time.process_time()
    found = order.positions(0, lambda _length, _packing: [0, 1, 2], b)
    result["reverse_ms"], result["reverse_readings"] = elapsed_ms(started), float(len(found))
    result["memory_mib"] = resident() - held
    return result


def elapsed_ms(started: float) -> float:
    """Milliseconds of CPU since."""
    return (time.process_time() - started) * 1000


def resident() -> float:
    """Peak memory of this process so far, MiB; Linux."""
    status = Path("/proc/self/status").read_text()  # getrusage's peak is inherited from the parent
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Prints the figures; a child with --child prints one order's as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--sources", type=int, default=300, help="of the run with caps")
    parser.add_argument("--child", choices=["plain", "capped"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sources = 1 if options.child == "plain" else options.sources
        print(json.dumps(cost(options.shards, sources, options.child == "capped")))
        return
    mixing(1_000_000)
    for child in ("plain", "capped"):
        command = [sys.executable, __file__, "--child", child, "--shards", str(options.shards)]
        command += ["--sources", str(options.sources)]
        figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"\n{options.shards:,} shards, {1 if child == 'plain' else options.sources} sources, {child}")
        for name, value in figures.items():
            print(f"{name:18} {value:,.2f}")


if __name__ == "__main__":
    main()

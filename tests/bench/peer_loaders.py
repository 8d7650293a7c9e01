"""litdata and MosaicML Streaming at the same job as bench_loader.py, which runs this with their own Python.

    python tests/bench/peer_loaders.py write|read litdata|mosaic FOLDER ... (see `main`)

Each in its own format, with the settings that were fastest here: tokens of 2 bytes, batches put together by one
stack. Imports nothing of this project, which is not installed there.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

CHUNK_TOKENS = 16 << 20


def tokens_of(chunk: int) -> Any:
    """The tokens of a chunk, as bench_loader.py makes them."""
    return np.random.default_rng(chunk).integers(1, 50_000, CHUNK_TOKENS).astype(np.uint16)


def documents_of(chunk: int) -> Iterator[Any]:
    """For litdata: a chunk as one document."""
    yield torch.from_numpy(tokens_of(chunk))


def write_litdata(folder: str, chunks: int, length: int) -> None:
    """Tokens on end, cut when they are read."""
    from litdata import TokensLoader, optimize

    optimize(
        fn=documents_of,
        inputs=list(range(chunks)),
        output_dir=folder,
        chunk_size=CHUNK_TOKENS // (length + 1) * (length + 1),
        item_loader=TokensLoader(block_size=length + 1),
        num_workers=2,
    )


def write_mosaic(folder: str, chunks: int, length: int) -> None:
    """Rows of T + 1 tokens."""
    from streaming import MDSWriter

    with MDSWriter(out=folder, columns={"tokens": f"ndarray:uint16:{length + 1}"}, size_limit=32 << 20) as out:
        for chunk in range(chunks):
            for row in tokens_of(chunk)[: CHUNK_TOKENS // (length + 1) * (length + 1)].reshape(-1, length + 1):
                out.write({"tokens": row})


def read_litdata(folder: str, batch: int, length: int, workers: int) -> Any:
    """Shuffled batches of (B, T + 1) tokens."""
    from litdata import StreamingDataLoader, StreamingDataset, TokensLoader

    data = StreamingDataset(folder, item_loader=TokensLoader(block_size=length + 1), shuffle=True, drop_last=True)
    return StreamingDataLoader(data, batch_size=batch, num_workers=workers, collate_fn=torch.stack)


def read_mosaic(folder: str, batch: int, length: int, workers: int) -> Any:
    """Shuffled batches of (B, T + 1) tokens."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    clean_stale_shared_memory()
    data = StreamingDataset(local=folder, shuffle=True, batch_size=batch)
    return DataLoader(data, batch_size=batch, num_workers=workers, collate_fn=stack_rows)


def stack_rows(rows: list[Any]) -> Any:
    """One tensor of numpy rows; torch cannot stack what numpy can."""
    return torch.from_numpy(np.stack([row["tokens"] for row in rows]))


def batches(loader: Any) -> Iterator[tuple[Any, Any]]:
    """Inputs and targets as a model takes them, int64, epoch after epoch."""
    while True:
        for rows_BT in loader:
            wide_BT = rows_BT.to(torch.int64)
            yield wide_BT[:, :-1], wide_BT[:, 1:]


def measure(found: Iterator[tuple[Any, Any]], warm: int, seconds: float, started: float) -> dict[str, float]:
    """Tokens a second after some batches, and the time to the first of them."""
    next(found)
    first = time.perf_counter() - started
    for _ in range(warm):
        next(found)
    tokens, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        inputs, targets = next(found)
        assert inputs.shape == targets.shape
        tokens += targets.numel()
    speed = tokens / (time.perf_counter() - begin)
    return {"tokens_per_second": speed, "first_batch_seconds": first, **memory()}


def memory() -> dict[str, float]:
    """Most memory of this process and its children: all that is mapped, and now what is not of files."""
    total = anonymous = 0
    for process in [os.getpid(), *_children(os.getpid())]:
        with open(f"/proc/{process}/status") as file:
            found = dict(line.split(":", 1) for line in file if ":" in line)
        total += int(found["VmHWM"].split()[0])
        anonymous += int(found["RssAnon"].split()[0]) + int(found["RssShmem"].split()[0])
    return {"peak_mib": total / 1024, "own_mib": anonymous / 1024}


def _children(process: int) -> list[int]:
    with open(f"/proc/{process}/task/{process}/children") as file:
        found = [int(child) for child in file.read().split()]
    return found + [below for child in found for below in _children(child)]


def main() -> None:
    """`write PEER FOLDER CHUNKS T`, or `read PEER FOLDER B T WORKERS SECONDS`: prints JSON."""
    what, peer, folder, *numbers = sys.argv[1:]
    torch.set_num_threads(1)
    if what == "write":
        {"litdata": write_litdata, "mosaic": write_mosaic}[peer](folder, *map(int, numbers))
        return
    started = time.perf_counter()
    batch, length, workers = map(int, numbers[:3])
    loader = {"litdata": read_litdata, "mosaic": read_mosaic}[peer](folder, batch, length, workers)
    found = measure(batches(loader), 50, float(numbers[3]), started)
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # the workers of both are slow to end


if __name__ == "__main__":
    main()

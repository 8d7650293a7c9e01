"""The loader's speed beside litdata and MosaicML Streaming; opening 100,000 shards; resuming at sample 10^10.

    make bench-loaders                                      (the peers, into .cache/peers-trainer)
    python -m tests.bench.bench_loader FOLDER [--chunks 13] [--rounds 3] [--seconds 10]

Writes about 218 M random tokens in each form below FOLDER (1.3 GB), unless they are there. Every figure is taken in a
process of its own; rounds alternate, the median counts. All give (16, 2048) inputs and targets in int64, shuffled, on
the CPU. "1 process" has no workers; ours reads ahead in a thread there, which makes use of a second core.
"""

import argparse
import hashlib
import io
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.arrow import tokens_schema
from schemas.packing import packed_rows
from tests.bench.peer_loaders import CHUNK_TOKENS, measure, memory, tokens_of
from tests.made_dataset import TOKENIZER, MadeDataset, Shard

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".cache" / "peers-trainer" / "bin" / "python"
BATCH, LENGTH = 16, 2048
DOCUMENT_TOKENS = 1024
MANY = 100_000
FAR = 10_000_000_000


def main() -> None:
    """Run everything, or one measurement in this process."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--chunks", type=int, default=13, help="of 16.8 M tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--only", choices=["read", "open"], help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--packing", default="windows", help=argparse.SUPPRESS)
    parser.add_argument("--start", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only == "read":
        print(json.dumps(read_ours(options.folder, options.workers, options.packing, options.seconds)))
    elif options.only == "open":
        print(json.dumps(open_many(options.folder, options.start)))
    else:
        compare(options)
        opening(options.folder / "many")


# ---------------------------------------------------------------- speed


def compare(options: argparse.Namespace) -> None:
    """Tokens a second of each loader."""
    ours = [sys.executable, "-m", "tests.bench.bench_loader"]
    write_all(options.folder, options.chunks)
    runs: dict[str, list[str]] = {}
    for workers in (0, 2):
        name = f"{workers} workers" if workers else "1 process"
        common = ["--only", "read", "--workers", str(workers), "--seconds", str(options.seconds)]
        runs[f"ours, {name}"] = [*ours, str(options.folder / "ours"), *common]
        runs[f"ours, documents and masks, {name}"] = [*runs[f"ours, {name}"], "--packing", "documents"]
        for peer in ("litdata", "mosaic"):
            numbers = [str(BATCH), str(LENGTH), str(workers), str(options.seconds)]
            place = str(options.folder / peer)
            runs[f"{peer}, {name}"] = [str(PEERS), "tests/bench/peer_loaders.py", "read", peer, place, *numbers]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for _ in range(options.rounds):
        for name, command in runs.items():
            found[name].append(run(command))
    for name, values in found.items():
        speeds = [value["tokens_per_second"] / 1e6 for value in values]
        first = statistics.median(value["first_batch_seconds"] for value in values)
        peak, own = (max(value[key] for value in values) for key in ("peak_mib", "own_mib"))
        print(
            f"{name:<40} {statistics.median(speeds):8.1f} M tokens/s  ({min(speeds):.1f} to {max(speeds):.1f})  "
            f"first batch {first:5.2f} s  most memory {peak:6.0f} MiB, {own:5.0f} without files"
        )


def run(command: list[str]) -> dict[str, Any]:
    """The last line that a command prints, as JSON."""
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def write_all(folder: Path, chunks: int) -> None:
    """Each loader's form of the same tokens."""
    if not (folder / "ours" / "manifest.json").exists():
        write_ours(folder / "ours", chunks)
    for peer in ("litdata", "mosaic"):
        if not (folder / peer / "index.json").exists():
            command = [str(PEERS), "tests/bench/peer_loaders.py", "write", peer, str(folder / peer)]
            subprocess.run([*command, str(chunks), str(LENGTH)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def write_ours(folder: Path, chunks: int) -> None:
    """A dataset of shards of 16.8 M tokens, in documents of 1 to 2,047 tokens."""
    data = MadeDataset(folder, vocab_size=50_000, sequence_lengths=[LENGTH])
    for chunk in range(chunks):
        tokens = tokens_of(chunk)
        lengths = np.random.default_rng(chunk).integers(1, 2 * DOCUMENT_TOKENS, CHUNK_TOKENS // DOCUMENT_TOKENS * 2)
        ends = np.cumsum(lengths)
        ends = np.append(ends[ends < CHUNK_TOKENS], CHUNK_TOKENS)
        tokens[ends - 1] = 0
        write_shard(data, tokens, ends)
    data.commit()


def write_shard(data: MadeDataset, tokens: Any, ends: Any) -> None:
    """Add a shard, in record batches of about 4 MB."""
    schema = tokens_schema(pa.uint16(), {"source": "web", "split": "train", "tags": "{}", "tokenizer": TOKENIZER})
    sink, lengths = io.BytesIO(), np.diff(ends, prepend=0)
    with pa.ipc.new_file(sink, schema) as writer:
        for first in range(0, len(ends), 2000):
            last = min(first + 2000, len(ends))
            start = int(ends[first] - lengths[first])
            offsets = pa.array(np.append(0, ends[first:last] - start).astype(np.int32))
            ids = pa.array([bytes(12) + row.to_bytes(4, "big") for row in range(first, last)], pa.binary(16))
            values = pa.array(tokens[start : ends[last - 1]])
            columns = [
                ids,
                pa.ListArray.from_arrays(offsets, values, type=schema.field("tokens").type),
                pa.array(4 * lengths[first:last].astype(np.uint32)),
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
    content = sink.getvalue()
    sha256 = hashlib.sha256(content).hexdigest()
    path = f"shards/g1-{len(data.shards):05d}-web-train-000-{sha256[:16]}.arrow"
    (data.folder / "shards").mkdir(parents=True, exist_ok=True)
    (data.folder / path).write_bytes(content)
    data.shards.append(Shard(shard_row(path, content, sha256, lengths)))


def shard_row(path: str, content: bytes, sha256: str, lengths: Any) -> dict[str, Any]:
    """A row of the shards table."""
    return {
        "path": path,
        "bytes": len(content),
        "sha256": sha256,
        "rows": len(lengths),
        "tokens": int(lengths.sum()),
        "text_bytes": 4 * int(lengths.sum()),
        "source": "web",
        "tags": "{}",
        "split": "train",
        "longest_document": int(lengths.max()),
        "packed_rows": json.dumps({str(LENGTH): packed_rows(lengths, LENGTH)}, separators=(",", ":")),
        "generation": 1,
        "replaces": [],
        "retired_in": None,
    }


def read_ours(folder: Path, workers: int, packing: str, seconds: float) -> dict[str, float]:
    """Measure our stream; packing `documents` with masks."""
    import torch

    from trainer.data.token_stream import TokenStream

    torch.set_num_threads(1)
    started = time.perf_counter()
    mask = "documents" if packing == "documents" else "none"
    settings: dict[str, Any] = {"sequence_length": LENGTH, "global_batch": BATCH, "packing": packing, "mask": mask}
    stream = TokenStream(str(folder), workers=workers, **settings)

    def batches() -> Iterator[tuple[Any, Any]]:
        for batch in stream:
            yield batch.tokens_BT, batch.targets_BT

    found = measure(batches(), 50, seconds, started)
    stream.close()
    return found


# ---------------------------------------------------------------- 100,000 shards


def opening(folder: Path) -> None:
    """The first batch of a dataset of 100,000 shards, from its start and at sample 10^10."""
    if not (folder / "manifest.json").exists():
        write_many(folder)
    for name, start in (("at its start", 0), (f"at sample {FAR:,}", FAR // 1024)):
        command = [sys.executable, "-m", "tests.bench.bench_loader", str(folder), "--only", "open"]
        found = [run([*command, "--start", str(start)]) for _ in range(3)]
        opened, first, peak = (
            statistics.median(each[key] for each in found) for key in ("opened", "first", "peak_mib")
        )
        print(
            f"{MANY:,} shards, {name}: opened in {opened:.2f} s, first batch of 1,024 after {first:.2f} s, most "
            f"memory {peak:.0f} MiB, {found[0]['before_mib']:.0f} of them before (imports)"
        )


def write_many(folder: Path) -> None:
    """A manifest of 100,000 shards of 16.8 M tokens, all one file under made-up digests: only the table is opened."""
    data = MadeDataset(folder, vocab_size=50_000)
    ends = np.arange(1, CHUNK_TOKENS // DOCUMENT_TOKENS + 1) * DOCUMENT_TOKENS
    write_shard(data, tokens_of(0), ends)
    row = data.shards[0].row
    digests = [hashlib.sha256(f"shard{number}".encode()).hexdigest() for number in range(MANY)]
    data.shards = [Shard(row | {"sha256": digest}) for digest in digests]
    data.commit()


def open_many(folder: Path, start: int) -> dict[str, float]:
    """Seconds until the dataset is open, and until the first batch is there."""
    from trainer.data.token_stream import TokenStream

    before = memory()["peak_mib"]
    begin = time.perf_counter()
    settings: dict[str, Any] = {"sequence_length": LENGTH, "global_batch": 1024, "verify_shards": False}
    stream = TokenStream(str(folder), start_batch=start, **settings)
    opened = time.perf_counter() - begin
    batch = next(iter(stream))
    first = time.perf_counter() - begin
    assert batch.tokens_BT.shape == (1024, LENGTH)
    stream.close()
    return {"opened": opened, "first": first, "before_mib": before, **memory()}


if __name__ == "__main__":
    main()

"""The whole job, from WARC (or text) to token shards, beside datatrove in the same run: seconds, ratio, peak memory.

    make bench-peers
    python tests/bench/bench_job.py --peer .cache/peers/bin/python CRAWL_FOLDER [--kind warc|jsonl] [--tokenizer FILE]

Both run at their own best on two cores (the peer: two processes), on the same files, with the same tokenizer and the
same families of rules (Gopher quality and repetition, FineWeb, near duplicates of 5-grams with 14 bands of 8 hashes,
PII masking); ours also identifies languages, writes ledger, index and digests, and verifies pairs. Peak memory is of
all processes together. Both find their modules compiled to bytecode, as in any run after the first (`--warm` runs each
once before, into a bytecode cache of this benchmark's own): where PYTHONDONTWRITEBYTECODE is set, every process of
either would compile some 2,000 modules first.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Both jobs, one after the other, `--rounds` times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, help="a folder of WARC or JSONL files")
    parser.add_argument("--kind", choices=["warc", "jsonl"], default="warc")
    parser.add_argument("--peer", help="python with datatrove; left out: ours alone")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a tokenizer.json with <|endoftext|>")
    parser.add_argument("--workers", type=int, default=2, help="of the peer; ours chooses by itself")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--warm", action="store_true", help="a round before, which does not count")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-job-") as folder:
        first = 0 if options.warm else 1
        for number in range(first, options.rounds + 1):
            if not number:
                print("not counted:")
            ours, memory, count = run_ours(options, Path(folder) / f"ours-{number}")
            print(line("gristmill", ours, memory, count), flush=True)
            if options.peer:
                peer, memory = run_peer(options, Path(folder) / f"peer-{number}")
                print(line("datatrove", peer, memory, count))
                print(f"ratio      {peer[0] / ours[0]:7.1f}   of CPU {peer[1] / ours[1]:.1f}", flush=True)
    return 0


def line(name: str, seconds: tuple[float, float], memory: int, count: int) -> str:
    """One job's figures."""
    wall, cpu = seconds
    return f"{name}  {wall:7.1f} s  {cpu:7.1f} s of CPU  {count / wall:8.1f} records/s  {memory / 2**20:6.0f} MiB"


def run_ours(options: argparse.Namespace, folder: Path) -> tuple[tuple[float, float], int, int]:
    """Wall and CPU seconds, peak bytes, records read."""
    recipe = yaml.safe_load((ROOT / "pipeline" / "recipes" / "fineweb.yaml").read_text())
    recipe["sources"] = {"x": {"root": str(options.inputs), "inputs": ["**"]}}
    # The peer runs without: its language model is a download. Cut so that two workers have equal work.
    recipe["rules"] = {name: bound for name, bound in recipe["rules"].items() if not name.startswith("language.")}
    recipe["tokenizer"] = {"file": str(options.tokenizer)}
    size = sum(path.stat().st_size for path in options.inputs.rglob("*") if path.is_file())
    recipe["read"] = {**recipe.get("read", {}), "part_bytes": max(1 << 20, size // (4 * options.workers))}
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "run",
        str(folder / "recipe.yaml"),
        "--output",
        str(folder / "dataset"),
    ]
    seconds, memory = measure([*command, "--quiet", "--no-report"])
    manifest = json.loads((folder / "dataset" / "manifest" / "g1.json").read_text())
    return seconds, memory, manifest["funnel"]["records_read"]


def run_peer(options: argparse.Namespace, folder: Path) -> tuple[tuple[float, float], int]:
    """Wall and CPU seconds, peak bytes."""
    script = str(Path(__file__).with_name("peer_datatrove.py"))
    arguments = [options.kind, str(options.inputs), str(folder), str(options.tokenizer), str(options.workers)]
    seconds, memory = measure([options.peer, script, *arguments])
    assert any((folder / "tokens").iterdir()), "the peer wrote no tokens"
    shutil.rmtree(folder)
    return seconds, memory


def measure(command: list[str]) -> tuple[tuple[float, float], int]:
    """Wall and CPU seconds, and the highest sum of unshared memory over all processes, sampled five times a second.

    CPU is what each process had used when it was last seen.
    """
    started, peak = time.monotonic(), 0
    cpu: dict[int, float] = {}
    with tempfile.TemporaryFile() as log:
        process = psutil.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment())
        while process.poll() is None:
            total = 0
            for one in [process, *_children(process)]:
                try:
                    used = one.cpu_times()
                    cpu[one.pid] = used.user + used.system
                    total += one.memory_full_info().uss
                except psutil.Error:
                    continue
            peak = max(peak, total)
            time.sleep(0.2)
        if process.returncode:
            log.seek(0)
            raise SystemExit(log.read().decode()[-3000:])
    return (time.monotonic() - started, sum(cpu.values())), peak


def environment() -> dict[str, str]:
    """Ours, with bytecode kept between rounds, outside both environments."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "bench-job-bytecode")}


def _children(process: psutil.Popen) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


if __name__ == "__main__":
    sys.exit(main())

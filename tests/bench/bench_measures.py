"""What it costs to measure something new: a signal, another number of hashes, another language model.

    python tests/bench/bench_measures.py CRAWL_FOLDER [--copies 10] [--languages langid.jsonl]

Copies of the crawl are run once. Then every byte of them is set to zero, sizes and ages kept: a run that reads the
crawl again finds nothing in it, so a run that ends with the same records read has read none of it. Each further run
changes one thing and goes on with the work folder of the first. The language model is trained here, on labelled lines.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
MODULE = """
import pyarrow.compute as pc
from pipeline.measure.signal_group import SignalGroup

def count_questions(batch):
    return {"my.questions": pc.count_substring(batch.texts, "?")}

GROUPS = [SignalGroup("my_questions", version="1", signals={"my.questions": "?"}, measure=count_questions)]
"""


def main() -> int:
    """The first run, and one for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crawl", type=Path, help="a folder of WARC files")
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--languages", type=Path, help="JSONL with text and lang; left out: no other language model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-measures-") as name:
        folder = Path(name)
        crawl = copied(options.crawl, folder / "crawl", options.copies)
        size = sum(path.stat().st_size for path in crawl.iterdir())
        (folder / "my_rules.py").write_text(MODULE)
        recipe = {
            "sources": {"web": {"root": str(crawl), "inputs": ["*.warc.gz"]}},
            "read": {"part_bytes": 16 << 20},
            "rules": {"gopher.too_few_words": 50, "language.low_score": 0.5},
            "tokenizer": {"vocab_size": 8000, "sample_bytes": 16 << 20},
        }
        first = timed(folder, "first run", recipe)
        for path in crawl.iterdir():
            emptied(path)
        print(f"the crawl's {size:,} bytes are zeros from here on")
        changes = {
            "a threshold": {"rules": recipe["rules"] | {"gopher.too_few_words": 60}},
            "a new signal": {
                "modules": ["my_rules"],
                "rules": recipe["rules"] | {"asking": {"signal": "my.questions", "max": 20}},
            },
            "128 hashes": {"measure": {"minhash": {"num_hashes": 128}}},
        }
        if options.languages:
            changes["another language model"] = {"measure": {"language_model": trained(options.languages, folder)}}
        for what, change in changes.items():
            seconds = timed(folder, what, recipe | change)
            print(f"  {seconds / first:.2f} of the first run")
    return 0


def copied(source: Path, crawl: Path, copies: int) -> Path:
    crawl.mkdir()
    for path in sorted(source.glob("*.warc.gz")):
        for number in range(copies):
            shutil.copyfile(path, crawl / f"{number:02}-{path.name}")
    return crawl


def emptied(path: Path) -> None:
    found = path.stat()
    path.write_bytes(b"")
    os.truncate(path, found.st_size)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def trained(languages: Path, folder: Path) -> str:
    """A small fastText model of the labelled lines."""
    import fasttext

    rows = [json.loads(line) for line in languages.read_text().splitlines()]
    lines = [f"__label__{row['lang']} {' '.join(row['text'].split())}" for row in rows]
    (folder / "lines.txt").write_text("\n".join(lines))
    model = fasttext.train_supervised(
        str(folder / "lines.txt"), dim=16, minn=2, maxn=4, bucket=100_000, thread=1, epoch=50, lr=0.5, verbose=0
    )
    model.save_model(str(folder / "languages.bin"))
    return str(folder / "languages.bin")


def timed(folder: Path, what: str, recipe: dict) -> float:
    """Run a recipe over the one dataset; prints its seconds and what was kept."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    command = [sys.executable, "-m", "pipeline", "run", "recipe.yaml", "--output", "data", "--no-report", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - started
    if done.returncode:
        sys.exit(f"{what}: {done.stderr[-2000:]}")
    manifest = json.loads((folder / "data" / "manifest.json").read_text())
    funnel = json.loads((folder / "data" / manifest["path"]).read_text())["funnel"]
    print(f"{what:<24} {seconds:7.1f} s   {funnel['records_read']:,} records read, {funnel['kept']:,} kept", flush=True)
    return seconds


if __name__ == "__main__":
    sys.exit(main())

"""Encoding on one core, MB of UTF-8 a CPU second: ours against tokenizers' own loop and tiktoken, with equal ids.

    python tests/bench/bench_encode.py [--data ../shared/data] [--peers .cache/peers/bin/python] [--repeat 3]

Texts: documents of state_union, WikiText-2 paragraphs, rust RFC sections and Debian documentation in Chinese and
Japanese, with GPT-2's vocabulary. tiktoken runs in the environment that `make bench-peers` makes.
"""

import argparse
import gzip
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

Ids = list[list[int]]
NAMES = ("ours", "encode_batch_fast", "encode_one_by_one", "tiktoken")


def main() -> int:
    """Run every encoder in a process of its own, on one core; exit 1 when two give other ids."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--peers", default=str(ROOT / ".cache" / "peers" / "bin" / "python"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", choices=NAMES)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only, options.data, options.repeat)))
        return 0
    rows = []
    for name in NAMES:
        python = options.peers if name == "tiktoken" else sys.executable
        command = [python, __file__, "--data", str(options.data), "--repeat", str(options.repeat), "--only", name]
        if not Path(python).exists():
            print(f"{name:20} left out: {python} is not there (make bench-peers)")
            continue
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        row = json.loads(done.stdout)
        rows.append(row)
        print(f"{name:20} {row['rate']:6.2f} MB/s   {row['tokens']:,} tokens   ids {row['ids'][:16]}", flush=True)
    same = len({row["ids"] for row in rows}) == 1
    print(
        f"{rows[0]['texts']:,} texts, {rows[0]['bytes'] / 2**20:.1f} MB, {platform.machine()}, best of {options.repeat}"
    )
    print("equal ids" if same else "DIFFERENT IDS")
    return 0 if same else 1


def measure(name: str, data: Path, repeat: int) -> dict[str, object]:
    """Best rate of some runs, and a digest of all ids."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = read_texts(data)
    size = sum(len(text.encode()) for text in texts)
    encode = ENCODERS[name](data / "models" / "gpt2")
    encode(texts[:50])
    best = float("inf")
    for _ in range(repeat):
        started = time.process_time()  # of all threads: what else runs on the machine does not count
        ids = encode(texts)
        best = min(best, time.process_time() - started)
    if name == "ours":
        ids = [each[:-1].tolist() for each in ids]  # without end-of-text; outside the clock
    digest = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
    return {
        "rate": size / 2**20 / best,
        "texts": len(texts),
        "bytes": size,
        "tokens": sum(map(len, ids)),
        "ids": digest,
    }


def read_texts(data: Path) -> list[str]:
    """About 9 MB in three writing systems."""
    texts = [json.loads(line)["text"] for line in (data / "text" / "state_union.jsonl").open(encoding="utf-8")]
    texts += [line for line in (data / "text" / "wikitext2.test.txt").open(encoding="utf-8") if line.strip()]
    for name in ("neardup_shared_docs.jsonl.gz", "neardup_cjk_shared_docs.jsonl.gz"):
        with gzip.open(data / "neardup" / name, "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)["text"] for line in lines][:4000]
    return texts


def ours(folder: Path) -> Callable[[list[str]], Any]:
    """`pipeline.pack.tokenize.encoder.Encoder`, from a column to the arrays that go into shards."""
    import pyarrow as pa

    from pipeline.pack.tokenize.encoder import Encoder
    from pipeline.pack.tokenize.tokenizer_file import describe_tokenizer
    from schemas.recipe import TokenizerOptions

    data = (folder / "tokenizer.json").read_bytes()
    encoder = Encoder(data, describe_tokenizer(data, "tokenizer.json", "tokenizer.json", TokenizerOptions()))
    assert encoder.fast
    return lambda texts: encoder.encode(pa.array(texts, pa.large_string()))


def encode_batch_fast(folder: Path) -> Callable[[list[str]], Ids]:
    """All texts in one call of tokenizers."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda texts: [each.ids for each in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def encode_one_by_one(folder: Path) -> Callable[[list[str]], Ids]:
    """A loop over tokenizers' `encode`."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda texts: [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


def tiktoken(folder: Path) -> Callable[[list[str]], Ids]:
    """tiktoken with the same vocabulary, from files."""
    import tiktoken
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks

    ranks = data_gym_to_mergeable_bpe_ranks(str(folder / "vocab.bpe"), str(folder / "encoder.json"))
    pattern = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""
    encoding = tiktoken.Encoding("gpt2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda texts: encoding.encode_ordinary_batch(texts, num_threads=1)


ENCODERS = {
    "ours": ours,
    "encode_batch_fast": encode_batch_fast,
    "encode_one_by_one": encode_one_by_one,
    "tiktoken": tiktoken,
}

if __name__ == "__main__":
    sys.exit(main())

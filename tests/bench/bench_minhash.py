"""From text to MinHash signature, one core, 112 hashes, word 5-grams: this code, datasketch and (if there) rensa.

    pip install --target /tmp/rensa rensa
    PYTHONPATH=.:/tmp/rensa taskset -c 0 python tests/bench/bench_minhash.py [neardup_shared_docs.jsonl.gz]

The others get what a user would give them: words by a regular expression, joined five by five. All in one run, each
the best of three; take the ratios, not the figures.
"""

import argparse
import gzip
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import datasketch
import numpy as np
import pyarrow as pa

from pipeline.measure.minhash.shingles import text_shingles
from pipeline.measure.minhash.sign import sign, sign_shingles
from pipeline.text.edits import text_buffers
from schemas.recipe import Minhash

os.environ["RAYON_NUM_THREADS"] = "1"
try:
    import rensa
except ImportError:
    rensa = None

OPTIONS = Minhash()


def word_grams(text: str) -> list[str]:
    """Five words at a time, as strings."""
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[n : n + 5]) for n in range(len(words) - 4)]


def with_datasketch(texts: list[str]) -> None:
    """As its documentation shows, in batches."""
    for text in texts:
        datasketch.MinHash(num_perm=OPTIONS.num_hashes, seed=1).update_batch(
            [gram.encode() for gram in word_grams(text)]
        )


def with_rensa(texts: list[str]) -> None:
    """As its documentation shows."""
    for text in texts:
        signature = rensa.RMinHash(num_perm=OPTIONS.num_hashes, seed=1)
        signature.update(word_grams(text))
        signature.digest()


def best(work: Callable[[], object], size: int) -> float:
    """MB/s, the best of three."""
    work()
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return size / min(seconds) / 2**20


def main() -> None:
    """Print MB/s and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", nargs="?", default="../shared/data/neardup/neardup_shared_docs.jsonl.gz")
    with gzip.open(Path(parser.parse_args().documents), "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    data, offsets = text_buffers(pa.array(texts, pa.large_string()))
    few = texts[: len(texts) // 4]
    few_bytes = sum(len(text.encode()) for text in few)
    ours = best(lambda: sign(data, offsets, OPTIONS), data.size)
    shingles, counts = text_shingles(data, offsets, OPTIONS.shingle)
    kernel = best(lambda: sign_shingles(shingles, counts, OPTIONS), data.size)
    print(f"{len(texts)} documents, {data.size / 2**20:.1f} MB, {np.diff(counts).mean():.0f} shingles each")
    print(f"this code    {ours:7.1f} MB/s   (signing alone {kernel:.0f} MB/s)")
    theirs = best(lambda: with_datasketch(few), few_bytes)
    print(f"datasketch   {theirs:7.1f} MB/s   {ours / theirs:.1f} times slower")
    if rensa:
        theirs = best(lambda: with_rensa(few), few_bytes)
        print(f"rensa        {theirs:7.1f} MB/s   {ours / theirs:.1f} times slower")


if __name__ == "__main__":
    main()

"""Seconds and memory of a whole decision over synthetic parts: numbers and signatures, no texts.

    python tests/bench/bench_select.py 100000 1000000

Of the documents 8 % are exact copies, 12 % near copies of others, and 50,000 share one boilerplate (at most 5 %).
Memory is the peak of this process and its children (proportional set size would count the mapped parts, which the
system may drop; this is what they hold themselves).
"""

import argparse
import contextlib
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from pipeline.ingest.receipts import PartRef
from pipeline.measure.built_in import built_in_groups
from pipeline.runtime.options import runner
from pipeline.select.columns import as_ids
from pipeline.select.decision.funnel import funnel_lines
from pipeline.select.files import write_batch
from pipeline.select.select import decision_digest, select
from pipeline.text.edits import no_edits
from schemas.arrow import document_schema
from schemas.recipe import Recipe

NUM_HASHES = 112
PART_ROWS = 25_000
SIGNALS = [name for group in built_in_groups() for name in group.signals]
RULES = {
    "gopher.too_few_words": 50,
    "gopher.too_many_words": 100_000,
    "gopher.words_too_short": 3,
    "gopher.words_too_long": 10,
}


def signatures_of(draw: np.random.Generator, num_rows: int, earlier: np.ndarray, boilerplate: int) -> np.ndarray:
    """Random signatures; 12 % repeat an earlier one but for up to 15 of 112 hashes, some the boilerplate's."""
    made = draw.integers(0, 1 << 32, (num_rows, NUM_HASHES), dtype=np.uint32)
    near = np.flatnonzero(draw.random(num_rows) < 0.12)
    sources = earlier if len(earlier) else made
    made[near] = sources[draw.integers(0, len(sources), near.size)]
    common = draw.permutation(num_rows)[:boilerplate]
    made[common] = np.random.default_rng(0).integers(0, 1 << 32, NUM_HASHES, dtype=np.uint32)
    changed = np.concatenate([near, common])
    places = draw.integers(0, NUM_HASHES, (changed.size, 15))
    made[changed[:, None], places] = draw.integers(0, 1 << 32, places.shape, dtype=np.uint32)
    return made


def make_part(
    folder: Path, number: int, num_rows: int, boilerplate: int, pool: int, earlier: np.ndarray
) -> tuple[PartRef, np.ndarray]:
    """One part, exact copies out of a pool of texts; also some of its signatures, for later parts to repeat."""
    draw = np.random.default_rng(number + 1)
    signatures = signatures_of(draw, num_rows, earlier, boilerplate)
    hashes = draw.integers(0, 1 << 64, (num_rows, 2), dtype=np.uint64)
    copies = np.flatnonzero(draw.random(num_rows) < 0.08)
    hashes[copies] = np.random.default_rng(0).integers(0, 1 << 64, (pool, 2), dtype=np.uint64)[
        draw.integers(0, pool, copies.size)
    ]
    schema = document_schema(NUM_HASHES, SIGNALS)
    rows = np.arange(num_rows)
    columns = {
        "doc_id": as_ids(draw.integers(0, 1 << 64, (num_rows, 2), dtype=np.uint64)),
        "input": pa.array(["crawl-00000.warc.gz"] * num_rows),
        "position": pa.array(rows),
        "offset": pa.array(np.zeros(num_rows, np.int64)),
        "date": pa.array(draw.integers(0, 1 << 40, num_rows)),
        "text": pa.array(["x"] * num_rows, pa.large_string()),
        "text_hash": as_ids(hashes),
        "final_hash": as_ids(hashes),
        "num_bytes": pa.array(draw.integers(200, 20_000, num_rows)),
        "edits": no_edits(num_rows),
        "language": pa.array(["en"] * num_rows),
        "signature": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(4 * NUM_HASHES), num_rows, [None, pa.py_buffer(signatures)]
        ),
        **{name: pa.array(draw.random(num_rows) * 5 + 3) for name in SIGNALS},
        "gopher.num_words": pa.array(draw.integers(30, 3000, num_rows).astype(np.float64)),
    }
    arrays = [columns.get(field.name, pa.nulls(num_rows, field.type)) for field in schema]
    uri = str(folder / f"{number}.arrow")
    sha256 = write_batch(uri, pa.record_batch(arrays, schema=schema))
    return PartRef(number, "web", uri, num_rows, num_rows, sha256), signatures[:2000]


def make_parts(folder: Path, documents: int) -> list[PartRef]:
    """Parts of 25,000 documents."""
    parts: list[PartRef] = []
    earlier = np.empty((0, NUM_HASHES), np.uint32)
    boilerplate = min(50_000, documents // 20)
    for number, start in enumerate(range(0, documents, PART_ROWS)):
        num_rows = min(PART_ROWS, documents - start)
        part, some = make_part(folder, number, num_rows, boilerplate * num_rows // documents, documents // 25, earlier)
        parts.append(part)
        earlier = np.concatenate([earlier[-200_000:], some])
    return parts


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The peak of what this process and its children hold privately, looked at every 50 ms."""
    peak = [0]
    stop = threading.Event()

    def watch() -> None:
        process = psutil.Process()
        while not stop.wait(0.05):
            held = 0
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    memory = one.memory_info()
                    held += memory.rss - memory.shared
            peak[0] = max(peak[0], held)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()


def main() -> None:
    """Run and print one line a size."""
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", type=int, nargs="*", default=[100_000])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory", type=int, default=4 << 30, help="memory_bytes of select")
    parser.add_argument("--folder", help="keep the parts there")
    options = parser.parse_args()
    recipe = Recipe.model_validate({"sources": {"web": {"root": "/nowhere"}}, "rules": RULES})
    for documents in options.documents:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(options.folder or scratch)
            parts = make_parts(folder, documents)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            started, cpu = time.monotonic(), time.process_time()
            with peak_memory() as peak:
                funnel = select(
                    parts,
                    recipe,
                    scratch,
                    decision_digest(parts, recipe),
                    runner(workers=options.workers),
                    memory_bytes=options.memory,
                )
            seconds, cpu = time.monotonic() - started, time.process_time() - cpu
            print(
                f"{documents:,} documents: {seconds:.1f} s ({cpu:.1f} s of CPU here), peak {peak[0] >> 20} MB private"
            )
            print(f"  before: {before >> 10} MB; largest cluster {funnel.largest_cluster:,}")
            print("\n".join(f"  {line}" for line in funnel_lines(funnel)))


if __name__ == "__main__":
    main()

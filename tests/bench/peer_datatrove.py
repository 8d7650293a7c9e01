"""The peer's side of bench_job.py: datatrove's own blocks, as its FineWeb example joins them. Runs in the peer's venv.

    python peer_datatrove.py warc|jsonl INPUT_FOLDER OUTPUT_FOLDER TOKENIZER_JSON WORKERS

Differs from the example: no language filter (its model is a download) and no URL filter, so it does less work.
"""

import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter
from datatrove.utils.hashing import HashConfig


def main(kind: str, source: str, output: str, tokenizer: str, workers: int) -> None:
    """Filter, find near duplicates, tokenize."""
    files = len([path for path in Path(source).rglob("*") if path.is_file()])
    tasks = max(workers, files)
    minhash = MinhashConfig(hash_config=HashConfig(precision=64), num_buckets=14, hashes_per_bucket=8)
    read = [WarcReader(source), Trafilatura(favour_precision=True)] if kind == "warc" else [JsonlReader(source)]

    def run(name: str, steps: list, parts: int) -> None:
        LocalPipelineExecutor(
            pipeline=steps, tasks=parts, workers=workers, logging_dir=f"{output}/logs/{name}", skip_completed=False
        ).run()

    run("filter", [*read, GopherRepetitionFilter(), GopherQualityFilter(), FineWebQualityFilter(),
                   JsonlWriter(f"{output}/filtered")], tasks)  # fmt: skip
    kept = JsonlReader(f"{output}/filtered")
    run("signatures", [kept, MinhashDedupSignature(f"{output}/signatures", config=minhash)], tasks)
    run(
        "buckets",
        [MinhashDedupBuckets(f"{output}/signatures", f"{output}/buckets", config=minhash)],
        minhash.num_buckets,
    )
    run("clusters", [MinhashDedupCluster(f"{output}/buckets", f"{output}/remove", config=minhash)], 1)
    run("tokens", [kept, MinhashDedupFilter(f"{output}/remove"), PIIFormatter(),
                   DocumentTokenizer(f"{output}/tokens", tokenizer, eos_token="<|endoftext|>")], tasks)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:5], int(sys.argv[5]))

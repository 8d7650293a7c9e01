"""Quality signals, one core: documents a second here and with datatrove's filters on the same texts.

    python -m tests.bench.bench_signals TEXTS.jsonl [--peer /path/to/python/with/datatrove]

TEXTS.jsonl has a field `text` a line. Both sides measure Gopher's quality and repetition rules, C4's rewriting and
FineWeb's rules; ours measures every rule of every document, theirs stops at the first rule that drops it, unless
`--all-rules`, which lets each of their filters see each document. The peer needs datatrove with spaCy.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

PEER = """
import json, sys, time
from datatrove.data import Document
from datatrove.pipeline.filters import C4QualityFilter, FineWebQualityFilter
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
texts = [json.loads(line)["text"] for line in open(sys.argv[1], encoding="utf-8")]
filters = [GopherRepetitionFilter(), GopherQualityFilter(), C4QualityFilter(filter_no_terminal_punct=False)]
filters.append(FineWebQualityFilter())
all_rules = sys.argv[2] == "all"
def chain(text):
    document = Document(text=text, id="")
    for step in filters:
        try:
            passed = step.filter(document) is True
        except ZeroDivisionError:
            passed = False
        if not passed and not all_rules:
            return
chain("It was the best of times. " * 20)
start = time.process_time()
for text in texts:
    chain(text)
print(json.dumps(time.process_time() - start))
"""


def ours(texts: list[str], repeats: int = 5) -> dict[str, float]:
    """CPU seconds of each part, the best of some repeats; batches of about 4 MB as the pipeline makes them."""
    import pyarrow as pa

    from pipeline.measure.assets import asset_path
    from pipeline.measure.language import LanguageModel
    from pipeline.measure.measure import Measurer
    from pipeline.measure.registry import load_registry
    from schemas.recipe import Recipe

    model = LanguageModel("builtin:lid.176.ftz")
    recipe = {"sources": {"web": {"root": "."}}, "edits": {"c4": {"end_mark": False}}}
    names = ["invisible", "gopher", "c4_lines", "c4", "fineweb"]
    measurer = Measurer(load_registry(Recipe.model_validate(recipe)), names)
    step = max(1, 4_000_000 * len(texts) // max(1, sum(map(len, texts))))
    batches = [pa.array(texts[i : i + step], pa.large_string()) for i in range(0, len(texts), step)]

    def signals(batch: pa.LargeStringArray) -> None:
        measurer.measure(batch, {})

    def seconds(function: object) -> float:
        times = []
        for _ in range(repeats):
            start = time.process_time()
            for batch in batches:
                function(batch)  # type: ignore[operator]
            times.append(time.process_time() - start)
        return min(times)

    found = {"signals": seconds(signals), "language": seconds(model.predict)}
    with contextlib.suppress(ImportError):  # the library, for comparison
        import fasttext

        library = fasttext.load_model(str(asset_path("builtin:lid.176.ftz")))
        found["fasttext"] = seconds(
            lambda batch: [
                library.f.predict(text.as_py().replace("\n", " ") + "\n", 1, 0.0, "strict") for text in batch
            ]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--peer", help="a Python with datatrove[processing] and spaCy")
    parser.add_argument("--all-rules", action="store_true", help="the peer's filters all see each document")
    options = parser.parse_args()
    texts = [json.loads(line)["text"] for line in options.texts.open(encoding="utf-8")]
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts)} documents of {size / len(texts):.0f} bytes")
    found = ours(texts)
    for name, seconds in found.items():
        print(f"{name:12s} {len(texts) / seconds:10.0f} docs/s {size / seconds / 1e6:8.1f} MB/s")
    if not options.peer:
        return
    mode = "all" if options.all_rules else "first"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [options.peer, "-c", PEER, str(options.texts), mode]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        sys.exit(f"{options.peer}: {result.stderr.strip().splitlines()[-1]}")
    theirs = float(result.stdout.splitlines()[-1])
    print(f"{'datatrove':12s} {len(texts) / theirs:10.0f} docs/s {size / theirs / 1e6:8.1f} MB/s")
    print(f"ratio of signals {theirs / found['signals']:.0f}")


if __name__ == "__main__":
    main()

"""Extraction: how right, how fast, what the child costs, and where ingest's time goes.

    python tests/bench/bench_extract.py quality CRAWL GOLD     word-bag F1 of methods; GOLD: JSONL with url and text
    python tests/bench/bench_extract.py lines CRAWL...         lines of the main content that no page has, by method
    python tests/bench/bench_extract.py child CRAWL...         pages a second of CPU, in process and in the child
    python tests/bench/bench_extract.py ingest CRAWL...        CPU seconds of each step of ingest

CRAWL is a WARC file. Seconds are CPU seconds, so that a busy machine shows in none of them.
"""

import argparse
import functools
import json
import os
import re
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import trafilatura
from resiliparse.extract.html2text import extract_plain_text

from pipeline.ingest import part_writer
from pipeline.ingest.extract.charset import decode_page
from pipeline.ingest.extract.html import Extractor, extract_html, extract_page
from pipeline.ingest.parts import fingerprint, ingest_task
from pipeline.ingest.plan import plan_tasks
from pipeline.ingest.read import read_piece
from pipeline.ingest.records import Record
from pipeline.measure.language import LanguageModel
from pipeline.measure.measure import Measurer
from schemas.recipe import Extract, Read, Recipe, Source

METHODS: dict[str, Callable[[str], str]] = {
    "gristmill": functools.partial(extract_html, method="gristmill", main_content=True),
    "gristmill, all text": functools.partial(extract_html, method="gristmill", main_content=False),
    "resiliparse": functools.partial(extract_html, method="resiliparse", main_content=True),
    "resiliparse, its defaults": functools.partial(extract_plain_text, main_content=True),
    "resiliparse, all text": functools.partial(extract_html, method="resiliparse", main_content=False),
    "trafilatura": functools.partial(extract_html, method="trafilatura", main_content=True),
    "trafilatura, fast": lambda html: trafilatura.extract(html, include_comments=False, fast=True) or "",
}


def recipe_of(crawls: list[Path]) -> Recipe:
    root = crawls[0].resolve().parent
    assert all(crawl.resolve().parent == root for crawl in crawls), "give files of one folder"
    return Recipe(sources={"crawl": Source(root=str(root), inputs=[crawl.name for crawl in crawls])})


def html_records(crawls: list[Path]) -> list[Record]:
    """The live HTML pages."""
    recipe = recipe_of(crawls)
    source = recipe.sources["crawl"]
    tasks = plan_tasks(recipe.sources, recipe.read, "bench")
    records = [record for task in tasks for piece in task.pieces for record in read_piece(piece, source, Read())]
    return [record for record in records if record.rule is None and record.mime == "text/html"]


def quality(crawl: Path, gold: Path) -> None:
    """Mean precision, recall and F1 of bags of words, and pages a second."""
    pages = {record.url: decode_page(record.body or b"", record.charset)[0] for record in html_records([crawl])}
    truth = [row for row in map(json.loads, gold.open(encoding="utf-8")) if row["url"] in pages]
    print(f"{len(truth)} pages    precision  recall      F1  pages/s")
    for name, extract in METHODS.items():
        started = time.process_time()
        texts = [extract(pages[row["url"]]) for row in truth]
        rate = len(truth) / (time.process_time() - started)
        scores = [f1(text, row["text"]) for text, row in zip(texts, truth, strict=True)]
        means = [statistics.mean(column) for column in zip(*scores, strict=True)]
        print(f"{name:26}" + "".join(f"{mean:8.4f}" for mean in means) + f"{rate:9.0f}")


def f1(text: str, gold: str) -> tuple[float, float, float]:
    found, wanted = (Counter(re.findall(r"\w+", each)) for each in (text, gold))
    common = sum((found & wanted).values())
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / sum(found.values()), common / sum(wanted.values())
    return precision, recall, 2 * precision * recall / (precision + recall)


def lines(crawls: list[Path]) -> None:
    """Whether each line of the main content is a line of the page, and part of its text as resiliparse reads it.

    Without white space, bullets and numbers of lists, in which the methods differ.
    """
    pages = [decode_page(record.body or b"", record.charset)[0] for record in html_records(crawls)]
    counts: dict[str, Counter[str]] = {method: Counter() for method in ("gristmill", "resiliparse", "trafilatura")}
    for html in pages:
        own = set(extract_html(html, "gristmill", main_content=False).split("\n"))
        whole = squeezed(extract_html(html, "resiliparse", main_content=False))
        for method, count in counts.items():
            found = [line for line in extract_html(html, method, main_content=True).split("\n") if line.strip()]
            strange = [line for line in found if squeezed(line) not in whole]
            count.update(lines=len(found), not_in_text=len(strange), pages_with_such=bool(strange))
            if method == "gristmill":
                count["no_line_of_the_page"] += sum(line not in own for line in found)
    print(f"{len(pages)} pages")
    for method, count in counts.items():
        print(f"{method:12}", ", ".join(f"{name} {number}" for name, number in count.items()))


def squeezed(text: str) -> str:
    return re.sub(r"\s+", "", re.sub(r"^\s*(?:•|\d+\.)\s", "", text, flags=re.MULTILINE))


def child(crawls: list[Path]) -> None:
    """The same pages in process and in the child; worker and child together."""
    records = html_records(crawls)
    size = sum(len(record.body or b"") for record in records)
    for _ in range(3):
        started = time.process_time()
        here = [extract_page(record.body or b"", record.charset, "gristmill", True) for record in records]
        inside = time.process_time() - started
        started = time.process_time() + children_seconds()
        with Extractor(Extract()) as extractor:
            there = [text for batch in batches(records) for text in extractor.extract(batch)]
        outside = time.process_time() + children_seconds() - started
        assert [text for text, _ in here] == [text.text or b"" for text in there]
        print(
            f"{len(records)} pages, {size / 1e6:.1f} MB: {len(records) / inside:.0f} pages/s in process, "
            f"{len(records) / outside:.0f} by the child: {100 * (outside / inside - 1):+.1f} %"
        )


def batches(records: list[Record]) -> Iterator[list[Record]]:
    """As ingest makes them."""
    batch = part_writer.Batch()
    for record in records:
        size = len(record.body or b"")
        if not batch.has_room(size):
            yield batch.records
            batch = part_writer.Batch()
        batch.records.append(record)
        batch.size += size
    yield batch.records


def children_seconds() -> float:
    """CPU seconds of children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Clock:
    """CPU seconds inside wrapped functions, without those of wrapped functions inside."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = time.process_time()

    def switch(self) -> None:
        now = time.process_time()
        self.seconds[self._running[-1] if self._running else "batches and rest"] += now - self._since
        self._since = now

    def wrap(self, owner: Any, name: str, label: str) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.switch()
            self._running.append(label)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch()
                self._running.pop()

        setattr(owner, name, timed)


def ingest(crawls: list[Path]) -> None:
    """CPU seconds by step, for one worker."""
    recipe = recipe_of(crawls)
    tasks = plan_tasks(recipe.sources, recipe.read, fingerprint(recipe))
    clock = Clock()
    reader = type(read_piece(tasks[0].pieces[0], recipe.sources["crawl"], recipe.read))
    take = reader.__iter__

    class Taking:
        """A piece's records, each taken under the clock."""

        def __init__(self, records: Iterator[Record]) -> None:
            self._records = records

        def __iter__(self) -> "Taking":
            return self

        def __next__(self) -> Record:
            return next(self._records)

    clock.wrap(Taking, "__next__", "read")
    reader.__iter__ = lambda piece: Taking(take(piece))  # type: ignore[method-assign,assignment,return-value]
    clock.wrap(Extractor, "submit", "to and from the child")
    clock.wrap(Extractor, "collect", "to and from the child")
    clock.wrap(LanguageModel, "predict", "measure: language")
    clock.wrap(Measurer, "measure", "measure: the rest")
    clock.wrap(Measurer, "__init__", "load models")
    clock.wrap(part_writer, "_record_columns", "columns")
    clock.wrap(part_writer.PartFile, "write", "write")
    clock.wrap(part_writer.PartFile, "publish", "write")
    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as work:
        ingest_task(tasks[0], recipe, warm)
        ended, wall = children_seconds(), time.perf_counter()
        clock.switch()
        clock.seconds.clear()
        receipts = [receipt for task in tasks for receipt in ingest_task(task, recipe, work)]
        clock.switch()
        wall = time.perf_counter() - wall
    clock.seconds["in the child"] = children_seconds() - ended
    total = sum(clock.seconds.values())
    rows, alive = sum(receipt.rows for receipt in receipts), sum(receipt.alive for receipt in receipts)
    for label, seconds in sorted(clock.seconds.items(), key=lambda item: -item[1]):
        print(f"{label:24}{seconds:8.3f} s {100 * seconds / total:5.1f} %  {1000 * seconds / rows:7.3f} ms/record")
    print(f"{rows} records, {alive} with text: {rows / total:.0f} records a CPU second, {rows / wall:.0f} a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("quality", "lines", "child", "ingest"))
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if options.what == "quality":
        quality(*options.files)
    else:
        {"lines": lines, "child": child, "ingest": ingest}[options.what](options.files)


if __name__ == "__main__":
    main()

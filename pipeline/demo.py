"""`make demo`: the whole way on the crawl sample of this repository, then what to try next."""

import sys
import time

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.cli import main as gristmill
from schemas.dataset import open_dataset

RECIPE = "pipeline/recipes/quickstart.yaml"
DATASET = "demo"


def main() -> int:
    """Run the quickstart recipe, check the dataset, explain one kept and one dropped document."""
    started = time.monotonic()
    for title, *command in (
        ("From the crawl to token shards", "run", RECIPE, "--output", DATASET),
        ("Check every digest, and that each record read is accounted for", "verify", DATASET),
    ):
        _say(title, command)
        code = gristmill(command)
        if code:
            return code
    for title, kept in (("Why was this page kept?", True), ("Why was this page dropped?", False)):
        command = ["explain", DATASET, _example(kept)]
        _say(title, command)
        gristmill(command)
    _say(f"Done in {time.monotonic() - started:.0f} s. Open {DATASET}/report.html, and try", None)
    change = f"{RECIPE} --output {DATASET} --set near.threshold=0.6"
    for advice, what in (
        (f"decide {change}", "another threshold, in seconds"),
        (f"run {change}", "... as the next generation: copies what stays, encodes what is new"),
        (f"explain {DATASET} http://httpd.test/en/mod/mod_nw_ssl.html", "any URL of the crawl"),
    ):
        print(f".venv/bin/gristmill {advice:<90} # {what}")
    return 0


def _example(kept: bool) -> str:
    """The doc_id of a telling page: of the smallest cluster of duplicates, the one kept or one dropped."""
    table = pq.read_table(open_dataset(DATASET).files("ledger"), columns=["doc_id", "url", "kept", "cluster_size"])
    named = pc.and_(
        pc.is_valid(table["url"]), pc.and_(pc.equal(table["kept"], kept), pc.greater(table["cluster_size"], 1))
    )
    ordered = table.filter(named).sort_by([("cluster_size", "ascending"), ("url", "ascending")])
    doc_id: bytes = ordered["doc_id"][0].as_py()
    return doc_id.hex()


def _say(title: str, command: list[str] | None) -> None:
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n== {title}")
    if command:
        print(f"$ gristmill {' '.join(command)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""`make demo`: the whole way on the crawl sample of this repository, then what to try next."""

import sys
import time

from pipeline.cli import main as gristmill
from schemas.manifest import files

RECIPE = "pipeline/recipes/quickstart.yaml"
DATASET = "demo"


def main() -> int:
    """Run the quickstart recipe, check the dataset, tell one kept and one dropped document's story."""
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
    print(f"gristmill decide {RECIPE} --output {DATASET} --set near.threshold=0.6   # a threshold, in seconds")
    print(f"gristmill run {RECIPE} --output {DATASET} --set near.threshold=0.6      # copies what stays, encodes what is new")
    print(f"gristmill explain {DATASET} URL                                         # any URL of the ledger")
    print("(the command lies in .venv/bin)")
    return 0


def _example(kept: bool) -> str:
    """The doc_id of a telling document: the first kept one in the ledger, or the first near duplicate."""
    import duckdb

    ledgers = [path for path in files(DATASET, "ledger")]
    wish = "kept" if kept else "not kept"
    row = duckdb.sql(
        f"select hex(doc_id) from read_parquet({ledgers}) where {wish} and url is not null "
        "order by coalesce(cluster_size, 0) > 1 desc, coalesce(cluster_size, 0), doc_id limit 1"
    ).fetchone()
    assert row is not None, "the sample has kept and dropped pages"
    return str(row[0]).lower()


def _say(title: str, command: list[str] | None) -> None:
    print(f"\n\033[1m{title}\033[0m" if sys.stdout.isatty() else f"\n== {title}")
    if command:
        print(f"$ gristmill {' '.join(command)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

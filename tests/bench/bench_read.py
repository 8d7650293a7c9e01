"""Reading speed, one core: the decoded body of every page with status 200, by Gristmill, FastWARC and warcio.

    python -m tests.bench.bench_read ../shared/data/warc/crawl/DOCS-*-0000?.warc.gz

Prints bodies/s and MB/s (of decoded bodies) of the best of --rounds rounds, and the ratios; all three must give the
same bodies. FastWARC undoes the transfer encoding and zlib the content encoding: its own `auto_decode="all"` stops at a
record that has both. Gristmill's figure includes what a run checks: tilings, sha256 of the input, gzip checksums.
"""

import argparse
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from fastwarc.warc import ArchiveIterator, WarcRecordType
from warcio.archiveiterator import ArchiveIterator as WarcioIterator

from pipeline.ingest.read import read_piece
from pipeline.ingest.receipts import Piece
from schemas.recipe import Read, Source

Count = tuple[int, int]  # bodies, bytes

EVERY_TYPE = ["text/html", "text/plain", "text/css", "application/javascript", "application/octet-stream"]
EVERY_TYPE += ["application/pdf", "image/png"]


def gristmill(path: Path) -> Count:
    size = path.stat().st_size
    piece = Piece(path.name, str(path), "warc", 0, size, size, "")
    bodies = total = 0
    for record in read_piece(piece, Source(root=str(path.parent)), Read(mime_types=EVERY_TYPE)):
        if record.body is not None:
            bodies += 1
            total += len(record.body)
    return bodies, total


def fastwarc(path: Path) -> Count:
    bodies = total = 0
    with path.open("rb") as file:
        for record in ArchiveIterator(file, WarcRecordType.response, parse_http=True, auto_decode="transfer"):
            if record.http_headers.status_code == 200:
                body = record.reader.read()
                if record.http_headers.get("Content-Encoding") == "gzip":
                    body = zlib.decompress(body, 31)
                bodies += 1
                total += len(body)
    return bodies, total


def warcio(path: Path) -> Count:
    bodies = total = 0
    with path.open("rb") as file:
        for record in WarcioIterator(file):
            if record.rec_type == "response" and record.http_headers.get_statuscode() == "200":
                bodies += 1
                total += len(record.content_stream().read())
    return bodies, total


def best_of(rounds: int, function: Callable[[Path], Count], paths: list[Path]) -> tuple[float, Count]:
    """CPU seconds of the fastest round, and what was read."""
    seconds, counts = float("inf"), []
    for _ in range(rounds):
        start = time.process_time()
        counts = [function(path) for path in paths]
        seconds = min(seconds, time.process_time() - start)
    return seconds, (sum(count[0] for count in counts), sum(count[1] for count in counts))


def main(paths: list[Path], rounds: int) -> None:
    results = {reader.__name__: best_of(rounds, reader, paths) for reader in (gristmill, fastwarc, warcio)}
    ours, expected = results["gristmill"]
    for name, (seconds, count) in results.items():
        if count != expected:
            raise SystemExit(f"{name} read {count} bodies and bytes, gristmill {expected}")
        speed = f"{count[0] / seconds:8,.0f} bodies/s {count[1] / seconds / 1e6:7.1f} MB/s"
        print(f"{name:10} {speed}   gristmill is {seconds / ours:.2f} times as fast")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    main(options.paths, options.rounds)

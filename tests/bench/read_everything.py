"""Read every archive of a folder of crawl files and samples, and set the counts beside other readers' counts.

    python -m tests.bench.read_everything ../shared/data/warc [--hostile 200]

Prints, for each file: records by type, rows by rule, and what `samples/MANIFEST.tsv` says of warcio and FastWARC,
marked where they differ. Then each row of `crawl/pages_shared.tsv.gz` is compared with the record at its offset.
Both tilings are asserted by the reader itself: a byte that is not accounted for ends the run. With --hostile N, each
file of up to 1 MB is read N times cut off and N times with a flipped bit, at seeded places: nothing may be raised, and
what lies before the place must be read as before.
"""

import argparse
import collections
import csv
import gzip
import json
import random
import tempfile
from pathlib import Path

from pipeline.ingest.read import read_piece
from pipeline.ingest.receipts import Piece, PieceReceipt
from pipeline.ingest.records import Record
from schemas import storage
from schemas.recipe import Read, Source

COUNTED = ("request", "warcinfo", "metadata")


def read_file(path: Path) -> tuple[list[Record], PieceReceipt]:
    """All records of one archive, and its receipt."""
    found = storage.stat(str(path))
    piece = Piece(path.name, found.uri, "warc", 0, found.size, found.size, found.tag)
    reader = read_piece(piece, Source(root=str(path.parent)), Read())
    return list(reader), reader.receipt


def known_counts(folder: Path) -> dict[str, tuple[dict[str, int], str, str, str]]:
    """warcio's counts and error, FastWARC's count and error, by path below the folder."""
    with (folder / "samples" / "MANIFEST.tsv").open(newline="") as file:
        return {
            row["path"].removeprefix("warc/"): (
                json.loads(row["warcio_1.8.1_records"]),
                row["warcio_error"][:40],
                row["fastwarc_2.0.1_records"],
                row["fastwarc_error"][:40],
            )
            for row in csv.DictReader(file, delimiter="\t")
        }


def shown(counts: dict[str, int]) -> str:
    return " ".join(f"{kind}:{count}" for kind, count in sorted(counts.items())) or "-"


def compare_pages(folder: Path) -> None:
    """Each row of the table of pages against the record at its offset."""
    with gzip.open(folder / "crawl" / "pages_shared.tsv.gz", "rt", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    records: dict[tuple[str, int], Record] = {}
    for name in sorted({row["warc"] for row in rows}):
        records.update({(name, record.position): record for record in read_file(folder / "crawl" / name)[0]})
    differences: collections.Counter[str] = collections.Counter()
    for row in rows:
        record = records.get((row["warc"], int(row["offset"])))
        if record is None:
            differences["no record at the offset"] += 1
            continue
        ours = (record.type, record.url or "", str(record.status or ""), record.mime or "", record.charset or "")
        theirs = tuple(row[name] for name in ("rec_type", "url", "status", "mime", "header_charset"))
        for field, a, b in zip(("type", "url", "status", "mime", "charset"), ours, theirs, strict=True):
            if a.lower() != b.lower() and not (record.type == "revisit" and field in ("status", "mime", "charset")):
                differences[f"{field}: {a!r} for {b!r}"] += 1
        if record.body is not None and len(record.body) != int(row["body_bytes"]):
            differences["length of the decoded body"] += 1
        differences["rows with a body compared"] += record.body is not None
    print(f"\npages_shared.tsv.gz: {len(rows)} rows")
    for difference, count in sorted(differences.items()):
        print(f"  {difference}: {count}")


def same(a: Record, b: Record) -> bool:
    return (a.type, a.position, a.offset, a.url, a.rule, a.body, a.text) == (
        b.type, b.position, b.offset, b.url, b.rule, b.body, b.text
    )  # fmt: skip


def harm(path: Path, times: int) -> None:
    """Read a file `times` times cut off and `times` times with a bit flipped; raises where records before are lost."""
    data, seeded = path.read_bytes(), random.Random(path.name)
    whole, _ = read_file(path)
    starts = [record.position for record in whole]
    ends = [min((start for start in starts if start > mine), default=len(data)) for mine in starts]
    lost: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        for kind in ("cut", "flip"):
            for _ in range(times if data else 0):
                at = seeded.randrange(len(data))
                flipped = bytearray(data)
                flipped[at] ^= 1 << seeded.randrange(8)
                copy.write_bytes(data[:at] if kind == "cut" else flipped)
                found, receipt = read_file(copy)
                assert receipt.covered_end == receipt.size
                before = sum(end <= at for end in ends)
                if not all(same(*pair) for pair in zip(found, whole[:before], strict=False)) or len(found) < before:
                    raise SystemExit(f"{path}: {kind} at {at}: records before it are lost")
                lost[kind] += len(whole) - sum(record.rule != "read.damaged" for record in found)
    print(f"    rows lost a time, of {len(whole)}: " + ", ".join(f"{kind} {lost[kind] / times:.2f}" for kind in lost))


def main(folder: Path, hostile: int) -> None:
    known = known_counts(folder)
    paths = sorted(path for path in folder.rglob("*") if ".warc" in path.name or ".arc" in path.name)
    for path in paths:
        records, receipt = read_file(path)
        name = path.relative_to(folder).as_posix()
        rules = collections.Counter(record.rule or "alive" for record in records)
        print(f"{name}: {shown(receipt.records)} | {shown(rules)}")
        if name in known:
            warcio, warcio_error, fastwarc, fastwarc_error = known[name]
            same = {kind.strip().lower(): 0 for kind in warcio}
            for kind, count in warcio.items():
                same[kind.strip().lower()] += count
            total = sum(receipt.records.values())
            mark = " " if same == receipt.records and str(total) == fastwarc else "*"
            print(f"  {mark} warcio {shown(warcio)} {warcio_error} | FastWARC {fastwarc} {fastwarc_error}")
        if hostile and path.stat().st_size <= 1_000_000:
            harm(path, hostile)
    print(f"{len(paths)} files")
    if (folder / "crawl").is_dir():
        compare_pages(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hostile", type=int, default=0)
    options = parser.parse_args()
    main(options.folder, options.hostile)

"""Texts and measures of a dataset's records, fetched from the part files of its work folder.

Shared by the report and `gristmill explain`. Memory follows the batch, not the dataset.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from pipeline.ingest.measure_part import columns_files, find_columns
from pipeline.ingest.part_columns import read_part, schema_of
from pipeline.ingest.receipts import PartRef, Receipt
from pipeline.measure.configured_groups import columns_key
from pipeline.select.columns import Parts as DecidedParts
from pipeline.select.files import decision_root
from schemas import storage
from schemas.dataset import Dataset
from schemas.generation import Manifest
from schemas.text_format import plural

__all__ = ["Parts", "open_parts"]

READERS = 16  # receipts read at the same time


class Parts:
    """The part files behind a dataset, as far as the work folder still has them."""

    def __init__(self, refs: Mapping[int, PartRef], missing: str) -> None:
        self._refs = refs
        self.missing = missing  # why there are none, or not all; empty: all are there

    def __contains__(self, part: int) -> bool:
        return part in self._refs

    def numbers(self) -> list[int]:
        """The parts that are there."""
        return sorted(self._refs)

    def batches(self, part: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """A part's rows in order, only the columns that are wanted (those it has; None: all)."""
        ref = self._refs[part]
        names = schema_of(ref.uri, ref.files).names
        wanted = [name for name in names if columns is None or name in columns]
        for _, batch in read_part(ref.uri, ref.files, wanted, ref.rows):
            yield batch

    def take(self, part: int, rows: Iterable[int], columns: Sequence[str] | None = None) -> tuple[list[int], pa.Table]:
        """Some rows of a part, sorted by number, with the columns that are wanted (None: all)."""
        wanted = sorted(set(rows))
        found: list[pa.RecordBatch] = []
        first = position = 0
        for batch in self.batches(part, columns):
            inside = []
            while position < len(wanted) and wanted[position] < first + batch.num_rows:
                inside.append(wanted[position] - first)
                position += 1
            if inside or not found:  # of no row at all the columns are wanted still
                found.append(batch.take(pa.array(inside, pa.int64())))
            first += batch.num_rows
            if position == len(wanted):
                break
        return wanted[:position], pa.Table.from_batches(found)


def open_parts(dataset: Dataset, work: str | None, only: Iterable[int] | None = None) -> Parts:
    """The dataset's parts, or `only` some, found in the work folder (default: DATASET/work) by their digests.

    The generation's decision lists them in one file. Where it is gone, or parts were made again since, their receipts
    are read: all of them, in the worst case.
    """
    folder = work or storage.join(dataset.uri, "work")
    parts = dataset.manifest.parts
    wanted: dict[str, list[int]] = {}
    for number in range(len(parts)) if only is None else sorted(set(only)):
        wanted.setdefault(parts[number].sha256, []).append(number)  # parts without a row may be equal
    num_wanted = sum(map(len, wanted.values()))
    if not num_wanted:
        return Parts({}, "")
    found: dict[int, PartRef] = {}
    try:
        found = _decided_parts(folder, dataset.manifest.decision, wanted)
        if len(found) < num_wanted:
            found |= _parts_by_receipts(folder, dataset.manifest, wanted, num_wanted)
    except storage.StorageError as error:
        return Parts({}, f"{error}.")
    if len(found) == num_wanted:
        return Parts(found, "")
    lacking = f"{num_wanted - len(found):,} of {plural(num_wanted, 'part')}"
    return Parts(found, f"{folder} lacks {lacking}; give --work if they lie elsewhere.")


def _decided_parts(folder: str, decision: str, wanted: Mapping[str, list[int]]) -> dict[int, PartRef]:
    """The wanted parts, by number, as far as the decision lists them and they are there."""
    try:
        listed = DecidedParts.load(storage.join(decision_root(folder, decision), "parts.json")).refs
    except FileNotFoundError:
        return {}
    known = [(wanted[part.sha256], _below(folder, part)) for part in listed if part.sha256 in wanted]
    with ThreadPoolExecutor(READERS) as readers:
        there = readers.map(_all_there, [part for _, part in known])
        return {
            number: part for (numbers, part), exists in zip(known, there, strict=True) if exists for number in numbers
        }


def _below(folder: str, part: PartRef) -> PartRef:
    """The part with its files by name below this folder: it may have been moved since."""
    files = tuple(
        replace(file, uri=storage.join(folder, "columns", file.uri.rpartition("/")[2])) for file in part.files
    )
    return replace(part, uri=storage.join(folder, "parts", part.uri.rpartition("/")[2]), files=files)


def _all_there(part: PartRef) -> bool:
    return storage.exists(part.uri) and all(storage.exists(file.uri) for file in part.files)


def _parts_by_receipts(
    folder: str, manifest: Manifest, wanted: Mapping[str, list[int]], asked: int
) -> dict[int, PartRef]:
    """The wanted parts by the receipts of a work folder, with the columns of the manifest's signal groups."""
    found: dict[int, PartRef] = {}
    identities = {name: manifest.code[f"measure.{name}"] for name in manifest.measures}
    receipts = [
        stat.uri for stat in storage.list_files(storage.join(folder, "receipts")) if "/columns/" not in stat.uri
    ]
    # Small files, each a round trip in a bucket.
    with ThreadPoolExecutor(READERS) as readers:
        for first in range(0, len(receipts), 8 * READERS):
            for receipt in filter(None, readers.map(_read_receipt, receipts[first : first + 8 * READERS])):
                uri = storage.join(folder, receipt.path)
                if receipt.sha256 in wanted and storage.exists(uri):
                    keys = {name: columns_key(receipt.sha256, identity) for name, identity in identities.items()}
                    files = columns_files(folder, find_columns(folder, receipt.sha256, keys))
                    part = PartRef(
                        number=wanted[receipt.sha256][0],
                        source=receipt.source,
                        uri=uri,
                        rows=receipt.rows,
                        text_bytes=receipt.text_bytes,
                        sha256=receipt.sha256,
                        files=files,
                    )
                    found |= dict.fromkeys(wanted[receipt.sha256], part)
            if len(found) == asked:
                break
    return found


def _read_receipt(uri: str) -> Receipt | None:
    try:
        return Receipt.from_json(storage.read(uri))
    except ValueError:
        return None  # a corrupt one, which the next run writes anew

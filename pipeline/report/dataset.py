"""A dataset opened for looking: ledgers read batch by batch, texts and measures fetched from the parts.

Shared by the report, `gristmill explain` and `gristmill diff`. Memory follows the batch, not the dataset.
"""

import bisect
import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ingest.receipts import Receipt
from pipeline.select.columns import Parts as DecidedParts
from pipeline.select.files import decision_root
from schemas import storage
from schemas.generation import Manifest
from schemas.manifest import CURE, DatasetError, read_files, read_inputs, read_manifest, read_named, read_shards
from schemas.recipe import Recipe, stored_recipe
from schemas.text_format import plural

__all__ = ["Dataset", "Parts", "Place", "open_dataset", "open_parts", "reading"]

BATCH_ROWS = 1 << 16
READERS = 16  # receipts read at the same time


@dataclass(frozen=True, order=True)
class Place:
    """A row of a ledger."""

    ledger: int
    row: int


@contextlib.contextmanager
def reading(uri: str, path: str) -> Iterator[None]:
    """Name the file of a dataset that cannot be read, in a DatasetError; for what is read without its digest."""
    try:
        yield
    except FileNotFoundError:
        raise DatasetError(f"{uri}: {path} is missing; the dataset is not complete") from None
    except storage.StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{uri}: {path} is damaged ({error}): {CURE}") from None


@dataclass(frozen=True)
class Dataset:
    """A generation with its tables."""

    uri: str
    manifest: Manifest
    shards: pa.Table
    files: pa.Table
    inputs: pa.Table

    def ledgers(self) -> range:
        """The numbers of the ledgers that the generation lists."""
        return range(len(self.manifest.groups))

    def ledger_batches(self, ledger: int, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The ledger's rows as (first row, batch)."""
        with self._ledger(ledger) as file:
            first = 0
            for batch in file.iter_batches(BATCH_ROWS, columns=list(columns)):
                yield first, batch
                first += batch.num_rows

    def rows(self, places: Iterable[Place]) -> dict[Place, dict[str, Any]]:
        """Rows of the ledgers with all their columns; only the row groups that hold one are read."""
        wanted: dict[int, list[int]] = {}
        for place in sorted(set(places)):
            wanted.setdefault(place.ledger, []).append(place.row)
        found: dict[Place, dict[str, Any]] = {}
        for ledger, rows in wanted.items():
            with self._ledger(ledger) as file:
                first = 0
                for group in range(file.num_row_groups):
                    last = first + file.metadata.row_group(group).num_rows
                    inside = [row for row in rows if first <= row < last]
                    if inside:
                        table = file.read_row_group(group).take(pa.array([row - first for row in inside], pa.int64()))
                        found |= zip([Place(ledger, row) for row in inside], table.to_pylist(), strict=True)
                    first = last
        return found

    @contextlib.contextmanager
    def _ledger(self, ledger: int) -> Iterator[pq.ParquetFile]:
        path = self.path(ledger)
        with (
            reading(self.uri, path),
            storage.open_input(storage.join(self.uri, path)) as source,
            pq.ParquetFile(source) as file,
        ):
            yield file

    def path(self, number: int) -> str:
        """A file of the generation by its number."""
        return str(self.files["path"][number].as_py())

    def paths(self, prefix: str) -> list[str]:
        """The generation's files below a prefix."""
        return sorted(path for path in self.files["path"].to_pylist() if path.startswith(prefix))

    def recipe_text(self) -> str:
        """The recipe as stored with the dataset; empty if it was not."""
        for path in self.paths("recipe-"):
            return read_named(self.uri, path).decode("utf-8")
        return ""

    def recipe(self) -> Recipe | None:
        """The recipe as stored with the dataset."""
        text = self.recipe_text()
        return stored_recipe(text.encode()) if text else None

    def part_of(self, place: Place) -> tuple[int, int]:
        """The part number and row behind a row of a ledger: a ledger holds its group's parts in order."""
        parts = self.manifest.groups[place.ledger].parts
        ends = list(itertools.accumulate(self.manifest.parts[part].rows for part in parts))
        index = bisect.bisect_right(ends, place.row)
        if index == len(parts):
            raise DatasetError(f"{self.uri}: row {place.row} lies beyond the parts of {self.path(place.ledger)}")
        return parts[index], place.row - (ends[index - 1] if index else 0)


def open_dataset(uri: str, generation: int | None = None) -> Dataset:
    """The newest generation of a dataset, or the one asked for. Raises DatasetError."""
    manifest = read_manifest(uri, generation)
    return Dataset(uri, manifest, read_shards(uri, manifest), read_files(uri, manifest), read_inputs(uri, manifest))


class Parts:
    """The part files behind a dataset, as far as the work folder still has them."""

    def __init__(self, uris: Mapping[int, str], missing: str) -> None:
        self._uris = uris
        self.missing = missing  # why there are none, or not all; empty: all are there

    def __contains__(self, part: int) -> bool:
        return part in self._uris

    def numbers(self) -> list[int]:
        """The parts that are there."""
        return sorted(self._uris)

    def batches(self, part: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """A part's rows in order, only the columns asked for (those it has; None: all)."""
        uri = self._uris[part]
        path = storage.local_path(uri)
        with pa.memory_map(str(path)) if path is not None else storage.open_input(uri) as source:
            with pa.ipc.open_file(source) as reader:
                names = reader.schema.names
            fields = [index for index, name in enumerate(names) if columns is None or name in columns]
            options = pa.ipc.IpcReadOptions(included_fields=fields)
            with pa.ipc.open_file(source, options=options) as reader:
                for index in range(reader.num_record_batches):
                    yield reader.get_batch(index)

    def take(self, part: int, rows: Iterable[int], columns: Sequence[str] | None = None) -> tuple[list[int], pa.Table]:
        """Some rows of a part, sorted by number, with the columns asked for (None: all)."""
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
    asked = sum(map(len, wanted.values()))
    if not asked:
        return Parts({}, "")
    uris: dict[int, str] = {}
    try:
        uris = _decided_parts(folder, dataset.manifest.decision, wanted)
        if len(uris) == asked:
            return Parts(uris, "")
        receipts = [stat.uri for stat in storage.list_files(storage.join(folder, "receipts"))]
        # Small files, each a round trip in a bucket.
        with ThreadPoolExecutor(READERS) as readers:
            for first in range(0, len(receipts), 8 * READERS):
                for receipt in filter(None, readers.map(_read_receipt, receipts[first : first + 8 * READERS])):
                    uri = storage.join(folder, receipt.path)
                    if receipt.sha256 in wanted and storage.exists(uri):
                        uris |= dict.fromkeys(wanted[receipt.sha256], uri)
                if len(uris) == asked:
                    return Parts(uris, "")
    except storage.StorageError as error:
        return Parts({}, f"{error}.")
    return Parts(
        uris, f"{folder} lacks {asked - len(uris):,} of {plural(asked, 'part')}; give --work if they lie elsewhere."
    )


def _decided_parts(folder: str, decision: str, wanted: Mapping[str, list[int]]) -> dict[int, str]:
    """URIs of the wanted parts, by number, as far as the decision lists them and they are there."""
    try:
        listed = DecidedParts.load(storage.join(decision_root(folder, decision), "parts.json")).refs
    except FileNotFoundError:
        return {}
    # By name below this folder: it may have been moved since.
    named = {part.sha256: storage.join(folder, "parts", part.uri.rpartition("/")[2]) for part in listed}
    known = [(numbers, named[sha256]) for sha256, numbers in wanted.items() if sha256 in named]
    with ThreadPoolExecutor(READERS) as readers:
        there = readers.map(storage.exists, [uri for _, uri in known])
        return {
            number: uri for (numbers, uri), exists in zip(known, there, strict=True) if exists for number in numbers
        }


def _read_receipt(uri: str) -> Receipt | None:
    try:
        return Receipt.from_json(storage.read(uri))
    except ValueError:
        return None  # a damaged one, which the next run writes anew

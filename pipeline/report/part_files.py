"""Texts and measures of a dataset's records, fetched from the part files of its work folder.

Shared by the report and `gristmill explain`. Memory follows the batch, not the dataset.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from pipeline.ingest.receipts import Receipt
from pipeline.select.columns import Parts as DecidedParts
from pipeline.select.files import decision_root
from schemas import storage
from schemas.dataset import Dataset
from schemas.text_format import plural

__all__ = ["Parts", "open_parts"]

READERS = 16  # receipts read at the same time


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

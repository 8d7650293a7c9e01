"""Columns of the parts, by position and by address: local files are memory-mapped, of remote ones columns fetched.

Nothing else in select reads a part, and only `verify: exact` ever touches the texts.
"""

import functools
import json
import secrets
import tempfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.ingest.receipts import PartRef
from pipeline.select.files import fixed_bytes
from pipeline.select.rows import SHIFT, address
from schemas import storage

__all__ = ["PartColumns", "Parts", "as_ids", "halves", "scratch"]

OPEN_PARTS = 256
ROW_MASK = np.uint64(0xFFFFFFFF)


def halves(fixed: np.ndarray) -> np.ndarray:
    """(n, 16) bytes as (n, 2) uint64, so that numbers order as the bytes do."""
    return np.ascontiguousarray(fixed).view(">u8").astype(np.uint64)


def as_ids(pairs: np.ndarray, valid: np.ndarray | None = None) -> pa.Array:
    """(n, 2) uint64 halves as a binary(16) column; rows that are not `valid` are null."""
    # What lies under a null is zero, so that equal columns have equal bytes.
    data = np.ascontiguousarray((pairs if valid is None else np.where(valid[:, None], pairs, 0)).astype(">u8"))
    bitmap = None if valid is None else pa.array(valid).buffers()[1]
    return pa.Array.from_buffers(pa.binary(16), len(pairs), [bitmap, pa.py_buffer(data)])


@functools.cache
def _scratch_folder() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="gristmill-columns-")


def scratch() -> Path:
    """This process's folder for what it has fetched of remote parts; gone when the process ends."""
    return Path(_scratch_folder().name)


class PartColumns:
    """One part, column by column: those of its text part, and the measure columns beside it."""

    def __init__(self, part: PartRef) -> None:
        self.part = part
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._fixed: dict[str, tuple[list[np.ndarray], np.ndarray]] = {}
        self._tables: dict[str, pa.Table] = {}  # of local files, by URI
        self._places = {name: (file.uri, file.sha256) for file in part.files for name in file.columns}
        path = storage.local_path(part.uri)
        schema = self._remote_reader(part.uri, []).schema if path is None else self._mapped(part.uri, path).schema
        self.names: list[str] = [*(name for name in schema.names if name not in self._places), *self._places]

    def column(self, name: str) -> pa.ChunkedArray:
        """A column as it lies in its file."""
        if name not in self._columns:
            uri, sha256 = self._places.get(name, (self.part.uri, self.part.sha256))
            path = storage.local_path(uri)
            table = self._fetched(uri, sha256, name) if path is None else self._mapped(uri, path)
            self._columns[name] = table[name]
        return self._columns[name]

    def floats(self, name: str) -> np.ndarray:
        """A numeric column as float64, nulls as NaN."""
        column = self.column(name)
        if column.null_count == 0:
            return column.to_numpy().astype(np.float64, copy=False)
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)

    def fixed(self, name: str, rows: np.ndarray | None = None) -> np.ndarray:
        """(n, width) bytes of a fixed-width column, of all rows or of `rows` in their order; nulls as they lie."""
        chunks, starts = self._fixed_chunks(name)
        if rows is None:
            return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
        if len(chunks) == 1:
            return chunks[0][rows]
        taken = np.empty((len(rows), chunks[0].shape[1]), np.uint8)
        chunk_of_row = np.searchsorted(starts, rows, side="right") - 1
        for chunk in np.unique(chunk_of_row):
            here = chunk_of_row == chunk
            taken[here] = chunks[chunk][rows[here] - starts[chunk]]
        return taken

    def valid(self, name: str) -> np.ndarray:
        """Which rows of a column are not null."""
        return self.column(name).is_valid().to_numpy()

    def _fixed_chunks(self, name: str) -> tuple[list[np.ndarray], np.ndarray]:
        """The column's batches as byte arrays without a copy, and the first row of each."""
        if name not in self._fixed:
            width = self.column(name).type.byte_width
            chunks = [fixed_bytes(chunk) for chunk in self.column(name).chunks] or [np.empty((0, width), np.uint8)]
            starts = np.concatenate([[0], np.cumsum([len(chunk) for chunk in chunks])[:-1]]).astype(np.int64)
            self._fixed[name] = chunks, starts
        return self._fixed[name]

    def _mapped(self, uri: str, path: Path) -> pa.Table:
        """A file's table; nothing is read before it is used."""
        if uri not in self._tables:
            self._tables[uri] = self._map(path)
        return self._tables[uri]

    def _map(self, path: Path) -> pa.Table:
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path}: not a whole Arrow file ({error}): delete it and run again") from None
        if table.num_rows != self.part.rows:
            raise ValueError(
                f"{path}: {table.num_rows} rows, its receipt says {self.part.rows}: delete it and run again"
            )
        return table

    def _fetched(self, uri: str, sha256: str, name: str) -> pa.Table:
        """A column of a remote file, copied to local disk once and mapped from there."""
        copy = scratch() / f"{sha256}-{self.part.number}-{name.replace('/', '_')}"
        if not copy.exists():
            # Another thread of this worker may be at it too.
            unfinished = copy.with_name(f"{copy.name}-{secrets.token_hex(4)}")
            reader = self._remote_reader(uri, [name])
            with pa.ipc.new_file(str(unfinished), reader.schema) as writer:
                for number in range(reader.num_record_batches):
                    writer.write_batch(reader.get_batch(number))
            unfinished.replace(copy)
        return self._map(copy)

    def _remote_reader(self, uri: str, names: list[str]) -> pa.ipc.RecordBatchFileReader:
        """A reader of some columns of a remote file: only their bytes are asked for."""
        source = storage.open_input(uri)
        reader = pa.ipc.open_file(source)
        if not names:
            return reader
        wanted = [reader.schema.get_field_index(name) for name in names]
        return pa.ipc.open_file(source, options=pa.ipc.IpcReadOptions(included_fields=wanted))


class Parts:
    """All parts of a decision, in the order of their numbers, and where rows lie when these are laid end to end."""

    def __init__(self, parts: Sequence[PartRef]) -> None:
        self.refs = sorted(parts, key=lambda part: part.number)
        self.numbers = np.array([part.number for part in self.refs], np.uint64)
        rows = np.array([part.rows for part in self.refs], np.int64)
        self.bases = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
        self.rows = int(self.bases[-1])
        self._by_number = {part.number: place for place, part in enumerate(self.refs)}
        self._open: OrderedDict[int, PartColumns] = OrderedDict()

    @staticmethod
    def load(uri: str) -> "Parts":
        """The parts that `save` wrote."""
        return Parts([PartRef.from_fields(fields) for fields in json.loads(storage.read(uri))])

    def save(self, uri: str) -> None:
        """Write the list, so that workers need not carry it."""
        storage.write(uri, json.dumps([asdict(part) for part in self.refs]).encode())

    def ref(self, number: int) -> PartRef:
        """The part of that number."""
        return self.refs[self._by_number[number]]

    def open(self, number: int) -> PartColumns:
        """The part's columns; the parts used last stay open."""
        if number not in self._open:
            self._open[number] = PartColumns(self.ref(number))
            if len(self._open) > OPEN_PARTS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def positions(self, addresses: np.ndarray) -> np.ndarray:
        """The place (int64) of each address when all parts are laid end to end."""
        places = np.searchsorted(self.numbers, addresses >> SHIFT)
        positions: np.ndarray = self.bases[places] + (addresses & ROW_MASK).astype(np.int64)
        return positions

    def by_part(self, addresses: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """For each part among `addresses`: its number, its rows, and their places in `addresses`."""
        if not addresses.size:
            return
        order = np.argsort(addresses)
        numbers, starts = np.unique(addresses[order] >> SHIFT, return_index=True)
        for number, places in zip(numbers, np.split(order, starts[1:]), strict=True):
            yield int(number), (addresses[places] & ROW_MASK).astype(np.int64), places

    def take_fixed(self, name: str, addresses: np.ndarray) -> np.ndarray:
        """(n, width) bytes of a fixed-width column at addresses of any parts, in their order."""
        taken: np.ndarray | None = None
        for number, rows, places in self.by_part(addresses):
            values = self.open(number).fixed(name, rows)
            if taken is None:
                taken = np.empty((len(addresses), values.shape[1]), np.uint8)
            taken[places] = values
        assert taken is not None, "no address to take"
        return taken

    def addresses_of(self, number: int) -> np.ndarray:
        """Addresses of all rows of a part."""
        return address(number, np.arange(self.ref(number).rows, dtype=np.uint64))

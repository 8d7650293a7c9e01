"""The columns of a part, wherever they lie: in its text part, or in a file of measure columns beside it.

Record batches of all files of a part hold the same rows, so that they are read side by side.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from pipeline.ingest.receipts import ColumnsFile
from schemas import storage
from schemas.manifest import DatasetError

__all__ = ["files_of", "open_arrow", "read_part", "schema_of"]

CURE = "delete it and run again"


@contextlib.contextmanager
def open_arrow(uri: str, columns: Sequence[str] | None = None) -> Iterator[pa.ipc.RecordBatchFileReader]:
    """An Arrow file to read batch by batch, local files memory-mapped; with `columns` only those are read.

    Raises DatasetError for what is not a whole Arrow file.
    """
    with contextlib.ExitStack() as stack:
        path = storage.local_path(uri)
        try:
            source = stack.enter_context(pa.memory_map(str(path)) if path is not None else storage.open_input(uri))
            reader = stack.enter_context(pa.ipc.open_file(source))
            if columns is not None:
                indices = [reader.schema.get_field_index(name) for name in columns]
                options = pa.ipc.IpcReadOptions(included_fields=indices)
                reader = stack.enter_context(pa.ipc.open_file(source, options=options))
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise DatasetError(f"{uri}: not a whole Arrow file: {error}: {CURE}") from None
        yield reader


def schema_of(uri: str, files: Sequence[ColumnsFile]) -> pa.Schema:
    """The columns of a part, in the order of its files."""
    with open_arrow(uri) as reader:
        fields = {field.name: field for field in reader.schema}
    for file in files:
        with open_arrow(file.uri) as reader:
            fields |= {name: reader.schema.field(name) for name in file.columns}
    return pa.schema(list(fields.values()))


def files_of(uri: str, files: Sequence[ColumnsFile], columns: Sequence[str]) -> dict[str, list[str]]:
    """By file (URI), which of the columns it holds. What no file lists is looked for in the text part."""
    place = {name: file.uri for file in files for name in file.columns}
    found: dict[str, list[str]] = {}
    for name in columns:
        found.setdefault(place.get(name, uri), []).append(name)
    return found


def read_part(
    uri: str, files: Sequence[ColumnsFile], columns: Sequence[str], rows: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Some columns of a part as (first row, batch). Raises DatasetError for files that have not its number of rows."""
    wanted: Mapping[str, list[str]] = files_of(uri, files, columns) or {uri: []}
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(open_arrow(each, names)) for each, names in wanted.items()]
        first = 0
        for index in range(readers[0].num_record_batches):
            batches = [reader.get_batch(index) if index < reader.num_record_batches else None for reader in readers]
            count = batches[0].num_rows if batches[0] is not None else -1
            for each, batch in zip(wanted, batches, strict=True):
                if batch is None or batch.num_rows != count:
                    raise DatasetError(f"{each}: its record batches are not those of its part {uri}: {CURE}")
            arrays = {name: batch[name] for batch in batches if batch is not None for name in batch.schema.names}
            fields = {field.name: field for batch in batches if batch is not None for field in batch.schema}
            schema = pa.schema([fields[name] for name in columns])
            yield first, pa.RecordBatch.from_arrays([arrays[name] for name in columns], schema=schema)
            first += count
    if first != rows:
        raise DatasetError(f"{uri}: {first} rows, its receipt says {rows}: {CURE}")

"""One attempt at the parts of a task: records in, part files with their receipts out.

Records go through extraction and measuring in batches whose bounds follow from the records alone, and a part ends
where a batch does: so a part has the same bytes whoever makes it, and making it again may begin at any part.
"""

import secrets
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.ingest.extract.html import Extracted, Extractor
from pipeline.ingest.measure_part import columns_receipt, columns_schema, spread_columns
from pipeline.ingest.part_file import PartFile
from pipeline.ingest.read import read_piece
from pipeline.ingest.receipts import ColumnsReceipt, Piece, PieceReceipt, Receipt, Task
from pipeline.ingest.records import Record, doc_id
from pipeline.measure.final_text import text_hashes
from pipeline.measure.measure import Measurer
from pipeline.measure.registry import Registry
from pipeline.runtime.progress import Reporter
from pipeline.text.edits import text_buffers
from schemas import storage
from schemas.arrow import TEXT_PART
from schemas.recipe import Recipe

__all__ = ["PartMaker"]

BATCH_BYTES = 2 << 20  # of bodies or texts, about
BATCH_RECORDS = 512


@dataclass
class Batch:
    """Records that go through extraction and measuring together, and the pieces that end with them."""

    records: list[Record] = field(default_factory=list)
    pieces: list[PieceReceipt] = field(default_factory=list)
    size: int = 0

    def has_room(self, size: int) -> bool:
        """Whether a record of `size` bytes still fits; a single larger one stands alone."""
        return not self.records or (len(self.records) < BATCH_RECORDS and self.size + size <= BATCH_BYTES)


@dataclass
class Rows:
    """A batch as rows of a part."""

    table: pa.RecordBatch  # of the text part
    columns: pa.RecordBatch  # measured
    pieces: list[PieceReceipt]
    alive: int
    text_bytes: int


class PartMaker:
    """Makes parts of one task; `versions` go into their metadata."""

    def __init__(
        self,
        task: Task,
        recipe: Recipe,
        registry: Registry,
        work: str,
        versions: dict[str, str],
        reporter: Reporter,
    ) -> None:
        self._task, self._recipe, self._registry, self._work = task, recipe, registry, work
        self._reporter = reporter
        self._attempt = secrets.token_hex(4)
        self._measurer = Measurer(registry)
        needed = {name for group in registry.groups for name in group.needs}
        self._read_by_groups = [name for name in TEXT_PART.names if name in needed]
        metadata = {"source": task.source, **versions}
        self._schema = TEXT_PART.with_metadata({key: metadata[key] for key in sorted(metadata)})
        self._columns_schema = columns_schema(registry.groups)

    def make(self, number: int, skip: int) -> Generator[tuple[Receipt, ColumnsReceipt], None, None]:
        """Write part `number` and those that follow, with their measure columns, and the receipts of both.

        The first `skip` rows stand in parts before.
        """
        batches = self._measured(skip)
        batch = next(batches, None)
        while batch is not None:
            stem = f"{self._task.key}-{number:03d}.{self._attempt}.arrow"
            path, columns_path = f"parts/{stem}", f"columns/{stem}"
            rows = alive = text_bytes = 0
            pieces: list[PieceReceipt] = []
            with (
                PartFile(storage.join(self._work, path), self._schema) as part,
                PartFile(storage.join(self._work, columns_path), self._columns_schema) as columns,
            ):
                while batch is not None and (not rows or text_bytes + batch.text_bytes <= self._recipe.read.part_bytes):
                    part.write(batch.table, batch.text_bytes)
                    columns.write(batch.columns, batch.text_bytes)
                    rows += batch.table.num_rows
                    alive += batch.alive
                    text_bytes += batch.text_bytes
                    pieces += batch.pieces
                    batch = next(batches, None)
                size, sha256 = part.publish()
                columns_size, columns_sha256 = columns.publish()
            receipt = Receipt(
                key=self._task.key,
                number=number,
                last=batch is None,
                source=self._task.source,
                path=path,
                rows=rows,
                alive=alive,
                text_bytes=text_bytes,
                bytes=size,
                sha256=sha256,
                pieces=tuple(pieces),
            )
            groups = self._registry.groups
            yield receipt, columns_receipt(receipt, columns_path, columns_size, columns_sha256, groups)
            number += 1

    def _measured(self, skip: int) -> Iterator[Rows]:
        """Batches as rows; the child extracts one while the one before is measured and the one after is read."""
        with Extractor(self._recipe.extract) as extractor:
            before: Batch | None = None
            for batch in self._batches(skip):
                texts = extractor.collect() if before else []
                extractor.submit(batch.records)
                if before:
                    yield self._rows(before, texts)
                before = batch
            assert before is not None
            yield self._rows(before, extractor.collect())

    def _batches(self, skip: int) -> Iterator[Batch]:
        """The task's records after the first `skip`, in batches.

        A batch is handed on when the next record comes, so that a piece that ends with it is still noted in it.
        """
        batch, skipped = Batch(), 0
        source = self._recipe.sources[self._task.source]
        for piece in self._task.pieces:
            reader = read_piece(piece, source, self._recipe.read)
            told = piece.start
            for record in reader:
                if skipped < skip:
                    skipped += 1
                    continue
                size = len(record.body or record.text or "")
                if not batch.has_room(size):
                    yield batch
                    batch, told = Batch(), self._tell(piece, told, record.position, len(batch.records))
                batch.records.append(record)
                batch.size += size
            self._tell(piece, told, piece.end, 0)
            if batch.records or not skip:
                batch.pieces.append(reader.receipt)
        assert skipped == skip, f"{self._task.key}: {skip} rows stand in parts, {skipped} were read"
        yield batch
        self._reporter.add("ingest", records=len(batch.records))

    def _tell(self, piece: Piece, told: int, position: int, num_records: int) -> int:
        """Report progress up to `position` of a piece (a Parquet piece counts when it is read); returns it."""
        if piece.format == "parquet":
            whole = piece.size if position == piece.end else 0
            self._reporter.add("ingest", bytes=whole, records=num_records)
            return told
        self._reporter.add("ingest", bytes=max(0, position - told), records=num_records)
        return max(told, position)

    def _rows(self, batch: Batch, texts: Sequence[Extracted]) -> Rows:
        """Measure a batch and lay it out as rows of a part, in record order."""
        is_alive = [text.text is not None for text in texts]
        columns = _record_columns(self._task.source, batch.records, texts)
        stored = columns["text"].filter(pa.array(is_alive, pa.bool_()))
        hashes = text_hashes(*text_buffers(stored))
        table = spread_columns({"text_hash": hashes}, is_alive, pa.schema([self._schema.field("text_hash")]))
        columns["text_hash"] = table["text_hash"]
        record = pa.RecordBatch.from_arrays([columns[name] for name in self._schema.names], schema=self._schema)
        # Only what groups read: of the texts, which are the bytes, there would be another copy else.
        known = {name: columns[name].filter(pa.array(is_alive, pa.bool_())) for name in self._read_by_groups}
        made = self._measurer.measure(stored, known) if len(stored) else {}
        measured = spread_columns(made, is_alive, self._columns_schema)
        return Rows(record, measured, batch.pieces, len(stored), sum(len(text.text or b"") for text in texts))


def _record_columns(source: str, records: Sequence[Record], texts: Sequence[Extracted]) -> dict[str, pa.Array]:
    """The columns that hold what the record says and where it was dropped."""

    def column(kind: pa.DataType, values: Iterator[Any]) -> pa.Array:
        return pa.array(list(values), kind)

    return {
        "doc_id": column(pa.binary(16), (doc_id(source, record) for record in records)),
        "record_id": column(pa.string(), (_utf8(record.record_id) for record in records)),
        "url": column(pa.string(), (_utf8(record.url) for record in records)),
        "input": column(pa.string(), (_utf8(record.input) for record in records)),
        "position": column(pa.int64(), (record.position for record in records)),
        "offset": column(pa.int64(), (record.offset for record in records)),
        "date": column(pa.int64(), (record.date for record in records)),
        "status": column(pa.int16(), (record.status for record in records)),
        "mime": column(pa.string(), (_utf8(record.mime) for record in records)),
        "charset": column(pa.string(), (text.charset for text in texts)),
        "stage": column(pa.string(), (text.rule and text.rule.partition(".")[0] for text in texts)),
        "rule": column(pa.string(), (text.rule for text in texts)),
        "value": column(pa.float64(), (text.value for text in texts)),
        "threshold": column(pa.float64(), (text.threshold for text in texts)),
        "text": column(pa.large_string(), (text.text for text in texts)),
    }


def _utf8(text: str | None) -> str | None:
    """A string that Arrow can hold: a file's name or a header may carry bytes that are no UTF-8."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if _has_escapes(text) else text


def _has_escapes(text: str) -> bool:
    return any("\ud800" <= letter <= "\udfff" for letter in text)

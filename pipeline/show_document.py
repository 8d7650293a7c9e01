"""One document in full: its final text out of the part, or its page as the crawl has it."""

from typing import Any

from pipeline.ingest.formats.parquet import WHOLE
from pipeline.ingest.read import read_piece
from pipeline.ingest.receipts import Piece
from pipeline.ingest.records import Record
from pipeline.ingest.sources import format_of
from pipeline.report.part_files import open_parts
from pipeline.report.sample_texts import final_texts
from pipeline.source_roots import roots_of
from schemas import storage
from schemas.dataset import Dataset, DatasetError, Place, open_dataset
from schemas.recipe import Recipe, Source

__all__ = ["show_page", "show_text"]


def show_text(dataset: str, work: str | None, document: str, generation: int | None = None) -> bytes:
    """The final text of a document, edits applied, in UTF-8. Raises DatasetError where there is none."""
    opened = open_dataset(dataset, generation)
    place, row = _choose(opened, document)
    parts = open_parts(opened, work, {opened.part_of(place)[0]})
    texts = final_texts(opened, parts, [place])
    if place not in texts:
        reason = parts.missing or f"it was dropped by {row['rule']} before it had a text"
        raise DatasetError(f"{document}: its text is not available: {reason}")
    return texts[place].encode()


def show_page(dataset: str, work: str | None, document: str, generation: int | None = None) -> bytes:
    """The page of a document as the crawl has it, decompressed, without HTTP's headers; or the text that was given.

    Raises DatasetError where the record has no page, or is not in the crawl any more.
    """
    opened = open_dataset(dataset, generation)
    _, row = _choose(opened, document)
    recipe = opened.recipe()
    if recipe is None or row["source"] not in recipe.sources:
        raise DatasetError(f"{document}: the dataset's recipe has no source {row['source']}")
    source = recipe.sources[row["source"]]
    folder = work or storage.join(dataset, "work")
    uris = [storage.join(root, row["input"]) for root in roots_of(folder, row["source"])]
    uri = next((uri for uri in uris if storage.exists(uri)), None)
    if uri is None:
        place = f"{uris[0]} is not there any more" if uris else f"{folder} does not say where {row['input']} lies"
        raise DatasetError(f"{document}: its page is not available: {place}")
    record = _read_record(uri, row, source, recipe)
    if record is None:
        raise DatasetError(f"{document}: {uri} has no record at {row['position']:,} any more: the file has changed")
    if record.body is None and record.text is None:
        raise DatasetError(f"{document}: its record has no page ({record.rule or record.type})")
    return record.body if record.body is not None else str(record.text).encode()


def _choose(dataset: Dataset, document: str) -> tuple[Place, dict[str, Any]]:
    """The kept record of that name, else the first."""
    rows = dataset.rows(dataset.places_of(document))
    if not rows:
        raise DatasetError(f"{dataset.uri}: nothing called {document} was read; `gristmill explain` names the nearest")
    return min(rows.items(), key=lambda found: (not found[1]["kept"], found[0]))


def _read_record(uri: str, row: dict[str, Any], source: Source, recipe: Recipe) -> Record | None:
    """The record of a ledger's row, read again from its file: only its frame where the file can be entered there."""
    found = storage.stat(uri)
    form = source.format if source.format != "auto" else format_of(row["input"])
    start, end = 0, WHOLE if form == "parquet" else found.size
    if form == "warc":
        start, end = row["position"], row["position"] + 1
    piece = Piece(row["input"], uri, str(form), start, end, found.size, found.tag)
    wanted = (row["position"], row["offset"])
    records = iter(read_piece(piece, source, recipe.read))
    return next((record for record in records if (record.position, record.offset) == wanted), None)

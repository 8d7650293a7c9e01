"""From a step to its documents, and from a document to its steps, without replaying the run.

Forward: the rows of a batch, the documents that lie in them (the shards' own doc_id column), then the dataset's index
and ledger for what is known of each. Back: index, rows, and the inverse of the order (contracts, section 7, "Reverse").

D = documents of a shard, in order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.dataset import Dataset, DatasetError, Key, Place, is_doc_id
from schemas.packing import place_documents
from trainer.data.shard_files import ShardFiles
from trainer.data.train_split import TrainSplit
from trainer.order.batch_order import Batch, Order

__all__ = ["DocumentSeen", "StepSeen", "documents_of_rows", "steps_of_document"]

LEDGER_COLUMNS = ["record_id", "url", "input", "position", "language", "cluster_size"]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DocumentSeen:
    """A document, or the piece of one, in a row of a batch."""

    row: int  # of the batch, or of the slice that was asked for
    source: str
    doc_id: str  # 32 hex digits
    url: str | None
    record_id: str | None
    input: str  # the crawl file that it was read from
    position: int  # of the record in that file
    language: str | None
    first_token: int  # of the document: where the piece begins
    num_tokens: int  # of the piece
    shard: str  # path of the shard in the dataset
    shard_row: int  # the document's row there
    ledger: str  # path of the ledger in the dataset
    ledger_row: int
    cluster_size: int | None

    @property
    def why_kept(self) -> str:
        """Why it is in the dataset. `gristmill explain DATASET ID` has every measure."""
        if self.cluster_size is None or self.cluster_size <= 1:
            return "passed every rule, no other copy"
        return f"passed every rule, chosen among {self.cluster_size} copies"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"why_kept": self.why_kept}

    def line(self) -> str:
        """As a line of a table."""
        last = self.first_token + self.num_tokens - 1
        return (
            f"{self.row:>5}  {self.source:<12} {self.doc_id}  tokens {self.first_token:,}-{last:,}  "
            f"{self.url or self.record_id or f'{self.input} at {self.position}'}  "
            f"({self.why_kept}; {self.ledger} row {self.ledger_row})"
        )


@dataclass(frozen=True)
class StepSeen:
    """A step that trained on a document, or on a piece of one."""

    step: int
    batch: int
    row: int  # of the batch
    source: str
    epoch: int  # of the source
    shard: str
    shard_row: int  # the sample's row in the shard, at the sequence length and packing of that batch

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def line(self) -> str:
        """As a line of a table."""
        return (
            f"step {self.step:>8,}  batch {self.batch:>8,}  row {self.row:>5}  {self.source} epoch {self.epoch}  "
            f"{self.shard} row {self.shard_row}"
        )


# ---------------------------------------------------------------- from rows to documents


def documents_of_rows(
    datasets: Sequence[TrainSplit], order: Order, batch: Batch, rows: Iterable[int] | None = None
) -> list[DocumentSeen]:
    """The documents in some rows of a batch (default: all), by row and place in it; a row holds pieces of several.

    `rows` are taken in the order given. Only the shards behind them are read.
    Raises DatasetError for a shard, an index or a ledger that is not there.
    """
    chosen = np.arange(len(batch)) if rows is None else np.array(list(rows), np.int64)
    phase, files = order.phase_of(batch.number), ShardFiles(order.shards, datasets)
    pieces: list[tuple[int, int, _Piece]] = []  # rank among the rows asked for, row, piece
    for shard in np.unique(batch.shard_G[chosen]).tolist():
        ranks = np.flatnonzero(batch.shard_G[chosen] == shard)
        documents = _shard_documents(files, shard)
        for rank in ranks.tolist():
            row = int(chosen[rank])
            found = documents.pieces(int(batch.row_G[row]), phase.sequence_length, phase.packing)
            pieces += [(rank, row, piece._replace(shard=shard)) for piece in found]
    pieces.sort(key=lambda each: each[0])  # stable: pieces stay in the order in which they lie
    return _with_ledger(files, order, pieces)


class _Piece(NamedTuple):
    """Tokens of a document that lie together in a row."""

    document: int  # row of the shard's file
    offset: int  # tokens of the document before the piece
    length: int
    doc_id: bytes
    shard: int = -1  # row of the run's table


@dataclass(eq=False)
class _ShardDocuments:
    """The documents of a shard: ids and lengths, in order."""

    doc_ids_D: NDArray[np.uint8]  # (D, 16)
    lengths_D: Ints
    _placed: dict[int, Any] = field(default_factory=dict)

    @cached_property
    def starts_D(self) -> Ints:
        """Tokens before each document."""
        return np.cumsum(self.lengths_D) - self.lengths_D

    def pieces(self, row: int, sequence_length: int, packing: str) -> list[_Piece]:
        """The pieces in a row, in the order in which they lie."""
        if packing == "documents":
            placed = self._place(sequence_length)
            found = np.flatnonzero(placed.row == row)
            columns = (placed.document[found], placed.offset[found], placed.length[found])
        else:
            begin, end = row * sequence_length, (row + 1) * sequence_length
            starts = self.starts_D
            inside = np.arange(np.searchsorted(starts, begin, side="right") - 1, np.searchsorted(starts, end))
            first = np.maximum(begin, self.starts_D[inside])
            last = np.minimum(end, self.starts_D[inside] + self.lengths_D[inside])
            columns = (inside, first - self.starts_D[inside], last - first)
        return [
            _Piece(document, offset, length, self.doc_ids_D[document].tobytes())
            for document, offset, length in zip(*(column.tolist() for column in columns), strict=True)
        ]

    def rows_of(self, document: int, sequence_length: int, packing: str) -> list[int]:
        """The rows that hold a piece of a document; one in the remainder of `windows` lies in no row."""
        if packing == "documents":
            placed = self._place(sequence_length)
            return np.unique(placed.row[placed.document == document]).tolist()
        start, length = int(self.starts_D[document]), int(self.lengths_D[document])
        return list(range(start // sequence_length, (start + length - 1) // sequence_length + 1))

    def _place(self, sequence_length: int) -> Any:
        if sequence_length not in self._placed:
            self._placed[sequence_length] = place_documents(self.lengths_D, sequence_length)
        return self._placed[sequence_length]


def _shard_documents(files: ShardFiles, shard: int) -> _ShardDocuments:
    # A shard that has gone bad is what the documents behind a spike are asked for: it is read as a run reads it.
    opened = files.dataset(shard).dataset.shard_file(files.number(shard), check=False)
    return _ShardDocuments(opened.doc_ids(), opened.num_tokens())


def _with_ledger(files: ShardFiles, order: Order, pieces: Sequence[tuple[int, int, _Piece]]) -> list[DocumentSeen]:
    """Pieces with what index and ledger know of their documents."""
    by_dataset: dict[Dataset, set[Key]] = {}
    for _, _, piece in pieces:
        by_dataset.setdefault(files.dataset(piece.shard).dataset, set()).add(_key(files, piece))
    known = {dataset: _ledger_rows(dataset, keys) for dataset, keys in by_dataset.items()}
    seen = []
    for _, row, piece in pieces:
        dataset = files.dataset(piece.shard).dataset
        place, columns = known[dataset][_key(files, piece)]
        seen.append(
            DocumentSeen(
                row=row,
                source=order.shards.sources[order.shards.source_N[piece.shard]],
                doc_id=piece.doc_id.hex(),
                first_token=piece.offset,
                num_tokens=piece.length,
                shard=files.name(piece.shard),
                shard_row=piece.document,
                ledger=dataset.path(place.ledger),
                ledger_row=place.row,
                **columns,
            )
        )
    return seen


def _ledger_rows(dataset: Dataset, keys: set[Key]) -> dict[Key, tuple[Place, dict[str, Any]]]:
    """Place in the ledger, and the columns LEDGER_COLUMNS, of each document of a shard."""
    entries = dataset.entries(key.doc_id for key in keys)
    if missing := sorted(keys - set(entries)):
        raise DatasetError(
            f"{dataset.uri}: document {missing[0].doc_id.hex()} stands in shard {missing[0].shard} and not in the "
            "index: `gristmill verify` tells what is damaged"
        )
    places = {key: Place(entries[key]["ledger"], entries[key]["ledger_row"]) for key in keys}
    rows = dataset.rows(places.values(), LEDGER_COLUMNS)
    return {key: (place, rows[place]) for key, place in places.items()}


def _key(files: ShardFiles, piece: _Piece) -> Key:
    return Key(piece.doc_id, files.number(piece.shard), piece.document)


# ---------------------------------------------------------------- from a document to steps


def steps_of_document(datasets: Sequence[TrainSplit], order: Order, document: str, until: int) -> list[StepSeen]:
    """The steps before step `until` that saw any piece of a document, given by id (32 hex digits) or URL; sorted.

    A URL may name several documents (captures). Steps that were skipped saw nothing. Raises ValueError for a document
    that no dataset of the run keeps, or that is kept for validation.
    """
    files = ShardFiles(order.shards, datasets)
    places = _training_places(datasets, order, document)
    stop = order.batch_of_step(until) if until else 0
    seen: set[StepSeen] = set()
    for shard, row in sorted(places):
        documents, row_of = _shard_documents(files, shard), row

        def rows(length: int, packing: str, d: _ShardDocuments = documents, r: int = row_of) -> list[int]:
            return d.rows_of(r, length, packing)

        for batch, epoch, sample in order.positions(shard, rows, stop):
            step = order.step_of_batch(batch)
            if step is not None:
                seen.add(_step_seen(files, order, step, batch, epoch, shard, sample))
    return sorted(seen, key=lambda each: (each.step, each.row))


def _training_places(datasets: Sequence[TrainSplit], order: Order, document: str) -> set[tuple[int, int]]:
    """(shard as a row of the run's table, row of the document in it), over all datasets and generations."""
    found, elsewhere = set(), set()
    for dataset in datasets:
        for key in _kept(dataset.dataset, document):
            source, digest, split = (
                dataset.dataset.shard_table[name][key.shard].as_py() for name in ("source", "sha256", "split")
            )
            same = (order.shards.sha256_N == np.frombuffer(bytes.fromhex(digest), np.uint8)).all(axis=1)
            name = f"{dataset.name}:{source}" if dataset.name else source
            ids = [s for s in np.flatnonzero(same).tolist() if order.shards.sources[order.shards.source_N[s]] == name]
            found |= {(shard, key.row) for shard in ids}
            elsewhere |= set() if ids else {split}
    if not found:
        where = " and ".join({dataset.uri: None for dataset in datasets})
        what = (
            f"is kept for {' and '.join(sorted(elsewhere))} there, and no step of this run reads it"
            if elsewhere
            else "is no kept document there: `gristmill explain DATASET ID|URL` says what became of it"
        )
        raise ValueError(f"{document}: looked for in {where}: it {what}")
    return found


def _kept(dataset: Dataset, document: str) -> list[Key]:
    """The places in shards of an id, or of the captures of a URL that are kept."""
    if is_doc_id(document):
        return list(dataset.entries([bytes.fromhex(document)]))
    try:
        rows = dataset.rows(dataset.places_of_url(document), ["doc_id", "shard", "row"]).values()
    except DatasetError as error:
        raise DatasetError(f"{error}; steps are found without the ledger by a document's id") from None
    return [Key(row["doc_id"], row["shard"], row["row"]) for row in rows if row["shard"] is not None]


def _step_seen(files: ShardFiles, order: Order, step: int, batch: int, epoch: int, shard: int, sample: int) -> StepSeen:
    rows = order.batch(batch)
    match = (rows.shard_G == shard) & (rows.row_G == sample) & (rows.epoch_G == epoch)
    return StepSeen(
        step=step,
        batch=batch,
        row=int(np.flatnonzero(match)[0]),
        source=order.shards.sources[order.shards.source_N[shard]],
        epoch=epoch,
        shard=files.name(shard),
        shard_row=sample,
    )

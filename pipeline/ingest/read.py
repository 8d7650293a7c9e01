"""Reading a piece of a crawl file: its records one by one, then a receipt for every byte of it."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from pipeline.ingest.bytes.compression import HEAD_BYTES, Codec, dictionary_of, find_codec, zstd_codec
from pipeline.ingest.bytes.decoded_stream import Decoded, FrameSource, PlainBytes
from pipeline.ingest.bytes.frame_boundaries import Boundaries, Probe
from pipeline.ingest.bytes.frames import Frames
from pipeline.ingest.formats.jsonl import LineRecords, looks_like_jsonl
from pipeline.ingest.formats.parquet import ParquetRows
from pipeline.ingest.formats.plain_boundaries import PlainRecords, line_boundary
from pipeline.ingest.formats.warc import WarcRecords
from pipeline.ingest.formats.warc_headers import ARC, WARC, Format
from pipeline.ingest.receipts import Piece, PieceReceipt
from pipeline.ingest.records import LEDGER_TYPES, ConservationError, Record
from schemas import storage
from schemas.recipe import Read, Source

__all__ = ["PieceReader", "check_pieces", "read_piece"]

MAX_DICTIONARY_BYTES = 128 << 20


def read_piece(piece: Piece, source: Source, read: Read) -> "PieceReader":
    """The records of a piece; damage gives rows, not exceptions.

    Iterating raises StorageError where the file cannot be fetched, ValueError where it is not what the recipe says,
    and ConservationError where a byte or record is not accounted for.
    """
    return PieceReader(piece, source, read)


class PieceReader:
    """Iterate once over a piece's ledger records; `receipt` is there afterwards."""

    def __init__(self, piece: Piece, source: Source, read: Read) -> None:
        self._piece, self._source, self._read = piece, source, read
        self._receipt: PieceReceipt | None = None

    @property
    def receipt(self) -> PieceReceipt:
        """What was read; only once every record has been taken."""
        assert self._receipt is not None, "the receipt of a piece follows its last record"
        return self._receipt

    def __iter__(self) -> Iterator[Record]:
        piece = self._piece
        with storage.open_input(piece.uri) as file:
            if piece.format == "parquet":
                yield from self._rows(file)
            else:
                yield from self._stream(file)

    def _rows(self, file: BinaryIO) -> Iterator[Record]:
        rows = ParquetRows(file, self._piece, self._source, self._read)
        yield from rows
        self._receipt = rows.receipt()

    def _stream(self, file: BinaryIO) -> Iterator[Record]:
        piece = self._piece
        try:
            start, frames, records = _open(file, piece, self._source, self._read)
            rows = 0
            for record in records:
                rows += 1
                yield record
            if frames.covered != frames.limit:
                raise ConservationError(f"frames cover [{start}, {frames.covered}) of [{start}, {frames.limit})")
            counts = dict(sorted(records.counts.items()))
            if rows != sum(count for kind, count in counts.items() if kind in LEDGER_TYPES):
                raise ConservationError(f"{rows} ledger rows came of {counts}")
        except ConservationError as error:
            raise ConservationError(f"{piece.uri} [{piece.start}, {piece.end}): {error}") from error
        self._receipt = PieceReceipt(
            name=piece.name,
            start=piece.start,
            end=piece.end,
            size=piece.size,
            covered_start=start,
            covered_end=frames.covered,
            sha256=frames.digest(),
            rows=rows,
            records=counts,
        )


def _open(
    file: BinaryIO, piece: Piece, source: Source, read: Read
) -> tuple[int, FrameSource, "WarcRecords | LineRecords"]:
    """(covered start, frames, records) of a piece."""
    head = file.read(HEAD_BYTES)
    is_warc = piece.format == "warc"
    is_plain = WARC.begins(head) or head.startswith(b"filedesc:") if is_warc else looks_like_jsonl(head)
    codec = find_codec(head, piece.name, is_plain)
    if codec is not None and codec.name == "zstd":
        codec = _with_dictionary(file, codec)
    if not is_warc:
        start, frames = _lines(file, piece, codec)
        return start, frames, LineRecords(Decoded(frames, lambda data: False), piece.name, source, read)
    form = _format(file, piece, codec)
    if codec is None:
        records = PlainRecords(file, piece.size, form)
        start, limit = _limits(piece, records)
        frames = PlainBytes(file, start, limit)
        refuse = (lambda excess: records.refuse_straddling(limit + excess)) if limit < piece.size else None
    else:
        probe = Probe(file, piece.size, codec, form.begins)
        start, limit = _limits(piece, Boundaries(probe))
        frames, refuse = Frames(file, start, limit, probe), None
    return start, frames, WarcRecords(Decoded(frames, form.begins), form, piece.name, read, refuse)


def _limits(piece: Piece, boundaries: Boundaries | PlainRecords) -> tuple[int, int]:
    """[start, limit) that the piece covers; empty where no frame that starts in it begins a record."""
    start = boundaries.find(piece.start, piece.end)
    if start is None:
        return piece.start, piece.start
    limit = boundaries.find(piece.end, piece.size) if piece.end < piece.size else None
    return start, piece.size if limit is None else limit


def _lines(file: BinaryIO, piece: Piece, codec: Codec | None) -> tuple[int, FrameSource]:
    if codec is not None:
        assert (piece.start, piece.end) == (0, piece.size), "compressed JSONL is not cut"
        return 0, Frames(file, 0, piece.size, Probe(file, piece.size, codec, None))
    start = line_boundary(file, piece.size, piece.start)
    return start, PlainBytes(file, start, line_boundary(file, piece.size, piece.end))


def _format(file: BinaryIO, piece: Piece, codec: Codec | None) -> Format:
    """WARC or ARC, by the file's first record, else by its name."""
    if codec is None:
        file.seek(0)
        first = file.read(1 << 16)
    else:
        first = Probe(file, piece.size, codec, None).first_record()
    if WARC.begins(first):
        return WARC
    return ARC if ARC.begins(first) or ".arc" in piece.name.lower() else WARC


def _with_dictionary(file: BinaryIO, codec: Codec) -> Codec:
    """The codec with the dictionary that the file begins with, if it does."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    length = codec.skippable_bytes(head)
    if length is None or length > MAX_DICTIONARY_BYTES:
        return codec
    file.seek(0)
    dictionary = dictionary_of(file.read(length))
    return zstd_codec(dictionary) if dictionary else codec


def check_pieces(receipts: Sequence[PieceReceipt]) -> None:
    """Raise ConservationError unless the pieces of one file, all of them, cover it without gap or overlap."""
    ordered = sorted(receipts, key=lambda receipt: receipt.start)
    planned = covered = 0
    for receipt in ordered:
        if receipt.start != planned:
            raise ConservationError(f"{receipt.name}: a piece from {receipt.start} follows one that ends at {planned}")
        planned = receipt.end
        if receipt.covered_start == receipt.covered_end:
            continue  # no frame starts in it
        if receipt.covered_start != covered:
            raise ConservationError(
                f"{receipt.name}: a piece covers from {receipt.covered_start} on, the one before it to {covered}"
            )
        covered = receipt.covered_end
    if covered != planned:
        raise ConservationError(f"{ordered[-1].name}: the pieces cover {covered} of {planned}")

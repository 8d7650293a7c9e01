"""Reading an input split of a file: its records one by one, then a receipt for every byte of it."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

from pipeline.ingest.bytes.compression import HEAD_BYTES, Codec, dictionary_of, find_codec, zstd_codec
from pipeline.ingest.bytes.decoded_stream import Decoded, FrameSource, PlainBytes
from pipeline.ingest.bytes.frame_boundaries import Boundaries, Probe
from pipeline.ingest.bytes.frames import Frames
from pipeline.ingest.bytes.transcoded import Transcoded, utf16_of
from pipeline.ingest.formats.arrow import ArrowRows
from pipeline.ingest.formats.csv_rows import CsvRecords
from pipeline.ingest.formats.fields import FieldNames
from pipeline.ingest.formats.json_values import ValueRecords
from pipeline.ingest.formats.jsonl import SHAPE_BYTES, LineRecords, json_shape, looks_like_jsonl
from pipeline.ingest.formats.parquet import ParquetRows
from pipeline.ingest.formats.plain_boundaries import PlainRecords, line_boundary
from pipeline.ingest.formats.text_file import TextFile
from pipeline.ingest.formats.warc import WarcRecords
from pipeline.ingest.formats.warc_headers import ARC, WARC, Format
from pipeline.ingest.receipts import Piece, PieceReceipt
from pipeline.ingest.records import LEDGER_TYPES, ConservationError, Record
from schemas import storage
from schemas.recipe import Read, Source

__all__ = ["PieceReader", "check_pieces", "is_cut_at_lines", "read_piece"]

MAX_DICTIONARY_BYTES = 128 << 20
ROW_FORMATS: dict[str, type[ParquetRows] | type[ArrowRows]] = {"parquet": ParquetRows, "arrow": ArrowRows}
DELIMITERS = {"csv": ",", "tsv": "\t"}
CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def read_piece(piece: Piece, source: Source, read: Read) -> "PieceReader":
    """The records of an input split; what is corrupt gives rows, not exceptions.

    Iterating raises StorageError where the file cannot be fetched, ValueError where it is not what the recipe says,
    and ConservationError where a byte or record is not accounted for.
    """
    return PieceReader(piece, source, read)


class Records(Protocol):
    """The ledger records of a stream of bytes, in order, and how many of each type were met."""

    counts: "Counter[str]"

    def __iter__(self) -> Iterator[Record]: ...


class PieceReader:
    """Iterate once over an input split's ledger records; `receipt` is there afterwards.

    `names` says which of the recipe's fields the records had so far.
    """

    def __init__(self, piece: Piece, source: Source, read: Read) -> None:
        self._piece, self._source, self._read = piece, source, read
        self._receipt: PieceReceipt | None = None
        self.names = FieldNames(source)

    @property
    def receipt(self) -> PieceReceipt:
        """What was read; only once every record has been taken."""
        assert self._receipt is not None, "the receipt of an input split follows its last record"
        return self._receipt

    def __iter__(self) -> Iterator[Record]:
        piece = self._piece
        with storage.open_input(piece.uri) as file:
            if piece.format in ROW_FORMATS:
                rows = ROW_FORMATS[piece.format](file, piece, self.names, self._read)
                yield from rows
                self._receipt = rows.receipt()
            else:
                yield from self._stream(file)

    def _stream(self, file: BinaryIO) -> Iterator[Record]:
        piece = self._piece
        try:
            start, frames, records = self._open(file)
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

    def _open(self, file: BinaryIO) -> tuple[int, FrameSource, Records]:
        """(covered start, frames, records) of the input split."""
        piece, read = self._piece, self._read
        codec = codec_of(file, piece.format, piece.name)
        if piece.format == "warc":
            return _archive(file, piece, read, codec)
        head = first_bytes(file, piece.size, codec)
        start, frames = _lines(file, piece, codec)
        encoding = None if piece.format == "text" else utf16_of(head)
        if encoding is not None:
            frames = Transcoded(frames, encoding)
            head = head.decode(encoding, "replace").encode()
        stream = Decoded(frames, lambda data: False)
        return start, frames, self._records(stream, head)

    def _records(self, stream: Decoded, head: bytes) -> Records:
        name, source, read = self._piece.name, self._source, self._read
        match self._piece.format:
            case "text":
                return TextFile(stream, name, read)
            case "csv" | "tsv":
                delimiter = source.delimiter or DELIMITERS[self._piece.format]
                return CsvRecords(stream, name, self.names, read, delimiter, source.columns)
        shape = json_shape(head)
        if shape == "values":
            return ValueRecords(stream, name, self.names, read)
        return LineRecords(stream, name, self.names, read, b"\r" if shape == "returns" else b"\n")


def is_cut_at_lines(file: BinaryIO, name: str, size: int) -> bool:
    """Whether a JSONL file may be cut: it is not compressed, and each of its lines is a value."""
    if codec_of(file, "jsonl", name) is not None:
        return False
    head = first_bytes(file, size, None)
    return utf16_of(head) is None and json_shape(head) == "lines"


def codec_of(file: BinaryIO, form: str, name: str) -> Codec | None:
    """Return the compression of a file of this format; None where it is not compressed."""
    file.seek(0)
    head = file.read(HEAD_BYTES)
    if form == "warc":
        is_plain = WARC.begins(head) or head.startswith(b"filedesc:")
    else:
        is_plain = utf16_of(head) is not None or (
            looks_like_jsonl(head) if form == "jsonl" else not CONTROLS.search(head)
        )
    codec = find_codec(head, name, is_plain)
    return _with_dictionary(file, codec) if codec is not None and codec.name == "zstd" else codec


def first_bytes(file: BinaryIO, size: int, codec: Codec | None) -> bytes:
    """Return a file's first decoded bytes, SHAPE_BYTES or somewhat more."""
    if codec is not None:
        return Probe(file, size, codec, None).first_record()
    file.seek(0)
    return file.read(SHAPE_BYTES)


def _archive(file: BinaryIO, piece: Piece, read: Read, codec: Codec | None) -> tuple[int, FrameSource, Records]:
    """(covered start, frames, records) of an input split of a WARC or ARC file."""
    form = _format(file, piece, codec)
    frames: FrameSource
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
    """[start, limit) that the input split covers; empty where no frame that starts in it begins a record."""
    start = boundaries.find(piece.start, piece.end)
    if start is None:
        return piece.start, piece.start
    limit = boundaries.find(piece.end, piece.size) if piece.end < piece.size else None
    return start, piece.size if limit is None else limit


def _lines(file: BinaryIO, piece: Piece, codec: Codec | None) -> tuple[int, FrameSource]:
    if codec is not None:
        assert (piece.start, piece.end) == (0, piece.size), "compressed lines are not cut"
        return 0, Frames(file, 0, piece.size, Probe(file, piece.size, codec, None))
    start = line_boundary(file, piece.size, piece.start)
    return start, PlainBytes(file, start, line_boundary(file, piece.size, piece.end))


def _format(file: BinaryIO, piece: Piece, codec: Codec | None) -> Format:
    """WARC or ARC, by the file's first record, else by its name."""
    first = first_bytes(file, piece.size, codec)
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
    """Raise ConservationError unless the input splits of one file, all of them, cover it without gap or overlap."""
    ordered = sorted(receipts, key=lambda receipt: receipt.start)
    planned = covered = 0
    for receipt in ordered:
        if receipt.start != planned:
            raise ConservationError(
                f"{receipt.name}: an input split from {receipt.start} follows one that ends at {planned}"
            )
        planned = receipt.end
        if receipt.covered_start == receipt.covered_end:
            continue  # no frame starts in it
        if receipt.covered_start != covered:
            raise ConservationError(
                f"{receipt.name}: an input split covers from {receipt.covered_start} on, the one before it to {covered}"
            )
        covered = receipt.covered_end
    if covered != planned:
        raise ConservationError(f"{ordered[-1].name}: the input splits cover {covered} of {planned}")

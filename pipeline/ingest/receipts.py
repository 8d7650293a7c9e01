"""What ingest is given and what it answers for: pieces, tasks, receipts. Contracts, section 2."""

import builtins
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from schemas.checksummed_json import seal, unseal

__all__ = ["ColumnsFile", "ColumnsReceipt", "PartRef", "Piece", "PieceReceipt", "Receipt", "Task"]


@dataclass(frozen=True)
class Piece:
    """A file or a range of one, owning the frames, lines or row groups that start in [start, end)."""

    name: str  # input name: path below the source's root
    uri: str
    format: str  # warc, jsonl or parquet
    start: int  # bytes; Parquet: row groups
    end: int
    size: int  # bytes of the whole file
    tag: str  # ETag, or modification time in nanoseconds


@dataclass(frozen=True)
class Task:
    """What one element of the ingest pipeline reads: pieces of one source, in order, and the key of its parts."""

    source: str
    pieces: tuple[Piece, ...]
    key: str  # hex; names the parts and their receipts
    bytes: int = 0  # to go through, about: of input, or of stored text where the parts are there


@dataclass(frozen=True)
class PieceReceipt:
    """What was read of one piece."""

    name: str
    start: int
    end: int
    size: int
    covered_start: int  # the frames and damaged ranges found tile [covered_start, covered_end)
    covered_end: int
    sha256: str  # of the bytes read
    rows: int  # ledger rows
    records: dict[str, int]  # records by type, damage included


@dataclass(frozen=True)
class Receipt:
    """A text part that is complete: its file, and the pieces that end in it."""

    key: str  # of the task
    number: int  # 0, 1, ... among the task's parts
    last: bool  # no further part of this task
    source: str
    path: str  # of the part, below the work folder
    rows: int
    alive: int  # rows with a text
    text_bytes: int
    bytes: int
    sha256: str
    pieces: tuple[PieceReceipt, ...]

    def to_json(self) -> builtins.bytes:
        """The receipt as stored."""
        return seal(asdict(self))

    @staticmethod
    def from_json(data: builtins.bytes) -> "Receipt":
        """A stored receipt; raises ValueError when it is not one, or damaged."""
        fields = unseal(data)
        try:
            fields["pieces"] = tuple(PieceReceipt(**piece) for piece in fields["pieces"])
            return Receipt(**fields)
        except (TypeError, KeyError) as error:
            raise ValueError(f"no receipt of this version: {error}") from None


@dataclass(frozen=True)
class ColumnsReceipt:
    """A file of measure columns that is complete: what one pass over a text part measured."""

    part: str  # sha256 of the text part
    path: str  # below the work folder
    rows: int
    bytes: int
    sha256: str
    groups: Mapping[str, str]  # name of each signal group: its key
    columns: Mapping[str, list[str]]  # name of each signal group: its columns

    def to_json(self) -> builtins.bytes:
        """The receipt as stored."""
        return seal(asdict(self))

    @staticmethod
    def from_json(data: builtins.bytes) -> "ColumnsReceipt":
        """A stored receipt; raises ValueError when it is not one, or damaged."""
        try:
            return ColumnsReceipt(**unseal(data))
        except TypeError as error:
            raise ValueError(f"no receipt of this version: {error}") from None


@dataclass(frozen=True)
class ColumnsFile:
    """Columns of a part that lie in a file of their own, its record batches those of the part."""

    uri: str
    sha256: str
    columns: tuple[str, ...]  # that are taken from it


@dataclass(frozen=True)
class PartRef:
    """A chosen part, numbered by (source, input name, start); what select and pack are given."""

    number: int
    source: str
    uri: str
    rows: int
    text_bytes: int
    sha256: str
    name: str = ""  # input name and start of its first piece: what the part is known by
    start: int = 0
    files: tuple[ColumnsFile, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)  # signal group: key of its columns

    @staticmethod
    def from_fields(fields: Mapping[str, Any]) -> "PartRef":
        """A part of what `dataclasses.asdict` made of it, through JSON or not."""
        files = tuple(
            ColumnsFile(file["uri"], file["sha256"], tuple(file["columns"])) for file in fields.get("files", ())
        )
        return PartRef(**{**fields, "files": files})

"""What the steps of pack hand on: receipts that name a step's files, and the messages between steps, all as JSON.

A receipt is stored after all its files, so a step that is run again finds its work done. Equal attempts write equal
bytes, so any may win.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter

from schemas import storage
from schemas.checksummed_json import seal, unseal
from schemas.generation import FileRef
from schemas.manifest import file_digest
from schemas.recipe import canonical_json

__all__ = [
    "IndexWritten",
    "LedgerReceipt",
    "LedgerTask",
    "PackedGroup",
    "PackedSource",
    "ShardFile",
    "ShardsReceipt",
    "ValidationReceipt",
    "WorkReceipt",
]

AnyMessage = TypeVar("AnyMessage", bound="Message")
AnyReceipt = TypeVar("AnyReceipt", bound="WorkReceipt")


ADAPTERS: dict[type, TypeAdapter[Any]] = {}  # by kind of message, made when first needed


def _adapter(kind: type) -> TypeAdapter[Any]:
    """What reads and writes one kind of message."""
    if kind not in ADAPTERS:
        ADAPTERS[kind] = TypeAdapter(kind)
    return ADAPTERS[kind]


@dataclass(frozen=True, kw_only=True)
class Message:
    """What crosses from one step to another, as JSON: equal values are equal bytes."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        fields: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json")
        return fields

    def to_json(self) -> bytes:
        """The bytes for the next step."""
        return canonical_json(self.to_dict())

    @classmethod
    def from_json(cls: type[AnyMessage], data: bytes) -> AnyMessage:
        """What `to_json` gave. Raises ValueError for anything else."""
        message: AnyMessage = _adapter(cls).validate_json(data)
        return message


@dataclass(frozen=True, kw_only=True)
class WorkReceipt(Message):
    """The files of a step that is complete; of a step without results of its own, this is all."""

    in_work: dict[str, str]  # path below the work folder: sha256
    in_dataset: dict[str, int]  # path below the dataset: bytes; their digests are for `gristmill verify`

    def save(self, work: str, name: str) -> None:
        """Store the receipt; its name has a digest of all that the step depends on."""
        storage.write(storage.join(work, "pack", name), seal(self.to_dict()))

    @classmethod
    def load(cls: type[AnyReceipt], work: str, name: str, dataset: str) -> AnyReceipt | None:
        """The receipt of a step that is complete, None where it or one of its files is missing or another."""
        try:
            receipt: AnyReceipt = _adapter(cls).validate_python(unseal(storage.read(storage.join(work, "pack", name))))
            in_work = ((storage.join(work, path), sha256) for path, sha256 in receipt.in_work.items())
            whole = all(file_digest(storage.read(uri)) == sha256 for uri, sha256 in in_work) and all(
                storage.stat(storage.join(dataset, path)).size == size for path, size in receipt.in_dataset.items()
            )
        except (FileNotFoundError, ValueError):
            return None
        return receipt if whole else None


@dataclass(frozen=True, kw_only=True)
class ShardFile(Message):
    """A shard that was written, as the shards table has it, generations apart."""

    path: str
    bytes: int
    sha256: str
    rows: int
    tokens: int
    text_bytes: int
    source: str
    tags: str
    split: str
    longest_document: int
    packed_rows: str | None


@dataclass(frozen=True, kw_only=True)
class ShardsReceipt(WorkReceipt):
    """The train shards of a group, and its validation documents for the merge."""

    digest: str
    ledger: int
    shards: list[ShardFile]
    places: str  # path below the work folder: where each document went
    copied: int
    encoded: int
    fragment: str | None  # path below the work folder: the validation documents; None: there is none
    references: list[str]  # shards that hold the tokens of some of them


@dataclass(frozen=True, kw_only=True)
class ValidationReceipt(WorkReceipt):
    """The validation shards of a source's groups."""

    family: str
    ledgers: list[int]
    shards: list[ShardFile]
    places: str  # as in ShardsReceipt, with a batch a group in the order of `ledgers`


@dataclass(frozen=True, kw_only=True)
class LedgerReceipt(WorkReceipt):
    """A group's ledger, its near index, and its rows for the other indexes."""

    ledger: FileRef
    near: FileRef | None
    rows: str  # path below the work folder: packed rows of documents, then of URLs
    documents_bytes: int  # of `rows`, those of documents
    records_read: int
    dropped: dict[str, int]
    splits: dict[str, dict[str, int]]
    unknown_tokens: int


@dataclass(frozen=True, kw_only=True)
class PackedSource(Message):
    """All shards of a source's groups of one generation."""

    groups: list[ShardsReceipt]
    validation: ValidationReceipt

    def shards(self) -> list[ShardFile]:
        """Every shard, of training and of validation."""
        return [*(file for group in self.groups for file in group.shards), *self.validation.shards]


@dataclass(frozen=True, kw_only=True)
class LedgerTask(Message):
    """What a ledger is written from."""

    shards: ShardsReceipt
    validation: ValidationReceipt
    table: FileRef  # of all shards
    digits: dict[str, int]  # kind of index: hex digits that name its files


@dataclass(frozen=True, kw_only=True)
class PackedGroup(Message):
    """What became of a group."""

    group: int
    table: FileRef
    copied: int
    encoded: int
    ledger: LedgerReceipt


@dataclass(frozen=True, kw_only=True)
class IndexWritten(Message):
    """A file of index/documents or index/urls."""

    index: FileRef

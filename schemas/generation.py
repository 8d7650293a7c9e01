"""What a manifest says: models of `manifest.json` and `manifest/gN.json`, free of times, hosts and outside paths."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "VERSION",
    "DecidedRule",
    "Digests",
    "EndOfText",
    "FileRef",
    "Funnel",
    "Group",
    "Hint",
    "Manifest",
    "MeasuredGroup",
    "NamedToken",
    "Part",
    "SourceFunnel",
    "SplitCount",
    "Tables",
    "Tokenizer",
]

VERSION = 1  # of the manifest's form; a reader refuses a higher one


class Section(BaseModel):
    """A part of the manifest. Unknown keys are left alone, so that a later minor addition can be read."""

    model_config = ConfigDict(frozen=True)


class Hint(Section):
    """`manifest.json`: the newest generation when it was written; there may be newer ones."""

    format: Literal["gristmill"] = "gristmill"
    version: int = VERSION
    generation: int
    path: str


class Digests(Section):
    """Hex sha256 of canonical JSON; `generation_digest` and `order_digest` say of what."""

    generation: str
    recipe: str = Field(description="Recipe.digest(): without output, work, roots, globs and runner options")
    order: str = Field(description="what the order of training samples depends on")
    previous: str | None = Field(description="the generation digest of generation N-1; null for the first")


class NamedToken(Section):
    """A token of the vocabulary."""

    token: str
    id: int


class EndOfText(NamedToken):
    """The token that ends every document."""


class Tokenizer(Section):
    """The tokenizer, frozen at generation 1."""

    path: str
    sha256: str
    vocab_size: int = Field(description="one above the highest id")
    token_type: Literal["uint16", "uint32"]
    end_of_text: EndOfText
    begin_of_text: NamedToken | None = Field(default=None, description="begins every document; null: none does")
    unknown: NamedToken | None = Field(default=None, description="stands for what the vocabulary does not know")
    special_tokens: dict[str, int]
    options: dict[str, Any] = Field(description="the recipe's tokenizer section, a file by its sha256")


class Part(Section):
    """A part of the plan: its number is its place in the list and never changes."""

    generation: int
    source: str
    name: str = Field(description="input name of the first piece")
    start: int = Field(description="first byte (Parquet: row group) of the first piece")
    sha256: str
    rows: int
    text_bytes: int


class MeasuredGroup(Section):
    """A signal group as it was measured."""

    version: str = Field(description="declared, or the digest of the sources that compute it")
    module: str = Field(description="a user's own: the module and the sha256 of its source; else empty")
    signals: dict[str, str] = Field(description="name: meaning")
    failed: str | None = Field(description="the column that says why a text could not be measured")


class DecidedRule(Section):
    """A rule as it was applied: dropped when the signal lies below, above or outside the threshold."""

    name: str
    signal: str
    comparison: Literal["<", ">", "not in"]
    threshold: float | list[str]


class SplitCount(Section):
    """What was kept, of one split."""

    documents: int = 0
    bytes: int = 0
    tokens: int = 0


class Group(Section):
    """A group of parts, planned once; its place in the list is the number of its ledger."""

    generation: int = Field(description="that planned it")
    number: int
    source: str
    parts: list[int]
    records_read: int
    kept: int
    dropped: dict[str, int] = Field(description="rule: records")
    splits: dict[str, SplitCount]
    unknown_tokens: int = Field(default=0, description="of the kept documents' tokens, those that are unknown")


class SourceFunnel(Section):
    """What became of the records of one source."""

    records_read: int
    kept: int
    dropped: dict[str, int]
    splits: dict[str, SplitCount]
    unknown_tokens: int = 0


class Funnel(SourceFunnel):
    """What became of all records: records_read = kept + dropped."""

    sources: dict[str, SourceFunnel]


class FileRef(Section):
    """A file below the dataset."""

    path: str
    bytes: int
    sha256: str


class Tables(Section):
    """The generation's three tables; every other file is named in one of them."""

    shards: FileRef
    files: FileRef
    inputs: FileRef


class Manifest(Section):
    """`manifest/gN.json`: one generation of the dataset."""

    version: int = VERSION
    generation: int
    name: str
    digests: Digests
    tokenizer: Tokenizer
    parts: list[Part]
    groups: list[Group]
    funnel: Funnel
    assets: dict[str, str] = Field(description="files that the recipe names: sha256 of their content")
    decision: str = Field(description="names the verdicts in the work folder that this generation was packed from")
    measures: dict[str, MeasuredGroup] = Field(
        default={}, description="signal groups by name; `code` has the identity of each as measure.NAME"
    )
    rules: list[DecidedRule] = Field(default=[], description="in the order of testing")
    code: dict[str, str] = Field(description="versions of the package and of each stage with its libraries")
    platform: dict[str, str] = Field(description="recorded, in no digest")
    tables: Tables

    def to_json(self) -> bytes:
        """The bytes of gN.json: sorted keys, so that equal manifests are equal files."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"

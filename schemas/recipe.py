"""The recipe: everything that decides a dataset, in one YAML file.

A recipe is read into the models below. An unknown key is refused with the nearest known name, a wrong
value with its place. Where the data lies (`output`, `work`, each source's `root`) is not part of the recipe's
digest: the same recipe on a laptop and on a bucket makes the same dataset.
"""

import hashlib
import json
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from schemas.config_model import ConfigError as RecipeError
from schemas.config_model import Section

__all__ = [
    "BOUND_KINDS",
    "Bound",
    "Edits",
    "Exact",
    "Extract",
    "Minhash",
    "Near",
    "Read",
    "Recipe",
    "RecipeError",
    "Rule",
    "Scores",
    "Shards",
    "Source",
    "Split",
    "TokenizerOptions",
    "UserModule",
    "canonical_json",
    "stored_recipe",
]

MIB = 1 << 20


class Source(Section):
    """A named input with a root; its files are named by their path below the root."""

    root: str = Field(description="folder or bucket prefix: a path, s3://, gs:// or https://")
    inputs: list[str] = Field(
        default=["**"], min_length=1, description="globs below the root, or @FILE with one path a line"
    )
    format: Literal["auto", "warc", "jsonl", "parquet", "arrow", "csv", "tsv", "text"] = Field(
        default="auto",
        description="auto: by the file's name; warc covers WET and ARC, jsonl any JSON; text: a document a file",
    )
    text_field: str = Field(
        default="text", min_length=1, description="the field with the text; a dotted path leads into nested ones"
    )
    id_field: str = Field(default="id", min_length=1, description="the field with the record's id")
    url_field: str = Field(default="url", min_length=1, description="the field with the URL")
    date_field: str = Field(default="date", min_length=1, description="the field with an ISO 8601 date")
    columns: list[str] | None = Field(
        default=None, min_length=1, description="CSV and TSV without a row of names: the columns' names, in order"
    )
    delimiter: str | None = Field(
        default=None, min_length=1, max_length=1, description="CSV: what parts columns; default by format"
    )


class Read(Section):
    """Limits of reading; what exceeds one is a dropped record."""

    max_record_bytes: int = Field(default=64 * MIB, gt=0, description="a record as stored in its archive")
    max_decoded_bytes: int = Field(default=64 * MIB, gt=0, description="a body after content encoding is undone")
    max_ratio: float = Field(default=200.0, gt=1, description="decoded bytes over stored bytes of a body above 1 MiB")
    part_bytes: int = Field(default=256 * MIB, ge=1 * MIB, description="input bytes of a part, about")
    mime_types: list[str] = Field(
        default=["text/html", "application/xhtml+xml", "text/plain"], description="responses of other types are dropped"
    )
    conversions: bool = Field(default=True, description="read WET conversion records as text")
    resources: bool = Field(default=True, description="read WARC resource records, pages that no server sent")
    truncated: Literal["keep", "drop"] = Field(
        default="keep", description="pages that break off: WARC-Truncated, or chunks without the last one"
    )


class Extract(Section):
    """How a page becomes text."""

    method: Literal["gristmill", "resiliparse", "trafilatura"] = Field(
        default="gristmill",
        description="gristmill: lines as the page has them; the main content of the others can lose characters",
    )
    main_content: bool = Field(default=True, description="leave out menus, footers and the like")
    max_cpu_seconds: float = Field(default=20.0, gt=0, description="CPU time a page may take")
    max_memory_bytes: int = Field(
        default=2048 * MIB, ge=256 * MIB, description="memory the extracting process may take"
    )


class C4Lines(Section):
    """C4's rewriting of a text, line by line (Raffel et al. 2020, section 2.2; datatrove's reading)."""

    end_mark: bool = Field(default=True, description="drop lines without a terminal punctuation mark")
    min_words: int = Field(default=3, ge=0, description="drop lines with fewer words; 0: keep")
    max_word_chars: int = Field(default=1000, ge=0, description="drop lines with a longer word; 0: keep")
    citations: bool = Field(default=True, description="delete [1], [edit] and [citation needed]")
    javascript: bool = Field(default=True, description="drop lines that name javascript")
    policies: bool = Field(default=True, description="drop lines with a policy phrase")


class Edits(Section):
    """What is changed in a text; each is a span over the text as extracted."""

    invisible: bool = Field(default=True, description="delete soft hyphens and zero-width characters inside words")
    c4: C4Lines | None = None
    mask: list[Literal["email", "ip"]] = Field(default=[])


class Minhash(Section):
    """MinHash signatures, as datasketch 2.0 makes them with scheme="affine32"."""

    num_hashes: int = Field(default=112, ge=1, le=4096)
    shingle: int = Field(default=5, ge=1, le=64, description="words a shingle; a Han or Kana character is a word")
    seed: int = Field(default=1, ge=0, lt=1 << 32)


class Measure(Section):
    """What is measured of each document."""

    language_model: str = Field(default="builtin:lid.176.ftz", description="a fastText model")
    url_block_list: str | None = Field(default=None, description="a file of domains, one a line")
    minhash: Minhash = Minhash()
    groups: dict[str, dict[str, Any]] = Field(default={}, description="options of signal groups of the user's own")


class UserModule(Section):
    """A module with signal groups and rules of the user's own: a file beside the recipe, or installed."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$")
    source: str | None = Field(default=None, description="of a file beside the recipe, which every worker gets so")


class Scores(Section):
    """A file of scores made elsewhere, a row a document: the signal `scores.NAME`."""

    file: str = Field(description="Parquet or JSONL, in the same places as inputs")
    key: Literal["doc_id", "record_id", "url"] = Field(default="url", description="what a row names its document by")
    key_column: str | None = Field(default=None, description="the column of keys; default: named as the key")
    column: str = Field(default="score", description="the column of scores")
    missing: float | None = Field(
        default=None, description="score of a document without a row; null: it has none, and breaks no rule"
    )


class Rule(Section):
    """A rule of the user's own over any signal: dropped when value < min or value > max."""

    signal: str
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _bounds(self) -> "Rule":
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min={self.min:g} exceeds max={self.max:g}: swap them or widen the range")
        return self


def _kind_of_bound(value: Any) -> str:
    """Which of a bound's forms is meant, so that a fault is told of that one alone."""
    if value is None:
        return "off"
    return "labels" if isinstance(value, list) else "rule" if isinstance(value, dict | Rule) else "threshold"


def _number_or_list(value: Any) -> Any:
    """Say of a word what a rule takes: of `not_wanted: en` neither a number nor a list alone can be told."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            raise ValueError(f"{value!r}: expected a number, or for labels a list, as in [en, de]") from None
    return value


Bound = Annotated[
    Annotated[float, BeforeValidator(_number_or_list), Tag("threshold")]
    | Annotated[list[str], Tag("labels")]
    | Annotated[Rule, Tag("rule")]
    | Annotated[None, Tag("off")],
    Discriminator(_kind_of_bound),
]
BOUND_KINDS = ("threshold", "labels", "rule", "off")


class Exact(Section):
    """Exact duplicates by the hash of the final text."""


class Near(Section):
    """Near duplicates by MinHash-LSH with verified pairs."""

    threshold: float = Field(default=0.75, gt=0, le=1, description="similarity at which two documents are one")
    bands: int | None = Field(default=None, ge=1, description="default: by datasketch's search for the threshold")
    rows: int | None = Field(default=None, ge=1, description="hashes a band")
    false_negative_weight: float = Field(
        default=0.9,
        gt=0,
        lt=1,
        description="weight of missed pairs in the search; pairs are verified, so false ones only cost time",
    )
    verify: Literal["signature", "exact"] = Field(
        default="signature", description="similarity from signatures, or the Jaccard similarity of all shingles"
    )

    @model_validator(mode="after")
    def _both(self) -> "Near":
        if (self.bands is None) != (self.rows is None):
            raise ValueError("bands and rows go together: give both or neither")
        return self


class Split(Section):
    """Which documents are held out for validation; duplicates never stand on both sides."""

    validation: float = Field(default=0.01, ge=0, lt=1, description="fraction of clusters")
    similarity: float | None = Field(default=None, gt=0, le=1, description="default: the near threshold")


class TokenizerOptions(Section):
    """The tokenizer: a file to load, or how to train a byte-level BPE."""

    file: str | None = Field(default=None, description="a tokenizer.json to load; the rest is for training one")
    vocab_size: int = Field(default=32_000, ge=257, le=1 << 24)
    sample_bytes: int = Field(default=256 * MIB, gt=0, description="text of kept documents to train on")
    end_of_text: str = Field(default="<|endoftext|>", min_length=1, description="the token that ends every document")
    begin_of_text: str | None = Field(
        default=None, min_length=1, description="the token that begins every document; default: none does"
    )
    special_tokens: list[str] = Field(default=[], description="further special tokens of a trained tokenizer")


class Shards(Section):
    """How the dataset is cut."""

    shard_bytes: int = Field(default=32 * MIB, ge=4096, description="bytes of a shard, about")
    batch_bytes: int = Field(default=4 * MIB, ge=1024, description="bytes of a record batch in a shard, about")
    group_bytes: int = Field(default=256 * MIB, ge=4096, description="measured text of a group of parts, about")
    partition_by: list[Literal["language"]] = Field(default=[])
    sequence_lengths: list[Annotated[int, Field(ge=1)]] = Field(
        default=[], description="lengths whose packed rows are counted in the manifest"
    )


PREFERENCES = ("longer_text", "shorter_text", "earlier_date", "later_date")


class Recipe(Section):
    """One dataset's recipe."""

    name: str = Field(default="dataset", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    seed: int = Field(default=0, ge=0, lt=1 << 63)
    output: str | None = Field(default=None, description="the dataset's folder or prefix")
    work: str | None = Field(default=None, description="folder of parts and decisions; default OUTPUT/work")
    sources: dict[str, Source] = Field(min_length=1)
    read: Read = Read()
    extract: Extract = Extract()
    edits: Edits = Edits()
    measure: Measure = Measure()
    modules: list[UserModule] = Field(
        default=[], description="modules of the user's own: NAME.py beside the recipe, or installed where workers run"
    )
    scores: dict[str, Scores] = Field(default={}, description="files of scores that join as signals")
    rules: dict[str, Bound] = Field(
        default={}, description="rule: threshold, in the order of testing; null turns a rule off"
    )
    exact: Exact | None = Exact()
    near: Near | None = Near()
    prefer: list[str] = Field(
        default=["longer_text", "earlier_date"],
        description=f"which of several duplicates is kept: {', '.join(PREFERENCES)}, highest:SIGNAL, lowest:SIGNAL",
    )
    split: Split = Split()
    tokenizer: TokenizerOptions = TokenizerOptions()
    shards: Shards = Shards()

    @field_validator("modules", mode="before")
    @classmethod
    def _names(cls, modules: Any) -> Any:
        """A module is given by its name; its source joins when the recipe is loaded."""
        if not isinstance(modules, list):
            return modules
        return [{"name": module} if isinstance(module, str) else module for module in modules]

    @model_validator(mode="after")
    def _preferences(self) -> "Recipe":
        for wish in self.prefer:
            if wish not in PREFERENCES and not wish.startswith(("highest:", "lowest:")):
                raise ValueError(f"prefer: {wish!r} is none of {', '.join(PREFERENCES)}, highest:SIGNAL, lowest:SIGNAL")
        near, hashes = self.near, self.measure.minhash.num_hashes
        if near and near.bands and near.rows and near.bands * near.rows > hashes:
            raise ValueError(
                f"near: bands={near.bands} times rows={near.rows} exceeds measure.minhash.num_hashes={hashes}: "
                "raise num_hashes or lower one of them"
            )
        return self

    def identity(self) -> dict[str, Any]:
        """What the recipe's digest covers: all but where things lie. Files that it names enter by their content,
        as the manifest's `assets` and tokenizer."""
        data = self.model_dump(mode="json", exclude={"output", "work"})
        data["tokenizer"]["file"] = self.tokenizer.file is not None
        # A key of later versions counts where it is used, so that older datasets keep their digests.
        if self.tokenizer.begin_of_text is None:
            del data["tokenizer"]["begin_of_text"]
        data["measure"]["url_block_list"] = self.measure.url_block_list is not None
        del data["measure"]["language_model"]
        for module in data["modules"]:
            source = module["source"]
            module["source"] = hashlib.sha256(source.encode()).hexdigest() if source is not None else None
        for scores in data["scores"].values():
            del scores["file"]
        # Which files are read is told by the files themselves, not by how the globs were put.
        for source in data["sources"].values():
            del source["root"], source["inputs"]
        # The first rule that fails names the reason, so their order is part of the recipe.
        data["rules"] = [[name, bound] for name, bound in data["rules"].items()]
        return data

    def digest(self) -> str:
        """sha256 of the canonical JSON of `identity` (hex). Asset files enter by their content in the manifest."""
        return hashlib.sha256(canonical_json(self.identity())).hexdigest()


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: the form that every digest is taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def stored_recipe(data: bytes) -> Recipe:
    """The recipe that a dataset keeps, from the bytes of its file."""
    return Recipe.model_validate(yaml.safe_load(data))

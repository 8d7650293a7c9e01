"""What the report shows, as plain numbers and strings: gathered once, drawn by the other modules of this folder."""

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Cluster", "Drop", "Facts", "Input", "Language", "Pair", "Sample", "Tokens"]


@dataclass
class Sample:
    """A document that is shown."""

    doc_id: str  # hex
    url: str | None
    source: str
    place: str  # input name and position
    language: str | None
    num_words: int | None
    value: float | None  # measured against `threshold`
    threshold: float | None
    text: str | None = None  # its beginning; None: the work folder is gone, or there never was a text


@dataclass
class Drop:
    """What a rule did."""

    stage: str
    rule: str
    count: int  # rows for which it is the first reason
    threshold: float | None = None
    alone: int | None = None  # documents that fail it, whatever else they fail; None: not measured, or no parts
    only: int | None = None  # documents that fail it and no other rule of the recipe
    label: str = ""  # what is dropped, in words
    samples: list[Sample] = field(default_factory=list)


@dataclass
class Language:
    """The fate of the documents of one language."""

    label: str
    kept: int = 0
    ruled_out: int = 0
    duplicates: int = 0
    tokens: int = 0

    @property
    def documents(self) -> int:
        """All of them."""
        return self.kept + self.ruled_out + self.duplicates


@dataclass
class Tokens:
    """What the shards in use hold of one source and split."""

    source: str
    split: str
    shards: int = 0
    documents: int = 0
    tokens: int = 0
    text_bytes: int = 0
    packed_rows: Counter[str] = field(default_factory=Counter)  # by sequence length


@dataclass
class Cluster:
    """Documents that are one: the kept one and some of its duplicates."""

    size: int
    kept: Sample | None
    duplicates: list[tuple[Sample, str]] = field(default_factory=list)  # document, rule


@dataclass
class Pair:
    """A near duplicate beside the document that it is a duplicate of."""

    dropped: Sample
    nearest: Sample


@dataclass
class Input:
    """An input file."""

    source: str
    name: str
    size: int
    rows: int = 0
    kept: int = 0
    records: Counter[str] = field(default_factory=Counter)  # by type, damage included


@dataclass
class Facts:
    """Everything that the report shows."""

    name: str
    generation: int
    rows: int = 0
    kept: int = 0
    tokens: int = 0
    has_texts: bool = True
    texts_missing: str = ""  # why not
    drops: list[Drop] = field(default_factory=list)  # in the order of testing
    languages: list[Language] = field(default_factory=list)  # most documents first
    words_kept: Counter[int] = field(default_factory=Counter)  # by half octave: words in [2^(i/2), 2^((i+1)/2))
    words_dropped: Counter[int] = field(default_factory=Counter)
    cluster_sizes: Counter[int] = field(default_factory=Counter)  # clusters by size, of those with a kept document
    similarities: Counter[int] = field(default_factory=Counter)  # near duplicates by percent of similarity
    clusters: list[Cluster] = field(default_factory=list)  # the largest
    pairs: list[Pair] = field(default_factory=list)
    tokens_by: list[Tokens] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)  # kept
    inputs: list[Input] = field(default_factory=list)  # the first of them
    num_inputs: int = 0
    sources: list[str] = field(default_factory=list)
    records: Counter[str] = field(default_factory=Counter)  # by type, over all inputs
    damage: list[tuple[Sample, str]] = field(default_factory=list)  # rows that could not be read, rule
    corrupt: int = 0
    digests: list[tuple[str, str]] = field(default_factory=list)  # name, hex
    about: list[tuple[str, str]] = field(default_factory=list)  # code, platform, tokenizer, ...
    recipe: str = ""  # YAML

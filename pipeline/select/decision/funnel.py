"""What a decision comes to: documents and bytes by stage and rule, and the verdict files."""

import builtins
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from schemas import storage
from schemas.checksummed_json import seal, unseal

__all__ = ["Drop", "Funnel", "VerdictFile", "add_up", "funnel_lines", "load_funnel"]

# The order in which documents meet the stages; records again are found before any rule.
STAGES = ("read", "extract", "measure", "rules", "edits", "exact", "near", "split")
SAME_RECORD = "exact.same_record"


@dataclass(frozen=True)
class Drop:
    """What one rule dropped."""

    stage: str
    rule: str
    documents: int
    bytes: int  # of their final texts; 0 where ingest dropped them


@dataclass(frozen=True)
class VerdictFile:
    """The verdicts over one part."""

    part: int
    path: str  # below the decision's folder
    rows: int
    sha256: str


@dataclass(frozen=True)
class Funnel:
    """What became of all records: records_read = kept + dropped."""

    records_read: int
    kept: int
    kept_bytes: int
    drops: tuple[Drop, ...]  # in the order of the stages, rules as the recipe has them
    splits: dict[str, int]  # kept documents
    renamed: int  # records whose doc_id an earlier record of the source had
    clusters: int  # of two documents or more
    largest_cluster: int
    verdicts: tuple[VerdictFile, ...] = field(default=())

    @property
    def dropped(self) -> dict[str, int]:
        """Documents by rule, in the order of the drops."""
        counts: dict[str, int] = {}
        for drop in self.drops:
            counts[drop.rule] = counts.get(drop.rule, 0) + drop.documents
        return counts

    @property
    def bytes(self) -> int:
        """Final text of all documents that ingest let through."""
        return self.kept_bytes + sum(drop.bytes for drop in self.drops)

    def to_dict(self) -> dict[str, Any]:
        """As JSON objects; lists of files included."""
        return {**asdict(self), "dropped": self.dropped}

    def to_json(self) -> builtins.bytes:
        """As `decision.json` holds it."""
        return seal(self.to_dict())

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> "Funnel":
        """What `to_dict` gave."""
        fields = {name: value for name, value in data.items() if name != "dropped"}
        fields["drops"] = tuple(Drop(**drop) for drop in data["drops"])
        fields["verdicts"] = tuple(VerdictFile(**file) for file in data["verdicts"])
        return Funnel(**fields)


def add_up(summaries: Iterable[Mapping[str, Any]], rules: Iterable[str]) -> Funnel:
    """The funnel of all parts, from one summary each (verdict.summarise)."""
    ordered = sorted(summaries, key=lambda summary: summary["verdict"]["part"])
    drops: dict[tuple[str, str], list[int]] = {}
    splits: dict[str, int] = {}
    for summary in ordered:
        for stage, rule, documents, size in summary["drops"]:
            total = drops.setdefault((stage, rule), [0, 0])
            total[0] += documents
            total[1] += size
        for side, documents in summary["splits"].items():
            splits[side] = splits.get(side, 0) + documents
    rank = {rule: number for number, rule in enumerate(rules)}

    def place(entry: tuple[str, str]) -> tuple[int, int, str]:
        stage, rule = entry
        known = STAGES.index(stage) if stage in STAGES else len(STAGES)
        return (STAGES.index("rules"), -1, rule) if rule == SAME_RECORD else (known, rank.get(rule, 0), rule)

    return Funnel(
        records_read=sum(summary["verdict"]["rows"] for summary in ordered),
        kept=sum(summary["kept"] for summary in ordered),
        kept_bytes=sum(summary["kept_bytes"] for summary in ordered),
        drops=tuple(Drop(*entry, *drops[entry]) for entry in sorted(drops, key=place)),
        splits={side: splits[side] for side in sorted(splits)},
        renamed=sum(summary["renamed"] for summary in ordered),
        clusters=sum(summary["clusters"] for summary in ordered),
        largest_cluster=max((summary["largest_cluster"] for summary in ordered), default=0),
        verdicts=tuple(VerdictFile(**summary["verdict"]) for summary in ordered),
    )


def load_funnel(root: str) -> Funnel | None:
    """The funnel of a complete decision; None where it, or one of its verdict files, is missing."""
    try:
        funnel = Funnel.from_dict(unseal(storage.read(storage.join(root, "decision.json"))))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    there = {found.uri for found in storage.list_files(root)}
    return funnel if all(storage.join(root, file.path) in there for file in funnel.verdicts) else None


class Counts(Protocol):
    """Any funnel: of a decision, or of a dataset's manifest."""

    @property
    def records_read(self) -> int:
        """All records."""

    @property
    def kept(self) -> int:
        """Documents kept."""

    @property
    def dropped(self) -> dict[str, int]:
        """Records by rule."""


def funnel_lines(funnel: Counts) -> list[str]:
    """The funnel for a terminal: a line a rule, what was read above and what is kept below."""
    total = max(1, funnel.records_read)
    width = max([len("records read"), *(len(rule) for rule in funnel.dropped)])
    figures = len(f"{funnel.records_read:,}") + 1
    lines = [f"{'records read':<{width}}  {funnel.records_read:>{figures},}"]
    for rule, documents in funnel.dropped.items():
        lines.append(f"{rule:<{width}}  {-documents:>{figures},}  {100 * documents / total:5.1f} %")
    lines.append(f"{'kept':<{width}}  {funnel.kept:>{figures},}  {100 * funnel.kept / total:5.1f} %")
    return lines

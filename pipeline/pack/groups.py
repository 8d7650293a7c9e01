"""What one run of pack does: groups of parts, planned once, in a file that every worker reads.

Contracts, section 5. Groups follow from measured bytes in part order, never from kept bytes or workers.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from pipeline.ingest.receipts import ColumnsFile, PartRef
from schemas import storage
from schemas.dataset import Dataset
from schemas.generation import Tokenizer
from schemas.recipe import Recipe, canonical_json

__all__ = [
    "PackGroup",
    "PackPart",
    "Plan",
    "load_plan",
    "pack_parts",
    "plan_groups",
    "plan_pack",
    "safe_name",
    "save_plan",
]

MAX_GROUP_ROWS = 1 << 21  # parts without text weigh nothing, yet their ledger must fit in memory


@dataclass(frozen=True)
class PackPart:
    """A part and the verdict over it."""

    number: int
    source: str
    uri: str
    verdicts: str  # URI
    verdicts_sha256: str  # as the decision attests; empty: it does not
    rows: int
    text_bytes: int
    sha256: str
    name: str  # input name and start of its first piece
    start: int
    files: tuple[ColumnsFile, ...] = ()  # of measure columns
    measures: dict[str, str] = field(default_factory=dict)  # signal group: key of its columns

    @property
    def content(self) -> str:
        """What its final texts and their tags are known by."""
        return self.content_with("edits", "language")

    def content_with(self, *groups: str) -> str:
        """What the part with the columns of these signal groups is known by."""
        return " ".join([self.sha256, *(self.measures.get(name, "") for name in groups)]).rstrip()


@dataclass(frozen=True)
class PackGroup:
    """A group to decide."""

    ledger: int  # its place among all groups of the dataset: the number of its ledger
    generation: int  # that planned it
    number: int
    source: str
    parts: tuple[int, ...]
    previous_ledger: str | None  # path of its ledger in the generation before, where its parts have the same rows

    @property
    def stem(self) -> str:
        """How its files' names begin."""
        return f"{self.key}-{safe_name(self.source)}"

    @property
    def key(self) -> str:
        """What distinguishes it from every other group."""
        return f"g{self.generation}-{self.number:05d}"

    @property
    def family(self) -> str:
        """The groups whose validation documents are merged."""
        return f"g{self.generation}-all-{self.source}"


@dataclass(frozen=True)
class Plan:
    """Everything that a worker of pack needs to know."""

    dataset: str
    work: str
    generation: int  # that this run makes
    seed: int
    tokenizer: dict[str, Any]  # Tokenizer
    shards: dict[str, Any]  # the recipe's shards section
    minhash: dict[str, Any]
    parts: dict[int, PackPart]
    groups: tuple[PackGroup, ...]
    num_records: int  # rows of all ledgers
    shards_table: str | None  # path of the generation before's
    old_index: tuple[str, ...]  # paths of its documents and urls

    @property
    def digest(self) -> str:
        """Names the plan and its result."""
        return hashlib.sha256(_plan_json(self)).hexdigest()[:16]

    def parts_of(self, group: PackGroup) -> list[PackPart]:
        """The parts of a group, in order."""
        return [self.parts[number] for number in group.parts]


def pack_parts(
    parts: Sequence[PartRef], verdict_uri: Callable[[PartRef], str], sha256: Mapping[int, str] = MappingProxyType({})
) -> list[PackPart]:
    """Parts with the verdicts over them, by number; `sha256`: of the verdict files, by part number."""
    return [
        PackPart(
            part.number, part.source, part.uri, verdict_uri(part), sha256.get(part.number, ""), part.rows,
            part.text_bytes, part.sha256, part.name, part.start, part.files, dict(part.groups),
        )
        for part in sorted(parts, key=lambda part: part.number)
    ]  # fmt: skip


def plan_groups(parts: Sequence[PackPart], group_bytes: int) -> list[list[PackPart]]:
    """Runs of parts of one source with about `group_bytes` of measured text: closes before it would exceed."""
    groups: list[list[PackPart]] = []
    size = rows = 0
    for part in parts:
        full = size + part.text_bytes > group_bytes or rows + part.rows > MAX_GROUP_ROWS
        if not groups or groups[-1][-1].source != part.source or full:
            groups.append([])
            size = rows = 0
        groups[-1].append(part)
        size += part.text_bytes
        rows += part.rows
    return groups


def plan_pack(
    parts: Sequence[PackPart],
    recipe: Recipe,
    dataset: str,
    work: str,
    tokenizer: Tokenizer,
    previous: Dataset | None,
) -> Plan:
    """Plan the groups: those of earlier generations whose parts are given are decided again, new parts form new ones.

    Raises ValueError when parts are missing, or given in part for a source of an earlier generation.
    """
    known = len(previous.manifest.parts) if previous else 0
    new = [part for part in parts if part.number >= known]
    if [part.number for part in new] != list(range(known, known + len(new))):
        raise ValueError(f"parts: new ones are numbered from {known} without gaps, got {[part.number for part in new]}")
    groups = [*(_decided_again(parts, previous) if previous else []), *_new_groups(new, recipe, previous)]
    if not groups:
        raise ValueError("nothing to pack: there is no part")
    old_records = sum(part.rows for part in previous.manifest.parts) if previous else 0
    return Plan(
        dataset=dataset,
        work=work,
        generation=previous.manifest.generation + 1 if previous else 1,
        seed=recipe.seed,
        tokenizer=tokenizer.model_dump(mode="json"),
        shards=recipe.shards.model_dump(mode="json"),
        minhash=recipe.measure.minhash.model_dump(mode="json"),
        parts={part.number: part for part in parts},
        groups=tuple(groups),
        num_records=old_records + sum(part.rows for part in new),
        shards_table=previous.manifest.tables.shards.path if previous else None,
        old_index=_index_files(previous) if previous else (),
    )


def _new_groups(parts: Sequence[PackPart], recipe: Recipe, previous: Dataset | None) -> list[PackGroup]:
    """Groups of the parts that no generation has yet."""
    generation = previous.manifest.generation + 1 if previous else 1
    first = len(previous.manifest.groups) if previous else 0
    return [
        PackGroup(first + number, generation, number, run[0].source, tuple(part.number for part in run), None)
        for number, run in enumerate(plan_groups(parts, recipe.shards.group_bytes))
    ]


def _decided_again(parts: Sequence[PackPart], previous: Dataset) -> list[PackGroup]:
    """The groups of earlier generations whose parts are given."""
    given = {part.number: part for part in parts}
    chosen: dict[tuple[int, str], set[bool]] = {}
    groups = []
    for ledger, group in enumerate(previous.manifest.groups):
        present = [number in given for number in group.parts]
        chosen.setdefault((group.generation, group.source), set()).update(present)
        if all(present):
            # Rows are known by position and by the hash of their text, so other bytes of a part do no harm.
            same_rows = all(given[number].rows == previous.manifest.parts[number].rows for number in group.parts)
            path = previous.path(ledger) if same_rows else None
            groups.append(PackGroup(ledger, group.generation, group.number, group.source, tuple(group.parts), path))
    for (generation, source), present_somewhere in chosen.items():
        # Its validation documents share shards, so a source's groups of one generation are decided together.
        if len(present_somewhere) > 1:
            raise ValueError(f"source {source}, generation {generation}: give all of its parts, or none")
    return groups


def _index_files(previous: Dataset) -> tuple[str, ...]:
    """Paths of index/documents and index/urls."""
    return tuple(path for path in previous.paths if path.startswith(("index/documents/", "index/urls/")))


def safe_name(source: str) -> str:
    """A source's name as part of a file name; one that had to be changed gets a digest."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", source)[:48]
    return safe if safe == source else f"{safe}.{hashlib.sha256(source.encode()).hexdigest()[:8]}"


def _plan_json(plan: Plan) -> bytes:
    data = asdict(plan)
    data["parts"] = [data["parts"][number] for number in sorted(data["parts"])]
    return canonical_json(data)


def save_plan(plan: Plan) -> str:
    """Write the plan into the work folder; returns its URI."""
    uri = storage.join(plan.work, "pack", f"plan-{plan.digest}.json")
    storage.write(uri, _plan_json(plan))
    return uri


def _pack_part(fields: dict[str, Any]) -> PackPart:
    files = tuple(ColumnsFile(file["uri"], file["sha256"], tuple(file["columns"])) for file in fields["files"])
    return PackPart(**{**fields, "files": files})


def load_plan(uri: str) -> Plan:
    """The plan that the driver wrote."""
    data = json.loads(storage.read(uri))
    data["parts"] = {part["number"]: _pack_part(part) for part in data["parts"]}
    data["groups"] = tuple(PackGroup(**{**group, "parts": tuple(group["parts"])}) for group in data["groups"])
    data["old_index"] = tuple(data["old_index"])
    return Plan(**data)

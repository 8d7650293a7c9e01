"""What differs: between two datasets or generations (`gristmill diff`), between two decisions (`gristmill decide`)."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.report.decisions import Changes, decision_diff
from schemas.dataset import Dataset, open_dataset
from schemas.text_format import plural

__all__ = ["Changes", "decision_diff", "diff"]

EXAMPLES = 3  # of each kind of change
REASONS = 100_000  # documents lost or gained whose reasons are looked up


def diff(a: str, b: str) -> tuple[bool, list[str]]:
    """Whether two generations are the same, and what differs; a dataset may be given as DATASET@GENERATION.

    Documents are matched by doc_id, one index file after the other, so that memory does not follow the dataset.
    Raises DatasetError where there is none.
    """
    one, other = (open_dataset(*_with_generation(uri)) for uri in (a, b))
    before, after = one.manifest.digests, other.manifest.digests
    if before.generation == after.generation:
        return True, [f"the same generation: digest {before.generation}"]
    lines = [f"a  {a}  generation {one.manifest.generation}  {before.generation}"]
    lines += [f"b  {b}  generation {other.manifest.generation}  {after.generation}"]
    lines += _digest_lines(one, other)
    lines += _section("recipe", _mapping_lines(_recipe(one), _recipe(other)))
    lines += _section("code", _mapping_lines(one.manifest.code, other.manifest.code))
    lines += _section("assets", _mapping_lines(one.manifest.assets, other.manifest.assets))
    lines += _section("inputs", _input_lines(one, other))
    lines += _section("funnel", _funnel_lines(one, other))
    lines += _section("tokens", _token_lines(one, other))
    lines += _section("documents", _document_lines(one, other))
    return False, lines


def _with_generation(uri: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.+)@(\d+)", uri)
    return (found.group(1), int(found.group(2))) if found else (uri, None)


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _digest_lines(one: Dataset, other: Dataset) -> list[str]:
    """Which digests are equal: an equal order digest means that a training would not notice."""
    digests, others = one.manifest.digests, other.manifest.digests
    verdicts = {
        "recipe": digests.recipe == others.recipe,
        "tokenizer": one.manifest.tokenizer.sha256 == other.manifest.tokenizer.sha256,
        "order of training samples": digests.order == others.order,
    }
    return [f"{'equal ' if equal else 'differs'}  {name}" for name, equal in verdicts.items()]


def _recipe(dataset: Dataset) -> dict[str, Any]:
    """The recipe as one flat mapping: `near.threshold` -> 0.8."""
    recipe = dataset.recipe()
    if recipe is None:
        return {}
    identity = recipe.identity()
    identity["rules"] = dict(identity["rules"]) | {"(order)": [name for name, _ in identity["rules"]]}
    return dict(_flat(identity, ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _mapping_lines(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """`key: old -> new`, sorted by key."""
    lines = []
    for key in sorted({*before, *after}):
        if key not in before:
            lines.append(f"{key}: only in b, {_brief(after[key])}")
        elif key not in after:
            lines.append(f"{key}: only in a, {_brief(before[key])}")
        elif before[key] != after[key]:
            lines.append(f"{key}: {_brief(before[key])} -> {_brief(after[key])}")
    return lines


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _input_lines(one: Dataset, other: Dataset) -> list[str]:
    """Files read by only one, and files whose bytes differ."""
    before, after = _inputs(one), _inputs(other)
    kinds = {
        "only in a": sorted(set(before) - set(after)),
        "only in b": sorted(set(after) - set(before)),
        "other bytes": sorted(name for name in set(before) & set(after) if before[name] != after[name]),
    }
    lines = []
    for kind, names in kinds.items():
        lines += [f"{kind}: {plural(len(names), 'file')}"] if names else []
        lines += [f"    {source}/{name}" for source, name in names[:EXAMPLES]]
    return lines


def _inputs(dataset: Dataset) -> dict[tuple[str, str], list[tuple[int, str]]]:
    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    columns = [dataset.input_table[name].to_pylist() for name in ("source", "name", "start", "sha256")]
    for source, name, start, digest in zip(*columns, strict=True):
        found.setdefault((source, name), []).append((start, digest))
    return found


def _funnel_lines(one: Dataset, other: Dataset) -> list[str]:
    before, after = one.manifest.funnel, other.manifest.funnel
    rows = [("records read", before.records_read, after.records_read), ("kept", before.kept, after.kept)]
    rules = sorted({*before.dropped, *after.dropped})
    rows += [(rule, before.dropped.get(rule, 0), after.dropped.get(rule, 0)) for rule in rules]
    return _count_lines(rows)


def _token_lines(one: Dataset, other: Dataset) -> list[str]:
    rows = []
    for source in sorted({*one.manifest.funnel.sources, *other.manifest.funnel.sources}):
        for split in ("train", "validation"):
            counts = []
            for dataset in (one, other):
                funnel = dataset.manifest.funnel.sources.get(source)
                counts.append(funnel.splits[split].tokens if funnel and split in funnel.splits else 0)
            rows.append((f"{source} {split}", counts[0], counts[1]))
    return _count_lines(rows)


def _count_lines(rows: Sequence[tuple[str, int, int]]) -> list[str]:
    """Counts side by side; what is equal is left out."""
    changed = [row for row in rows if row[1] != row[2]]
    width = max((len(name) for name, _, _ in changed), default=0)
    return [f"{name:<{width}}  {old:>14,} -> {new:>14,}  ({new - old:+,})" for name, old, new in changed]


def _document_lines(one: Dataset, other: Dataset) -> list[str]:
    """Documents that only one of the two keeps, and why the other does not."""
    digits = max(one.index_digits(), other.index_digits())
    lost, gained, same, recut = Lost(), Lost(), 0, 0
    for prefix in range(16**digits):
        begin = f"{prefix:0{digits}x}" if digits else ""
        before, after = one.kept_documents(begin), other.kept_documents(begin)
        ids, others = before[["high", "low"]], after[["high", "low"]]
        _, left, right = np.intersect1d(ids, others, assume_unique=True, return_indices=True)
        lost.add(np.delete(ids, left))
        gained.add(np.delete(others, right))
        same += len(left)
        recut += int((before["num_tokens"][left] != after["num_tokens"][right]).sum())
    equal_tokenizer = one.manifest.tokenizer.sha256 == other.manifest.tokenizer.sha256
    changed = f", {recut:,} of them with another number of tokens" if recut and equal_tokenizer else ""
    lines = [f"kept by both: {same:,}{changed}"]
    lines += _reason_lines("only in a", lost, one, other)
    lines += _reason_lines("only in b", gained, other, one)
    return lines


@dataclass
class Lost:
    """Documents that only one side keeps: how many, and the first of them."""

    number: int = 0
    first: list[bytes] = field(default_factory=list)

    def add(self, ids: NDArray[np.void]) -> None:
        """Count some, and keep their ids while there is room."""
        self.number += len(ids)
        for high, low in ids[: REASONS - len(self.first)].tolist():
            self.first.append(high.to_bytes(8, "big") + low.to_bytes(8, "big"))


def _reason_lines(title: str, lost: Lost, has: Dataset, lacks: Dataset) -> list[str]:
    """How many documents only `has` keeps, by what became of them in the other, with examples."""
    if not lost.number:
        return []
    there = lacks.places_of_ids(lost.first)
    rows = lacks.rows(there.values())
    reasons: dict[str, list[bytes]] = {}
    for name in lost.first:
        place = there.get(name)
        reasons.setdefault(str(rows[place]["rule"]) if place else "not read", []).append(name)
    of = f" (reasons of the first {REASONS:,})" if lost.number > REASONS else ""
    lines = [f"{title}: {lost.number:,}{of}"]
    for reason, names in sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"    {len(names):,} {reason} in the other")
        shown = has.rows(place for name in names[:EXAMPLES] for place in has.places_of_id(name))
        lines += [f"        {row['url'] or row['input']}" for row in shown.values()]
    return lines

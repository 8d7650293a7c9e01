"""The recipe's rules against stored measures: of one document for `explain`, of all of them for the report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.measure.resolved_rules import ResolvedRule
from pipeline.report.part_files import Parts
from schemas.generation import Manifest
from schemas.text_format import number

__all__ = ["Check", "RuleYield", "bound_of", "check_document", "rule_yields", "rules_of"]


@dataclass(frozen=True)
class Check:
    """One rule against one document."""

    rule: str
    value: float | str | None
    bound: str
    fails: bool


@dataclass
class RuleYield:
    """What a rule does by itself."""

    label: str
    alone: int = 0  # documents that fail it, whatever else they fail
    only: int = 0  # that fail it and no other rule


def rules_of(manifest: Manifest) -> list[ResolvedRule]:
    """The rules that a generation was decided by, in the order of testing; no code of the user's is needed for them."""
    return [ResolvedRule.of(rule) for rule in manifest.rules]


def bound_of(rule: ResolvedRule) -> str:
    """What a rule demands, in words."""
    if isinstance(rule.threshold, tuple):
        return f"one of {', '.join(rule.threshold)}"
    return f"{'at least' if rule.comparison == '<' else 'at most'} {number(rule.threshold)}"


def check_document(rules: Sequence[ResolvedRule], stored: dict[str, Any]) -> list[Check]:
    """Every rule against a row of a part, in the order of testing."""
    row = pa.RecordBatch.from_pylist([stored])
    return [Check(rule.name, stored.get(rule.signal), bound_of(rule), bool(_broken(row, rule)[0])) for rule in rules]


def rule_yields(rules: Sequence[ResolvedRule], parts: Parts) -> dict[str, RuleYield]:
    """For each rule, in the order of testing, how many documents with a text fail it, and only it.

    Reads the signals that rules need from every part; a rule with two bounds counts once.
    """
    yields: dict[str, RuleYield] = {}
    for rule in rules:
        label = f"{rule.signal} {bound_of(rule)}"
        known = yields.setdefault(rule.name, RuleYield(label))
        known.label = known.label if known.label == label else f"{known.label}, {bound_of(rule)}"
    names = list(yields)
    columns = ["text_hash", "stage", *{rule.signal for rule in rules}]
    for part in parts.numbers() if rules else []:
        for batch in parts.batches(part, columns):
            surviving = batch.filter(pc.and_(pc.is_null(batch["stage"]), pc.is_valid(batch["text_hash"])))
            broken = _broken_by_name(surviving, rules, names)
            total = broken.sum(axis=0)
            for name, fails in zip(names, broken, strict=True):
                yields[name].alone += int(fails.sum())
                yields[name].only += int((fails & (total == 1)).sum())
    return yields


def _broken_by_name(batch: pa.RecordBatch, rules: Sequence[ResolvedRule], names: Sequence[str]) -> NDArray[np.bool_]:
    """(rules by name, rows): which rows fail which rule."""
    broken = np.zeros((len(names), batch.num_rows), bool)
    for rule in rules:
        broken[names.index(rule.name)] |= _broken(batch, rule)
    return broken


def _broken(batch: pa.RecordBatch, rule: ResolvedRule) -> NDArray[np.bool_]:
    """Rows that a rule drops, as select has it: no label is a wrong label, a signal without a value breaks nothing."""
    if rule.signal not in batch.schema.names:
        return np.zeros(batch.num_rows, bool)
    column = batch[rule.signal]
    if isinstance(rule.threshold, tuple):
        allowed: Iterable[str] = rule.threshold
        return np.array([label not in allowed for label in column.to_pylist()], bool)
    compare = pc.less if rule.comparison == "<" else pc.greater
    mask: NDArray[np.bool_] = pc.fill_null(compare(column.cast(pa.float64()), rule.threshold), False).to_numpy(
        zero_copy_only=False
    )
    return mask

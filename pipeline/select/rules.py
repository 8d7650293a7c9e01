"""What is decided of a row by itself: dropped in ingest, a record again, not to be measured, the first rule that it
breaks, or nothing left."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.measure.resolved_rules import ResolvedRule
from pipeline.select.columns import PartColumns
from pipeline.select.exact.record_identity import alive, final_ids

__all__ = ["EMPTY", "FIRST_RULE", "INGEST", "PASSED", "SAME_RECORD", "Judged", "judge", "reasons"]

# Reasons by number; a recipe's rules follow from FIRST_RULE on, in its order.
PASSED, INGEST, SAME_RECORD, EMPTY, FIRST_RULE = -1, 0, 1, 2, 3


@dataclass(frozen=True)
class Judged:
    """The rows of a part, by position."""

    ids: np.ndarray  # (n, 2) final doc_ids
    reason: np.ndarray  # (n,) int16
    value: np.ndarray  # (n,) float64, NaN: none
    threshold: np.ndarray  # (n,)
    renamed: int  # rows whose doc_id was taken by an earlier one

    @property
    def passed(self) -> np.ndarray:
        """Rows that passed every rule."""
        return self.reason == PASSED


def reasons(rules: Sequence[ResolvedRule], failed: Sequence[str] = ()) -> list[tuple[str | None, str | None]]:
    """(stage, rule) of each reason by number; rows dropped in ingest bring their own."""
    return [
        (None, None),
        ("exact", "exact.same_record"),
        ("edits", "edits.empty"),
        *(("rules", rule.name) for rule in rules),
        *(("measure", column) for column in failed),
    ]


def judge(
    columns: PartColumns, resolved: pa.Table, rules: Sequence[ResolvedRule], failed: Sequence[str] = ()
) -> Judged:
    """Decide each row of a part by itself.

    `resolved` are the part's identities, `failed` the columns that are not null where a text could not be measured.
    """
    num_rows = columns.part.rows
    reason = np.full(num_rows, PASSED, np.int16)
    value, threshold = np.full(num_rows, np.nan), np.full(num_rows, np.nan)
    living = alive(columns)
    reason[~living] = INGEST
    if not living.all():
        value[~living], threshold[~living] = columns.floats("value")[~living], columns.floats("threshold")[~living]
    again = resolved["row"].to_numpy()[resolved["same_record"].to_numpy(zero_copy_only=False)]
    reason[again], value[again], threshold[again] = SAME_RECORD, 1.0, 1.0
    for number, name in enumerate(failed, FIRST_RULE + len(rules)):
        reason[columns.valid(name) & (reason == PASSED)] = number
    for number, rule in enumerate(rules, FIRST_RULE):
        broken, measured = _broken(columns, rule)
        broken &= reason == PASSED
        reason[broken] = number
        if measured is not None:
            value[broken], threshold[broken] = measured[broken], rule.threshold
    # Last, so that a rule which tells more comes first.
    num_bytes = columns.floats("num_bytes")
    empty = ~(num_bytes > 0) & (reason == PASSED)
    reason[empty], value[empty], threshold[empty] = EMPTY, 0.0, 1.0
    renamed = int(resolved.num_rows - len(again))
    return Judged(final_ids(columns, resolved), reason, value, threshold, renamed)


def _broken(columns: PartColumns, rule: ResolvedRule) -> tuple[np.ndarray, np.ndarray | None]:
    """The rows that break a rule, and what was measured; a signal that is null breaks none."""
    if rule.signal not in columns.names:
        raise ValueError(f"rule {rule.name}: the parts hold no signal {rule.signal!r}")
    if rule.comparison == "not in":
        assert isinstance(rule.threshold, tuple)
        allowed = set(rule.threshold)
        column = columns.column(rule.signal).combine_chunks().dictionary_encode()
        fits = np.array([label in allowed for label in column.dictionary.to_pylist()] + [False])
        return ~fits[column.indices.fill_null(-1).to_numpy(zero_copy_only=False)], None
    assert not isinstance(rule.threshold, tuple)
    measured = columns.floats(rule.signal)
    return (measured < rule.threshold if rule.comparison == "<" else measured > rule.threshold), measured

"""Measuring a batch of texts: every group that is wanted, in order, each on its view of the texts."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.measure.configured_groups import VIEW_COLUMNS, ConfiguredGroup
from pipeline.measure.registry import Registry
from pipeline.measure.signal_group import Batch, Measure, View
from pipeline.text.edits import apply_edits

__all__ = ["MeasureError", "Measurer"]

# Fewer that fail together are theirs to blame: how many texts a batch has depends on how they came to be measured.
MANY_TEXTS = 64


class MeasureError(ValueError):
    """A signal group of the user's own that is wrong whatever the text is."""


class Measurer:
    """Measures batches by a registry's groups: `names`, or all. Holds the models: make one in each worker."""

    def __init__(self, registry: Registry, names: Iterable[str] | None = None) -> None:
        wanted = None if names is None else set(names)
        self._groups = [group for group in registry.groups if wanted is None or group.name in wanted]
        self._measures: dict[str, Measure] = {}

    def measure(self, texts: pa.LargeStringArray, columns: Mapping[str, pa.Array]) -> dict[str, pa.Array]:
        """Every column of the groups, one value a text; `columns` are the record's and those of groups not measured.

        No text is null. Raises MeasureError for a group that fails on each of many texts, or gives no columns.
        """
        known = dict(columns)
        views: dict[View, tuple[pa.LargeStringArray, dict[Any, Any]]] = {"stored": (texts, {})}
        made: dict[str, pa.Array] = {}
        for group in self._groups:
            view = group.group.view
            if view not in views:
                views[view] = (apply_edits(texts, known[VIEW_COLUMNS[view]]), {})
            viewed, results = views[view]
            batch = Batch(viewed, {name: known[name] for name in group.group.reads}, results)
            found = self._user_group(group, batch) if group.module else self._call(group, batch)
            made |= found
            known |= found
        return made

    def _call(self, group: ConfiguredGroup, batch: Batch) -> dict[str, pa.Array]:
        """The group's columns as Arrow arrays of their types. Raises MeasureError for what are none."""
        if group.name not in self._measures:
            setup = group.group.setup
            self._measures[group.name] = setup(group.options) if setup else group.group.measure  # type: ignore[assignment]
        found = self._measures[group.name](batch)
        return {name: _column(group, found, name, kind, len(batch)) for name, kind in group.types.items()}

    def _user_group(self, group: ConfiguredGroup, batch: Batch) -> dict[str, pa.Array]:
        """The columns, and which texts the group failed on: one that it raises for alone, or gives no finite number."""
        assert group.failed is not None
        failures: list[str | None] = [None] * len(batch)
        try:
            found = self._call(group, batch)
        except MeasureError:
            raise
        except Exception as error:  # whatever a user's function raises
            found, failures = self._one_by_one(group, batch, error)
        for name in group.group.signals:
            finite = pc.fill_null(pc.is_finite(found[name]), True).to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(~finite).tolist():
                failures[row] = failures[row] or f"{name} is {found[name][row].as_py()}"
            found[name] = pc.if_else(pa.array(finite), found[name], pa.scalar(None, pa.float64()))
        return found | {group.failed: pa.array(failures, pa.string())}

    def _one_by_one(
        self, group: ConfiguredGroup, batch: Batch, error: Exception
    ) -> tuple[dict[str, pa.Array], list[str | None]]:
        """Each text alone: columns with nulls where the group fails again, and why."""
        rows: list[dict[str, pa.Array] | None] = []
        failures: list[str | None] = []
        for row in range(len(batch)):
            try:
                rows.append(self._call(group, batch.row(row)))
                failures.append(None)
            except MeasureError:
                raise
            except Exception as alone:  # as above
                rows.append(None)
                failures.append(_why(alone))
        if len(batch) >= MANY_TEXTS and not any(rows):
            raise MeasureError(f"signal group {group.name} fails on every text: {_why(error)}") from error
        columns = {
            name: pa.concat_arrays([pa.nulls(1, kind) if row is None else row[name] for row in rows])
            for name, kind in group.types.items()
        }
        return columns, failures


def _column(group: ConfiguredGroup, found: Any, name: str, kind: pa.DataType, num_texts: int) -> pa.Array:
    """One column of what a group returned."""
    if not isinstance(found, Mapping) or name not in found:
        has = ", ".join(found) if isinstance(found, Mapping) else type(found).__name__
        raise MeasureError(f"signal group {group.name} gives no column {name}: it returned {has or 'nothing'}")
    column = found[name]
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    try:
        if not isinstance(column, pa.Array):
            column = pa.array(np.asarray(column) if kind == pa.float64() and not isinstance(column, list) else column)
        if column.type != kind:
            column = column.cast(kind)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise MeasureError(f"signal group {group.name}: {name} is not {kind}: {' '.join(str(error).split())}") from None
    if len(column) != num_texts:
        raise MeasureError(f"signal group {group.name}: {name} has {len(column)} values for {num_texts} texts")
    return column


def _why(error: Exception) -> str:
    """An exception as one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]

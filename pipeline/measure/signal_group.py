"""What a signal, a rule and a signal group are: Gristmill's own measures, and a user's, are made of these.

A group of a user's own is a function from a batch of texts to columns, in a module that a recipe lists under `modules:`
or that a package offers as the entry point `gristmill.signals`:

    import pyarrow.compute as pc
    from pipeline.measure.signal_group import Rule, SignalGroup

    def count_questions(batch):
        return {"my.questions": pc.count_substring(batch.texts, "?")}

    SIGNALS = {"my.questions": "question marks"}
    GROUPS = [SignalGroup("my_questions", version="1", signals=SIGNALS, measure=count_questions)]
    RULES = [Rule("my.too_many_questions", "my.questions", ">", 50, "our own reading")]

A group must give a text the same values in any batch, on any machine.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa

from pipeline.text.edits import text_buffers

__all__ = ["Batch", "Comparison", "Measure", "Rule", "SignalGroup", "View"]

View = Literal["stored", "raw", "c4", "final"]
Comparison = Literal["<", ">", "not in"]
Result = TypeVar("Result")


class Batch:
    """Texts of one view, in the order of the documents, and columns of the same documents.

    `texts` is a large_string array without nulls; `column` gives what the group `reads`.
    """

    def __init__(self, texts: pa.LargeStringArray, columns: Mapping[str, pa.Array], results: dict[Any, Any]) -> None:
        self.texts = texts
        self._columns, self._results = columns, results

    def __len__(self) -> int:
        return len(self.texts)

    def column(self, name: str) -> pa.Array:
        """A column that the group reads: of the record (`url`, `mime`, ...), or of another group."""
        return self._columns[name]

    def buffers(self) -> tuple[np.ndarray, np.ndarray]:
        """The texts as one run of UTF-8 bytes (uint8) and the offsets of each (int64, one more than texts)."""
        return text_buffers(self.texts)

    def row(self, number: int) -> "Batch":
        """The batch of one of its texts."""
        columns = {name: column.slice(number, 1) for name, column in self._columns.items()}
        return Batch(self.texts.slice(number, 1), columns, {})

    def once(self, function: "Callable[[np.ndarray, np.ndarray], Result]") -> "Result":
        """`function(*buffers())`, computed once for all groups that ask for it on this view."""
        if function not in self._results:
            self._results[function] = function(*self.buffers())
        return self._results[function]  # type: ignore[no-any-return]


Measure = Callable[[Batch], Mapping[str, Any]]  # to columns by name: Arrow or NumPy arrays, one value a text
Types = Mapping[str, pa.DataType]
Columns = Types | Callable[[Mapping[str, Any]], Types]  # the same for all options, or by them


@dataclass(frozen=True)
class SignalGroup:
    """Signals that are measured together, and how.

    Give `measure`, or `setup`, which a worker calls once with the group's options and which returns `measure`: the
    place to load a model. A text for which `measure` raises, or for which a signal is not finite, is dropped as
    `NAME.failed`; a signal that is null breaks no rule.
    """

    name: str
    version: str  # raise it when a value may come out otherwise; the module's source counts besides
    signals: Mapping[str, str]  # name -> meaning; float64
    measure: Measure | None = None
    setup: Callable[[Mapping[str, Any]], Measure] | None = None
    # The texts: as stored, without invisible characters, after C4's rewriting, or after all edits.
    view: View = "raw"
    reads: tuple[str, ...] = ()  # columns of the record, or signals and columns of other groups
    columns: Columns = field(default_factory=lambda: MappingProxyType({}))  # beside the signals, with their types
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))  # with their defaults
    assets: tuple[str, ...] = ()  # options that name files, which count by their content

    def __post_init__(self) -> None:
        if (self.measure is None) == (self.setup is None):
            raise ValueError(f"signal group {self.name}: give either measure or setup")

    def types(self, options: Mapping[str, Any]) -> dict[str, pa.DataType]:
        """Every column that the group writes with these options, with its type; signals last."""
        columns = self.columns(options) if callable(self.columns) else self.columns
        return {**columns, **dict.fromkeys(self.signals, pa.float64())}


@dataclass(frozen=True)
class Rule:
    """A fault, by its name: the signal lies below ("<"), above (">") or outside ("not in") the threshold."""

    name: str
    signal: str
    comparison: Comparison
    threshold: float | tuple[str, ...]  # as published
    source: str

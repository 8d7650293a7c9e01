"""One text measured, for tests that look at one signal."""

from functools import lru_cache
from typing import Any

import pyarrow as pa

from pipeline.measure.measure import Measurer
from pipeline.measure.registry import RULES
from pipeline.text.edits import apply_edits
from schemas.recipe import Edits, Measure


@lru_cache(maxsize=16)
def _measurer(edits: str) -> Measurer:
    return Measurer(Measure(), Edits.model_validate_json(edits))


def measurer(edits: Edits) -> Measurer:
    return _measurer(edits.model_dump_json())


def column(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def measured(text: str, edits: Edits | None = None) -> dict[str, Any]:
    """The row of one text."""
    batch = measurer(edits or NO_EDITS).measure(column(text), pa.array(["http://a.test/"]))
    return batch.to_pylist()[0]


def drops(rule: str, text: str, edits: Edits | None = None) -> bool:
    """Whether a published rule drops a text."""
    chosen = RULES[rule]
    value = measured(text, edits)[chosen.signal]
    return value < chosen.threshold if chosen.comparison == "<" else value > chosen.threshold


def final_text(text: str, edits: Edits) -> str:
    """The text with its edits applied."""
    batch = measurer(edits).measure(column(text), pa.array([None], pa.string()))
    return apply_edits(column(text), batch["edits"])[0].as_py()


NO_EDITS = Edits()
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. " * 2
CHINESE = "道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。"

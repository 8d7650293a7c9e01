"""One text measured, for tests that look at one signal."""

from functools import lru_cache
from typing import Any

import pyarrow as pa

from pipeline.measure.built_in import PUBLISHED_RULES
from pipeline.measure.measure import Measurer
from pipeline.measure.registry import Registry, load_registry
from pipeline.text.edits import apply_edits
from schemas.recipe import Edits, Recipe


@lru_cache(maxsize=16)
def _registry(edits: str) -> Registry:
    return load_registry(
        Recipe.model_validate({"sources": {"web": {"root": "."}}, "edits": Edits.model_validate_json(edits)})
    )


def registry(edits: Edits | None = None) -> Registry:
    return _registry((edits or NO_EDITS).model_dump_json())


@lru_cache(maxsize=16)
def _measurer(edits: str) -> Measurer:
    return Measurer(_registry(edits))


def column(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def measure(edits: Edits, texts: pa.LargeStringArray, urls: list[str | None] | None = None) -> pa.RecordBatch:
    """Every column of the groups that come with Gristmill."""
    columns = {"url": pa.array(urls or [None] * len(texts), pa.string())}
    return pa.RecordBatch.from_pydict(_measurer(edits.model_dump_json()).measure(texts, columns))


def measured(text: str, edits: Edits | None = None) -> dict[str, Any]:
    """The row of one text."""
    return measure(edits or NO_EDITS, column(text), ["http://a.test/"]).to_pylist()[0]


def drops(rule: str, text: str, edits: Edits | None = None) -> bool:
    """Whether a published rule drops a text."""
    chosen = PUBLISHED_RULES[rule]
    value = measured(text, edits)[chosen.signal]
    return value < chosen.threshold if chosen.comparison == "<" else value > chosen.threshold


def final_text(text: str, edits: Edits) -> str:
    """The text with its edits applied."""
    batch = measure(edits, column(text))
    return apply_edits(column(text), batch["edits"])[0].as_py()


NO_EDITS = Edits()
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему. " * 2
CHINESE = "道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。"

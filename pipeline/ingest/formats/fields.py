"""The fields of a structured record (JSON, Parquet, Arrow, CSV): where a recipe's names point to, and what is found.

A name is a field's own, or a dotted path through nested ones: `text`, `doc.text`, `choices.0.text`. A field whose own
name has dots comes first.
"""

from collections.abc import Callable, Iterable
from typing import Any

from schemas.recipe import Source

__all__ = ["MISSING", "FieldNames", "join_texts", "value_at"]


class _Missing:
    """What is found where there is no such field."""


MISSING = _Missing()


def value_at(value: Any, path: str) -> Any:
    """Return what a path points to in nested dicts and lists; MISSING where nothing is there."""
    if isinstance(value, dict):
        if path in value:
            return value[path]
        head, dot, rest = path.partition(".")
        return value_at(value[head], rest) if dot and head in value else MISSING
    if isinstance(value, list):
        head, dot, rest = path.partition(".")
        if head.isascii() and head.isdigit() and len(head) < 7 and int(head) < len(value):
            return value_at(value[int(head)], rest) if dot else value[int(head)]
    return MISSING


def join_texts(value: Any) -> str | None:
    """Return a text given as a list of strings, a paragraph each, as one; None where it is anything else."""
    if not isinstance(value, list) or not value:
        return None
    parts = [part for part in value if part is not None]
    return "\n".join(parts) if parts and all(type(part) is str for part in parts) else None


class FieldNames:
    """The fields that a source's records are read by, and which of them any record has had so far."""

    def __init__(self, source: Source) -> None:
        self.text, self.id = source.text_field, source.id_field
        self.url, self.date = source.url_field, source.date_field
        # The text is always asked for, of the others those that the recipe names otherwise than the default.
        self.named = {
            key: name
            for key, name in source.model_dump().items()
            if key == "text_field" or (key.endswith("_field") and name != Source.model_fields[key].default)
        }
        self.missing = set(self.named.values())
        self.met: list[str] = []  # the fields of the first record

    @property
    def all(self) -> list[str]:
        """The names, each once."""
        return list(dict.fromkeys([self.text, self.id, self.url, self.date]))

    def note(self, names: Iterable[str], has: Callable[[str], bool]) -> None:
        """Take notice of a record with fields of these names; `has` says whether a path leads anywhere in it."""
        if not self.met:
            self.met = list(names)
        if self.missing:
            self.missing = {path for path in self.missing if not has(path)}

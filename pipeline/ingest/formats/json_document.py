"""A document out of one JSON value: its fields, as strictly as they are needed and no more.

What is wrong beside the fields that are read costs nothing: NaN, control characters in strings, bytes that are not
UTF-8. What is wrong in the text becomes U+FFFD, and the document is counted as `read.replaced`.
"""

import json
import re
from collections import Counter
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any

from pipeline.ingest.formats.fields import MISSING, FieldNames, join_texts, value_at
from pipeline.ingest.records import Record, iso_millis

__all__ = ["BOM", "REPLACED", "JsonDocuments"]

BOM = b"\xef\xbb\xbf"
REPLACED = "read.replaced"  # documents whose text holds what could not be read
# Escapes are the only way for half a surrogate pair into valid UTF-8.
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
WHITESPACE = re.compile(r"[ \t\r\n]*")


class Literal(str):
    """A number or NaN as it is written in the JSON."""

    __slots__ = ()


DECODER = json.JSONDecoder(parse_int=Literal, parse_float=Literal, parse_constant=Literal, strict=False)


class JsonDocuments:
    """Fills records from JSON values; `counts` is that of the reader."""

    def __init__(self, names: FieldNames, counts: "Counter[str]") -> None:
        self._names, self._counts = names, counts

    def fill(self, record: Record, value: bytes) -> None:
        """Set a record's fields from its JSON, or why it has none."""
        try:
            text, is_valid = value.decode("utf-8"), True
        except UnicodeDecodeError:
            text, is_valid = value.decode("utf-8", "replace"), False
        try:
            text = text.removeprefix("\ufeff")
            fields = DECODER.decode(text)
        except (ValueError, RecursionError):
            record.type, record.rule = "damage", "read.damaged"
            return
        if not isinstance(fields, dict):
            record.rule = "read.no_text"
            return
        names = self._names
        names.note(fields, lambda path: value_at(fields, path) is not MISSING)
        whole = SURROGATE_ESCAPE.search(text) is None
        record.record_id = _clean(_id_of(value_at(fields, names.id), text, names.id), whole)
        record.url = _clean(_string(value_at(fields, names.url)), whole)
        date = _string(value_at(fields, names.date))
        record.date = iso_millis(date) if date else None
        found = value_at(fields, names.text)
        found = _string(found) if isinstance(found, str) else join_texts(found)
        record.text = _clean(found, whole)
        if record.text is None:
            record.rule = "read.no_text"
        elif record.text != found or (not is_valid and "\ufffd" in record.text):
            self._counts[REPLACED] += 1


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and not isinstance(value, Literal) else None


def _id_of(value: Any, text: str, path: str) -> str | None:
    """An id as contracts section 1 has it: a string as it is, else the literal as written; null is none."""
    if value is None or value is MISSING:
        return None
    return str(value) if isinstance(value, str) else _literal(text, path)


def _literal(text: str, path: str) -> str | None:
    """The value that a path points to as it is written; None where it lies in a list."""
    if not text.startswith("{"):
        return None
    found = _member(text, path)
    head, dot, rest = path.partition(".")
    if found is None and dot:
        inside = _member(text, head)
        return None if inside is None else _literal(inside, rest)
    return found


def _member(line: str, field: str) -> str | None:
    """The text of a top-level field's value, the last one where it is given twice."""
    found = None
    at = _skip(line, line.index("{") + 1)
    while line[at] == '"':
        key, at = scanstring(line, at + 1, False)
        start = _skip(line, _skip(line, at) + 1)  # past the colon
        _, end = DECODER.scan_once(line, start)  # type: ignore[attr-defined]
        if key == field:
            found = line[start:end]
        at = _skip(line, end)
        if line[at] == ",":
            at = _skip(line, at + 1)
    return found


def _skip(line: str, at: int) -> int:
    match = WHITESPACE.match(line, at)
    assert match is not None
    return match.end()


def _clean(value: str | None, whole: bool) -> str | None:
    """A string that UTF-8 can hold: half a surrogate pair becomes U+FFFD."""
    if value is None or whole:
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

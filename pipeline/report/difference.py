"""Two near duplicates as one text with their differences marked."""

import difflib
import re

from schemas.text_format import escape

__all__ = ["mark_difference"]

# A word with the white space before it; of Han, Kana and Hangul every character, as they have no or long words.
TOKEN = re.compile(
    r"\s*[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\s*[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|\s*[^\w\s]|\s+"
)
COMPARED = 1500  # tokens of the part that differs: comparing takes the square of it
CONTEXT = 90  # characters of equal text beside a difference
SHOWN = 700  # characters
CHANGE = 240  # characters of one difference


def mark_difference(old: str, new: str) -> str:
    """HTML: what only `old` has in <del>, what only `new` has in <ins>, with some of the equal text around."""
    before, after = TOKEN.findall(old), TOKEN.findall(new)
    head = _common(before, after)
    tail = _common(before[head:][::-1], after[head:][::-1])
    middle = before[head : len(before) - tail], after[head : len(after) - tail]
    if middle == ([], []):
        return escape(_end("".join(before))) + " (equal)"
    parts = [escape(_start("".join(before[:head])))]
    changes, is_whole = _changes(middle[0][:COMPARED], middle[1][:COMPARED])
    parts.append(changes)
    if is_whole and max(map(len, middle)) <= COMPARED:
        parts.append(escape(_end("".join(before[len(before) - tail :] if tail else []))))
    else:
        parts.append(" \u2026")
    return "".join(parts)


def _common(first: list[str], second: list[str]) -> int:
    """How many tokens two lists have in common from their start."""
    number = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        number += 1
    return number


def _changes(before: list[str], after: list[str]) -> tuple[str, bool]:
    """The differences of the middle part, and whether all of them are shown."""
    result: list[str] = []
    shown = 0
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if shown > SHOWN:
            return "".join(result), False
        if kind == "equal":
            same = "".join(before[i:j])
            if len(same) > 2 * CONTEXT:
                same = f"{same[:CONTEXT]} \u2026 {same[-CONTEXT:]}"
            result.append(escape(same))
            shown += len(same)
            continue
        gone, come = "".join(before[i:j]), "".join(after[k:m])
        shown += min(len(gone), CHANGE) + min(len(come), CHANGE)
        result.append(f"<del>{escape(_end(gone, CHANGE))}</del>" if gone else "")
        result.append(f"<ins>{escape(_end(come, CHANGE))}</ins>" if come else "")
    return "".join(result), True


def _start(text: str) -> str:
    return text if len(text) <= CONTEXT else "\u2026" + text[-CONTEXT:]


def _end(text: str, limit: int = CONTEXT) -> str:
    return text if len(text) <= limit else text[:limit] + "\u2026"

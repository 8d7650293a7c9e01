"""What a page is made of once it is read: its block-level elements, and its text in blocks.

A block is the text between two boundaries that a browser sets on lines of their own: a paragraph, a list's item, a
heading, a table's row. `read_page.py` makes them, and decides what a block says; `main_content.py` decides which of
them are main content, and changes none.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["SPACE", "Block", "Page", "collapse", "compose", "tag_set"]

SPACE = " \t\n\f\r"  # what a browser collapses: not the no-break space, nor the ideographic one


def tag_set(names: str) -> frozenset[str]:
    """The names of tags, written with blanks between."""
    return frozenset(names.split())


@dataclass(slots=True)
class Block:
    """A piece of the page's text that stands on lines of its own."""

    text: str  # never empty
    element: int  # the innermost block-level element around it
    gap: int  # what stands before it: 1 for a new line, 2 for an empty line
    chars: int  # of the text, without its bullet
    link_chars: int  # of them, inside links
    is_pre: bool = False


@dataclass(slots=True)
class Page:
    """A page's blocks, and its block-level elements in columns; both in the page's order."""

    blocks: list[Block] = field(default_factory=list)
    parents: list[int] = field(default_factory=lambda: [0])  # of each element, its parent's index; the first is its own
    tags: list[str] = field(default_factory=lambda: ["body"])
    attributes: list[str] = field(default_factory=lambda: [""])


# Chinese and Japanese characters, between which a new line in the source is no blank (CSS Text 3, section 4.1.2).
_WIDE = "\u2e80-\u312f\u3190-\ua4cf\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff60\uffe0-\uffe6\U00020000-\U0003ffff"
_HAS_WIDE = re.compile(f"[{_WIDE}]")
_WIDE_BREAK = re.compile(f"([{_WIDE}])[ \t\f]*\n[ \t\n\f]*(?=[{_WIDE}])")


def collapse(text: str) -> str:
    """`text` with its white space as a browser shows it: each run one blank, none at the ends."""
    if "\n" in text and not text.isascii() and _HAS_WIDE.search(text):
        text = _WIDE_BREAK.sub(r"\1", text)
    if len(text) > _LONG:
        return " ".join(filter(None, map(_collapse, _at_blanks(text))))
    return _collapse(text)


_LONG = 1 << 20  # characters; words take ten times their memory as a list


def _collapse(text: str) -> str:
    # As bytes, for there only ASCII's white space splits.
    return b" ".join(text.encode("utf-8", "surrogatepass").split()).decode("utf-8", "surrogatepass")


def _at_blanks(text: str) -> Iterator[str]:
    """`text` in pieces, cut at blanks."""
    start = 0
    while start < len(text):
        end = text.find(" ", start + _LONG)
        yield text[start : end if end >= 0 else len(text)]
        start = end if end >= 0 else len(text)


def compose(blocks: Sequence[Block], chosen: Iterable[int]) -> str:
    """The text of the chosen blocks (their indexes, ascending), with the empty lines that stand between them."""
    parts: list[str] = []
    last = -1
    for index in chosen:
        if parts:
            gap = max(block.gap for block in blocks[last + 1 : index + 1])
            parts.append("\n\n" if gap > 1 else "\n")
        parts.append(blocks[index].text)
        last = index
    return "".join(parts)

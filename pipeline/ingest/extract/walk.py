"""What each tag of a page does to the blocks that are being written.

A list's items have a bullet or their number; the cells of a table's row stand on one line, a tab between two. Left
out: what the page hides, the fields of forms, readings of ruby, and what stands in place of pictures and films.
"""

from collections.abc import Callable

from pipeline.ingest.extract.block_writer import BlockWriter
from pipeline.ingest.extract.blocks import tag_set
from pipeline.ingest.extract.hidden import is_numbering
from pipeline.ingest.extract.mathematics import tex_of_image, tex_of_math, tex_of_script
from pipeline.ingest.extract.open_elements import WIDE_GAP, OpenElements
from pipeline.ingest.extract.tables import Row, join_row
from pipeline.ingest.extract.tokens import attribute

__all__ = ["Walk"]

_PRE = tag_set("pre listing xmp plaintext")
_HEADINGS = tag_set("h1 h2 h3 h4 h5 h6")
_LISTS = tag_set("ul ol menu dir")
_MAX_INDENT = 16  # levels of lists
_WITH_STATE = _LISTS | _PRE | {"li", "tr", "td", "th"}
_READINGS = tag_set("rt rp option")


class Walk:
    """What is open."""

    def __init__(self, hides: Callable[[str, str], bool]) -> None:
        self._hides = hides  # whether an element, by its name and attributes, is not shown
        self.writer = BlockWriter()
        self._open = OpenElements()
        self._is_hidden = False  # inside an element that is not shown
        self._counters: list[int | None] = []  # the next number of each open list; None: bullets
        self._rows: list[Row] = []
        self._tex: str | None = None  # of the open <math>

    def text(self, text: str) -> None:
        """Text outside tags."""
        if not self._is_hidden:
            self.writer.add(text)

    def raw(self, name: str, attributes: str, content: str) -> None:
        """An element whose content is no markup."""
        if self._is_hidden:
            return
        if name == "script" and "math/tex" in attributes:
            if tex := tex_of_script(attributes, content):
                self.writer.add_formula(tex)
        elif name == "xmp":
            self.block(name, attributes, ">" + content.replace("&", "&amp;"))

    def close(self) -> None:
        """The page's end."""
        self._open.close()
        self.writer.end_block()

    # Each of the following is what a tag does: by its name, its attributes, and ">" and the element's text where that
    # is all it holds, up to its end tag.

    def block(self, name: str, attributes: str, inner: str) -> None:
        """A block-level element."""
        self._open.before_block(name)
        if self._is_hidden:
            if not inner:
                self._open.push(name)
            return
        if attributes and self._hides(name, attributes):
            if not inner:
                self._hide(name)
            return
        writer = self.writer
        page = writer.page
        if writer.parts or writer.lines:
            writer.end_block()
        if name in _WITH_STATE:
            self._enter(name, attributes)
        elif name in WIDE_GAP:
            writer.gap = 2
        page.parents.append(writer.element)
        page.tags.append(name)
        page.attributes.append(attributes)
        writer.element = len(page.tags) - 1
        if not inner:
            self._open.push_with(name, self._end_block)
            return
        if len(inner) > 1:
            writer.add(inner[1:])
        self._end_block()

    def _end_block(self) -> None:
        writer = self.writer
        if writer.parts or writer.lines:
            writer.end_block()
        page = writer.page
        name, writer.element = page.tags[writer.element], page.parents[writer.element]
        if name in _WITH_STATE:
            self._leave(name)
        elif name in WIDE_GAP:
            writer.gap = 2

    def _enter(self, name: str, attributes: str) -> None:
        """The start of a list, an item, a table's row, a cell, or preformatted text."""
        writer = self.writer
        if name == "li":
            self._start_item(attributes)
        elif name in _LISTS:
            if not self._counters:
                writer.gap = 2
            self._counters.append((_number(attribute(attributes, "start")) or 1) if name == "ol" else None)
        elif name == "tr":
            self._rows.append(Row(len(writer.page.tags), writer.gap))
        elif name in _PRE:
            writer.gap = 2
            writer.num_pre += 1
            writer.parts.append("")
        elif self._rows:
            self._rows[-1].cells.append(len(writer.page.blocks))

    def _leave(self, name: str) -> None:
        writer = self.writer
        if name == "li":
            writer.bullet = ""
        elif name in _LISTS:
            self._counters.pop()
            if not self._counters:
                writer.gap = 2
        elif name == "tr":
            if join_row(self._rows.pop(), writer.page.blocks):
                writer.gap = 1
        elif name in _PRE:
            writer.gap = 2
            writer.num_pre -= 1
            writer.parts.clear()

    def _start_item(self, attributes: str) -> None:
        """The start of a list's item: a bullet, or the next number."""
        number = self._counters[-1] if self._counters else None
        mark = "• "
        if number is not None:
            if "value" in attributes.lower():
                number = _number(attribute(attributes, "value")) or number
            self._counters[-1] = number + 1
            mark = f"{number}. "
        self.writer.bullet = "  " * min(len(self._counters) - 1, _MAX_INDENT) + mark

    def inline(self, name: str, attributes: str, inner: str) -> None:
        """An element inside a line; its start matters only where its end does."""
        if self._is_hidden:
            if not inner and attributes[-1:] != "/":
                self._open.push(name)
            return
        writer = self.writer
        if attributes:
            if self._hides(name, attributes) or ("katex-html" in attributes and writer.is_after_formula()):
                if not inner:
                    self._hide(name)
                return
            if writer.num_pre and is_numbering(attributes):
                if not inner:
                    start = len(writer.parts)
                    self._open.push_with(name, lambda: self._end_numbering(start))
                    return
                if _is_number(inner[1:]):
                    return
        if len(inner) > 1:
            writer.add(inner[1:])

    def end_inline(self, name: str, attributes: str, inner: str) -> None:
        """The end tag of such an element."""
        if self._is_hidden or self.writer.num_pre:
            self._open.end(name)

    def end(self, name: str, attributes: str, inner: str) -> None:
        """Any other end tag."""
        if not self._open.end(name) and name == "p" and not self._is_hidden:
            self.writer.end_block(2)

    def link(self, name: str, attributes: str, inner: str) -> None:
        """An `<a>`, or a button, which is as little of the text as a link is."""
        writer = self.writer
        if name == "a" and (writer.num_links or self._is_hidden):
            self._open.before(name)
        if self._is_hidden:
            if not inner:
                self._open.push(name)
        elif self._hides(name, attributes):
            if not inner:
                self._hide(name)
        elif name == "a" and self._leads_nowhere(attributes):
            if len(inner) > 1:
                writer.add(inner[1:])
            elif not inner:
                self._open.push(name)
        elif inner:
            writer.add_link(inner[1:])
        else:
            writer.num_links += 1
            self._open.push_with(name, self._end_link)

    def _leads_nowhere(self, attributes: str) -> bool:
        """Whether an `<a>` is an anchor, or a heading's link to itself."""
        if "#" in attributes and self.writer.page.tags[self.writer.element] in _HEADINGS:
            return (attribute(attributes, "href") or "").startswith("#")
        return "href" not in attributes and "href" not in attributes.lower()

    def _end_link(self) -> None:
        self.writer.num_links -= 1

    def unseen(self, name: str, attributes: str, inner: str) -> None:
        """An element that is never shown."""
        if name in _READINGS:
            self._open.before(name)
        if inner:
            return
        if self._is_hidden:
            self._open.push(name)
        else:
            self._hide(name)

    def dialog(self, name: str, attributes: str, inner: str) -> None:
        """A `<dialog>`, shown if it is open."""
        if "open" in attributes.lower():
            self.block(name, attributes, inner)
        else:
            self._open.before_block(name)
            self.unseen(name, attributes, inner)

    def ruby(self, name: str, attributes: str, inner: str) -> None:
        """A `<ruby>`, whose end ends a reading."""
        if inner:
            self.text(inner[1:])
        else:
            self._open.push(name)

    def _hide(self, name: str) -> None:
        self._is_hidden = True
        self._open.push_with(name, self._end_hidden)

    def _end_hidden(self) -> None:
        self._is_hidden = False

    def _end_numbering(self, start: int) -> None:
        parts = self.writer.parts
        if _is_number("".join(parts[start:])):
            del parts[start:]

    def break_line(self, name: str, attributes: str, inner: str) -> None:
        """A `<br>`; `</br>` is another."""
        if not self._is_hidden:
            self.writer.break_line()
            if inner:
                self.writer.add(inner[1:])
                self.writer.break_line()

    def rule(self, name: str, attributes: str, inner: str) -> None:
        """An `<hr>`."""
        self._open.before_block(name)
        if not self._is_hidden:
            self.writer.end_block(2)
            self.void(name, attributes, inner)

    def image(self, name: str, attributes: str, inner: str) -> None:
        """A picture: text only if it shows a formula."""
        if "alt" in attributes and not self._is_hidden and (tex := tex_of_image(attributes)):
            self.writer.add_formula(tex)
        self.void(name, attributes, inner)

    def void(self, name: str, attributes: str, inner: str) -> None:
        """An element that holds nothing, so that what seems to be in it stands after it."""
        if len(inner) > 1 and not self._is_hidden:
            self.writer.add(inner[1:])

    def math(self, name: str, attributes: str, inner: str) -> None:
        """A `<math>`, or an annotation in it."""
        parts = self.writer.parts
        start = len(parts)
        if self._is_hidden:
            if not inner:
                self._open.push(name)
            return
        if name == "math":
            self._tex = None
            self._open.push_with(name, lambda: self._end_math(start, attributes))
        else:
            self._open.push_with(name, lambda: self._end_annotation(start, attributes))
        if inner:
            self.writer.add(inner[1:])
            self._open.end(name)

    def _end_math(self, start: int, attributes: str) -> None:
        parts = self.writer.parts
        if tex := tex_of_math(attributes, self._tex):
            del parts[start:]
            self.writer.add_formula(tex)
        else:
            self.writer.mark_formula("".join(parts[start:]))

    def _end_annotation(self, start: int, attributes: str) -> None:
        parts = self.writer.parts
        if "tex" in attributes.lower():
            self._tex = "".join(parts[start:])
        del parts[start:]


def _is_number(text: str) -> bool:
    text = text.strip()
    return text.isascii() and text.isdigit()


def _number(text: str | None) -> int | None:
    """The number of a list item as an attribute states it; None for none."""
    try:
        return int(text or "")
    except ValueError:
        return None

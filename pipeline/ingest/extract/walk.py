"""One walk over a page's tags, which gives its block-level elements and its blocks.

White space is collapsed as a browser collapses it, and kept in `<pre>`; a list's items have a bullet or their number;
the cells of a table's row stand on one line, a tab between two. Left out: what the page hides, the fields of forms,
readings of ruby, and what stands in place of pictures and films.
"""

from collections.abc import Callable
from html import unescape

from pipeline.ingest.extract.blocks import SPACE, Block, Page, collapse
from pipeline.ingest.extract.hidden import NOT_SHOWN, is_hidden, is_numbering
from pipeline.ingest.extract.mathematics import tex_of_image, tex_of_math, tex_of_script
from pipeline.ingest.extract.open_elements import BLOCKS, WIDE_GAP, OpenElements
from pipeline.ingest.extract.tables import Row, join_row
from pipeline.ingest.extract.tokens import attribute, tokenize

__all__ = ["read_page"]

_PRE = frozenset(("pre", "listing", "xmp", "plaintext"))
_LISTS = frozenset(("ul", "ol", "menu", "dir"))


def read_page(html: str) -> Page:
    """The block-level elements and the blocks of a page."""
    walk = _Walk()
    add_text, parts, actions = walk.text, walk.parts, _ACTIONS
    for text, raw, raw_attributes, content, name, attributes, less_than in tokenize(html):
        if text and (parts or not text.isspace()):
            add_text(text)
        if name:
            action, tag = actions.get(name) or _action(name)
            action(walk, tag, attributes)
        elif raw:
            walk.raw(raw.lower(), raw_attributes, content)
        elif less_than:
            add_text("<")
    walk.close()
    return walk.page


class _Walk:
    """What is open, and the block that is being written."""

    def __init__(self) -> None:
        self.page = Page()
        self.parts: list[str] = []  # of the line that is being written; never empty inside <pre>
        self._lines: list[str] = []  # of the block that is being written
        self._link_chars = 0
        self._gap = 2
        self._bullet = ""
        self._element = 0
        self._open = OpenElements()
        self._is_hidden = False  # inside an element that is not shown
        self._num_pre = self._num_links = 0
        self._counters: list[int | None] = []  # the next number of each open list; None: bullets
        self._rows: list[Row] = []
        self._tex: str | None = None  # of the open <math>
        self._formula = (0, "")  # the line's last formula, and where in the line it ends

    def text(self, text: str) -> None:
        """Add text to the line."""
        if self._is_hidden:
            return
        if "&" in text:
            text = unescape(text)
        self.parts.append(text)
        if self._num_links:
            self._link_chars += len(text.strip())

    def raw(self, name: str, attributes: str, content: str) -> None:
        """An element whose content is no markup."""
        if name == "script" and "math/tex" in attributes:
            self._add_formula(tex_of_script(attributes, content))
        elif name == "xmp":
            self.start_block(name, attributes)
            self.text(content.replace("&", "&amp;"))

    def close(self) -> None:
        """The page's end."""
        self._open.close()
        self._flush()

    # Lines and blocks

    def _flush(self) -> None:
        """End the block, if one has begun."""
        if self.parts:
            self._end_line()
        if self._lines:
            text = "\n".join(self._lines)
            self._lines.clear()
            block = Block(self._bullet + text, self._element, self._gap, len(text), self._link_chars, self._num_pre > 0)
            self.page.blocks.append(block)
            self._bullet = ""
            self._gap = 1
        self._link_chars = 0

    def _end_line(self) -> bool:
        """End the line; whether it holds anything."""
        text = "".join(self.parts)
        self.parts.clear()
        self._formula = (0, "")
        if self._num_pre:
            self.parts.append("")
            text = text.strip("\n").rstrip()
        else:
            text = collapse(text)
        if not text or text.isspace():
            return False
        self._lines.append(text)
        return True

    def break_line(self, name: str, attributes: str) -> None:
        """A `<br>`; a second one begins a paragraph."""
        if self._is_hidden:
            return
        if self._num_pre:
            self.parts.append("\n")
        elif not self._end_line():
            self._flush()
            self._gap = 2

    # Block-level elements

    def start_block(self, name: str, attributes: str) -> None:
        """The start tag of a block-level element."""
        self._open.before_block(name)
        if self._is_hidden:
            self._open.push(name)
            return
        if attributes and is_hidden(name, attributes):
            self._hide(name)
            return
        if self.parts or self._lines:
            self._flush()
        if name in _WITH_STATE:
            self._enter(name, attributes)
        elif name in WIDE_GAP:
            self._gap = 2
        page = self.page
        page.parents.append(self._element)
        page.tags.append(name)
        page.attributes.append(attributes)
        self._element = len(page.tags) - 1
        self._open.push_with(name, self._end_block)

    def _end_block(self) -> None:
        if self.parts or self._lines:
            self._flush()
        name, self._element = self.page.tags[self._element], self.page.parents[self._element]
        if name in _WITH_STATE:
            self._leave(name)
        elif name in WIDE_GAP:
            self._gap = 2

    def _enter(self, name: str, attributes: str) -> None:
        """The start of a list, a table's row, a cell, or preformatted text."""
        if name == "li":
            self._start_item(attributes)
        elif name in _LISTS:
            if not self._counters:
                self._gap = 2
            self._counters.append((_number(attribute(attributes, "start")) or 1) if name == "ol" else None)
        elif name == "tr":
            self._rows.append(Row(len(self.page.tags)))
        elif name in _PRE:
            self._gap = 2
            self._num_pre += 1
            self.parts.append("")
        elif self._rows:
            self._rows[-1].cells.append(len(self.page.blocks))

    def _leave(self, name: str) -> None:
        if name == "li":
            self._bullet = ""
        elif name in _LISTS:
            self._counters.pop()
            if not self._counters:
                self._gap = 2
        elif name == "tr":
            join_row(self._rows.pop(), self.page.blocks)
        elif name in _PRE:
            self._gap = 2
            self._num_pre -= 1
            self.parts.clear()

    def _start_item(self, attributes: str) -> None:
        """The start of a list's item: a bullet, or the next number."""
        number = self._counters[-1] if self._counters else None
        mark = "• "
        if number is not None:
            number = _number(attribute(attributes, "value")) or number
            self._counters[-1] = number + 1
            mark = f"{number}. "
        self._bullet = "  " * (len(self._counters) - 1) + mark

    # Inline elements, and end tags

    def start_inline(self, name: str, attributes: str) -> None:
        """The start tag of an element inside a line; it matters only where its end does."""
        if self._is_hidden:
            if attributes[-1:] != "/":
                self._open.push(name)
        elif attributes:
            if is_hidden(name, attributes) or ("katex-html" in attributes and self._is_after_formula()):
                self._hide(name)
            elif self._num_pre and is_numbering(attributes):
                start = len(self.parts)
                self._open.push_with(name, lambda: self._end_numbering(start))

    def end_inline(self, name: str, attributes: str) -> None:
        """The end tag of such an element."""
        if self._is_hidden or self._num_pre:
            self._open.end(name)

    def end(self, name: str, attributes: str) -> None:
        """Any other end tag."""
        if self._open.end(name) or self._is_hidden:
            return
        if name == "p":
            self._flush()
            self._gap = 2

    def start_link(self, name: str, attributes: str) -> None:
        """An `<a>`, or a button, which is as little of the text as a link is."""
        if name == "a":
            self._open.before(name)
        if self._is_hidden:
            self._open.push(name)
        elif is_hidden(name, attributes):
            self._hide(name)
        elif name == "a" and "href" not in attributes.lower():
            self._open.push(name)
        else:
            self._num_links += 1
            self._open.push_with(name, self._end_link)

    def _end_link(self) -> None:
        self._num_links -= 1

    def start_unseen(self, name: str, attributes: str) -> None:
        """The start tag of an element that is never shown."""
        if name in _READINGS:
            self._open.before(name)
        if self._is_hidden:
            self._open.push(name)
        else:
            self._hide(name)

    def _hide(self, name: str) -> None:
        self._is_hidden = True
        self._open.push_with(name, self._end_hidden)

    def _end_hidden(self) -> None:
        self._is_hidden = False

    def _end_numbering(self, start: int) -> None:
        if "".join(self.parts[start:]).strip().isdecimal():
            del self.parts[start:]

    def quote(self, name: str, attributes: str) -> None:
        """The start or end tag of a `<q>`, where browsers set a quotation mark."""
        self.text('"')

    def image(self, name: str, attributes: str) -> None:
        """A picture: text only if it shows a formula."""
        if "alt" in attributes:
            self._add_formula(tex_of_image(attributes))

    def rule(self, name: str, attributes: str) -> None:
        """An `<hr>`."""
        self._open.before_block(name)
        if not self._is_hidden:
            self._flush()
            self._gap = 2

    # Formulas

    def start_math(self, name: str, attributes: str) -> None:
        """A `<math>`, or an annotation in it."""
        start = len(self.parts)
        if self._is_hidden:
            self._open.push(name)
        elif name == "math":
            self._tex = None
            self._open.push_with(name, lambda: self._end_math(start, attributes))
        else:
            self._open.push_with(name, lambda: self._end_annotation(start, attributes))

    def _end_math(self, start: int, attributes: str) -> None:
        tex = tex_of_math(attributes, self._tex)
        if tex:
            del self.parts[start:]
            self._add_formula(tex)
        else:
            self._formula = (len(self.parts), "".join(self.parts[start:]))

    def _end_annotation(self, start: int, attributes: str) -> None:
        if "tex" in attributes.lower():
            self._tex = "".join(self.parts[start:])
        del self.parts[start:]

    def _add_formula(self, tex: str | None) -> None:
        """Add a formula to the line, unless it is the last thing there already."""
        if not tex or self._is_hidden or (tex.strip("$") == self._formula[1].strip("$") and self._is_after_formula()):
            return
        self.text(tex.replace("&", "&amp;"))
        self._formula = (len(self.parts), tex)

    def _is_after_formula(self) -> bool:
        end, tex = self._formula
        return bool(tex) and not "".join(self.parts[end:]).strip(SPACE)

    def nothing(self, name: str, attributes: str) -> None:
        """A tag that matters to no text."""


_WITH_STATE = _LISTS | _PRE | {"li", "tr", "td", "th"}
_READINGS = frozenset(("rt", "rp", "option"))

Action = tuple[Callable[[_Walk, str, str], None], str]  # what a tag does, and the element's name
_ACTIONS: dict[str, Action] = {
    **{name: (_Walk.start_block, name) for name in BLOCKS - {"hr"}},
    **{f"/{name}": (_Walk.end, name) for name in BLOCKS | NOT_SHOWN | {"a", "button", "math", "annotation"}},
    **{name: (_Walk.start_unseen, name) for name in NOT_SHOWN},
    **{name: (_Walk.start_math, name) for name in ("math", "annotation", "annotation-xml")},
    "/annotation-xml": (_Walk.end, "annotation-xml"),
    "hr": (_Walk.rule, "hr"),
    "br": (_Walk.break_line, "br"),
    "/br": (_Walk.break_line, "br"),
    "img": (_Walk.image, "img"),
    "a": (_Walk.start_link, "a"),
    "button": (_Walk.start_link, "button"),
    "q": (_Walk.quote, "q"),
    "/q": (_Walk.quote, "q"),
    **{
        name: (_Walk.nothing, name)
        for name in "area base basefont bgsound col embed frame input keygen link meta param source track wbr "
        "/script /style /textarea /title /iframe /noembed /noframes /noscript /body /html".split()
    },
}


def _action(name: str) -> Action:
    """What a tag does whose name is not in the table as it is written."""
    lower = name.lower()
    if lower in _ACTIONS:
        return _ACTIONS[lower]
    return (_Walk.end_inline, lower[1:]) if lower[0] == "/" else (_Walk.start_inline, lower)


def _number(text: str | None) -> int | None:
    """The number of a list item as an attribute states it; None for none."""
    try:
        return int(text or "")
    except ValueError:
        return None

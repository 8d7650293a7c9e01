"""One walk over a page's tags, which gives its block-level elements and its blocks.

White space is collapsed as a browser collapses it, and kept in `<pre>`; a list's items have a bullet or their number;
the cells of a table's row stand on one line, a tab between two. Left out: what the page hides, the fields of forms,
readings of ruby, and what stands in place of pictures and films.
"""

from html import unescape

from pipeline.ingest.extract.blocks import SPACE, Block, Node, Page, collapse
from pipeline.ingest.extract.hidden import is_hidden, is_numbering
from pipeline.ingest.extract.mathematics import tex_of_image, tex_of_math, tex_of_script
from pipeline.ingest.extract.open_elements import BLOCKS, VOID, WIDE_GAP, OpenElements
from pipeline.ingest.extract.tables import Row, join_row
from pipeline.ingest.extract.tokens import attribute, tokenize

__all__ = ["read_page"]

_PRE = frozenset(("pre", "listing", "xmp", "plaintext"))
_LISTS = frozenset(("ul", "ol", "menu", "dir"))
_OTHER_TEXT = frozenset(("q", "math", "annotation", "annotation-xml"))  # inline, and not what they hold as it is


def read_page(html: str) -> Page:
    """The block-level elements and the blocks of a page."""
    walk = _Walk()
    for text, raw, raw_attributes, content, name, attributes, less_than in tokenize(html):
        if text:
            walk.text(text)
        if name:
            if name[0] == "/":
                walk.end(name[1:].lower())
            else:
                walk.start(name.lower(), attributes)
        elif raw:
            walk.raw(raw.lower(), raw_attributes, content)
        elif less_than:
            walk.text("<")
    walk.close()
    return Page(walk.nodes, walk.blocks)


class _Walk:
    """What is open, and the block that is being written."""

    def __init__(self) -> None:
        self.nodes = [Node(-1, "body", "")]
        self.blocks: list[Block] = []
        self._open = OpenElements()
        self._is_hidden = False  # inside an element that is not shown
        self._node = 0
        self._gap = 2
        self._parts: list[str] = []  # of the line that is being written
        self._lines: list[str] = []  # of the block that is being written
        self._chars = self._link_chars = 0
        self._num_pre = self._num_links = 0
        self._counters: list[int | None] = []  # the next number of each open list; None: bullets
        self._bullet = ""
        self._rows: list[Row] = []
        self._tex: str | None = None  # of the open <math>
        self._formula = (0, "")  # the line's last formula, and where in the line it ends

    def text(self, text: str) -> None:
        """Add text to the line."""
        if self._is_hidden or not (self._parts or self._num_pre or text.strip(SPACE)):
            return
        if "&" in text:
            text = unescape(text)
        self._parts.append(text)
        self._chars += len(text)
        if self._num_links:
            self._link_chars += len(text)

    def raw(self, name: str, attributes: str, content: str) -> None:
        """An element whose content is no markup."""
        if name == "script" and "math/tex" in attributes:
            self.formula(tex_of_script(attributes, content))
        elif name == "xmp":
            self.start(name, attributes)
            self.text(content.replace("&", "&amp;"))
            return
        self._open.push(name)

    def formula(self, tex: str | None) -> None:
        """Add a formula to the line, unless it is the last thing there already."""
        if not tex or self._is_hidden or (tex.strip("$") == self._formula[1].strip("$") and self._is_after_formula()):
            return
        self.text(tex.replace("&", "&amp;"))
        self._formula = (len(self._parts), tex)

    def _is_after_formula(self) -> bool:
        end, tex = self._formula
        return bool(tex) and not "".join(self._parts[end:]).strip(SPACE)

    def start(self, name: str, attributes: str) -> None:
        """A start tag."""
        if name in VOID:
            if not self._is_hidden:
                self._void(name, attributes)
            return
        self._open.before_start(name)
        if self._is_hidden:
            self._open.push(name)
        elif is_hidden(name, attributes) or ("katex-html" in attributes and self._is_after_formula()):
            self._is_hidden = True
            self._open.push_with(name, self._end_hidden)
        elif name in BLOCKS:
            self._start_block(name, attributes)
        elif name == "a" and "href" in attributes.lower() or name == "button":
            self._num_links += 1
            self._open.push_with(name, self._end_link)
        elif name in _OTHER_TEXT or (self._num_pre and attributes and is_numbering(attributes)):
            self._start_other_text(name, attributes)
        elif attributes[-1:] != "/":  # `<path/>` ends at once; an HTML element written so matters to no text
            self._open.push(name)

    def _void(self, name: str, attributes: str) -> None:
        if name == "br":
            self._break_line()
        elif name == "img":
            if "alt" in attributes:
                self.formula(tex_of_image(attributes))
        elif name == "hr":
            self._open.before_start(name)
            self.flush()
            self._gap = 2

    def end(self, name: str) -> None:
        """An end tag."""
        if self._open.end(name) or self._is_hidden:
            return
        if name == "br":
            self._break_line()
        elif name == "p":
            self.flush()
            self._gap = 2

    def close(self) -> None:
        """The page's end."""
        self._open.cut(0)
        self.flush()

    # Lines and blocks

    def flush(self) -> None:
        """End the block, if one has begun."""
        if self._parts:
            self._end_line()
        if not self._lines:
            self._chars = self._link_chars = 0
            return
        text = self._bullet + "\n".join(self._lines)
        self._bullet = ""
        self._lines.clear()
        self.blocks.append(Block(text, self._node, self._gap, self._chars, self._link_chars, self._num_pre > 0))
        self._gap = 1
        self._chars = self._link_chars = 0

    def _end_line(self) -> bool:
        """End the line; whether it holds anything."""
        text = "".join(self._parts)
        self._parts.clear()
        self._formula = (0, "")
        text = text.strip("\n").rstrip() if self._num_pre else collapse(text)
        if not text or text.isspace():
            return False
        self._lines.append(text)
        return True

    def _break_line(self) -> None:
        """A `<br>`; a second one begins a paragraph."""
        if self._num_pre:
            self._parts.append("\n")
        elif not self._end_line():
            self.flush()
            self._gap = 2

    # Block-level elements

    def _start_block(self, name: str, attributes: str) -> None:
        self.flush()
        if name in WIDE_GAP and not (self._counters and name in _LISTS):
            self._gap = 2
        if name == "li":
            self._start_item(attributes)
        elif name in _LISTS:
            start = attribute(attributes, "start") if name == "ol" else None
            self._counters.append((_number(start) or 1) if name == "ol" else None)
        elif name == "tr":
            self._rows.append(Row(self._node))
        elif name in ("td", "th"):
            if self._rows:
                self._rows[-1].cells.append(len(self.blocks))
        elif name in _PRE:
            self._num_pre += 1
        self.nodes.append(Node(self._node, name, attributes))
        self._node = len(self.nodes) - 1
        self._open.push_with(name, self._end_block)

    def _start_item(self, attributes: str) -> None:
        depth = max(len(self._counters) - 1, 0)
        number = self._counters[-1] if self._counters else None
        if number is None:
            self._bullet = "  " * depth + "• "
            return
        number = _number(attribute(attributes, "value")) or number
        self._bullet = "  " * depth + f"{number}. "
        self._counters[-1] = number + 1

    def _end_block(self) -> None:
        self.flush()
        node = self.nodes[self._node]
        name, self._node = node.tag, node.parent
        if name in WIDE_GAP and not (len(self._counters) > 1 and name in _LISTS):
            self._gap = 2
        if name == "li":
            self._bullet = ""
        elif name in _LISTS:
            self._counters.pop()
        elif name == "tr":
            join_row(self._rows.pop(), self.blocks)
        elif name in _PRE:
            self._num_pre -= 1

    # Inline elements

    def _start_other_text(self, name: str, attributes: str) -> None:
        """An inline element whose text is not what it holds."""
        start = len(self._parts)
        if name == "q":
            self.text('"')
            self._open.push_with(name, lambda: self.text('"'))
        elif name == "math":
            self._tex = None
            self._open.push_with(name, lambda: self._end_math(start, attributes))
        elif name == "annotation" or name == "annotation-xml":
            self._open.push_with(name, lambda: self._end_annotation(start, attributes))
        else:
            self._open.push_with(name, lambda: self._end_numbering(start))

    def _end_math(self, start: int, attributes: str) -> None:
        tex = tex_of_math(attributes, self._tex)
        if tex:
            del self._parts[start:]
            self.formula(tex)
        else:
            self._formula = (len(self._parts), "".join(self._parts[start:]))

    def _end_annotation(self, start: int, attributes: str) -> None:
        if "tex" in attributes.lower():
            self._tex = "".join(self._parts[start:])
        del self._parts[start:]

    def _end_numbering(self, start: int) -> None:
        number = "".join(self._parts[start:]).strip()
        if number.isdecimal():
            del self._parts[start:]

    def _end_link(self) -> None:
        self._num_links -= 1

    def _end_hidden(self) -> None:
        self._is_hidden = False


def _number(text: str | None) -> int | None:
    """The number of a list item as an attribute states it; None for none."""
    try:
        return int(text or "")
    except ValueError:
        return None

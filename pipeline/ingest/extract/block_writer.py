"""Writes a page's blocks: white space collapsed as a browser collapses it, and kept in `<pre>`."""

from html import unescape

from pipeline.ingest.extract.blocks import SPACE, Block, Page, collapse

__all__ = ["BlockWriter"]


class BlockWriter:
    """The line and the block that are being written."""

    def __init__(self) -> None:
        self.page = Page()
        self.element = 0  # the innermost open block-level element
        self.gap = 2  # of the next block
        self.bullet = ""  # of the next block
        self.num_links = self.num_pre = 0  # open
        self.parts: list[str] = []  # of the line; never empty inside <pre>
        self.lines: list[str] = []  # of the block
        self._link_chars = 0
        self._formula = (0, "")  # the line's last formula, and where in the line it ends

    def add(self, text: str) -> None:
        """Add text of the source to the line."""
        if "&" in text:
            text = unescape(text)
        self.parts.append(text)
        if self.num_links:
            self._link_chars += len(text.strip())

    def add_link(self, text: str) -> None:
        """Add a link's text."""
        if "&" in text:
            text = unescape(text)
        self.parts.append(text)
        self._link_chars += len(text.strip())

    def add_formula(self, tex: str) -> None:
        """Add a formula to the line, unless it is the last thing there already."""
        if tex.strip("$") != self._formula[1].strip("$") or not self.is_after_formula():
            self.parts.append(tex)
            self.mark_formula(tex)

    def mark_formula(self, formula: str) -> None:
        """Note that the line ends in a formula."""
        self._formula = (len(self.parts), formula)

    def is_after_formula(self) -> bool:
        """Whether nothing was written since a formula."""
        end, formula = self._formula
        return bool(formula) and not "".join(self.parts[end:]).strip(SPACE)

    def break_line(self) -> None:
        """Begin a new line; a second time, a new paragraph."""
        if self.num_pre:
            self.parts.append("\n")
        elif not self._end_line():
            self.end_block(2)

    def end_block(self, gap: int = 0) -> None:
        """End the block, if one has begun; the next one has at least this gap before it."""
        if self.parts:
            self._end_line()
        if self.lines:
            self._write("\n".join(self.lines))
            self.lines.clear()
        self._link_chars = 0
        if gap:
            self.gap = gap

    def _end_line(self) -> bool:
        """End the line; whether it holds anything."""
        text = "".join(self.parts)
        self.parts.clear()
        self._formula = (0, "")
        if self.num_pre:
            self.parts.append("")
            text = text.strip("\n").rstrip()
        else:
            text = collapse(text)
        if not text or text.isspace():
            return False
        self.lines.append(text)
        return True

    def _write(self, text: str) -> None:
        block = Block(self.bullet + text, self.element, self.gap, len(text), self._link_chars, self.num_pre > 0)
        self.page.blocks.append(block)
        self.bullet = ""
        self.gap = 1

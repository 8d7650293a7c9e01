"""The open elements of a page, and which of them a tag ends.

Elements end where the HTML standard ends them ("tree construction"). Differs: misnested formatting elements are not
opened again, and text between a table's rows is not moved before the table; no character is lost by either.
"""

from collections.abc import Callable

from pipeline.ingest.extract.blocks import tag_set

__all__ = ["BLOCKS", "WIDE_GAP", "OpenElements"]

# Elements that stand on lines of their own: with an empty line before and after them, and without.
WIDE_GAP = tag_set(
    "article aside blockquote dl fieldset figure footer form h1 h2 h3 h4 h5 h6 header hr listing main menu nav ol p "
    "plaintext pre section table ul xmp"
)
BLOCKS = WIDE_GAP | tag_set(
    "address body caption center dd details dialog dir div dt figcaption frameset hgroup html legend li search summary "
    "tbody td tfoot th thead tr"
)
_HEADINGS = tag_set("h1 h2 h3 h4 h5 h6")
_TABLE = frozenset(("table", "template"))
_BARRIERS = _TABLE | {"td", "th", "caption", "object"}
_TABLE_PARTS = tag_set("table tr td th tbody thead tfoot caption")
_SEARCH = 512  # open elements that the search for one goes through; browsers nest no deeper

_LISTS = tag_set("ul ol menu dir dl table td th")
_CELLS = frozenset(("td", "th"))
_GROUPS = frozenset(("tbody", "thead", "tfoot"))
_READINGS = frozenset(("rt", "rp"))
# The elements that a start tag ends, and those that the search for them stops at.
_ENDED_BY = {
    "li": (frozenset(("li",)), _LISTS),
    "dt": (frozenset(("dt", "dd")), _LISTS),
    "dd": (frozenset(("dt", "dd")), _LISTS),
    "td": (_CELLS, _TABLE | {"tr"}),
    "th": (_CELLS, _TABLE | {"tr"}),
    "tr": (frozenset(("tr",)), _TABLE),
    "tbody": (_GROUPS, _TABLE),
    "thead": (_GROUPS, _TABLE),
    "tfoot": (_GROUPS, _TABLE),
    "caption": (frozenset(("caption",)), _TABLE),
    "a": (frozenset(("a",)), _BARRIERS),
    "rt": (_READINGS, frozenset(("ruby",))),
    "rp": (_READINGS, frozenset(("ruby",))),
    "option": (frozenset(("option",)), frozenset(("select", "datalist", "optgroup"))),
}


def _nothing() -> None:
    pass


class OpenElements:
    """A stack of names; some of them with what their end does."""

    def __init__(self) -> None:
        self._names = [""]
        self._ends: list[tuple[int, Callable[[], None]]] = [(-1, _nothing)]  # by depth in `_names`
        self._p_depth = -1  # of the open <p>
        self.push = self._names.append  # opens an element whose end does nothing

    def push_with(self, name: str, end: Callable[[], None]) -> None:
        """Open an element; `end` is called when it ends."""
        depth = len(self._names)
        if name == "p":
            self._p_depth = depth
        self._ends.append((depth, end))
        self._names.append(name)

    def close(self) -> None:
        """End all elements, the innermost first."""
        self._cut(1)

    def _cut(self, depth: int) -> None:
        del self._names[depth:]
        if self._p_depth >= depth:
            self._p_depth = -1
        while self._ends[-1][0] >= depth:
            self._ends.pop()[1]()

    def before_block(self, name: str) -> None:
        """End what the start tag of a block-level element ends."""
        if name in _ENDED_BY:
            self.before(name)
        if self._p_depth >= 0:
            self._cut(self._p_depth)

    def before(self, name: str) -> None:
        """End the element that the start tag of `name` ends, one of `_ENDED_BY`."""
        names = self._names
        ended, barriers = _ENDED_BY[name]
        for depth in range(len(names) - 1, max(len(names) - _SEARCH, 1) - 1, -1):
            found = names[depth]
            if found in ended:
                self._cut(depth)
                return
            if found in barriers:
                return

    def end(self, name: str) -> bool:
        """End the element that the end tag of `name` ends; whether there is one."""
        names = self._names
        if names[-1] == name:
            names.pop()
            depth = len(names)
            if self._p_depth == depth:
                self._p_depth = -1
            if self._ends[-1][0] == depth:
                self._ends.pop()[1]()
            return True
        depth = self._find(name)
        if depth >= 0:
            self._cut(depth)
        return depth >= 0

    def _find(self, name: str) -> int:
        """The depth of the element that an end tag ends; -1: none."""
        if name in ("body", "html"):
            return -1  # what stands behind them is still the page's
        names = self._names
        is_heading = name in _HEADINGS
        barriers = _TABLE if name in _TABLE_PARTS else _BARRIERS if name in BLOCKS else BLOCKS
        for depth in range(len(names) - 1, max(len(names) - _SEARCH, 1) - 1, -1):
            found = names[depth]
            if found == name or (is_heading and found in _HEADINGS):
                return depth
            if found in barriers:
                return -1
        return -1

"""How the report writes numbers and foreign strings."""

import html
import re

__all__ = ["bits", "breakable", "count", "escape", "number", "plural", "share"]

# What a crawl may carry and a page must not: control characters (line feed and tab apart), noncharacters, and the
# marks that turn the writing direction of what follows.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


def escape(text: object) -> str:
    """Any string as text or attribute of an HTML page: nothing in it can become markup."""
    return html.escape(UNSAFE.sub("\ufffd", str(text)), quote=True)


def breakable(name: str) -> str:
    """A rule's name, escaped, that may be broken after its dots and underscores."""
    return re.sub(r"([._])", r"\1<wbr>", escape(name))


def count(value: int) -> str:
    """1234567 -> 1,234,567."""
    return f"{value:,}"


def share(part: int, whole: int) -> str:
    """A percentage with what precision it deserves; nothing of nothing is a dash."""
    if not whole:
        return "\u2013"
    percent = 100 * part / whole
    if percent in (0, 100):
        return f"{percent:.0f}\u202f%"
    if percent < 0.1 or percent > 99.9:
        return "<0.1\u202f%" if percent < 50 else ">99.9\u202f%"
    return f"{percent:.1f}\u202f%"


def bits(size: int) -> str:
    """Bytes in the largest unit that leaves at least 1."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f}\u202f{unit}" if unit == "B" or value >= 100 else f"{value:,.1f}\u202f{unit}"


def number(value: float | None) -> str:
    """A measured value: four significant digits, integers whole; none is a dash."""
    if value is None:
        return "\u2013"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def plural(value: int, noun: str) -> str:
    """`1 document`, `2 documents`."""
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"

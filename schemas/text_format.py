"""How the reports of both sides write numbers and foreign strings."""

import html
import math
import re

__all__ = ["bits", "breakable", "brief", "count", "duration", "escape", "number", "plural", "share"]

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
    """Bytes in the largest unit that leaves at least 1; a kB is 1,024 bytes, here and in progress lines."""
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f}\u202f{unit}" if unit == "B" or value >= 100 else f"{value:,.1f}\u202f{unit}"


def number(value: float | None) -> str:
    """A measured value: four significant digits, integers whole; none is a dash, and what is not finite a word."""
    if value is None:
        return "\u2013"
    if not math.isfinite(value):
        return str(value)
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"


def plural(value: int, noun: str) -> str:
    """`1 document`, `2 documents`."""
    return f"{count(value)} {noun}" if value == 1 else f"{count(value)} {noun}s"


def brief(value: float) -> str:
    """Three digits and a unit: 1,024 -> 1.02k, 52,300,000 -> 52.3M."""
    for unit, size in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        # What would round to 1000 of a unit is 1 of the next.
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Two units at most: 42s, 12m, 3h07m, 5d02h."""
    if seconds < 59.5:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}m"
    if minutes < 48 * 60:
        return f"{minutes // 60}h{minutes % 60:02}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d{hours % 24:02}h"

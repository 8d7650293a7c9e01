"""What a page holds and does not show."""

import re

from pipeline.ingest.extract.blocks import tag_set
from pipeline.ingest.extract.tokens import attribute

__all__ = ["NOT_SHOWN", "is_hidden", "is_numbering"]

NOT_SHOWN = tag_set("applet audio canvas datalist map object optgroup option rp rt rtc select svg template video")
_NEVER_HIDDEN = frozenset(("html", "body", "main", "article"))  # a script shows them once the page is there

_NOT_DISPLAYED = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_HIDDEN = re.compile(r"(?:^|\s)hidden(?=[\s/=]|$)(?!\s*=\s*until-found)", re.IGNORECASE)
# What MathJax 2 draws; the formula's source stands beside it (and inside what MathJax 3 draws, `<mjx-...>`).
_MATHJAX = re.compile(
    r"[\"'\s=](?:MathJax(?:_(?:Preview|Display|CHTML|SVG|SVG_Display))?|MJX_Assistive_MathML)(?=[\"'\s]|$)"
)
_NUMBERING = re.compile(
    r"[\"'\s=](?:lineno|linenos|linenr|lnum|line-?numbers?|hljs-ln-n(?:umbers)?|gutter|blob-num)(?=[\"'\s]|$)",
    re.IGNORECASE,
)


def is_hidden(name: str, attributes: str) -> bool:
    """Whether an element is not shown: by its `hidden` or style, or as a formula's second form.

    Differs: style sheets are not read, and what a script hides or shows is not known.
    """
    lower = attributes.lower()
    if "none" in lower or "hidden" in lower:
        if name in _NEVER_HIDDEN:
            return False
        if _NOT_DISPLAYED.search(attributes) and _NOT_DISPLAYED.search(attribute(attributes, "style") or ""):
            return True
        if "hidden" in lower and _HIDDEN.search(_QUOTED.sub("", attributes)):
            return True
    return "mathjax" in lower and name[:4] != "mjx-" and _MATHJAX.search(attributes) is not None


def is_numbering(attributes: str) -> bool:
    """Whether an element inside `<pre>` is called the place of line numbers."""
    return _NUMBERING.search(attributes) is not None

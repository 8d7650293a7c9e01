"""The tokens of a page's HTML: text, tags, and what the tokenizer skips.

One regular expression, in which each position has one way to match: time is linear in the page, whatever the page
holds. Differs from the HTML standard's tokenizer: a tag that the page's end cuts off ends the page there, as the
standard says, and an unclosed script or comment does too, but escaped scripts inside scripts are not known.
"""

import re
from collections.abc import Iterable
from html import unescape

__all__ = ["Token", "attribute", "tokenize"]

# Text before the tag; an element whose content is no markup: name, attributes, content; a tag: name ("/name" for an
# end tag), attributes, and if the element holds text alone, a ">" with that text, its end tag taken too; a "<" that
# begins no tag.
Token = tuple[str, str, str, str, str, str, str, str]

# A quote counts only where a value begins. No alternative can match where another does: no backtracking.
_ATTRIBUTES = r"""[^>=]*(?:=\s*(?:"[^"]*"|'[^']*'|(?!["'\s])[^\s>]*(?=[\s>]))[^>=]*)*"""
_RAW = "script|style|textarea|title|iframe|noembed|noframes|noscript|xmp"
_TOKEN = re.compile(
    r"([^<]*)(?:"
    # The letters ahead, and the two as they are mostly written, save a tenth of the time.
    rf"<(?=[einstxEINSTX])((?:script|style|(?i:{_RAW}))(?=[\s/>]))({_ATTRIBUTES})>"
    r"([^<]*(?:<(?!/(?i:\2)[\s/>])[^<]*)*)(?:</[^>]*>)?"
    rf"|<(/?[a-zA-Z][^\s/>]*)({_ATTRIBUTES})(?:(>[^<]*)</\5>|>)"
    r"|<!--(?:-?>|.*?(?:--!?>|\Z))"
    r"|<[!?/][^>]*(?:>|\Z)"
    r"|<[a-zA-Z].*"
    r"|(<)"
    r"|\Z)",
    re.DOTALL,
)

_ATTRIBUTE = re.compile(r"""([^\s/>=]+)(?:\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]*)))?""")


def tokenize(html: str) -> Iterable[Token]:
    """The tokens of `html` in order; a long page's one at a time, for memory's sake."""
    if "\0" in html:
        html = html.replace("\0", "")
    if "\r" in html:
        html = html.replace("\r\n", "\n").replace("\r", "\n")
    if len(html) < _MANY_CHARS:
        return _TOKEN.findall(html)
    return (token.groups("") for token in _TOKEN.finditer(html))  # type: ignore[misc]


_MANY_CHARS = 4_000_000


def attribute(attributes: str, name: str) -> str | None:
    """The value of a tag's attribute as written, character references undone; None where the tag has none."""
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == name:
            return unescape(found[2] or found[3] or found[4] or "")
    return None

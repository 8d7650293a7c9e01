"""What the names that a page gives its elements (class, id, role) say about them.

The words are those that pages of all kinds use; many of them are in the lists of Readability ("unlikelyCandidates"),
jusText's and Trafilatura's rules. A word counts where a name's part begins: `nav` in `top-nav` and `navMain`, not in
`canavan`.
"""

import re
from functools import lru_cache

__all__ = ["FURNITURE", "MAYBE_FURNITURE", "PLACE", "kind_of", "kind_of_names", "names_of"]

PLACE, MAYBE_FURNITURE, FURNITURE = 1, 2, 3

_ATTRIBUTE = re.compile(r"""(?:class|id|role)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]*))""", re.IGNORECASE)
_CAMEL = re.compile(r"([a-z])([A-Z])")


def _words(*groups: str) -> re.Pattern[str]:
    """A pattern of words that begin a name's part; those with a "." end it too."""
    words = " ".join(groups).replace(".", "(?![a-z])").split()
    return re.compile(f"(?<![a-z])(?:{'|'.join(words)})")


# Around the text, whatever it holds.
_FURNITURE = (
    "nav. navbar navigation nav-?header nav-?footer navbox menus?. breadcrumb masthead footer copyright disclaimer",
    "comments?. commentlist disqus respond. repl(?:y|ies).",
    "cookies?. gdpr consent modal popup newsletter subscri",
    "related recommend trending popular outbrain taboola",
)
# Beside the text, unless a good part of it is inside: pages name their frames after what stands in them.
_MAYBE_FURNITURE = (
    "shar(?:e|ing). sharebar sharedaddy social follow. promo sponsor ads?. advert donat",
    "sign-?up log-?in. pagination pager. search toolbar dropdown tooltip dialog hide. print. noprint",
    "tags?. byline author bio. meta. captions?. credits?. rating read-?more read-?next breaking",
    "timestamp dateline dates?.",
)
# Places of a page; between paragraphs they are part of the text.
_PLACES = ("sidebar side-bar banner complementary contentinfo",)
_CERTAIN, _MAYBE = _words(*_FURNITURE), _words(*_MAYBE_FURNITURE)
_ANY = _words(*_FURNITURE, *_MAYBE_FURNITURE, *_PLACES)
_TEXT = re.compile(
    r"(?<![a-z])(?:(?:article|entry|content|post|story|body|text)-?(?:body|content|text)|hentry|maincontent|main(?![a-z]))"
)


def names_of(attributes: str) -> str:
    """The names of an element, lower-cased, their parts apart."""
    if "class" not in attributes and "id" not in attributes and "role" not in attributes:
        return ""
    found = (a or b or c for a, b, c in _ATTRIBUTE.findall(attributes))
    return _CAMEL.sub(r"\1-\2", " ".join(found)).lower()


def kind_of(attributes: str) -> int:
    """What the names of an element with these attributes call it."""
    return _kind_of(attributes) if len(attributes) < _MAX_CACHED else kind_of_names(names_of(attributes))


_MAX_CACHED = 1000  # characters


@lru_cache(maxsize=1 << 14)
def _kind_of(attributes: str) -> int:
    return kind_of_names(names_of(attributes))


def kind_of_names(names: str) -> int:
    """FURNITURE, MAYBE_FURNITURE or PLACE for an element with these names; 0 for none of them."""
    if not names or not _ANY.search(names):
        return 0
    if _CERTAIN.search(names):
        return FURNITURE
    if _TEXT.search(names):
        return 0
    return MAYBE_FURNITURE if _MAYBE.search(names) else PLACE

"""One walk over a page's tags, which gives its block-level elements and its blocks."""

from collections.abc import Callable

from pipeline.ingest.extract.blocks import Page, tag_set
from pipeline.ingest.extract.hidden import NOT_SHOWN, is_hidden
from pipeline.ingest.extract.open_elements import BLOCKS
from pipeline.ingest.extract.tokens import tokenize
from pipeline.ingest.extract.walk import Walk

__all__ = ["read_page"]


def read_page(html: str) -> Page:
    """The block-level elements and the blocks of a page.

    A page whose every text is hidden is one that a script shows: it is read as if nothing were hidden by attributes.
    """
    page = _read(html, is_hidden)
    return page if page.blocks else _read(html, _hides_nothing)


def _read(html: str, hides: Callable[[str, str], bool]) -> Page:
    walk = Walk(hides)
    add_text, parts, actions = walk.text, walk.writer.parts, _ACTIONS
    for text, raw, raw_attributes, content, name, attributes, inner, less_than in tokenize(html):
        if text and (parts or not text.isspace()):
            add_text(text)
        if name:
            action, tag = actions.get(name) or _action(name)
            action(walk, tag, attributes, inner)
        elif raw:
            walk.raw(raw.lower(), raw_attributes, content)
        elif less_than:
            add_text("<")
    walk.close()
    return walk.writer.page


def _hides_nothing(name: str, attributes: str) -> bool:
    return False


_INLINE = tag_set("span b i em strong small font u sup sub code label time")  # of the unlisted, those that abound

Action = tuple[Callable[[Walk, str, str, str], None], str]  # what a tag does, and the element's name
_ACTIONS: dict[str, Action] = {
    **{name: (Walk.block, name) for name in BLOCKS - {"hr", "dialog"}},
    **{
        f"/{name}": (Walk.end, name)
        for name in BLOCKS | NOT_SHOWN | tag_set("a button ruby math annotation annotation-xml")
    },
    **{name: (Walk.unseen, name) for name in NOT_SHOWN},
    **{name: (Walk.math, name) for name in tag_set("math annotation annotation-xml")},
    **{name: (Walk.link, name) for name in tag_set("a button")},
    **dict.fromkeys(tag_set("br /br"), (Walk.break_line, "br")),
    **{
        name: (Walk.void, name) for name in tag_set("area base basefont bgsound col embed frame input keygen link meta")
    },
    **{name: (Walk.void, name) for name in tag_set("param source track wbr /body /html")},
    **{name: (Walk.inline, name) for name in _INLINE},
    **{f"/{name}": (Walk.end_inline, name) for name in _INLINE},
    "dialog": (Walk.dialog, "dialog"),
    "ruby": (Walk.ruby, "ruby"),
    "hr": (Walk.rule, "hr"),
    "img": (Walk.image, "img"),
}


def _action(name: str) -> Action:
    """What a tag does whose name is not in the table as it is written."""
    lower = name.lower()
    if lower in _ACTIONS:
        return _ACTIONS[lower]
    return (Walk.end_inline, lower[1:]) if lower[0] == "/" else (Walk.inline, lower)

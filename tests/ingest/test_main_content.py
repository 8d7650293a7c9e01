"""Which blocks are main content, and that choosing them changes none."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.ingest.extract.charset import decode_page
from pipeline.ingest.extract.class_names import FURNITURE, MAYBE_FURNITURE, PLACE, kind_of_names, names_of
from pipeline.ingest.extract.html import extract_html
from tests.ingest.pages import sample_pages

PARAGRAPH = "The mill stands at the river, and it turns whenever the water is high enough for its wheel."


def main(html: str) -> str:
    return extract_html(html, "gristmill", main_content=True)


def lines_not_of_the_page(html: str) -> list[str]:
    """The lines of the main content that are no lines of the whole page's text."""
    lines = set(extract_html(html, "gristmill", main_content=False).split("\n"))
    return [line for line in main(html).split("\n") if line and line not in lines]


def test_every_line_of_the_samples_main_content_is_a_line_of_its_page() -> None:
    pages = sample_pages()
    assert len(pages) > 800
    assert [url for url, body, charset in pages if lines_not_of_the_page(decode_page(body, charset)[0])] == []


# Pieces of pages, sound and broken, whose text tells where it stood.
_WORDS = st.sampled_from(
    ["é", "→", "東京", "の", "和\n文", "sí", "a &amp; b", "<", "&lt;p>", "x\ny", " ", "\u00a0", PARAGRAPH]
)
_TAG_NAMES = """p div span b a li ul ol dl dt dd table tr td th pre br hr h1 h2 section article nav aside blockquote
q ruby rt math annotation button summary script style figure figcaption body"""
_TAGS = st.sampled_from(_TAG_NAMES.split())
_ATTRIBUTES = st.sampled_from(
    ["", "", "", " href=x", " hidden", " class='nav'", " style='display:none'", " class=comments"]
)
_PIECES = st.one_of(
    _WORDS,
    st.tuples(_TAGS, _ATTRIBUTES).map(lambda tag: f"<{tag[0]}{tag[1]}>"),
    _TAGS.map(lambda tag: f"</{tag}>"),
    st.tuples(_TAGS, _WORDS).map(lambda tag: f"<{tag[0]}>{tag[1]}</{tag[0]}>"),
    st.sampled_from(["<!-- c -->", "<!--", "<p class='", '">', "</", "<1>", "<img class=tex alt=x>"]),
)


@settings(max_examples=1000)
@given(st.lists(_PIECES, max_size=40).map("".join))
def test_every_line_of_a_made_pages_main_content_is_a_line_of_its_page(html: str) -> None:
    assert lines_not_of_the_page(html) == []


@given(
    st.lists(st.tuples(_WORDS.filter(lambda word: "<" not in word), st.sampled_from(["b", "a href=/", "span", "code"])))
)
def test_inline_elements_change_no_character_of_a_paragraph(pieces: list[tuple[str, str]]) -> None:
    plain = "".join(word for word, _ in pieces)
    marked = "".join(f"<{tag}>{word}</{tag.split()[0]}>" for word, tag in pieces)
    page = f"<main><p>{PARAGRAPH}<p>{{}} {PARAGRAPH}<p>{PARAGRAPH}</main>"
    assert extract_html(page.format(marked), "gristmill", main_content=False) == extract_html(
        page.format(plain), "gristmill", main_content=False
    )


def test_lists_are_kept_where_their_neighbours_are() -> None:
    for tag in ("ul", "ol"):
        page = f"<main><article><p>{PARAGRAPH}</p><{tag}><li>one<li>two</{tag}><p>{PARAGRAPH}</p></article></main>"
        mark = "• " if tag == "ul" else ""
        assert re.sub(r"\d\. ", "", main(page)) == f"{PARAGRAPH}\n\n{mark}one\n{mark}two\n\n{PARAGRAPH}"


def test_headings_that_link_to_themselves_are_kept() -> None:
    page = f"<main><p>{PARAGRAPH}<h2><a href='#grain'>Grain</a><a class=headerlink href=#grain>¶</a></h2><p>{PARAGRAPH}"
    assert main(page) == f"{PARAGRAPH}\n\nGrain¶\n\n{PARAGRAPH}"


def test_menus_footers_and_comments_are_left_out() -> None:
    page = (
        "<nav><a href=1>Home</a> <a href=2>News</a></nav><div class='site-menu'><ul><li><a href=3>Shop</a></ul></div>"
        f"<h1>The mill</h1><div class=post-body><p>{PARAGRAPH}<p>{PARAGRAPH}<h2>Grain</h2><p>{PARAGRAPH}</div>"
        f"<div class='comment-list'><p>First! {PARAGRAPH}</div><h2>More</h2><ul><li><a href=4>Other mills</a></ul>"
        "<footer><p>Copyright, imprint, contact and all the other words that a page needs to have</footer>"
    )
    assert main(page) == f"{PARAGRAPH}\n\n{PARAGRAPH}\n\nGrain\n\n{PARAGRAPH}"


def test_a_page_of_links_is_kept_but_for_its_menu() -> None:
    links = "".join(f"<li><a href={number}>Chapter {number}</a>" for number in range(1, 30))
    kept = main(f"<nav><a href=/>Home</a></nav><h1>Contents</h1><p>All chapters:</p><ul>{links}</ul>").split("\n")
    assert kept[:3] == ["Contents", "", "All chapters:"]
    assert len(kept) == 33
    assert "Home" not in kept


def test_a_table_and_a_listing_between_paragraphs_are_kept() -> None:
    page = (
        f"<article><p>{PARAGRAPH}<table><tr><th>City<th>Height<tr><td><a href=1>Quito</a><td>2850</table><p>{PARAGRAPH}"
        f"<div class=code><pre>if a:\n    b</pre></div><p>{PARAGRAPH}</article>"
    )
    assert main(page) == f"{PARAGRAPH}\n\nCity\tHeight\nQuito\t2850\n\n{PARAGRAPH}\n\nif a:\n    b\n\n{PARAGRAPH}"


def test_asides_between_paragraphs_and_forms_around_pages_are_kept() -> None:
    aside = f"<aside><p>Note: {PARAGRAPH}</aside>"
    assert main(f"<main><p>{PARAGRAPH}<p>{PARAGRAPH}{aside}<p>{PARAGRAPH}</main>").count("\n\n") == 3
    assert main(f"<main><p>{PARAGRAPH}<p>{PARAGRAPH}<p>{PARAGRAPH}</main>{aside}").count("\n\n") == 2
    assert main("<body><form action=/><h1>Hours</h1><p>Closed.</form>") == "Hours\n\nClosed."


def test_names_hide_nothing_that_most_of_the_page_is_in() -> None:
    assert main(f"<div class='comments'><p>{PARAGRAPH}<p>{PARAGRAPH}</div>") == f"{PARAGRAPH}\n\n{PARAGRAPH}"
    assert main("<div class=menu>Soup and bread</div>") == ""


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        (" class='top-nav'", FURNITURE),
        (" id=navMain", FURNITURE),
        (" class=canavan", 0),
        (' class="relatedPosts x"', FURNITURE),
        (" class=commentary", 0),
        (" class='post share'", MAYBE_FURNITURE),
        (" class='share post-content'", 0),
        (" role=complementary", PLACE),
        (" data-title='nav'", 0),
        (" title='class of 1999 menu'", 0),
    ],
)
def test_names_tell_furniture_from_text(attributes: str, kind: int) -> None:
    assert kind_of_names(names_of(attributes)) == kind

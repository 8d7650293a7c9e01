"""Two texts as one with their differences marked."""

import re

from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.difference import mark_difference


def test_only_what_differs_is_marked() -> None:
    assert mark_difference("the old mill turns", "the new mill turns") == "the<del> old</del><ins> new</ins> mill turns"
    assert mark_difference("同じ文です", "同じ句です") == "同じ<del>文</del><ins>句</ins>です"


def test_long_equal_text_is_left_out_and_markup_is_escaped() -> None:
    marked = mark_difference("<i> " + "x " * 200 + "old", "<i> " + "x " * 200 + "new")
    assert marked.startswith("…")
    assert marked.endswith("<del> old</del><ins> new</ins>")
    assert len(marked) < 200
    assert "<script>" not in mark_difference("<script>", "<script>alert(1)</script>")


@given(st.text(alphabet="ab \n<&", max_size=40), st.text(alphabet="ab \n<&", max_size=40))
def test_each_text_can_be_read_from_the_marked_one(old: str, new: str) -> None:
    import html

    marked = mark_difference(old, new)
    if old == new:
        return
    before = html.unescape(re.sub("<ins>.*?</ins>|</?del>", "", marked, flags=re.S))
    after = html.unescape(re.sub("<del>.*?</del>|</?ins>", "", marked, flags=re.S))
    assert (before, after) == (old, new)

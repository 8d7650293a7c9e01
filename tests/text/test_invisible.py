import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.edits import apply_edits, text_buffers
from pipeline.text.invisible import delete_invisible
from tests.measure.measuring import CHINESE, RUSSIAN, column


def cleaned(*texts: str) -> list[str]:
    stored = column(*texts)
    edited: list[str] = apply_edits(stored, delete_invisible(*text_buffers(stored))).to_pylist()
    return edited


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("in\u00adter\u00adna\u00adtion\u00adal", "international"),
        ("\u00ada\u00ad\u00ad\u200bb\u00ad", "ab"),
        ("\ufeffBOM and\u2060 joiner", "BOM and joiner"),
        ("example.com/\u200bpath", "example.com/path"),
        ("zero\u200bwidth", "zerowidth"),
        ("ภาษา\u200bไทย", "ภาษา\u200bไทย"),
        ("ភាសា\u200bខ្មែរ", "ភាសា\u200bខ្មែរ"),
        ("word\u200cbreak \u200d x\u200d1", "wordbreak \u200d x1"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क्\u200dष", "क्\u200dष"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("слов\u00adо", "слово"),
        ("", ""),
        ("\u00ad", ""),
    ],
)
def test_invisible_characters_go_where_they_mean_nothing(text: str, left: str):
    assert cleaned(text) == [left]


@pytest.mark.parametrize("text", ["plain", RUSSIAN, CHINESE, "naïve “quotes” – and…"])
def test_a_text_without_them_has_no_edit(text: str):
    assert len(delete_invisible(*text_buffers(column(text))).flatten()) == 0


@settings(deadline=None)
@given(st.lists(st.text(alphabet="aé ไ東\u00ad\u200b\u200c\u200d\u2060\ufeffम😀\n")))
def test_only_invisible_characters_are_deleted_and_nothing_is_left_to_delete(texts: list[str]):
    once = cleaned(*texts)
    for text, left in zip(texts, once, strict=True):
        assert re.sub("[\u00ad\u200b-\u200d\u2060\ufeff]", "", left) == re.sub(
            "[\u00ad\u200b-\u200d\u2060\ufeff]", "", text
        )
        assert not re.search("[\u00ad\u2060\ufeff]", left)
    assert cleaned(*once) == once
    assert once == [cleaned(text)[0] for text in texts]

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measure.minhash.sign import sign
from pipeline.text.edits import apply_edits, text_buffers
from pipeline.text.lines import lined_texts
from pipeline.text.utf8 import TABLE
from pipeline.text.word_tokenizer import decode_text
from schemas.recipe import C4Lines, Edits, Minhash
from tests.measure.measuring import CHINESE, RUSSIAN, column, measure

ENDS = ["\n", "\r\n", "\r", "\x85", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]
BLANKS = ["", " ", "   ", "\t", "\xa0", "\u3000", "\u2009 ", "\x1f"]
LINES = st.lists(
    st.sampled_from(
        [
            *("It was the best of times, it was the worst of times.", "menu", "• home", "- more...", "and so on…"),
            *(
                "one {bracket} in it.",
                "We use cookies to follow you around.",
                "A note[1] of it. [2]",
                "mail a@b.test now.",
            ),
            *("", "", "東京の地図です。", "Lorem ipsum dolor.", RUSSIAN, CHINESE, "    indented() # code", "x"),
        ]
    )
    | st.text(max_size=12).map(lambda text: re.sub(r"\s", "_", text)),
    max_size=14,
)
RECIPES = [Edits(), Edits(c4=C4Lines()), Edits(c4=C4Lines(end_mark=False, min_words=0), mask=["email", "ip"])]


def slowly(text: str) -> str:
    """Normalized line ends, as Python has them."""
    return "\n".join(line.rstrip() for line in re.split("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", text))


def verdict(text: str, edits: Edits) -> dict[str, object]:
    """All that is decided from: every signal, the language, the normalized final text, and its signature."""
    batch = measure(edits, column(text))
    row = batch.to_pylist()[0]
    final = apply_edits(column(text), batch["edits"])[0].as_py()
    decided = {name: row[name] for name in row if "." in name or name in ("language", "signature")}
    return decided | {"final": slowly(final)}


def _lined(text: str) -> str:
    data, offsets = lined_texts(*text_buffers(column(text)))
    return data[offsets[0] : offsets[1]].tobytes().decode()


@settings(deadline=None, max_examples=60)
@given(LINES, st.data(), st.sampled_from(RECIPES))
def test_a_verdict_does_not_depend_on_line_ends_and_blanks_before_them(
    lines: list[str], data: st.DataObject, edits: Edits
):
    other, before = "", ""
    for line in lines:
        end = data.draw(st.sampled_from(ENDS))
        blank = data.draw(st.sampled_from(BLANKS))
        # A carriage return and a line feed that meet would be one end.
        blank = blank or (" " if before == "\r" and not line and end == "\n" else "")
        other, before = other + line + blank + end, end
    assert verdict(other, edits) == verdict("".join(line + "\n" for line in lines), edits)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("blank", BLANKS)
def test_each_end_and_blank_is_read_as_one_line_feed(end: str, blank: str):
    assert _lined(f"one{blank}{end}{blank}{end}two{blank}") == "one\n\ntwo"


@settings(deadline=None)
@given(st.lists(st.text(alphabet="aé東😀 \t\xa0\u3000\u2009\x1f\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=4))
def test_bytes_and_code_points_follow_the_same_law(texts: list[str]):
    data, offsets = text_buffers(column(*texts))
    lined, bounds = lined_texts(data, offsets)
    for text in range(len(texts)):
        start, end = offsets[text], offsets[text + 1]
        points, flags = np.empty(end - start + 1, np.int32), np.empty(end - start + 1, np.uint16)
        size = decode_text(data, start, end, TABLE, points, flags, np.empty(0, np.int32))
        assert "".join(map(chr, points[:size])) == slowly(texts[text])
        assert lined[bounds[text] : bounds[text + 1]].tobytes().decode() == slowly(texts[text])


def test_a_text_that_follows_the_law_is_not_copied():
    data, offsets = text_buffers(column("one\ntwo\n\n東京\n", ""))
    assert lined_texts(data, offsets)[0] is data


def test_signatures_do_not_depend_on_line_ends():
    text = "\n".join(["It was the best of times,", "it was the worst of times,", "it was the age of wisdom"])
    other = text.replace("\n", "\u2028 \r\n")
    first, _ = sign(*text_buffers(column(text)), Minhash())
    assert np.array_equal(first, sign(*text_buffers(column(other)), Minhash())[0])

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measure.c4_lines import rewrite_lines
from pipeline.text.edits import apply_edits, make_edits, text_buffers
from schemas.recipe import C4Lines, Edits
from tests.measure.measuring import column, drops, final_text, measured

C4 = Edits(c4=C4Lines())
FINEWEB = Edits(c4=C4Lines(end_mark=False))


def only(**lines: object) -> Edits:
    """C4's rewriting with one of its tests."""
    off = {
        "end_mark": False,
        "min_words": 0,
        "max_word_chars": 0,
        "citations": False,
        "javascript": False,
        "policies": False,
    }
    return Edits(c4=C4Lines(**{**off, **lines}))  # type: ignore[arg-type]


def rewritten(text: str, lines: C4Lines) -> str:
    """The rewriting as datatrove 0.10 does it, line by line on strings."""
    kept = []
    for line in map(str.strip, text.splitlines()):
        words = line.split()
        if lines.max_word_chars and any(len(word) > lines.max_word_chars for word in words):
            continue
        if lines.citations:
            line = re.sub(r"\[[0-9]*]|\[edit]|\[citation needed]", "", line)
        if lines.end_mark and (not line.endswith((".", "?", "!", '"', "'")) or line.endswith("...")):
            continue
        if len(words) < lines.min_words:
            continue
        if lines.javascript and "javascript" in line.lower():
            continue
        phrases = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
        if lines.policies and any(phrase in line.lower() for phrase in phrases):
            continue
        kept.append(line)
    return "\n".join(kept).strip()


PIECES = st.sampled_from(
    [
        *("A line of text.", "no end", "two words.", "We use Cookies here.", "JavaScript is off!", "x" * 12, '"', "{"),
        *("[1]", "[edit]", "[]", "[12", "citation needed]", "...", "é", "漢字。"),
        *(" ", "\t", "\u3000", "\n", "\n\n", "\r\n", "\r", "\u2028"),
    ]
)
OPTIONS = st.builds(
    C4Lines,
    end_mark=st.booleans(),
    min_words=st.sampled_from([0, 1, 3]),
    max_word_chars=st.sampled_from([0, 11]),
    citations=st.booleans(),
    javascript=st.booleans(),
    policies=st.booleans(),
)


@settings(deadline=None)
@given(st.lists(PIECES, max_size=20).map("".join), OPTIONS)
def test_edits_rewrite_a_text_as_datatrove_does(text: str, lines: C4Lines):
    texts = column(text)
    edits, firsts, _ = rewrite_lines(*text_buffers(texts), lines)
    assert apply_edits(texts, make_edits(firsts, *edits.T))[0].as_py() == rewritten(text, lines)


@pytest.mark.parametrize(
    ("edits", "below", "at"),
    [
        (only(min_words=3), "one two", "one two three"),
        (only(max_word_chars=10), "x" * 11 + " y", "x" * 10 + " y"),
        (only(end_mark=True), "no end", "an end."),
        (only(end_mark=True), "an end...", "an end!.."),
        (only(javascript=True), "Enable JAVASCRIPT now", "Enable java script now"),
        (only(policies=True), "our Privacy Policy", "our private policy"),
    ],
)
def test_a_line_is_dropped_for_its_fault_alone(edits: Edits, below: str, at: str):
    assert final_text(f"The first line.\n{below}\nThe last line.", edits) == "The first line.\nThe last line."
    assert final_text(f"The first line.\n{at}\nThe last line.", edits) == f"The first line.\n{at}\nThe last line."


def test_citations_go_and_other_brackets_stay():
    text = "One[1] two[edit] three[citation needed] four[] five[a] six[2"
    assert final_text(text, only(citations=True)) == "One two three four five[a] six[2"


def test_the_newline_between_kept_lines_is_the_one_of_the_text():
    edits = measured("A first good line.\nbad\nA last good line.\r\n", C4)["edits"]
    assert edits == [
        {"start": 19, "length": 4, "replacement": 0},
        {"start": 40, "length": 2, "replacement": 0},
    ]
    assert measured("A first good line.\u2028A last good line.", C4)["edits"] == [
        {"start": 18, "length": 3, "replacement": 1}
    ]


@pytest.mark.parametrize(("sentences", "dropped"), [(4, True), (5, False), (6, False)])
def test_too_few_sentences(sentences: int, dropped: bool):
    assert drops("c4.too_few_sentences", "This is one. " * sentences, C4) is dropped
    assert drops("c4.too_few_sentences", "This is a line of it\n" * sentences, FINEWEB) is dropped


def test_sentences_end_at_full_stops_that_are_no_abbreviation():
    assert measured('Dr. No said: "Go!" He (Mr. Bond) went... on.')["c4.num_sentences"] == 2
    assert measured("这是一句。这是二句？三")["c4.num_sentences"] == 3
    assert measured("यह एक है। यह दो है।")["c4.num_sentences"] == 2


@pytest.mark.parametrize(
    ("text", "dropped"), [("a few words.", False), ("a few {words.", True), ("a few {{words}}.", True)]
)
def test_curly_bracket(text: str, dropped: bool):
    assert drops("c4.curly_bracket", text, C4) is dropped
    assert drops("c4.curly_bracket", text) is dropped


def test_a_bracket_in_a_line_that_was_dropped_before_is_not_seen():
    assert not drops("c4.curly_bracket", "a { without an end", C4)
    assert drops("c4.curly_bracket", "a { without an end", FINEWEB)
    assert not drops("c4.curly_bracket", "javascript: { return 1; } is code.", C4)
    assert drops("c4.curly_bracket", "the privacy policy { of braces.", C4)


@pytest.mark.parametrize(("text", "dropped"), [("Lorem upsum it is.", False), ("So LOREM Ipsum it is.", True)])
def test_lorem_ipsum(text: str, dropped: bool):
    assert drops("c4.lorem_ipsum", text, C4) is dropped


def test_an_empty_text_has_no_sentence():
    row = measured("", C4)
    assert (row["c4.num_sentences"], row["c4.num_curly_brackets"], row["c4.num_lorem_ipsum"], row["edits"]) == (
        0,
        0,
        0,
        [],
    )


def test_a_text_of_which_nothing_is_left_is_one_deletion():
    row = measured("two words\nof it", C4)
    assert row["edits"] == [{"start": 0, "length": 15, "replacement": 0}]
    assert row["num_bytes"] == 0


def test_words_of_other_scripts_are_what_stands_between_spaces():
    assert final_text("道可道，非常道.\nслово два три.", C4) == "слово два три."

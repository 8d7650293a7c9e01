import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.recipe import C4Lines, Edits
from tests.measure.measuring import drops, measured


@pytest.mark.parametrize(("ends", "dropped"), [(2, True), (3, False), (4, False)])
def test_too_few_end_marks(ends: int, dropped: bool):
    assert measured("\n".join(["end."] * ends + ["no end"] * (25 - ends)))["fineweb.end_mark_fraction"] == ends / 25
    assert drops("fineweb.too_few_end_marks", "\n".join(["end."] * ends + ["no end"] * (25 - ends))) is dropped


def test_blanks_after_the_mark_and_blank_lines_do_not_count():
    assert measured("one. \n\n \ntwo.\nthree。\n四؟\nfive")["fineweb.end_mark_fraction"] == 4 / 5


@pytest.mark.parametrize(("short", "dropped"), [(66, False), (67, False), (68, True)])
def test_too_many_short_lines(short: int, dropped: bool):
    text = "\n".join(["x" * 30] * short + ["x" * 31] * (100 - short))
    assert drops("fineweb.too_many_short_lines", text) is dropped


def test_the_length_of_a_line_is_in_characters():
    assert measured("д" * 30)["fineweb.short_line_fraction"] == 1
    assert measured("д" * 31)["fineweb.short_line_fraction"] == 0


@pytest.mark.parametrize(("characters", "dropped"), [(9, False), (10, False), (11, True)])
def test_too_many_repeated_characters(characters: int, dropped: bool):
    text = f"{'a' * characters}\n{'b' * (1000 - 2 * characters)}\n{'a' * characters}"
    assert measured(text)["fineweb.repeated_character_fraction"] == characters / 1000
    assert drops("fineweb.too_many_repeated_characters", text) is dropped


@pytest.mark.parametrize(("newlines", "dropped"), [(2, False), (3, False), (4, True)])
def test_too_many_newlines(newlines: int, dropped: bool):
    assert drops("fineweb.too_many_newlines", "word " * 10 + "\n" * newlines) is dropped


def test_a_blank_text_is_dropped_for_its_end_marks_and_all_its_signals_are_zero():
    for text in ("", " ", "\u3000"):
        row = measured(text)
        assert {row[name] for name in row if name.startswith("fineweb.")} == {0.0}
        assert drops("fineweb.too_few_end_marks", text)


def test_what_c4_has_left_is_measured():
    text = "menu\nhome\nOne good line is left over.\n"
    assert measured(text)["fineweb.short_line_fraction"] == 1
    assert measured(text)["fineweb.newline_ratio"] == 3 / 9
    assert measured(text, Edits(c4=C4Lines()))["fineweb.newline_ratio"] == 0


@settings(deadline=None)
@given(st.text(alphabet="ab. \n", max_size=60))
def test_signals_are_what_the_slow_way_gives(text: str):
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    lines = [line for line in text.split("\n") if line.strip()]
    seen: set[str] = set()
    copies = [line for line in lines if line in seen or seen.add(line)]  # type: ignore[func-returns-value]
    row = measured(text)
    assert row["fineweb.end_mark_fraction"] == sum(line.endswith(".") for line in lines) / max(len(lines), 1)
    assert row["fineweb.repeated_character_fraction"] == sum(map(len, copies)) / max(len(text.replace("\n", "")), 1)

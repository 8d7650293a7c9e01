import pytest

from tests.measure.measuring import CHINESE, RUSSIAN, drops, measured

STOPS = "the be to of and that have with"


def signal(name: str, text: str) -> float:
    return measured(text)[f"gopher.{name}"]


@pytest.mark.parametrize(("words", "dropped"), [(49, True), (50, False), (51, False)])
def test_too_few_words(words: int, dropped: bool):
    # Punctuation by itself is no word.
    assert drops("gopher.too_few_words", "word, " * words) is dropped


@pytest.mark.parametrize(("words", "dropped"), [(99_999, False), (100_000, False), (100_001, True)])
def test_too_many_words(words: int, dropped: bool):
    assert drops("gopher.too_many_words", "w " * words) is dropped


@pytest.mark.parametrize(("text", "dropped"), [("ab abc", True), ("abc ab abcd", False), ("abcd", False)])
def test_words_too_short(text: str, dropped: bool):
    assert drops("gopher.words_too_short", text) is dropped


@pytest.mark.parametrize(("text", "dropped"), [("a" * 9, False), ("a" * 10, False), (f"{'a' * 10} {'a' * 11}", True)])
def test_words_too_long(text: str, dropped: bool):
    assert drops("gopher.words_too_long", text) is dropped


@pytest.mark.parametrize(("hashes", "dropped"), [(1, False), (2, False), (3, True)])
def test_too_many_hashes(hashes: int, dropped: bool):
    # Twenty tokens, of which some have a "#" inside.
    assert signal("hash_ratio", "C#d " * hashes + "word " * (20 - hashes)) == hashes / 20
    assert drops("gopher.too_many_hashes", "C#d " * hashes + "word " * (20 - hashes)) is dropped


@pytest.mark.parametrize(("ellipses", "dropped"), [(1, False), (2, False), (3, True)])
def test_too_many_ellipses(ellipses: int, dropped: bool):
    text = "... " * (ellipses - 1) + "… " + "word " * (20 - ellipses)
    assert drops("gopher.too_many_ellipses", text) is dropped


def test_six_full_stops_are_two_ellipses_and_five_are_one():
    assert signal("ellipsis_ratio", "a ......") == 2 / 2
    assert signal("ellipsis_ratio", "a .....") == 1 / 2


@pytest.mark.parametrize(("bullets", "dropped"), [(8, False), (9, False), (10, True)])
def test_too_many_bullets(bullets: int, dropped: bool):
    lines = ["  • one", "- two"] * 5
    assert drops("gopher.too_many_bullets", "\n".join(lines[:bullets] + ["plain"] * (10 - bullets))) is dropped


@pytest.mark.parametrize(("ends", "dropped"), [(2, False), (3, False), (4, True)])
def test_too_many_end_ellipses(ends: int, dropped: bool):
    lines = ["more... ", "more…"] * 5
    assert drops("gopher.too_many_end_ellipses", "\n".join(lines[:ends] + ["plain."] * (10 - ends))) is dropped


@pytest.mark.parametrize(("letters", "dropped"), [(7, True), (8, False), (9, False)])
def test_too_few_alphabetic_words(letters: int, dropped: bool):
    assert drops("gopher.too_few_alphabetic_words", "a1 " * letters + "12 " * (10 - letters)) is dropped


@pytest.mark.parametrize(("text", "dropped"), [("The the THE", True), ("the of", False), (STOPS, False)])
def test_too_few_stop_words(text: str, dropped: bool):
    assert drops("gopher.too_few_stop_words", text) is dropped


def test_lines_are_those_of_splitlines():
    text = "- a\r\n- b\x0b- c\u2028d\n\n"
    assert len(text.splitlines()) == 5
    assert signal("bullet_line_fraction", text) == 3 / 5


def test_an_empty_text_is_dropped_for_its_words_and_all_its_signals_are_zero():
    row = measured("")
    assert {row[name] for name in row if name.startswith("gopher.")} == {0.0}
    assert drops("gopher.too_few_words", "")
    assert drops("gopher.too_few_words", " \n ")


def test_other_scripts_are_counted_in_characters():
    # Thirteen words twice; "по-своему" is two of them, and the hyphen a token that is no word.
    assert signal("num_words", RUSSIAN) == 26
    assert signal("mean_word_length", "Вася ест") == 3.5
    assert signal("alphabetic_token_fraction", "Вася ест 5 яблок") == 0.75
    assert signal("num_words", CHINESE) == 24
    assert drops("gopher.words_too_short", CHINESE)  # each character is a word

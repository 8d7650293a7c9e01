import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.text.damage import damage_counts
from pipeline.text.edits import text_buffers
from tests.measure.measuring import CHINESE, RUSSIAN, column

FRENCH = "L’été dernier, à la fête de l’île, « CAFÉ » et « MARCHÉ »… À Noël : où ça ? ÎLE – ÂGE"
JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"
SOUND = [FRENCH, CHINESE, RUSSIAN, JAPANESE, "Ångström – Ä, Ö und Ü; ESPAÑOL, São Paulo", "日本語のテキスト", "×2 Å»"]


def damage(text: str) -> tuple[int, int]:
    (row,) = damage_counts(*text_buffers(column(text))).tolist()
    return row[0], row[1]


@pytest.mark.parametrize("text", SOUND)
def test_a_sound_text_has_no_damage(text: str):
    assert damage(text) == (0, 0)


@pytest.mark.parametrize(
    ("text", "written", "read"),
    [
        (FRENCH, "utf-8", "cp1252"),
        (RUSSIAN, "utf-8", "cp1252"),
        (CHINESE, "utf-8", "cp1252"),
        (CHINESE, "gb18030", "cp1252"),
        (RUSSIAN, "cp1251", "cp1252"),
        (JAPANESE, "utf-8", "cp932"),
    ],
)
def test_a_text_read_in_the_wrong_encoding_is_full_of_pairs(text: str, written: str, read: str):
    beyond = sum(char > "\x7f" for char in text)
    assert damage(text.encode(written).decode(read, "replace"))[1] * 3 > beyond


def test_what_could_not_be_read_is_counted():
    assert damage("caf\ufffd \ufffd\ufffd") == (3, 0)
    assert damage("") == (0, 0)
    assert damage("Ã©t â€™ ÖÐ¹ú") == (0, 4)


@settings(deadline=None)
@given(st.lists(st.text(), max_size=4))
def test_the_counts_of_a_text_do_not_depend_on_its_neighbours(texts: list[str]):
    counts = damage_counts(*text_buffers(column(*texts)))
    assert [tuple(row) for row in counts.tolist()] == [damage(text) for text in texts]

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measure.minhash.words import word_hashes, words
from pipeline.text.edits import text_buffers
from tests.measure.measuring import column


def split(*texts: str) -> list[list[str]]:
    data, offsets = text_buffers(column(*texts))
    starts, ends, firsts = words(data, offsets)
    found = [data[start:end].tobytes().decode() for start, end in zip(starts, ends, strict=True)]
    return [found[firsts[i] : firsts[i + 1]] for i in range(len(texts))]


def hashes(text: str) -> list[int]:
    return word_hashes(*text_buffers(column(text)))[0].tolist()


def test_words_are_runs_of_letters_numbers_and_underscores():
    assert split("Hello, wörld_1!", "", "3.5 don't") == [["Hello", "wörld_1"], [], ["3", "5", "don", "t"]]


def test_letters_of_scripts_without_spaces_are_words_by_themselves():
    assert split("abc漢字カナ한국어 ภา") == [["abc", "漢", "字", "カ", "ナ", "한국어", "ภ", "า"]]


def test_a_mark_stays_with_its_word_and_begins_none():
    assert split("cafe\u0301s ที่ \u0301 ☃\ufe0f") == [["cafe\u0301s", "ที่"]]


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="ascii")))
def test_ascii_words_are_those_of_a_regular_expression(text: str):
    assert split(text) == [re.findall(r"\w+", text)]


@settings(deadline=None)
@given(st.lists(st.text()))
def test_a_batch_is_its_texts_one_by_one(texts: list[str]):
    assert split(*texts) == [split(text)[0] for text in texts]


def test_hashes_ignore_case_and_tell_words_apart():
    assert hashes("STRASSE Éa Ж") == hashes("strasse éa ж")
    many = hashes(" ".join(f"w{i} {i}w" for i in range(20_000)))
    assert len(set(many)) == 40_000
    assert hashes("ab ba")[0] != hashes("ab ba")[1]


def test_hashes_are_the_same_for_ever():
    # Signatures of datasets on disk depend on them.
    assert [f"{h:016x}" for h in hashes("the 漢 naïve_1")] == [
        "7959cc4ab0cca9a5",
        "74b79089f5f09eef",
        "4130a28df26da251",
    ]


def test_a_slice_of_a_column_is_measured_by_itself():
    data, offsets = text_buffers(column("one two", "three", "four five six").slice(1, 2))
    found, firsts = word_hashes(data, offsets)
    assert firsts.tolist() == [0, 1, 4]
    assert np.array_equal(found, hashes("three four five six"))

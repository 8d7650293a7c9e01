import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measure.built_in import PUBLISHED_RULES
from tests.measure.measuring import CHINESE, drops, measured


def copies(segments: list[str]) -> tuple[int, int]:
    """Segments after the first of their kind, and their characters."""
    seen: set[str] = set()
    repeated = [segment for segment in segments if segment in seen or seen.add(segment)]  # type: ignore[func-returns-value]
    return len(repeated), sum(map(len, repeated))


def top_characters(words: list[str], n: int) -> int:
    grams = Counter(" ".join(words[i : i + n]) for i in range(len(words) - n + 1))
    return max((len(gram) * count for gram, count in grams.most_common(1)), default=0)


def duplicate_characters(words: list[str], n: int) -> int:
    seen, characters, i = set(), 0, 0
    while i <= len(words) - n:
        gram = tuple(words[i : i + n])
        if gram in seen:
            characters += len("".join(gram))
            i += n
        else:
            seen.add(gram)
            i += 1
    return characters


@settings(deadline=None)
@given(st.text(alphabet="ab \n", max_size=60))
def test_signals_are_what_the_slow_way_gives(text: str):
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    row, size, words = measured(text), max(len(text), 1), text.split()
    paragraphs, lines = re.split(r"\n{2,}", text.strip()), re.split(r"\n+", text)
    expected = {
        "duplicate_paragraph_fraction": copies(paragraphs)[0] / len(paragraphs),
        "duplicate_paragraph_character_fraction": copies(paragraphs)[1] / size,
        "duplicate_line_fraction": copies(lines)[0] / len(lines),
        "duplicate_line_character_fraction": copies(lines)[1] / size,
        **{f"top_{n}_gram_character_fraction": top_characters(words, n) / size for n in (2, 3, 4)},
        **{f"duplicate_{n}_gram_character_fraction": duplicate_characters(words, n) / size for n in range(5, 11)},
    }
    assert {name: row[f"gopher.{name}"] for name in expected} == expected


@pytest.mark.parametrize(("repeated", "dropped"), [(2, False), (3, False), (4, True)])
@pytest.mark.parametrize(
    ("rule", "newlines"),
    [("gopher.too_many_duplicate_lines", "\n"), ("gopher.too_many_duplicate_paragraphs", "\n\n")],
)
def test_too_many_copies(rule: str, newlines: str, repeated: int, dropped: bool):
    # Ten lines or paragraphs; the first of a kind is no copy.
    segments = ["same"] * (repeated + 1) + [f"other {i}" for i in range(9 - repeated)]
    assert drops(rule, newlines.join(segments)) is dropped


@pytest.mark.parametrize(("extra", "dropped"), [(-1, True), (0, False), (1, False)])
@pytest.mark.parametrize(
    ("rule", "newlines"),
    [
        ("gopher.too_many_duplicate_line_characters", "\n"),
        ("gopher.too_many_duplicate_paragraph_characters", "\n\n"),
    ],
)
def test_too_many_characters_of_copies(rule: str, newlines: str, extra: int, dropped: bool):
    # 20 of 100 characters, or one more or less, are in the second of two lines that are the same.
    text = newlines.join(["y" * 20, "y" * 20, "x" * (60 - 2 * len(newlines) + extra)])
    assert measured(text)[PUBLISHED_RULES[rule].signal] == 20 / (100 + extra)
    assert drops(rule, text) is dropped


@pytest.mark.parametrize("n", [2, 3, 4])
def test_too_many_of_one_ngram(n: int):
    rule = PUBLISHED_RULES[f"gopher.too_many_top_{n}_grams"]
    phrase = " ".join("abcd"[:n])
    others = " ".join(f"w{i}" for i in range(40))
    text = f"{phrase} {phrase} {phrase} {others}"
    value = 3 * len(phrase) / len(text)
    assert measured(text)[rule.signal] == value
    assert not drops(rule.name, text)
    assert drops(rule.name, f"{phrase} " * 9 + "one two three")


@pytest.mark.parametrize("n", [5, 6, 7, 8, 9, 10])
def test_too_many_repeated_ngrams(n: int):
    rule = PUBLISHED_RULES[f"gopher.too_many_duplicate_{n}_grams"]
    phrase = " ".join("abcdefghij"[:n])
    threshold = float(rule.threshold)
    size = 100 * n // round(100 * threshold)  # in a text of so many characters, n are the threshold or just above it
    text = f"{phrase} {phrase} {'x' * (size - 2 * len(phrase) - 2)}"
    assert len(text) == size
    assert measured(text)[rule.signal] == n / size
    assert drops(rule.name, text) is (n / size > threshold)
    assert not drops(rule.name, text + "x")
    assert drops(rule.name, text[:-1])


def test_empty_text_is_not_repetitive():
    assert not any(drops(name, "") for name in PUBLISHED_RULES if "duplicate" in name or "_grams" in name)


def test_a_chinese_phrase_said_twice_is_found():
    assert measured(CHINESE)["gopher.duplicate_5_gram_character_fraction"] == 0
    assert drops("gopher.too_many_duplicate_5_grams", CHINESE + CHINESE)

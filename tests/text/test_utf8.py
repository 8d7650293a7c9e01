import sys
import unicodedata

import numpy as np
import pytest

from pipeline.text import utf8
from pipeline.text.utf8 import (
    ALONE,
    JOINER,
    LETTER,
    LINE_END,
    LOWER_OR_UNCASED,
    SPACE,
    SYMBOL,
    TABLE,
    TERMINAL,
    UPPER_OR_UNCASED,
    WORD,
    decode,
)


def number(char: str) -> int:
    point = ord(char)
    return int(TABLE.classes[int(TABLE.blocks[point >> 7]) << 7 | point & 127])


def flags(char: str) -> int:
    return int(TABLE.flags[number(char)])


def test_each_class_has_its_characters():
    for char in "aZ9_éЖ漢かअ":
        assert flags(char) & WORD, char
    for char in "\u0301\u200d\u0e31":
        assert flags(char) & JOINER, char
        assert not flags(char) & WORD, char
    for char in "漢々〇かカｶกກកက":
        assert flags(char) & ALONE, char
    for char in "aЖ한अ。1":
        assert not flags(char) & ALONE, char
    for char in " \t\n\u00a0\u3000\u2028":
        assert flags(char) & SPACE, char
    for char in "\n\r\v\f\x1c\x85\u2028\u2029":
        assert flags(char) & LINE_END, char
    assert not flags("\t") & LINE_END
    for char in ".!?。؟।":
        assert flags(char) & TERMINAL, char
        assert flags(char) & SYMBOL, char
    assert not flags(",") & TERMINAL
    assert not flags("•") & SYMBOL  # datatrove holds a bullet for a word
    assert flags("A") & UPPER_OR_UNCASED
    assert not flags("A") & LOWER_OR_UNCASED
    assert flags("漢") & UPPER_OR_UNCASED
    assert flags("漢") & LOWER_OR_UNCASED


def test_every_code_point_of_the_shipped_version_is_classed_as_unicode_says():
    with np.load(str(utf8.files("pipeline.assets") / utf8.ASSET)) as arrays:
        version = str(arrays["unicode_version"])
    if unicodedata.unidata_version != version:
        pytest.skip(f"the table is of Unicode {version}, this interpreter of {unicodedata.unidata_version}")
    points = np.arange(sys.maxunicode + 1)
    found = TABLE.flags[TABLE.classes[TABLE.blocks[points >> 7].astype(np.int64) << 7 | points & 127]]
    assert np.array_equal(found & LETTER > 0, [chr(point).isalpha() for point in points])
    assert np.array_equal(found & SPACE > 0, [chr(point).isspace() for point in points])


def test_lower_case_is_one_to_one():
    def lower(char: str) -> str:
        return chr(ord(char) + int(TABLE.lower[number(char)]))

    assert [lower(char) for char in "AÉЖΣİ漢aﬀ1"] == list("aéжσi漢aﬀ1")


@pytest.mark.parametrize("char", ["a", "é", "漢", "😀", "\u07ff", "\u0800", "\uffff", "\U0010ffff"])
def test_decode_reads_utf_8_of_every_length(char: str):
    data = np.frombuffer(f"x{char}y".encode(), np.uint8)
    assert decode.py_func(data, 1) == (ord(char), len(data) - 1)

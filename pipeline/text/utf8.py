"""Character classes and lower-casing, from a table that ships with us.

The interpreter's Unicode version differs from Python to Python, and with it `str.isalpha` and `str.lower`; counts
must not. So the classes of all code points lie in `pipeline/assets/characters.npz`, made once from Unicode 14.0 by

    python -m pipeline.text.utf8

and read as a two-stage table: `classes[blocks[c >> 7] << 7 | c & 127]` is the class of code point c, and `flags` and
`lower` hold what a class means. It takes about 40 KB, so it stays in the processor's cache.
"""

import unicodedata
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from pipeline.numba_kernels import njit, typeof, types

__all__ = [
    "ALONE",
    "BYTES",
    "CURRENCY",
    "CUT",
    "ICON",
    "INDEXES",
    "JOINER",
    "LETTER",
    "LINE_END",
    "LOWER_OR_UNCASED",
    "MARK_P",
    "QUOTE",
    "SPACE",
    "SYMBOL",
    "TABLE",
    "TABLE_TYPE",
    "TERMINAL",
    "TRIMMED",
    "UPPER_OR_UNCASED",
    "WORD",
    "Table",
    "decode",
]

ASSET = "characters.npz"

# One bit a class; a code point may be of several.
WORD = 1 << 0  # letter, number or underscore: may begin and continue a word (\w)
JOINER = 1 << 1  # combining mark or zero-width (non-)joiner: continues a word, never begins one
ALONE = 1 << 2  # letter of a script written without spaces: a word by itself
SPACE = 1 << 3  # str.isspace
LINE_END = 1 << 4  # str.splitlines ends a line here
LETTER = 1 << 5  # category L: str.isalpha
UPPER_OR_UNCASED = 1 << 6  # a letter that is upper-case, or has no case
LOWER_OR_UNCASED = 1 << 7  # a letter that is lower-case, or has no case
SYMBOL = 1 << 8  # a token of these alone is not a word (datatrove's punctuation list)
TERMINAL = 1 << 9  # ends a sentence (Unicode property Sentence_Terminal)
MARK_P = 1 << 10  # category P: punctuation
TRIMMED = 1 << 11  # split off both ends of a token (spaCy's punctuation, quotes and icons)
QUOTE = 1 << 12  # spaCy's quotes, after which a full stop may be split off
ICON = 1 << 13  # category So: emoji and other symbols; a token by itself
CURRENCY = 1 << 14  # category Sc
CUT = 1 << 15  # of no code point: set where a token begins (word_tokenizer.py)

# Scripts written without spaces between words, whose words only a dictionary would find.
SCRIPTS_WITHOUT_SPACES = (
    "CJK UNIFIED IDEOGRAPH-",
    "CJK COMPATIBILITY IDEOGRAPH-",
    "IDEOGRAPHIC ",
    "HIRAGANA ",
    "KATAKANA",
    "HALFWIDTH KATAKANA",
    "THAI ",
    "LAO ",
    "KHMER ",
    "MYANMAR ",
)

# Unicode's PropList.txt, property Sentence_Terminal, version 15.1: the set that FineWeb's line rule names.
SENTENCE_TERMINAL = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736 17D4-17D6 "
    "17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049 "
    "2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB "
    "FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 "
    "111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 "
    "1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 "
    "16B37-16B38 16B44 16E98 1BC9F 1DA88 "
)

# datatrove 0.10, utils/text.py: what its Gopher rules hold for no word; controls and Sentence_Terminal join below.
# Differs: without the full-width digit 1, which stands in that list by mistake.
SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．：；？～"

# spaCy 3.8, lang/char_classes.py: characters that its tokenizer splits off at both ends of a token.
QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧"
PUNCTUATION = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"

BYTES = types.Array(types.uint8, 1, "C", readonly=True)  # the UTF-8 of a batch
INDEXES = types.Array(types.int64, 1, "C", readonly=True)  # its offsets: text i is data[offsets[i]:offsets[i + 1]]


class Table(NamedTuple):
    """The two-stage table, as compiled code takes it."""

    blocks: Any  # (8704,) uint8: row of `classes` / 128 for each 128 code points
    classes: Any  # uint8: class number
    flags: Any  # (classes,) uint32: the bits above
    lower: Any  # (classes,) int32: added to a code point gives its lower case (simple mapping, one to one)
    ascii_words: Any  # (128,) uint8: the lower-case character where it is of class WORD, else 0: a short cut


def load_table() -> Table:
    """The table out of the shipped asset; read-only, so that all of a process shares it."""
    with files("pipeline.assets").joinpath(ASSET).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        blocks, classes, flags, lower = (np.ascontiguousarray(arrays[name]) for name in Table._fields[:4])
    points = np.arange(128)
    numbers = classes[points + 128 * int(blocks[0])]
    table = Table(
        blocks, classes, flags, lower, np.where(flags[numbers] & WORD, points + lower[numbers], 0).astype(np.uint8)
    )
    for array in table:
        array.setflags(write=False)
    return table


def make_arrays() -> dict[str, np.ndarray]:
    """The table's arrays from the interpreter's `unicodedata`, whose version is recorded with them."""
    points = range(0x110000)
    terminal = {point for run in SENTENCE_TERMINAL.split() for point in _run(run)}
    symbols = {*map(ord, SYMBOLS), *terminal, *range(9), *range(11, 32), *range(127, 160)}
    meanings = [(_flags(point, terminal, symbols), _lower_delta(point)) for point in points]
    numbers = {meaning: number for number, meaning in enumerate(sorted(set(meanings)))}
    classes = np.array([numbers[meaning] for meaning in meanings], np.uint8).reshape(-1, 128)
    assert len(numbers) <= 256
    rows, blocks = np.unique(classes, axis=0, return_inverse=True)
    assert len(rows) <= 256
    return {
        "blocks": blocks.astype(np.uint8),
        "classes": rows.reshape(-1),
        "flags": np.array([flags for flags, _ in sorted(numbers)], np.uint32),
        "lower": np.array([delta for _, delta in sorted(numbers)], np.int32),
        "unicode_version": np.array(unicodedata.unidata_version),
    }


def _run(run: str) -> range:
    first, _, last = run.partition("-")
    return range(int(first, 16), int(last or first, 16) + 1)


def _flags(point: int, terminal: set[int], symbols: set[int]) -> int:
    char = chr(point)
    category, name = unicodedata.category(char), unicodedata.name(char, "")
    letter = category[0] == "L"
    without_spaces = name.startswith(SCRIPTS_WITHOUT_SPACES) and (letter or category == "Nl")
    answers = {
        WORD: letter or category[0] == "N" or char == "_",
        JOINER: category[0] == "M" or point in (0x200C, 0x200D),
        ALONE: without_spaces,
        SPACE: char.isspace(),
        LINE_END: len(f"a{char}a".splitlines()) == 2,
        LETTER: letter,
        UPPER_OR_UNCASED: letter and category != "Ll",
        LOWER_OR_UNCASED: letter and category not in ("Lu", "Lt"),
        SYMBOL: point in symbols,
        TERMINAL: point in terminal,
        MARK_P: category[0] == "P",
        TRIMMED: char in QUOTES or char in PUNCTUATION or category == "So",
        QUOTE: char in QUOTES,
        ICON: category == "So",
        CURRENCY: category == "Sc",
    }
    return sum(bit for bit, answer in answers.items() if answer)


def _lower_delta(point: int) -> int:
    """Distance to the lower-case code point; U+0130, the only one that lowers to two, takes the first."""
    lower = chr(point).lower() if not 0xD800 <= point < 0xE000 else chr(point)
    return ord(lower[0]) - point


if __name__ == "__main__":
    # Writes the asset; the arrays below cannot be loaded before it exists.
    from pathlib import Path

    np.savez_compressed(Path(__file__).parent.parent / "assets" / ASSET, **make_arrays())  # type: ignore[arg-type]
    raise SystemExit


TABLE = load_table()
TABLE_TYPE = typeof(TABLE)


@njit(nogil=True)
def decode(data: Any, i: int) -> tuple[int, int]:
    """The code point at byte i, and the byte after it. `data` must be valid UTF-8, as Arrow strings are."""
    first = np.int64(data[i])
    if first < 0x80:
        return first, i + 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | np.int64(data[i + 1] & 0x3F), i + 2
    if first < 0xF0:
        return (first & 0x0F) << 12 | np.int64(data[i + 1] & 0x3F) << 6 | np.int64(data[i + 2] & 0x3F), i + 3
    high = (first & 0x07) << 18 | np.int64(data[i + 1] & 0x3F) << 12
    return high | np.int64(data[i + 2] & 0x3F) << 6 | np.int64(data[i + 3] & 0x3F), i + 4

"""Where the words of byte-level tokenizers begin and end: the patterns of GPT-2 and of cl100k, as compiled code.

GPT-2 (Radford et al. 2019; `ByteLevel` of the tokenizers library):

    's|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+

cl100k (GPT-4, Llama 3; Qwen 2 and 2.5 take digits one by one, where these take up to three):

    (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+
    |\\s+(?!\\S)|\\s+

What a letter, a number and a space is must be what the library holds for one, so the table
`pipeline/assets/pretokens.npz` is made by asking its regular expressions about every code point:

    python -m pipeline.pack.tokenize.pretokens
"""

from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from pipeline.numba_kernels import njit, typeof
from pipeline.text.utf8 import decode

__all__ = [
    "CL100K",
    "GPT2",
    "KINDS",
    "KINDS_TYPE",
    "PATTERNS",
    "Kinds",
    "probe_text",
    "word_end_cl100k",
    "word_end_gpt2",
]

ASSET = "pretokens.npz"

LETTER, NUMBER, SPACE, OTHER = 1, 2, 3, 0  # kinds of code points
APOSTROPHE, BLANK, NEWLINE, RETURN = 0x27, 0x20, 0x0A, 0x0D
LONG_S = 0x17F  # ſ, which is an s where case does not matter

GPT2, CL100K = 0, 1  # families of patterns
DIGITS_CL100K = 3

_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Patterns as tokenizer.json files spell them: family, and how many digits make a word (0: any number).
PATTERNS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+": (GPT2, 0),
    _CL100K % "{1,3}": (CL100K, DIGITS_CL100K),
    _CL100K % "": (CL100K, 1),
}

PROBE_MARKS = ("'", " '", "''", " ", "  ", "\n", " \n ", "\r\n\t", "\u00a0", "\u3000 ", "-", " -", "...\n\n", "1")
PROBE_WORDS = ("s", "T", "re", "VE", "lL", "dm", "\u017f", "12345", "\u0663\u0663", "\u6f22", "e\u0301", "!?", "\x85")


class Kinds(NamedTuple):
    """The kind of every code point, as compiled code takes it."""

    blocks: Any  # (8704,) uint8: row of `kinds` / 128 for each 128 code points
    kinds: Any  # uint8: the kind of code point c is kinds[blocks[c >> 7] << 7 | c & 127]
    ascii: Any  # (128,) uint8: a short cut


def load_kinds() -> Kinds:
    """The table out of the shipped asset; read-only, so that all of a process shares it."""
    with files("pipeline.assets").joinpath(ASSET).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
        blocks, kinds = np.ascontiguousarray(arrays["blocks"]), np.ascontiguousarray(arrays["kinds"])
    table = Kinds(blocks, kinds, kinds[int(blocks[0]) << 7 :][:128].copy())
    for array in table:
        array.setflags(write=False)
    return table


def ask_library() -> np.ndarray:
    """The kind of every code point (0x110000,) as the tokenizers library's regular expressions have it; 5 s."""
    from tokenizers import Regex, pre_tokenizers

    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    text = "".join(map(chr, points))
    kinds = np.full(0x110000, OTHER, np.uint8)
    for kind, pattern in ((LETTER, r"\p{L}"), (NUMBER, r"\p{N}"), (SPACE, r"\s")):
        chosen = np.ones(len(points), bool)
        for _, (start, end) in pre_tokenizers.Split(Regex(pattern + "+"), "removed").pre_tokenize_str(text):
            chosen[start:end] = False
        kinds[np.array(points)[chosen]] = kind
    return kinds


def make_arrays(kinds: np.ndarray) -> dict[str, np.ndarray]:
    """The two stages of the table."""
    rows, blocks = np.unique(kinds.reshape(-1, 128), axis=0, return_inverse=True)
    assert len(rows) <= 256
    return {"blocks": blocks.reshape(-1).astype(np.uint8), "kinds": rows.reshape(-1)}


if __name__ == "__main__":
    # Writes the asset; the table below cannot be loaded before it exists.
    from pathlib import Path

    np.savez_compressed(Path(__file__).parents[2] / "assets" / ASSET, **make_arrays(ask_library()))  # type: ignore[arg-type]
    raise SystemExit


KINDS = load_kinds()


def probe_text() -> str:
    """A text that a library with another table or pattern cuts into other words: 6,000 code points in context.

    It has both sides of every border between kinds, and every 16th code point of planes 0 to 3, so at least one of each
    script: Unicode versions differ by whole scripts. Then what patterns treat in their own way.
    """
    points = np.arange(0x40000)
    kinds = KINDS.kinds[KINDS.blocks[points >> 7].astype(np.int64) << 7 | points & 127]
    borders = np.flatnonzero(kinds[1:] != kinds[:-1])
    chosen = np.unique(np.concatenate([borders, borders + 1, points[::16]]))
    chosen = chosen[(chosen < 0xD800) | (chosen >= 0xE000)]
    shapes = (f"{mark}{word}{tail}" for mark in PROBE_MARKS for word in PROBE_WORDS for tail in PROBE_MARKS)
    return "".join(f"a{c}1{c}." for c in map(chr, chosen)) + "".join(shapes)


KINDS_TYPE = typeof(KINDS)


@njit(nogil=True)
def kind_at(data: Any, i: int, table: Any) -> tuple[int, int]:
    """The kind of the code point at byte i, and the byte after it."""
    byte = data[i]
    if byte < 0x80:
        return np.int64(table.ascii[byte]), i + 1
    point, after = decode(data, i)
    return np.int64(table.kinds[np.int64(table.blocks[point >> 7]) << 7 | (point & 127)]), after


@njit(nogil=True)
def run_end(data: Any, i: int, end: int, kind: int, table: Any) -> int:
    """The byte after the run of one kind that goes on at byte i."""
    while i < end:
        next_kind, after = kind_at(data, i, table)
        if next_kind != kind:
            break
        i = after
    return i


@njit(nogil=True)
def contraction_end(data: Any, i: int, end: int, any_case: bool) -> int:
    """The byte after the contraction whose apostrophe is at byte i, or i where there is none."""
    if i + 1 >= end:
        return i
    first = np.int64(data[i + 1])
    if any_case:
        if first == 0xC5 and data[i + 2] == 0xBF:  # ſ
            return i + 3
        if 0x41 <= first <= 0x5A:
            first |= 0x20
    if first == 0x73 or first == 0x74 or first == 0x6D or first == 0x64:  # s t m d
        return i + 2
    if i + 2 >= end:
        return i
    second = np.int64(data[i + 2])
    if any_case and 0x41 <= second <= 0x5A:
        second |= 0x20
    if (second == 0x65 and (first == 0x72 or first == 0x76)) or (second == 0x6C and first == 0x6C):  # re ve ll
        return i + 3
    return i


@njit(nogil=True)
def space_end(data: Any, i: int, end: int, table: Any, newlines: bool) -> int:
    """The byte after the word of spaces that begins at byte i.

    A run of spaces is one word at the end of a text; elsewhere its last space is left for the word that follows.
    `newlines`: a run that has line ends is a word up to the last of them.
    """
    start, last, line_end = i, i, i
    while i < end:
        kind, after = kind_at(data, i, table)
        if kind != SPACE:
            break
        if newlines and (data[i] == NEWLINE or data[i] == RETURN):
            line_end = after
        last, i = i, after
    if line_end > start:
        return line_end
    return i if i == end or last == start else last


@njit(nogil=True)
def word_end_gpt2(data: Any, i: int, end: int, table: Any) -> int:
    """The byte after GPT-2's word at byte i < end of the UTF-8 text that ends at `end`."""
    byte = data[i]
    if byte == APOSTROPHE:
        after = contraction_end(data, i, end, False)
        if after > i:
            return after
    kind, after = kind_at(data, i, table)
    if kind == SPACE:
        if byte != BLANK or after == end:
            return space_end(data, i, end, table, False)
        kind, after = kind_at(data, after, table)
        if kind == SPACE:
            return space_end(data, i, end, table, False)
    return run_end(data, after, end, kind, table)


@njit(nogil=True)
def marks_end(data: Any, i: int, end: int, table: Any) -> int:
    """The byte after a run of neither letters, numbers nor spaces that goes on at byte i, with line ends behind it."""
    i = run_end(data, i, end, OTHER, table)
    while i < end and (data[i] == NEWLINE or data[i] == RETURN):
        i += 1
    return i


@njit(nogil=True)
def word_end_cl100k(data: Any, i: int, end: int, digits: int, table: Any) -> int:
    """The byte after cl100k's word at byte i < end of the UTF-8 text that ends at `end`."""
    byte = data[i]
    if byte == APOSTROPHE:
        after = contraction_end(data, i, end, True)
        if after > i:
            return after
    kind, after = kind_at(data, i, table)
    if kind == LETTER:
        return run_end(data, after, end, LETTER, table)
    if kind == NUMBER:
        count = 1
        while after < end and count < digits:
            kind, next_after = kind_at(data, after, table)
            if kind != NUMBER:
                break
            after, count = next_after, count + 1
        return after
    if after < end and byte != NEWLINE and byte != RETURN:
        next_kind, next_after = kind_at(data, after, table)
        if next_kind == LETTER:
            return run_end(data, next_after, end, LETTER, table)
        if byte == BLANK and next_kind == OTHER:
            return marks_end(data, next_after, end, table)
    if kind == OTHER:
        return marks_end(data, after, end, table)
    return space_end(data, i, end, table, True)

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from pipeline.text import affixes, word_tokenizer
from pipeline.text.utf8 import CUT, SPACE, TABLE
from pipeline.text.word_tokenizer import (
    ALPHABETIC,
    BEGINS_LINE,
    FULL_STOP,
    ONLY_PUNCTUATION,
    STOP_WORD_SHIFT,
    WORD_TOKEN,
)


@pytest.fixture(autouse=True)
def _as_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled for these tests alone, the functions would take ten seconds."""
    for module in (affixes, word_tokenizer):
        for name, function in list(vars(module).items()):
            if isinstance(function, Dispatcher) and name != "mix64":
                monkeypatch.setattr(module, name, function.py_func)


def tokenize(text: str) -> tuple[list[str], list[int]]:
    """Tokens and their kinds."""
    data = np.frombuffer(text.encode(), np.uint8)
    room = len(data) + 1
    points, flags, places = np.empty(room, np.int32), np.empty(room, np.uint16), np.empty(0, np.int32)
    hashes, lengths, kinds = np.empty(room, np.uint64), np.empty(room, np.int32), np.empty(room, np.uint16)
    size = word_tokenizer.decode_text(data, 0, len(data), TABLE, points, flags, places)
    word_tokenizer.mark_tokens(points, flags, size)
    begins = [i for i in range(size) if flags[i] & CUT]
    with np.errstate(over="ignore"):
        num_tokens = word_tokenizer.collect_tokens(points, flags, size, hashes, lengths, kinds)
    lined = "".join(map(chr, points[:size]))
    found = [lined[begin : begin + length] for begin, length in zip(begins, lengths[:num_tokens], strict=True)]
    assert "".join(found) == "".join(char for i, char in enumerate(lined) if not flags[i] & SPACE)
    return found, kinds[:num_tokens].tolist()


# What spaCy 3.8's blank English tokenizer makes of the same strings.
SPACY = {
    "Hello, world!": ["Hello", ",", "world", "!"],
    '("Quoted," he said.)': ["(", '"', "Quoted", ",", '"', "he", "said", ".", ")"],
    "wait... what…": ["wait", "...", "what", "…"],
    "don't I'm they'll we've you're he'd": [
        *("do", "n't", "I", "'m", "they", "'ll", "we", "'ve", "you", "'re", "he", "'d"),
    ],
    "John's dogs' rock 'n' roll": ["John", "'s", "dogs", "'", "rock", "'", "n", "'", "roll"],
    "well-known and/or2 a--b 3-4 x-1": ["well", "-", "known", "and", "/", "or2", "a", "--", "b", "3", "-", "4", "x-1"],
    "Mr. Smith of the U.S. said no.": ["Mr.", "Smith", "of", "the", "U.S.", "said", "no", "."],
    "end.Next 3.14 1,000 a,b": ["end", ".", "Next", "3.14", "1,000", "a", ",", "b"],
    "5km 10% $20 20$ 30MB": ["5", "km", "10", "%", "$", "20", "20", "$", "30", "MB"],
    "see http://a-b.test/x-y?z=1-2, or me@my-host.org.": [
        *("see", "http://a-b.test/x-y?z=1-2", ",", "or", "me@my-host.org", "."),
    ],
    "x=y a:b f(x) [1] #tag @me": ["x", "=", "y", "a", ":", "b", "f(x", ")", "[", "1", "]", "#", "tag", "@me"],
    "😀😀 ok😀ok ©2020": ["😀", "😀", "ok", "😀", "ok", "©", "2020"],
    "“Так,” сказал он.": ["“", "Так", ",", "”", "сказал", "он", "."],
}


@pytest.mark.parametrize("text", SPACY)
def test_tokens_are_those_of_spacy(text: str):
    assert tokenize(text)[0] == SPACY[text]


def test_letters_that_stand_alone_and_punctuation_between_them_are_tokens():
    assert tokenize("道可道，abc。")[0] == ["道", "可", "道", "，", "abc", "。"]


def test_kinds_say_what_a_token_is():
    found, kinds = tokenize("the 12 .\n«?» with 殴")
    assert found == ["the", "12", ".", "«", "?", "»", "with", "殴"]
    the, with_ = 1 << STOP_WORD_SHIFT, 128 << STOP_WORD_SHIFT
    assert kinds == [
        the | ALPHABETIC | WORD_TOKEN | BEGINS_LINE,
        WORD_TOKEN,
        FULL_STOP | ONLY_PUNCTUATION,
        ONLY_PUNCTUATION | BEGINS_LINE,
        FULL_STOP | ONLY_PUNCTUATION,
        ONLY_PUNCTUATION,
        with_ | ALPHABETIC | WORD_TOKEN,
        ALPHABETIC | WORD_TOKEN,
    ]


def test_a_character_whose_number_spells_a_stop_word_is_none():
    assert chr(0x746F) == "瑯"  # 0x74 0x6F are the letters of "to"
    assert tokenize("瑯")[1][0] >> STOP_WORD_SHIFT == 0
    assert tokenize("to")[1][0] >> STOP_WORD_SHIFT != 0

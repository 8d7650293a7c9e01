"""The tokenizer: training, loading, and what of its file counts."""

import json
import random

import pyarrow as pa
import pytest
import tokenizers

from pipeline.pack.tokenize.encoder import Encoder
from pipeline.pack.tokenize.tokenizer_file import TokenizerError, describe_tokenizer, load_tokenizer
from pipeline.pack.tokenize.train_bpe import train_bpe
from schemas.recipe import TokenizerOptions

TEXTS = [
    "the cat sat on the mat",
    "the bat sat",
    "日本語のテキスト 日本語",
    "naïve café — “quotes”",
    "",
    "  \n\n\t ",
] * 9


def options(**fields):
    return TokenizerOptions(**{"vocab_size": 320, **fields})


def encoder(data, **fields):
    return Encoder(data, describe_tokenizer(data, "t.json", "t.json", options(**fields)))


def encode(data, texts, **fields):
    return [ids.tolist() for ids in encoder(data, **fields).encode(pa.array(texts, pa.large_string()))]


def test_special_tokens_come_first_then_the_bytes_then_merges():
    data = train_bpe(TEXTS, options(special_tokens=["<|pad|>"]))
    described = describe_tokenizer(data, "p.json", "p.json", options())
    assert described.special_tokens == {"<|endoftext|>": 0, "<|pad|>": 1}
    assert (described.end_of_text.id, described.token_type) == (0, "uint16")
    vocabulary = json.loads(data)["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(described.vocab_size))
    assert [token for token, number in sorted(vocabulary.items(), key=lambda item: item[1])][258] == "at"


def test_training_does_not_depend_on_the_order_of_the_texts():
    shuffled = TEXTS.copy()
    random.Random(3).shuffle(shuffled)
    assert train_bpe(shuffled, options()) == train_bpe(TEXTS, options())


@pytest.mark.parametrize("threads", ["true", "false"])
def test_training_does_not_depend_on_threads(monkeypatch, threads):
    # 3,000 words of equal count: every merge is a tie.
    texts = [f"w{chr(0x4E00 + 7 * n)}{chr(0x4E00 + n)}x" for n in range(3000)]
    expected = train_bpe(texts, options(vocab_size=2000))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", threads)
    assert train_bpe(texts, options(vocab_size=2000)) == expected


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(TokenizerError, match=r"vocab_size=257: 256 bytes and 2 special tokens need at least 258"):
        train_bpe(TEXTS, options(vocab_size=257, special_tokens=["<|pad|>"]))


def test_documents_end_with_end_of_text_and_an_empty_one_is_only_that():
    data = train_bpe(["ab"], options(vocab_size=257))
    # The 256 bytes follow in the order of their printable characters: "!" is 1, so "a" is 65.
    assert encode(data, ["ab", "", "é"], vocab_size=257) == [[65, 66, 0], [0], [128, 103, 0]]


def test_a_text_that_spells_a_special_token_is_plain_text():
    data = train_bpe(TEXTS, options())
    ids = encode(data, ["the<|endoftext|>cat"])[0]
    assert ids.count(0) == 1
    assert tokenizers.Tokenizer.from_buffer(data).decode(ids[:-1]) == "the<|endoftext|>cat"


def test_added_tokens_that_are_not_special_match_as_the_library_matches_them():
    tokenizer = tokenizers.Tokenizer.from_str(train_bpe(TEXTS, options()).decode())
    tokenizer.add_tokens(["zorkmid"])
    zorkmid = tokenizer.token_to_id("zorkmid")
    data = tokenizer.to_str().encode()
    ids = encode(data, ["a zorkmid <|endoftext|>"])[0]
    assert ids.count(zorkmid) == 1
    assert ids.count(0) == 1
    # The library's own ids, once special tokens are text for it too.
    tokenizer.encode_special_tokens = True
    assert ids == [*tokenizer.encode("a zorkmid <|endoftext|>", add_special_tokens=False).ids, 0]


def test_truncation_padding_and_templates_of_the_file_are_not_applied():
    tokenizer = tokenizers.Tokenizer.from_str(train_bpe(TEXTS, options()).decode())
    plain = encode(tokenizer.to_str().encode(), TEXTS)
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert encode(tokenizer.to_str().encode(), TEXTS) == plain


def test_a_vocabulary_above_65536_takes_four_bytes():
    vocabulary = {f"w{n}": n for n in range(65_535)} | {"<|endoftext|>": 65_535}
    for size, kind in ((65_536, "uint16"), (65_537, "uint32")):
        if size == 65_537:
            vocabulary["one more"] = 65_536
        model = tokenizers.models.WordLevel(vocabulary, unk_token="w0")
        data = tokenizers.Tokenizer(model).to_str().encode()
        described = describe_tokenizer(data, "t.json", "t.json", options())
        assert (described.vocab_size, described.token_type) == (size, kind)
        assert Encoder(data, described).encode(pa.array(["w7"], pa.large_string()))[0].dtype == kind


def test_the_size_of_a_vocabulary_with_gaps_is_one_above_the_highest_id():
    model = tokenizers.models.WordLevel({"a": 0, "<|endoftext|>": 70_000}, unk_token="a")
    described = describe_tokenizer(tokenizers.Tokenizer(model).to_str().encode(), "t.json", "t.json", options())
    assert (described.vocab_size, described.token_type) == (70_001, "uint32")


def test_a_file_that_is_no_tokenizer_is_refused_with_its_name():
    with pytest.raises(TokenizerError, match=r"notes\.json: not a tokenizer\.json"):
        load_tokenizer(b'{"hello": 1}', "notes.json")


def test_a_tokenizer_that_draws_at_random_is_refused():
    data = json.loads(train_bpe(TEXTS, options()))
    data["model"]["dropout"] = 0.1
    with pytest.raises(TokenizerError, match=r"dropout=0\.1 encodes at random: set it to null"):
        load_tokenizer(json.dumps(data).encode(), "t.json")


def test_a_missing_end_of_text_names_what_it_might_be():
    data = train_bpe(TEXTS, options(end_of_text="</s>", special_tokens=["<pad>"]))
    with pytest.raises(
        TokenizerError, match=r"no token '<\|endoftext\|>' .* set tokenizer.end_of_text to '</s>' or '<pad>'"
    ):
        describe_tokenizer(data, "t.json", "t.json", options())

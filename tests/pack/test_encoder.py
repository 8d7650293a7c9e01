"""Encoding by fastokens: the ids of the tokenizers library, whatever the text, or the library itself."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, normalizers, pre_tokenizers

from pipeline.pack.tokenize import byte_level, encoder
from pipeline.pack.tokenize.encoder import Encoder
from pipeline.pack.tokenize.tokenizer_file import describe_tokenizer, load_tokenizer
from pipeline.pack.tokenize.train_bpe import train_bpe
from schemas.recipe import TokenizerOptions

SHARED = Path(__file__).parents[3] / "shared" / "data"
GPT2 = SHARED / "models" / "gpt2" / "tokenizer.json"
needs_gpt2 = pytest.mark.skipif(not GPT2.exists(), reason="GPT-2's tokenizer.json is not beside the checkout")

SAMPLE = [
    "the cat sat on the mat; it's theirs, and they're the cats we'll have had: the internationalization of the mats",
    "日本語のテキスト 日本語 漢字かな交じり文。한국어 문장입니다 ภาษาไทย",
    "naïve café — “quotes”  \n\n\t x = [1234, 56789]\r\n  Ещё один пример предложения, Ελληνικά, العربية",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ---------------- ababababababab 0000000",
] * 5
OPTIONS = TokenizerOptions(vocab_size=900)


def with_parts(data, **parts):
    """The tokenizer with some parts of its file replaced."""
    tokenizer = tokenizers.Tokenizer.from_str(data.decode())
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer.to_str().encode()


def split_by(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def with_model(data, **fields):
    spec = json.loads(data)
    spec["model"].update(fields)
    return json.dumps(spec).encode()


def retrained(pattern):
    """A vocabulary of words cut by another pattern."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = split_by(pattern)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SAMPLE, trainer)
    return tokenizer.to_str().encode()


OURS = train_bpe(SAMPLE, OPTIONS)
GPT2_PATTERN, LLAMA3_PATTERN, QWEN_PATTERN = byte_level.PATTERNS
LLAMA3, QWEN = retrained(LLAMA3_PATTERN), with_parts(retrained(QWEN_PATTERN), normalizer=normalizers.NFC())
KINDS = {
    "gpt2": OURS,
    "gpt2 as split": with_parts(OURS, pre_tokenizer=split_by(GPT2_PATTERN)),
    "llama3": with_model(LLAMA3, ignore_merges=True),
    "qwen": QWEN,
}


def encoder_of(data):
    return Encoder(data, describe_tokenizer(data, "t.json", "t.json", OPTIONS))


def encode(encoder, texts):
    return [ids.tolist() for ids in encoder.encode(pa.array(texts, pa.large_string()))]


def library(data, texts):
    tokenizer = tokenizers.Tokenizer.from_buffer(data)
    tokenizer.encode_special_tokens = True
    end = tokenizer.token_to_id("<|endoftext|>")
    return [[*tokenizer.encode(text, add_special_tokens=False).ids, end] for text in texts]


ENCODERS = {name: encoder_of(data) for name, data in KINDS.items()}

# Anything, with more of what patterns treat in their own way, and of what the sample has words of.
CHARACTERS = st.one_of(
    st.sampled_from("'''    \n\r\t\xa0\x85\u3000-.!1234٣²ⅷasStTmdrevlLſKéÉ漢日本語かなภาษไทย한국Ещё‘’\u0301\u200d"),
    st.characters(exclude_categories=["Cs"]),
)
PIECES = st.sampled_from(
    [" the cat", "'re", "'LL ", "\n\n ", "aaaaaaaaaaaaaaaa", "日本語のテキスト", "----------------"]
)
TEXT = st.lists(st.one_of(CHARACTERS, PIECES), max_size=60).map("".join)


@pytest.mark.parametrize("name", KINDS)
@given(texts=st.lists(TEXT, max_size=6))
@settings(max_examples=300, deadline=None)
@example(texts=["", "a", "'", "'ſ", "'s", " ", "  ", "\n", " \n", "a  b", "a \n b", "x" * 200, " " * 300, "'" * 60])
def test_ids_are_the_librarys_for_any_text(name, texts):
    assert ENCODERS[name].fast
    assert encode(ENCODERS[name], texts) == library(KINDS[name], texts)


@pytest.mark.parametrize("name", KINDS)
def test_what_the_sample_holds_is_encoded_alike(name):
    assert encode(ENCODERS[name], SAMPLE) == library(KINDS[name], SAMPLE)


@pytest.mark.parametrize("size", [47, 48, 49, 255, 256, 257, 5000])
def test_long_words_are_merged_as_short_ones_are(size):
    texts = ["a" * size, "ab" * (size // 2), "日本語の" * (size // 12), "the" * (size // 3) + "x", "-" * size]
    assert encode(ENCODERS["gpt2"], texts) == library(OURS, texts)


def test_a_word_of_a_megabyte_takes_no_time_to_speak_of():
    # Quadratic merging would take hours.
    assert sum(map(len, encode(ENCODERS["gpt2"], ["ab" * (1 << 19)]))) < 1 << 20


def test_a_word_of_the_vocabulary_is_one_token_where_merges_are_ignored():
    spec = json.loads(LLAMA3)
    spec["model"]["vocab"]["zqzqzq"] = number = len(spec["model"]["vocab"])
    merged, known = json.dumps(spec).encode(), with_model(json.dumps(spec).encode(), ignore_merges=True)
    assert encode(encoder_of(known), ["zqzqzq"]) == [[number, 0]] == library(known, ["zqzqzq"])
    assert encode(encoder_of(merged), ["zqzqzq"]) == library(merged, ["zqzqzq"]) != [[number, 0]]


def test_of_a_repeated_merge_the_last_rank_counts():
    spec = json.loads(OURS)
    merges = spec["model"]["merges"]
    data = with_model(OURS, merges=[*merges, *merges[:40]])
    assert encode(encoder_of(data), SAMPLE) == library(data, SAMPLE) != library(OURS, SAMPLE)


@pytest.mark.parametrize(
    "data",
    [
        with_parts(OURS, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
        with_parts(OURS, pre_tokenizer=split_by(r"\s+")),
        with_parts(OURS, pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()])),
        with_parts(OURS, normalizer=normalizers.Lowercase()),
        with_parts(OURS, pre_tokenizer=pre_tokenizers.Whitespace()),
        with_model(OURS, end_of_word_suffix="</w>"),
    ],
)
def test_what_is_not_recognised_is_left_to_the_library(data):
    texts = ["The cat 123", "", " sat"]
    assert not encoder_of(data).fast
    assert encode(encoder_of(data), texts) == library(data, texts)


def test_a_library_that_cuts_other_words_is_left_to_itself():
    # As one whose table of letters is of another Unicode version: U+10D50 to U+10D65 are letters since Unicode 16.
    assert byte_level.byte_level_like(json.loads(OURS), load_tokenizer(OURS, "t.json"))
    letters = r"[\p{L}&&[^\x{10D50}-\x{10D65}]]"
    older = with_parts(OURS, pre_tokenizer=split_by(GPT2_PATTERN.replace(r"\p{L}", letters)))
    assert library(older, ["the 1234 漢字 \u10d4"]) == library(OURS, ["the 1234 漢字 \u10d4"])
    assert byte_level.byte_level_like(json.loads(OURS), load_tokenizer(older, "t.json")) is None


def test_texts_with_added_words_are_the_librarys_and_stay_in_their_places():
    tokenizer = tokenizers.Tokenizer.from_str(OURS.decode())
    tokenizer.add_tokens(["zorkmid", tokenizers.AddedToken("caf\u00e9s", normalized=True)])
    tokenizer.normalizer = normalizers.NFC()
    data = tokenizer.to_str().encode()
    texts = ["the cat", "a zorkmid", "cafe\u0301s", "<|endoftext|> e\u0301", "sat"]
    ids = encode(encoder_of(data), texts)
    assert encoder_of(data).fast
    assert ids == library(data, texts)
    assert tokenizer.token_to_id("zorkmid") in ids[1]
    assert tokenizer.token_to_id("caf\u00e9s") in ids[2]


def test_a_column_without_texts_has_no_ids():
    assert encode(ENCODERS["gpt2"], []) == []
    assert encode(encoder_of(with_parts(OURS, normalizer=normalizers.Lowercase())), []) == []


def test_many_batches_of_the_library_are_put_together_in_order(monkeypatch):
    data = with_parts(OURS, normalizer=normalizers.Lowercase())
    monkeypatch.setattr(encoder, "BATCH_BYTES", 10)
    assert encode(encoder_of(data), SAMPLE) == library(data, SAMPLE)


@needs_gpt2
def test_gpt2_gives_the_expected_ids():
    lines = (SHARED / "models" / "gpt2" / "expected_ids.jsonl").read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    assert len(cases) == 295
    ids = encode(encoder_of(GPT2.read_bytes()), [case["text"] for case in cases])
    assert ids == [[*case["ids"], 50_256] for case in cases]


@needs_gpt2
def test_gpt2_gives_the_published_token_counts():
    counts = json.loads((SHARED / "models" / "gpt2" / "token_counts.json").read_text())
    assert counts["tinyshakespeare.txt"] == 338_025
    texts = [(SHARED / "text" / name).read_bytes().decode() for name in counts]
    gpt2 = encoder_of(GPT2.read_bytes())
    assert gpt2.fast
    ids = gpt2.encode(pa.array(texts, pa.large_string()))
    assert {name: len(each) - 1 for name, each in zip(counts, ids, strict=True)} == counts

"""What ends, begins and separates documents never comes out of a text, with any kind of tokenizer."""

import functools
import io
import json

import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers, processors

from pipeline.pack.tokenize.encoder import Encoder
from pipeline.pack.tokenize.tokenizer_file import (
    STAND_IN,
    TokenizerError,
    around_texts,
    describe_tokenizer,
    load_tokenizer,
    reserved_ids,
)
from pipeline.pack.tokenize.train_bpe import train_bpe
from schemas.manifest import read_shards
from schemas.recipe import TokenizerOptions
from tests.pack.corpus import Corpus, Doc, recipe

SPECIAL = ["<unk>", "<s>", "</s>", "[SEP]", "<|endoftext|>"]
LETTERS = ["a", "b", "<", ">", "/", "s", "[", "]", "S", "E", "P", "▁", "</", "|", "▁a", "ab", "s>"]


def tokenizer_json(model, pre_tokenizer=None, normalizer=None, added=SPECIAL):
    tokenizer = tokenizers.Tokenizer(model)
    if pre_tokenizer:
        tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in added])
    return tokenizer.to_str().encode()


def vocabulary(prefix=""):
    return {token: number for number, token in enumerate([*SPECIAL, *LETTERS, *(prefix + each for each in LETTERS)])}


def unigram(added=SPECIAL):
    pieces = [(token, 0.0 if token in SPECIAL else -len(SPECIAL) - number) for number, token in enumerate(vocabulary())]
    metaspace = pre_tokenizers.Metaspace()
    return tokenizer_json(models.Unigram([*dict(pieces).items()], unk_id=0), metaspace, added=added)


def wordpiece():
    model = models.WordPiece(vocabulary("##"), unk_token="<unk>")
    return tokenizer_json(model, pre_tokenizers.WhitespaceSplit(), normalizers.NFKC())


def merged_bpe():
    """A BPE with a merge that makes `</s>`, and one that ignores merges."""
    merges = [("<", "/"), ("s", ">"), ("</", "s>"), ("a", "b")]
    model = models.BPE(vocabulary(), merges, unk_token="<unk>", ignore_merges=True)
    return tokenizer_json(model, pre_tokenizers.WhitespaceSplit())


KINDS = {
    "unigram": unigram(),
    "unigram, none added": unigram([]),
    "wordpiece": wordpiece(),
    "wordlevel": tokenizer_json(models.WordLevel(vocabulary(), unk_token="<unk>"), pre_tokenizers.WhitespaceSplit()),
    "bpe": merged_bpe(),
    "byte-level": train_bpe(["the a ab </s> <s>"] * 9, TokenizerOptions(special_tokens=SPECIAL, vocab_size=280)),
}
OPTIONS = TokenizerOptions(end_of_text="</s>", begin_of_text="<s>")


def described(data, options=OPTIONS):
    return describe_tokenizer(data, "t.json", "t.json", options)


@functools.cache
def encoder(data, end_of_text, begin_of_text):
    options = TokenizerOptions(end_of_text=end_of_text, begin_of_text=begin_of_text)
    return Encoder(data, described(data, options))


def encode(data, texts, options=OPTIONS):
    chosen = encoder(data, options.end_of_text, options.begin_of_text)
    return [ids.tolist() for ids in chosen.encode(pa.array(texts, pa.large_string()))]


STAND_INS = [STAND_IN.format(token) for token in SPECIAL]
PIECES = [*SPECIAL, *STAND_INS, "＜/s＞", " ", "  ", "\n", "a", "ab", "</", "s>", "é"]


@pytest.mark.parametrize("name", KINDS)
@given(texts=st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), max_size=4))
@settings(max_examples=150)
def test_no_text_yields_a_special_token(name, texts):
    reserved = {*reserved_ids(described(KINDS[name]))}
    end, begin = (json_id(KINDS[name], token) for token in ("</s>", "<s>"))
    assert {end, begin} <= reserved
    for ids in encode(KINDS[name], texts):
        assert (ids[0], ids[-1]) == (begin, end)
        assert reserved.isdisjoint(ids[1:-1])


def json_id(data, token):
    return tokenizers.Tokenizer.from_buffer(data).token_to_id(token)


@pytest.mark.parametrize("name", KINDS)
def test_texts_without_special_tokens_have_the_librarys_ids(name):
    library = tokenizers.Tokenizer.from_buffer(KINDS[name])
    texts = ["a ab", "", " s b", "x < ab > a", "aab\nab"]
    expected = [library.encode(text, add_special_tokens=False).ids for text in texts]
    assert [ids[1:-1] for ids in encode(KINDS[name], texts)] == expected


@pytest.mark.parametrize("name", ["unigram", "wordpiece", "wordlevel", "bpe"])
def test_the_library_alone_would_yield_end_of_text(name):
    library = tokenizers.Tokenizer.from_buffer(KINDS[name])
    library.encode_special_tokens = True
    assert json_id(KINDS[name], "</s>") in library.encode("a </s> a", add_special_tokens=False).ids


def test_a_spelled_token_is_kept_as_text():
    (ids,) = encode(KINDS["unigram"], ["a</s>"])
    tokens = [tokenizers.Tokenizer.from_buffer(KINDS["unigram"]).id_to_token(number) for number in ids]
    assert tokens == ["<s>", "▁a", "</", "s>", "</s>"]


def test_a_spelled_unknown_token_is_text_and_what_is_unknown_is_not():
    tokens = ["<unk>", "<s>", "</s>", "▁", "<", "u", "n", "k", ">"]
    data = tokenizer_json(models.Unigram([(token, -1.0) for token in tokens], unk_id=0), pre_tokenizers.Metaspace())
    assert encode(data, ["<unk>", "é"]) == [[1, 3, 4, 5, 6, 7, 8, 2], [1, 3, 0, 2]]


def test_added_words_keep_their_ids_and_match():
    tokenizer = tokenizers.Tokenizer.from_buffer(KINDS["unigram"])
    tokenizer.add_special_tokens(["<late>"])
    tokenizer.add_tokens(["zorkmid"])
    data = tokenizer.to_str().encode()
    (ids,) = encode(data, ["a zorkmid <late>"])
    assert tokenizer.token_to_id("zorkmid") in ids
    assert tokenizer.token_to_id("<late>") not in ids


def test_end_of_text_may_be_a_token_that_is_not_flagged_special():
    tokenizer = tokenizers.Tokenizer.from_buffer(unigram(["<unk>"]))
    tokenizer.add_tokens(["</s>"])
    (ids,) = encode(tokenizer.to_str().encode(), ["a </s> b"], TokenizerOptions(end_of_text="</s>"))
    assert ids.count(tokenizer.token_to_id("</s>")) == 1


def test_the_unknown_token_cannot_end_documents_where_texts_yield_it():
    with pytest.raises(TokenizerError, match=r"texts yield '<unk>' for what the vocabulary does not know"):
        described(KINDS["wordpiece"], TokenizerOptions(end_of_text="<unk>"))
    spec = json.loads(KINDS["byte-level"])
    spec["model"]["unk_token"] = "</s>"  # as OPT has it: every byte is known, so it never comes
    data = json.dumps(spec).encode()
    assert described(data).unknown is None
    assert encode(data, ["é </s>"]) == encode(KINDS["byte-level"], ["é </s>"])


def test_a_begin_of_text_that_is_not_there_is_refused_with_what_might_be_meant():
    with pytest.raises(TokenizerError, match=r"no token '<bos>' to begin documents with: set tokenizer.begin_of_text"):
        described(KINDS["unigram"], TokenizerOptions(end_of_text="</s>", begin_of_text="<bos>"))


def test_a_trained_tokenizer_has_its_begin_of_text():
    data = train_bpe(["ab"], TokenizerOptions(begin_of_text="<s>", vocab_size=258))
    assert encode(data, ["a", ""], TokenizerOptions(begin_of_text="<s>")) == [[1, 66, 0], [1, 0]]


def test_what_a_post_processor_puts_around_texts_is_known():
    tokenizer = tokenizers.Tokenizer.from_buffer(KINDS["unigram"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    data = tokenizer.to_str().encode()
    assert around_texts(data, "t.json") == ["<s>"]
    assert around_texts(KINDS["unigram"], "t.json") == []
    ids = encode(data, ["a"], TokenizerOptions(end_of_text="</s>"))
    assert ids == [each[1:] for each in encode(data, ["a"])]


def test_a_sentencepiece_model_is_told_from_json_with_how_to_convert_it():
    piece = b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02" * 3
    with pytest.raises(TokenizerError, match=r"t.model: .* SentencePiece model: .* convert it once .*tokenizer.json"):
        load_tokenizer(piece, "t.model")
    with pytest.raises(TokenizerError, match=r"not a tokenizer.json: expected a JSON object"):
        load_tokenizer(b"[1]", "t.json")


# ---------------------------------------------------------------- a dataset


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus(tmp_path / "in")
    texts = ["a ab </s> a", "ab q", "s </s>", "a", "b a", "<s> ab"]
    corpus.add("web", [Doc(f"d{n}", text, validation=n % 3 == 0) for n, text in enumerate(texts)])
    return corpus


def pack(corpus, tmp_path, data, name="ds", **tokenizer):
    (tmp_path / "t.json").write_bytes(data)
    said = io.StringIO()
    options = recipe(tokenizer={"file": str(tmp_path / "t.json"), "end_of_text": "</s>", **tokenizer})
    manifest = corpus.pack(options, tmp_path / name, stream=said)
    paths = read_shards(str(tmp_path / name), manifest)["path"].to_pylist()
    tables = [pa.ipc.open_file(pa.memory_map(str(tmp_path / name / path))).read_all() for path in paths]
    return manifest, [ids for table in tables for ids in table["tokens"].to_pylist()], said.getvalue()


def test_documents_of_shards_begin_and_end_with_their_tokens_and_hold_none(corpus, tmp_path):
    _, documents, _ = pack(corpus, tmp_path, KINDS["unigram"], begin_of_text="<s>")
    assert len(documents) == 6
    for ids in documents:
        assert (ids[0], ids[-1], ids.count(1), ids.count(2)) == (1, 2, 1, 1)


def test_unknown_tokens_are_counted_and_many_of_them_are_told(corpus, tmp_path):
    manifest, documents, said = pack(corpus, tmp_path, KINDS["wordlevel"])
    unknown = sum(ids.count(0) for ids in documents)
    assert (manifest.tokenizer.unknown.id, unknown) == (0, 4)  # `</s>` twice, `<s>` and `q`
    assert manifest.funnel.unknown_tokens == manifest.funnel.sources["web"].unknown_tokens == unknown
    assert "of the tokens are <unk>: their text is lost for training" in said
    manifest, _, said = pack(corpus, tmp_path, KINDS["byte-level"], "bytes")
    assert (manifest.tokenizer.unknown, manifest.funnel.unknown_tokens) == (None, 0)
    assert "of the tokens are" not in said


def test_a_begin_of_text_that_the_file_would_put_is_told_where_the_recipe_has_none(corpus, tmp_path):
    tokenizer = tokenizers.Tokenizer.from_buffer(KINDS["unigram"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    data = tokenizer.to_str().encode()
    _, documents, said = pack(corpus, tmp_path, data)
    assert "t.json puts <s> before a text" in said
    assert "tokenizer.begin_of_text=<s> puts it there" in said
    assert all(1 not in ids for ids in documents)
    _, documents, said = pack(corpus, tmp_path, data, "begun", begin_of_text="<s>")
    assert "before a text" not in said
    assert all(ids[0] == 1 for ids in documents)

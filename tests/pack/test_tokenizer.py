"""The dataset's tokenizer: the sample it is trained on, where it is kept, and how it is shown."""

import dataclasses
import json

import pytest

from pipeline.pack.groups import pack_parts
from pipeline.pack.tokenize.sample import choose_sample
from pipeline.pack.tokenize.tokenizer import inspect, train_from_parts
from pipeline.pack.tokenize.tokenizer_file import TokenizerError, load_tokenizer
from pipeline.pack.tokenize.train_bpe import _short_words, train_bpe
from schemas.manifest import read_manifest
from schemas.recipe import TokenizerOptions
from tests.pack.corpus import Corpus, Doc, final_text, recipe, some_documents


@pytest.fixture
def corpus(tmp_path):
    corpus = Corpus(tmp_path / "in")
    for number in range(3):
        corpus.add("web", some_documents(f"w{number}", 20))
    return corpus


def sample(corpus, sample_bytes, seed=0, parts=None):
    return choose_sample(pack_parts(parts or corpus.parts, corpus.verdict_uri), seed, sample_bytes)


def test_the_whole_sample_is_the_final_texts_of_kept_documents(corpus):
    masked = Doc("masked", "write to me@x.test now", edits=((9, 9, 2),))
    corpus.add("web", [masked, Doc("dropped", "never seen", rule="x")])
    kept = [final_text(doc) for part in corpus.documents for doc in part if doc.rule is None]
    chosen = sample(corpus, 1 << 20)
    assert sorted(chosen.texts()) == sorted(kept)
    assert chosen.num_bytes == sum(len(text.encode()) for text in kept)
    assert "write to email@example.com now" in kept


def test_a_sample_stops_before_the_document_that_would_exceed(corpus):
    chosen = sample(corpus, 3000)
    assert 2000 < chosen.num_bytes <= 3000
    assert sum(len(text.encode()) for text in chosen.texts()) == chosen.num_bytes


def test_the_first_document_is_taken_whatever_its_size(corpus):
    assert len(list(sample(corpus, 1).texts())) == 1


def test_a_sample_does_not_depend_on_the_order_of_the_parts(corpus):
    assert sample(corpus, 3000, parts=corpus.parts[::-1]).digest == sample(corpus, 3000).digest


def test_the_seed_chooses_other_documents(corpus):
    assert len({sample(corpus, 3000, seed).digest for seed in range(4)}) == 4


def test_a_larger_sample_holds_the_smaller_one(corpus):
    small, large = (set(sample(corpus, size).texts()) for size in (1500, 4000))
    assert small < large


def test_a_damaged_tokenizer_of_the_work_folder_is_trained_anew(corpus, tmp_path):
    corpus.pack(recipe(), tmp_path / "one", work=tmp_path / "work")
    (trained,) = (tmp_path / "work" / "pack").glob("trained-tokenizer-*.json")
    whole = trained.read_bytes()
    first, second = (json.dumps(merge, ensure_ascii=False) for merge in json.loads(whole)["model"]["merges"][:2])
    text = whole.decode().replace(first.replace(", ", ","), second.replace(", ", ","))
    for damaged in (whole[:-9], text.encode()):
        assert damaged != whole
        trained.write_bytes(damaged)
        corpus.pack(recipe(), tmp_path / f"with-{len(damaged)}", work=tmp_path / "work")
        assert trained.read_bytes() == whole


def test_endless_words_are_cut_and_others_train_as_ever():
    prose = ["the cat sat on the mat " * 9, "那只猫坐在垫子上" * 100, "a" * 1024 + " " * 1024 + "b"]
    for text in prose:
        assert list(_short_words(text)) == [text]
    endless = "x " + "a" * 3000 + " y"
    pieces = list(_short_words(endless))
    assert "".join(pieces) == endless
    assert [len(piece) for piece in pieces] == [2 + 1024, 1024, 3000 - 2048 + 2]
    assert len(list(_short_words(" " * 5_000_000))) == 4883
    # Uncut, the longest token is the largest power of two in the word.
    vocabulary = json.loads(train_bpe(["!" * 5000], TokenizerOptions(vocab_size=280)))["model"]["vocab"]
    assert max(len(word) for word in vocabulary if set(word) == {"!"}) == 1024


def test_a_trained_tokenizer_is_kept_for_a_rerun(corpus, tmp_path, monkeypatch):
    corpus.pack(recipe(), tmp_path / "one", work=tmp_path / "work")
    monkeypatch.setattr("pipeline.pack.tokenize.tokenizer.train_bpe", None)
    corpus.pack(recipe(), tmp_path / "two", work=tmp_path / "work")
    one, two = (read_manifest(str(tmp_path / name)).tokenizer for name in ("one", "two"))
    assert one == two


def test_a_loaded_tokenizer_is_kept_byte_for_byte(corpus, tmp_path):
    line = train_from_parts(
        corpus.parts, [corpus.verdict_uri(part) for part in corpus.parts], recipe(), str(tmp_path / "t.json")
    )
    assert line.endswith("bytes of kept text")
    # With another layout than the library writes.
    data = (tmp_path / "t.json").read_bytes().replace(b',"model"', b',\n  "model"')
    (tmp_path / "t.json").write_bytes(data)
    options = recipe(tokenizer={"file": str(tmp_path / "t.json")})
    tokenizer = corpus.pack(options, tmp_path / "ds").tokenizer
    assert (tmp_path / "ds" / tokenizer.path).read_bytes() == data
    assert str(tmp_path) not in tokenizer.model_dump_json()


def test_a_missing_tokenizer_file_is_named(corpus, tmp_path):
    with pytest.raises(TokenizerError, match=r"gone\.json: no such tokenizer file"):
        corpus.pack(recipe(tokenizer={"file": str(tmp_path / "gone.json")}), tmp_path / "ds")


def test_a_tokenizer_is_trained_when_nothing_is_kept(tmp_path):
    corpus = Corpus(tmp_path / "in")
    corpus.add("web", [dataclasses.replace(Doc("a", "text"), rule="x")])
    manifest = corpus.pack(recipe(), tmp_path / "ds")
    assert manifest.tokenizer.vocab_size == 257
    assert (manifest.funnel.records_read, manifest.funnel.kept) == (1, 0)


def test_inspect_shows_a_file_or_a_dataset(corpus, tmp_path):
    manifest = corpus.pack(recipe(), tmp_path / "ds")
    shown = inspect(str(tmp_path / "ds"), "word <|endoftext|>")
    assert shown == inspect(str(tmp_path / "ds" / manifest.tokenizer.path), "word <|endoftext|>")
    assert "BPE, 300 tokens, ids below 300, uint16" in shown
    assert "special  <|endoftext|> 0" in shown
    tokenizer = load_tokenizer((tmp_path / "ds" / manifest.tokenizer.path).read_bytes(), "t")
    count = len(tokenizer.encode("word <|endoftext|>", add_special_tokens=False).ids)
    assert shown.endswith(f"{count} tokens for 18 bytes")

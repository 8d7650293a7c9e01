"""Signatures are datasketch's, bit for bit; shingles are what their docstring says."""

import itertools

import datasketch
import numpy as np
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measure.minhash.shingles import (
    MAX_SPLIT,
    SHINGLE_FACTOR,
    shingle_hashes,
    shingle_sets,
    text_shingles,
    unit_hashes,
)
from pipeline.measure.minhash.sign import as_minhash, sign, sign_shingles
from pipeline.measure.minhash.words import word_hashes
from pipeline.text.edits import text_buffers
from schemas.recipe import Minhash

MASK = (1 << 64) - 1


def buffers(*texts):
    return text_buffers(pa.array(texts, pa.large_string()))


def mix64(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


hash32 = st.integers(0, (1 << 32) - 1)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.lists(hash32, max_size=40), min_size=1, max_size=5),
    num_hashes=st.sampled_from([1, 7, 16, 112, 130]),
    seed=hash32,
)
def test_the_kernel_equals_update_batch_for_any_shingles(texts, num_hashes, seed):
    counts = np.concatenate([[0], np.cumsum([len(text) for text in texts])]).astype(np.int64)
    shingles = np.array([shingle for text in texts for shingle in text], np.uint32)
    signatures = sign_shingles(shingles, counts, Minhash(num_hashes=num_hashes, seed=seed))
    for text, signature in zip(texts, signatures, strict=True):
        theirs = datasketch.MinHash(num_perm=num_hashes, seed=seed, scheme="affine32", hashfunc=int)
        theirs.update_batch(text)
        assert theirs.hashvalues.dtype == signature.dtype
        assert theirs.hashvalues.tolist() == signature.tolist()


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(0, MASK), max_size=12), min_size=1, max_size=4),
    shingle=st.integers(1, 6),
)
def test_a_shingle_is_a_polynomial_of_its_words_mixed_and_halved(texts, shingle):
    firsts = np.concatenate([[0], np.cumsum([len(words) for words in texts])]).astype(np.int64)
    hashes, counts = shingle_hashes(np.array([w for words in texts for w in words], np.uint64), firsts, shingle)
    expected = [
        [
            mix64(
                sum(word * int(SHINGLE_FACTOR) ** (shingle - 1 - i) for i, word in enumerate(words[n : n + shingle]))
                & MASK
            )
            >> 32
            for n in range(len(words) - shingle + 1)
        ]
        for words in texts
    ]
    assert [hashes[start:end].tolist() for start, end in itertools.pairwise(counts)] == expected


def test_a_stored_row_opens_in_datasketch_and_can_be_asked_there():
    texts = [
        "the quick brown fox jumps over the lazy dog again and again",
        "the quick brown fox jumps over the lazy cat",
    ]
    options = Minhash(seed=7)
    (row, other), _ = sign(*buffers(*texts), options)
    shingles, counts = text_shingles(*buffers(*texts), options.shingle)
    mine = datasketch.MinHash(num_perm=112, seed=7, scheme="affine32", hashfunc=int)
    mine.update_batch(shingles[: counts[1]].tolist())
    assert as_minhash(row, seed=7).jaccard(mine) == 1.0
    assert as_minhash(row.tobytes(), seed=7).jaccard(as_minhash(other, seed=7)) == np.mean(row == other)


def test_a_text_of_fewer_words_than_a_shingle_has_no_signature():
    _, valid = sign(*buffers("", "one two three four", "one two three four five"), Minhash())
    assert valid.tolist() == [False, False, True]


def units(text):
    return unit_hashes(*buffers(text))[0].tolist()


def word_units(text):
    return word_hashes(*buffers(text))[0].tolist()


def test_units_are_words():
    assert units("Plain words, naïve слова") == word_units("plain words naïve слова")


def test_beside_han_letters_a_name_is_taken_letter_by_letter_however_it_is_spaced():
    assert units("漢字 Debian 項目") == word_units("漢字 d e b i a n 項目")
    assert units("漢 字De bi\nan項目") == units("漢字 Debian 項目")
    assert units("version 2 版") == word_units("v e r s i o n 2 版")


def test_a_long_stretch_of_words_beside_han_letters_stays_words():
    short, long = "abcd " * (MAX_SPLIT // 4), "abcd " * (MAX_SPLIT // 4) + "e"
    assert units("漢 " + short) == word_units("漢 " + "a b c d " * (MAX_SPLIT // 4))
    assert units("漢 " + long) == word_units("漢 " + long)


def test_a_mark_stays_with_its_letter():
    assert units("漢 cafe\u0301s") == word_units("漢 c a f e\u0301 s")


def test_a_han_character_is_a_word():
    _, valid = sign(*buffers("漢字五文字", "漢字四文"), Minhash(shingle=5))
    assert valid.tolist() == [True, False]


def test_case_and_punctuation_do_not_change_a_signature():
    signatures, _ = sign(*buffers("Red, green; BLUE - white & black!", "red green blue white black"), Minhash())
    assert signatures[0].tolist() == signatures[1].tolist()


def test_shingle_sets_are_sorted_and_without_repeats():
    values, firsts = shingle_sets(*buffers("a b a b a b", "x"), 2)
    shingles, _ = text_shingles(*buffers("a b a b a b"), 2)
    assert values.tolist() == sorted(set(shingles.tolist()))
    assert firsts.tolist() == [0, 2, 2]


def test_word_order_tells_shingles_apart():
    values, _ = text_shingles(*buffers("a b c", "c b a"), 3)
    assert values[0] != values[1]


@pytest.mark.parametrize(("shared", "tolerance"), [(0.3, 0.13), (0.8, 0.1), (1.0, 0.0)])
def test_the_share_of_equal_hashes_estimates_the_jaccard_similarity(shared, tolerance):
    draw = np.random.default_rng(3)
    common, own = draw.integers(0, 1 << 32, (2, 3000), dtype=np.uint32)
    size = int(2 * 1000 * shared / (1 + shared))
    both = [*common[:size], *own[: 1000 - size], *common[:size], *own[1500 : 2500 - size]]
    a, b = sign_shingles(np.array(both), np.array([0, 1000, 2000]), Minhash(num_hashes=256))
    assert abs(np.mean(a == b) - size / (2000 - size)) <= tolerance


def test_signatures_are_what_they_were():
    signatures, _ = sign(
        *buffers("Call me Ishmael. Some years ago - never mind how long precisely", "吾輩は猫である"), Minhash()
    )
    assert xxhash.xxh3_64_hexdigest(signatures.tobytes()) == "50fc7675c6c89a50"

import math

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.measure.minhash.sign import sign
from pipeline.text.edits import apply_edits, text_buffers
from schemas.arrow import document_schema
from schemas.recipe import C4Lines, Edits, Minhash
from tests.measure.measuring import CHINESE, RUSSIAN, column, final_text, measure, measured, registry

SIGNALS = list(registry().signals)
EDITS = Edits(c4=C4Lines(end_mark=False), mask=["email", "ip"])
PAGE = """Contents
Home

It was the best of times, it was the worst of times, said jane@doe.example.org of 8.8.8.8.
It was the age of wisdom[1], it was the age of foolishness... and so on.
• one bullet and some more of it
We use cookies to follow you around.
It was the age of wisdom, it was the age of foolishness, and { a bracket.
"""


def test_columns_have_the_types_that_select_and_pack_read():
    batch = measure(EDITS, column(PAGE, ""))
    schema = document_schema(112, SIGNALS)
    for name in set(batch.schema.names) & set(schema.names):
        assert batch.schema.field(name).type == schema.field(name).type, name
    assert {"final_hash", "num_bytes", "edits", "language", "signature", *SIGNALS} <= set(batch.schema.names)


def test_hashes_sizes_and_signatures_are_of_the_final_text():
    texts = column(PAGE, "too short", RUSSIAN)
    batch = measure(EDITS, texts)
    final = apply_edits(texts, batch["edits"])
    assert batch["final_hash"].to_pylist() == [xxhash.xxh3_128_digest(text.as_py().encode()) for text in final]
    assert batch["num_bytes"].to_pylist() == [len(text.as_py().encode()) for text in final]
    signatures, valid = sign(*text_buffers(final), Minhash())
    assert valid.tolist() == [True, False, True]
    assert batch["signature"].to_pylist() == [
        row.astype("<u4").tobytes() if good else None for row, good in zip(signatures, valid, strict=True)
    ]


@settings(deadline=None)
@given(st.lists(st.text() | st.sampled_from([PAGE, RUSSIAN, CHINESE, "a@b.co\n{ 8.8.8.8."]), max_size=5))
def test_a_row_does_not_depend_on_its_batch(texts: list[str]):
    urls = ["http://a.test/"] * len(texts)
    batch = measure(EDITS, column(*texts), urls)
    assert batch.to_pylist() == [measured(text, EDITS) for text in texts]
    padded = measure(EDITS, column("x", *texts).slice(1), urls)
    assert padded.equals(batch)


@settings(deadline=None)
@given(st.text())
def test_every_signal_is_finite(text: str):
    row = measured(text, EDITS)
    assert all(math.isfinite(row[name]) for name in SIGNALS)


def test_an_empty_batch_has_the_columns_and_no_row():
    batch = measure(EDITS, column())
    assert batch.num_rows == 0
    assert batch.schema == measure(EDITS, column("a")).schema


def test_every_signal_of_a_page_is_what_it_was():
    """All of them, zeros too. A group's version follows its sources by itself; what a value is, is told here."""
    texts = column(PAGE)
    batch = measure(EDITS, texts)
    row = batch.to_pylist()[0]
    found = {name: row[name] for name in SIGNALS if name != "language.score"}
    found |= {
        "text": apply_edits(texts, batch["edits"])[0].as_py(),
        "signature": xxhash.xxh3_64_hexdigest(row["signature"]),
    }
    assert found == GOLDEN
    assert (row["language"], row["language.score"]) == ("en", pytest.approx(0.990161, abs=1e-6))


GOLDEN = {
    "url.blocked": 0.0,
    "gopher.num_words": 63.0,
    "gopher.mean_word_length": 3.873015873015873,
    "gopher.hash_ratio": 0.0,
    "gopher.ellipsis_ratio": 0.013333333333333334,
    "gopher.bullet_line_fraction": 0.125,
    "gopher.ellipsis_line_fraction": 0.0,
    "gopher.alphabetic_token_fraction": 0.8133333333333334,
    "gopher.num_stop_words": 4.0,
    "gopher.duplicate_paragraph_fraction": 0.0,
    "gopher.duplicate_paragraph_character_fraction": 0.0,
    "gopher.duplicate_line_fraction": 0.0,
    "gopher.duplicate_line_character_fraction": 0.0,
    "gopher.top_2_gram_character_fraction": 0.13003095975232198,
    "gopher.top_3_gram_character_fraction": 0.13622291021671826,
    "gopher.top_4_gram_character_fraction": 0.17337461300309598,
    "gopher.duplicate_5_gram_character_fraction": 0.07430340557275542,
    "gopher.duplicate_6_gram_character_fraction": 0.08668730650154799,
    "gopher.duplicate_7_gram_character_fraction": 0.07739938080495357,
    "gopher.duplicate_8_gram_character_fraction": 0.0,
    "gopher.duplicate_9_gram_character_fraction": 0.0,
    "gopher.duplicate_10_gram_character_fraction": 0.0,
    "c4.num_lorem_ipsum": 0.0,
    "c4.num_curly_brackets": 1.0,
    "c4.num_sentences": 4.0,
    "fineweb.end_mark_fraction": 0.75,
    "fineweb.short_line_fraction": 0.0,
    "fineweb.repeated_character_fraction": 0.0,
    "fineweb.newline_ratio": 0.046875,
    "text": "It was the best of times, it was the worst of times, said email@example.com of 198.51.100.206.\n"
    "It was the age of wisdom, it was the age of foolishness... and so on.\n"
    "• one bullet and some more of it\n"
    "It was the age of wisdom, it was the age of foolishness, and { a bracket.",
    "signature": "a5afec1f531b4609",
}


def test_invisible_characters_are_out_of_counts_and_of_the_final_text_by_default():
    shy = "It was the inter\u00adnational age of wis\u200bdom, as jane@doe.example.org[1] said.\n" * 3
    plain = shy.replace("\u00ad", "").replace("\u200b", "")
    for edits in (Edits(), EDITS):
        row, other = measured(shy, edits), measured(plain, edits)
        different = {name for name in row if row[name] != other[name]}
        assert different == {"raw_edits", "c4_edits", "edits"}
        assert final_text(shy, edits) == final_text(plain, edits)
    kept = Edits(invisible=False)
    assert final_text(shy, kept) == shy
    assert measured(shy, kept)["gopher.mean_word_length"] > measured(plain, kept)["gopher.mean_word_length"]

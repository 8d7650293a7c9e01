"""`gristmill explain`: what it says of a kept page, of dropped ones, and of none."""

import shutil
from pathlib import Path

import pytest

from pipeline.explain import explain
from schemas.dataset import DatasetError, open_dataset
from tests.made_dataset import doc_id
from tests.report.handmade import document, write_dataset

LONG = "Debian is a free operating system that many people make together."
TWIN = {
    "twin": doc_id("http://x/kept"),
    "duplicate_of": doc_id("http://x/kept"),
    "cluster": doc_id("http://x/kept"),
    "cluster_size": 2,
}
DROPPED = {"kept": False, "num_tokens": None, "shard": None, "row": None, "split": None}


@pytest.fixture
def dataset(tmp_path: Path) -> str:
    """Six records: kept, near duplicate, too short, not found, and two captures of one URL."""
    return write_dataset(
        tmp_path / "set",
        [
            document(
                "http://x/kept",
                LONG,
                num_tokens=17,
                cluster_size=2,
                position=1234,
                offset=56,
                date=1_795_000_000_000,
            ),
            document(
                "http://x/near",
                LONG + " Indeed.",
                **DROPPED,
                **TWIN,
                stage="near",
                rule="near.duplicate",
                value=0.875,
                threshold=0.8,
            ),
            document(
                "http://x/short",
                "Free beer \x1b[31m!",
                **DROPPED,
                stage="rules",
                rule="gopher.too_few_words",
                value=3.0,
                threshold=5.0,
                **{"gopher.mean_word_length": 9.5},
            ),
            document("http://x/gone", None, **DROPPED, stage="read", rule="read.status", value=404.0, status=404),
            document("http://x/two", LONG + " One.", doc_id=doc_id("one"), position=1),
            document("http://x/two", LONG + " Two.", doc_id=doc_id("two"), position=2),
        ],
    )


def test_a_kept_document_tells_where_it_came_from_and_where_it_went(dataset: str) -> None:
    shard = open_dataset(dataset).shards("train")["path"][0].as_py()
    assert explain(dataset, None, "http://x/kept") == "\n".join(
        [
            "http://x/kept",
            f"  document   {doc_id('http://x/kept').hex()}",
            "  record     urn:http://x/kept",
            "  read from  web: a.warc.gz, 56 bytes into what is unpacked from byte 1,234 on",
            "  answer     2026-11-18 11:06:40 UTC, status 200, text/html, charset utf-8",
            "  text       11 words, 65 B, language en",
            "",
            f"  KEPT in train: 17 tokens, row 0 of {shard} (shard 0)",
            f"  one of 2 alike, cluster {doc_id('http://x/kept').hex()}",
            "    stands for http://x/near (near.duplicate, similarity 0.875)",
            "",
            "  rule                     measured  bound",
            "  gopher.too_few_words           11  at least 5",
            "  gopher.words_too_long           4  at most 9",
            "",
            f"  | {LONG}",
        ]
    )


def test_a_near_duplicate_names_its_twin_and_how_alike_they_are(dataset: str) -> None:
    explained = explain(dataset, None, doc_id("http://x/near").hex())
    assert "DROPPED in near by near.duplicate: similarity 0.875, threshold 0.8" in explained
    assert f"duplicate of http://x/kept {doc_id('http://x/kept').hex()} (kept)" in explained
    assert "nearest duplicate" not in explained  # it is the same document


def test_every_rule_is_told_beside_the_one_that_dropped_it(dataset: str) -> None:
    explained = explain(dataset, None, "urn:http://x/short")
    assert "  gopher.too_few_words            3  at least 5  FAILS\n" in explained
    assert "  gopher.words_too_long         9.5  at most 9  would fail too\n" in explained
    # The terminal's code is gone, the letters after it are only letters.
    assert "  | Free beer \ufffd[31m!" in explained


def test_a_record_without_text_tells_its_status(dataset: str) -> None:
    explained = explain(dataset, None, "http://x/gone")
    assert "status 404" in explained
    assert "DROPPED in read by read.status: measured 404\n  the server did not answer 200" in explained
    assert "rule  " not in explained


def test_all_captures_of_a_url_are_told(dataset: str) -> None:
    explained = explain(dataset, None, "http://x/two")
    assert explained.startswith("2 records of http://x/two:\n")
    assert "together. One." in explained
    assert "together. Two." in explained


def test_what_was_not_read_is_one_message_with_the_spelling_that_was(dataset: str) -> None:
    with pytest.raises(DatasetError, match=r"read nothing called https://www.x/kept/; there is http://x/kept$"):
        explain(dataset, None, "https://www.x/kept/")
    with pytest.raises(DatasetError, match="give the URL as the archive has it"):
        explain(dataset, None, "0" * 32)


def test_without_the_work_folder_the_verdict_is_still_told(dataset: str) -> None:
    shutil.rmtree(f"{dataset}/work")
    explained = explain(dataset, None, "http://x/short")
    assert "DROPPED in rules by gopher.too_few_words: measured 3, threshold 5" in explained
    assert "/work lacks 1 of 1 part; give --work" in explained

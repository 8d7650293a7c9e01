"""From pages to text: what passes through, what is extracted, what is dropped."""

import hashlib
import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.ingest.extract.html import (
    EMPTY,
    Extracted,
    Extractor,
    extract_html,
    extract_page,
    extract_version,
    storable,
)
from pipeline.ingest.read import read_piece
from pipeline.ingest.receipts import Piece
from pipeline.ingest.records import Record
from schemas.recipe import Extract, Read, Source

SAMPLE = Path(__file__).parents[1] / "data/crawl/web/legacy-charsets.warc.gz"

PAGE = """<html><head><title>Mill</title></head><body>
<nav><ul><li><a href=/>Home</a></li><li><a href=/all>All mills</a></li></ul></nav>
<main><h1>The mill</h1><p>A gristmill grinds grain into flour. <img src=a.png alt="A picture of a mill">
<p>It has stood at the river since 1790, and it still turns whenever the water is high enough for it.
<ol><li>stone<li>wheel</ol></main>
<div class="comments" id="comments"><p>First! Nice mill, I was there last year.</div>
<footer>Copyright, imprint, contact</footer></body></html>"""


def record(body: bytes | None = None, mime: str = "text/html", **fields: object) -> Record:
    return Record("response", "a.warc.gz", 0, 0, body=body, mime=mime, **fields)  # type: ignore[arg-type]


def extract(*records: Record, **options: object) -> list[Extracted]:
    with Extractor(Extract(**options)) as extractor:  # type: ignore[arg-type]
        return extractor.extract(records)


def test_the_main_content_is_kept_with_its_paragraphs_and_lists() -> None:
    (page,) = extract(record(PAGE.encode()))
    assert page == Extracted(
        b"The mill\n\nA gristmill grinds grain into flour.\n\nIt has stood at the river since 1790, and it still turns "
        b"whenever the water is high enough for it.\n\n1. stone\n2. wheel",
        "windows-1252",
    )


def test_without_main_content_menus_and_footers_stay() -> None:
    (page,) = extract(record(PAGE.encode()), main_content=False)
    assert page.text is not None
    assert b"All mills" in page.text
    assert b"imprint" in page.text


def test_records_that_are_text_pass_through_unchanged() -> None:
    text = " First line\r\n\r\n\tsecond <b>line</b> &amp; e\u0301 \n"
    assert extract(record(text=text, mime="text/plain"), record(text.encode(), "text/plain")) == [
        Extracted(text.encode(), None),
        Extracted(text.encode(), "utf-8"),
    ]


def test_plain_text_is_decoded_by_its_header() -> None:
    (page,) = extract(record("<meta charset=utf-8> Füße".encode("cp1252"), "text/plain", charset="iso-8859-1"))
    assert page == Extracted("<meta charset=utf-8> Füße".encode(), "windows-1252")


def test_pages_are_decoded_by_what_they_declare() -> None:
    page = "<meta charset=euc-kr><p>모든 국민은 인간으로서의 존엄과 가치를 가진다."
    assert extract(record(page.encode("euc-kr"))) == [
        Extracted("모든 국민은 인간으로서의 존엄과 가치를 가진다.".encode(), "euc-kr")
    ]


def test_what_was_dropped_in_reading_stays_dropped() -> None:
    late = record(rule="read.too_long", value=9.0, threshold=8.0)
    assert extract(late, record(b"<p>Some text here.")) == [
        Extracted(None, None, "read.too_long", 9.0, 8.0),
        Extracted(b"Some text here.", "windows-1252"),
    ]


@pytest.mark.parametrize("body", [b"", b"<html>", b"<p> \xc2\xa0\n", b"<script>f()</script>", b"\0\0"])
def test_a_page_without_text_is_dropped(body: bytes) -> None:
    (page,) = extract(record(body, charset="utf-8"))
    assert page in (Extracted(None, "utf-8", EMPTY), Extracted("\ufffd\ufffd".encode(), "utf-8"))


def test_an_empty_text_is_dropped() -> None:
    assert extract(record(text=""), record(text=" \n\u3000\t"), record(b" ", "text/plain")) == [
        Extracted(None, None, EMPTY),
        Extracted(None, None, EMPTY),
        Extracted(None, "windows-1252", EMPTY),
    ]


def test_line_ends_of_html_are_newlines() -> None:
    # As characters the parser makes them newlines itself, as references it does not.
    text, _ = extract_page(b"<pre>one\r\ntwo&#13;&#10;three</pre>", "utf-8", "resiliparse", True)
    assert text == b"one\ntwo\nthree"


def test_what_utf8_cannot_hold_becomes_a_replacement_character() -> None:
    assert storable("a\ud800b\0c") == "a\ufffdb\ufffdc".encode()
    assert storable("\ud83d\ude00") == "😀".encode()
    assert storable("\ude00\ud83d") == "\ufffd\ufffd".encode()
    (page,) = extract(record(b"<p>half a pair: &#xD800; and &#0; and \0 too"))
    assert page.text == "half a pair: \ufffd and \ufffd and too".encode()


@given(st.text(st.characters(exclude_categories=[])))
def test_every_text_can_be_stored_and_stored_again(text: str) -> None:
    stored = storable(text).decode()
    assert storable(stored).decode() == stored
    if "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert stored == text


@pytest.mark.parametrize(
    ("page", "rule"),
    [
        ("<div>" * 200_000 + "deep", "extract.too_slow"),
        ("<p " + " ".join(f"a{number}=1" for number in range(100_000)) + ">many attributes", "extract.too_slow"),
    ],
)
def test_pages_that_take_an_extractor_for_ever_are_dropped(page: str, rule: str) -> None:
    pages = record(b"<p>A fair page."), record(page.encode())
    fair, culprit = extract(*pages, method="resiliparse", max_cpu_seconds=0.5)
    assert fair.text == b"A fair page."
    assert culprit == Extracted(None, None, rule, 0.5, 0.5)


def test_a_page_that_takes_too_much_memory_is_dropped() -> None:
    page = b"<html><body><p>" + b"words " * (8 << 20)
    options = {"max_memory_bytes": 256 << 20}
    assert extract(record(page), record(b"<p>A fair page."), **options) == [
        Extracted(None, None, "extract.out_of_memory", None, float(256 << 20)),
        Extracted(b"A fair page.", "windows-1252"),
    ]


@pytest.mark.parametrize("tag", ["p", "b", "table", "a", "li", "font"])
def test_deeply_nested_pages_come_to_some_end(tag: str) -> None:
    (page,) = extract(record(b"<html><body>" + f"<{tag}>".encode() * 5_000 + b"deep down"))
    assert page.rule is not None or b"deep down" in (page.text or b"")


@pytest.mark.skipif(importlib.util.find_spec("trafilatura") is None, reason="trafilatura is not installed")
def test_trafilatura_can_be_asked_for() -> None:
    (page,) = extract(record(PAGE.encode()), method="trafilatura")
    assert page.text is not None
    assert b"grinds grain into flour" in page.text
    assert b"All mills" not in page.text
    assert "All mills" in extract_html(PAGE, "trafilatura", main_content=False)
    assert extract_html("", "trafilatura", main_content=True) == ""


def test_a_missing_trafilatura_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"trafilatura is not installed: pip install 'gristmill\[trafilatura\]'"):
        Extractor(Extract(method="trafilatura"))


def test_the_version_names_the_libraries_that_shape_the_text() -> None:
    assert extract_version("gristmill").startswith("extract 2, charset 2, resiliparse ")
    assert "lxml" in extract_version("trafilatura")


# sha256 over the texts of the sample's pages. A new digest for a version that stands here: raise EXTRACT_VERSION (or
# CHARSET_VERSION), so that parts are made again. A new library: add its line.
GOLDEN = {
    (
        "gristmill",
        "extract 2, charset 2, resiliparse 2.0.1",
    ): "3af6402a3ae6d018217454da5db89b11b45e17020f98fb48035a6efe9abf8296",
    (
        "resiliparse",
        "extract 2, charset 2, resiliparse 2.0.1",
    ): "8146273003f1810c89cb76fe847f0360d1399a30508a1d5b6980edbbc0514723",
}


@pytest.mark.parametrize("method", ["gristmill", "resiliparse"])
def test_extracted_texts_change_only_with_the_version(method: str) -> None:
    version = extract_version(method)
    if (method, version) not in GOLDEN:
        pytest.skip(f"no golden digest for {version}")
    piece = Piece("pages", str(SAMPLE), "warc", 0, SAMPLE.stat().st_size, SAMPLE.stat().st_size, "")
    texts = extract(*read_piece(piece, Source(root=""), Read()), method=method)
    digest = hashlib.sha256()
    for text in texts:
        digest.update(b"%d:%s;" % (len(text.text or b""), text.text or b""))
    assert len(texts) > 30
    assert digest.hexdigest() == GOLDEN[method, version]

"""From bytes to characters: the order of what is believed, and what each encoding knows."""

import csv
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warcio.archiveiterator import ArchiveIterator

from pipeline.ingest.extract.charset import declared_in_page, decode_page, encoding_of_label

CRAWL = Path(__file__).parents[3] / "shared/data/warc/crawl"
RUSSIAN = "<p>Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему."
KOREAN = "<p>모든 국민은 인간으로서의 존엄과 가치를 가지며, 행복을 추구할 권리를 가진다."
JAPANESE = "<p>吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。"


def test_a_byte_order_mark_beats_the_header_and_is_taken_off() -> None:
    assert decode_page(b"\xef\xbb\xbfna\xc3\xafve", "iso-8859-1") == ("naïve", "utf-8")
    assert decode_page(b"\xff\xfeh\0i\0", "utf-8") == ("hi", "utf-16le")
    assert decode_page(b"\xfe\xff\0h\0i", None) == ("hi", "utf-16be")


def test_the_header_beats_meta() -> None:
    page = '<meta charset="utf-8">' + RUSSIAN
    assert decode_page(page.encode("koi8-r"), "KOI8-R") == (page, "koi8-r")


def test_meta_beats_detection() -> None:
    page = '<meta charset="windows-1254">Il y a des années'
    assert decode_page(page.encode("cp1252"), None)[1] == "windows-1254"


FRENCH = "<p>L’été dernier, à la fête de l’île, une élève a été reçue première : « ça alors ! »"
SPANISH = "<p>El niño come en el jardín, mañana también, según él: ¿qué más? Así será."
CHINESE = "<p>道可道，非常道。名可名，非常名。无名天地之始；有名万物之母。故常无欲，以观其妙；常有欲，以观其徼。"
GREEK = (
    "<p>Μῆνιν ἄειδε".replace("ῆ", "ή").replace("ἄ", "ά")
    + " θεά, Πηληϊάδεω Αχιλήος ουλομένην, ή μυρί’ Αχαιοίς άλγε’ έθηκε"
)


@pytest.mark.parametrize(
    ("page", "codec", "declared", "name"),
    [
        (FRENCH, "cp1252", "utf-8", "windows-1252"),
        (SPANISH, "cp1252", "utf-8", "windows-1252"),
        (SPANISH, "cp1252", "UTF8", "windows-1252"),
        (CHINESE, "gb18030", "utf-8", "gb18030"),
        (CHINESE, "gb18030", "iso-8859-1", "gb18030"),
        (CHINESE, "utf-8", "gb2312", "utf-8"),
        (CHINESE, "utf-8", "iso-8859-1", "utf-8"),
        (JAPANESE, "cp932", "utf-8", "shift_jis"),
        (JAPANESE, "euc-jp", "iso-8859-1", "euc-jp"),
        (JAPANESE, "utf-8", "shift_jis", "utf-8"),
        (KOREAN, "cp949", "utf-8", "euc-kr"),
        (KOREAN, "cp949", "windows-1252", "euc-kr"),
        (RUSSIAN, "cp1251", "utf-8", "windows-1251"),
        (RUSSIAN, "cp1251", "iso-8859-1", "windows-1251"),
        (RUSSIAN, "koi8-r", "windows-1251", "koi8-r"),
        (RUSSIAN, "cp1251", "koi8-r", "windows-1251"),
        (RUSSIAN, "utf-8", "windows-1251", "utf-8"),
        (GREEK, "cp1253", "utf-8", "windows-1253"),
        (FRENCH, "utf-8", "iso-8859-1", "utf-8"),
        ("<p>It’s one", "utf-8", "windows-1252", "utf-8"),
        ("<html><body><p>naïve", "utf-8", "utf-16", "utf-8"),
    ],
)
def test_a_declared_encoding_that_does_not_fit_gives_way_and_says_why(
    page: str, codec: str, declared: str, name: str
) -> None:
    for head in ("", f'<meta charset="{declared}">'):
        text, read_as = decode_page((head + page).encode(codec), None if head else declared)
        if head and declared == "utf-16":
            continue  # a page that can say so is not in it
        assert text == head + page
        assert read_as.startswith(f"{name} (declared {encoding_of_label(declared)}: ")


def test_what_the_page_declares_is_tried_before_a_guess() -> None:
    page = '<meta charset="iso-8859-15">' + FRENCH.replace("’", "'") + " 5 €"
    assert decode_page(page.encode("iso-8859-15"), "utf-8")[1].startswith("iso-8859-15 (declared utf-8: ")


@pytest.mark.parametrize(
    ("body", "declared"),
    [
        (FRENCH.encode() + b" \xe9\xe8 " + FRENCH.encode(), "utf-8"),  # a page with a few bytes from elsewhere
        (CHINESE.encode()[:-1], "utf-8"),
        (b"caf\xc3\xa9", "windows-1252"),  # one pair is no proof
        ("<p>prix\u00a0: 5 €".encode("cp1252"), "windows-1252"),
        ("<p>Çà et là".encode("cp1252"), "iso-8859-1"),
        (CHINESE.encode("gb18030"), "gb2312"),
        (RUSSIAN.upper().encode("cp1251"), "windows-1251"),
        ("<p>ЗАО «РосИнфоТех» и др.".encode("cp1251"), "windows-1251"),
        (b"", "utf-16"),
        (b"plain", "gbk"),
    ],
)
def test_a_declared_encoding_that_may_fit_is_believed(body: bytes, declared: str) -> None:
    assert decode_page(body, declared)[1] == encoding_of_label(declared)


def test_a_label_that_names_nothing_is_as_good_as_none() -> None:
    page = '<meta charset="none"><meta charset=windows-1251>' + RUSSIAN
    assert decode_page(page.encode("cp1251"), "x-unknown-8") == (page, "windows-1251")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("ISO-8859-1", "windows-1252"),
        ("us-ascii", "windows-1252"),
        (' "UTF-8" ', "utf-8"),
        ("gb2312", "gbk"),
        ("ks_c_5601-1987", "euc-kr"),
        ("x-sjis", "shift_jis"),
        ("latin5", "windows-1254"),
        ("utf-16", "utf-16le"),
        ("", None),
        ("utf-7", None),
        ("klingon", None),
    ],
)
def test_labels_mean_what_browsers_take_them_for(label: str, name: str | None) -> None:
    assert encoding_of_label(label) == name


def test_labels_are_read_as_the_wider_encoding_of_their_family() -> None:
    assert decode_page(b"\x93quoted\x94", "iso-8859-1")[0] == "“quoted”"
    assert decode_page("똠".encode("cp949"), "euc-kr")[0] == "똠"
    assert decode_page("①".encode("cp932"), "shift_jis")[0] == "①"
    assert decode_page("镕".encode("gb18030"), "gb2312")[0] == "镕"
    assert decode_page(b"\xa1\x45", "big5")[0] == "‧"


def test_euc_jp_knows_what_microsofts_table_adds() -> None:
    assert decode_page(b"\xad\xa1\xa4\xa2\xad\xea", "euc-jp") == ("①あ㈱", "euc-jp")
    assert decode_page(b"a\xff\xa4\xa2\xa4", "euc-jp")[0] == "a\ufffdあ\ufffd"


def test_bytes_that_are_no_character_become_replacement_characters() -> None:
    assert decode_page(b"a\xffb", "utf-8")[0] == "a\ufffdb"
    assert decode_page(b"a\x81b", "windows-1252")[0] == "a\ufffdb"
    assert decode_page(b"a\0\0\xd8b\0", "utf-16le")[0] == "a\ufffdb"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"<meta charset=koi8-r>", "koi8-r"),
        (b"<META\nCHARSET = 'KOI8-R' />", "koi8-r"),
        (b'<meta/charset="koi8-r">', "koi8-r"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">', "koi8-r"),
        (b'<meta content="text/html;charset=koi8-r" http-equiv=content-type>', "koi8-r"),
        (b"<meta http-equiv=content-type content='text/html; charset=\"koi8-r\"'>", "koi8-r"),
        (b'<meta content="text/html; charset=koi8-r">', None),
        (b'<meta name="description" content="charset=koi8-r">', None),
        (b"<metadata charset=koi8-r>", None),
        (b'<!-- <meta charset="utf-8"> --><meta charset=koi8-r>', "koi8-r"),
        (b"<!--><meta charset=koi8-r>", "koi8-r"),
        (b"<!-- <meta charset=koi8-r>", None),
        (b'<a title="<meta charset=utf-8>"><meta charset=koi8-r>', "koi8-r"),
        (b"<a title='><meta charset=utf-8>'><meta charset=koi8-r>", "koi8-r"),
        (b"<?php <meta charset=utf-8> ?><meta charset=koi8-r>", "koi8-r"),
        (b"</p charset=utf-8><meta charset=koi8-r>", "koi8-r"),
        (b"<meta charset=bogus><meta charset=koi8-r>", "koi8-r"),
        (b"<meta charset=utf-16le>", "utf-8"),
        (b"<meta charset=x-user-defined>", "windows-1252"),
        (b'<?xml version="1.0" encoding="koi8-r"?><html>', "koi8-r"),
        (b'<?xml version="1.0" encoding="koi8-r"?><meta charset="gbk">', "gbk"),
        (b'<?xml version="1.0"?><p encoding="koi8-r">', None),
        (b"<\0?\0x\0", "utf-16le"),
        (b" " * 4000 + b"<meta charset=koi8-r>", "koi8-r"),
        (b" " * 4096 + b"<meta charset=koi8-r>", None),
        (b"<meta charset=", None),
        (b"<", None),
        (b"", None),
    ],
)
def test_the_page_declares_its_encoding_as_the_html_standard_says(head: bytes, name: str | None) -> None:
    assert declared_in_page(head) == name


@given(st.lists(st.sampled_from([b"<", b">", b"!--", b"meta", b"/", b"=", b'"', b"'", b" ", b"charset", b"a", b"?"])))
def test_no_page_stops_the_search_for_a_declaration(pieces: list[bytes]) -> None:
    assert declared_in_page(b"".join(pieces) + b"charset") is None


def test_a_page_that_is_not_html_declares_nothing() -> None:
    text = "<meta charset=koi8-r> is how it is written: naïve"
    assert decode_page(text.encode(), None, is_html=False) == (text, "utf-8")


@pytest.mark.parametrize(
    ("page", "codec", "name"),
    [
        (RUSSIAN, "cp1251", "windows-1251"),
        (RUSSIAN, "koi8-r", "koi8-r"),
        (RUSSIAN, "mac-cyrillic", "x-mac-cyrillic"),
        (KOREAN, "euc-kr", "euc-kr"),
        (JAPANESE, "cp932", "shift_jis"),
        (JAPANESE, "euc-jp", "euc-jp"),
        (JAPANESE, "iso2022-jp", "iso-2022-jp"),
        (JAPANESE, "utf-8", "utf-8"),
        ("<p>El niño come en el jardín, mañana también, según él: ¿qué más? Así será.", "cp1252", "windows-1252"),
        ("<html><body><p>plain", "utf-16-be", "utf-16be"),
        ("<html><body><p>plain", "utf-16-le", "utf-16le"),
    ],
)
def test_an_undeclared_encoding_is_detected(page: str, codec: str, name: str) -> None:
    assert decode_page(page.encode(codec), None) == (page, name)


def test_a_page_cut_off_inside_a_character_is_still_utf8() -> None:
    assert decode_page("naïve é".encode()[:-1], None) == ("naïve \ufffd", "utf-8")


def test_a_few_quotes_do_not_make_a_page_greek() -> None:
    page = "<p>“Quotes” — and\xa0spaces…" * 40
    assert decode_page(page.encode("cp1252"), None) == (page, "windows-1252")


def test_a_page_without_evidence_is_windows_1252() -> None:
    assert decode_page(b"", None) == ("", "windows-1252")
    assert decode_page(b"plain ascii", None) == ("plain ascii", "windows-1252")


def archived_pages(path: Path) -> dict[str, tuple[str | None, bytes]]:
    """Declared charset and body of each page of a WARC file, by URL."""
    pages = {}
    with path.open("rb") as file:
        for record in ArchiveIterator(file):
            if record.rec_type == "response":
                kind = record.http_headers.get_header("Content-Type") or ""
                declared = kind.partition("charset=")[2] or None
                pages[record.rec_headers.get_header("WARC-Target-URI").strip("<>")] = (
                    declared,
                    record.content_stream().read(),
                )
    return pages


@pytest.mark.skipif(not CRAWL.exists(), reason="the shared crawl is not here")
def test_the_shared_legacy_pages_are_all_read_right() -> None:
    pages = archived_pages(CRAWL / "LEGACY-20261122-shared.warc.gz")
    with (CRAWL / "legacy_truth_shared.tsv").open(encoding="utf-8", newline="") as file:
        truth = list(csv.DictReader(file, delimiter="\t"))
    wrong = []
    for row in truth:
        declared, body = pages[row["url"]]
        text, name = decode_page(body, declared)
        if hashlib.sha1(text.encode()).hexdigest() != row["sha1_of_utf8_of_decoded_html"]:
            wrong.append((row["mode"], row["charset"], name))
    assert len(truth) == 80
    assert wrong == []


def test_the_old_encodings_of_the_sample_are_told_apart() -> None:
    path = Path(__file__).parents[1] / "data/crawl/web/legacy-charsets.warc.gz"
    names = {decode_page(body, declared)[1] for declared, body in archived_pages(path).values()}
    assert {"windows-1251", "koi8-r", "shift_jis", "euc-kr"} <= names

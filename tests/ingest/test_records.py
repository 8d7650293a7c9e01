"""Ids and dates of records."""

import pytest
import xxhash

from pipeline.ingest.records import Record, arc_millis, doc_id, iso_millis


def record(**fields: object) -> Record:
    return Record("response", "crawl/a.warc.gz", 17, 5, **fields)  # type: ignore[arg-type]


def test_a_document_is_named_by_its_source_and_record_id() -> None:
    assert doc_id("web", record(record_id="urn:uuid:1")) == xxhash.xxh3_128_digest(b"web\0urn:uuid:1")


def test_without_a_record_id_a_document_is_named_by_its_place() -> None:
    assert doc_id("web", record()) == xxhash.xxh3_128_digest(b"web\0crawl/a.warc.gz\x0017\x005")


def test_half_a_surrogate_pair_in_an_id_does_no_harm() -> None:
    assert doc_id("web", record(record_id="\ud800")) == xxhash.xxh3_128_digest(b"web\0?")


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("2026-11-22T04:13:18Z", 1_795_320_798_000),
        ("2026-11-22t04:13:18z", 1_795_320_798_000),
        ("2026-11-22T04:13:18.25Z", 1_795_320_798_250),
        ("2026-11-22T05:13:18.123456789+01:00", 1_795_320_798_123),
        ("2026-11-21 23:43:18-0430", 1_795_320_798_000),
        ("2026-11-22T04:13", 1_795_320_780_000),
        ("2026-11-22", 1_795_305_600_000),
        ("2026-11", 1_793_491_200_000),
        ("1969", -31_536_000_000),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000),
        ("2026-02-30", None),
        ("2026-11-22T24:00:00Z", None),
        ("0000-01-01", None),
        ("22 Nov 2026", None),
        ("20261122041318", None),
        ("٢٠٢٦-11-22", None),
        ("", None),
    ],
)
def test_iso_dates_are_milliseconds_utc(text: str, millis: int | None) -> None:
    assert iso_millis(text) == millis


@pytest.mark.parametrize(
    ("digits", "millis"),
    [
        ("20140216050221", 1_392_526_941_000),
        ("201402160502", 1_392_526_920_000),
        ("20141316050221", None),
        ("2014", None),
    ],
)
def test_arc_dates_are_milliseconds_utc(digits: str, millis: int | None) -> None:
    assert arc_millis(digits) == millis

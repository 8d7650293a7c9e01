"""Numbers and foreign strings as the report writes them."""

from schemas.text_format import bits, brief, count, duration, escape, number, plural, share


def test_markup_and_control_characters_of_a_crawl_become_harmless() -> None:
    assert escape('<b onclick="x">&\'') == "&lt;b onclick=&quot;x&quot;&gt;&amp;&#x27;"
    assert escape("a\x00b\x1b[31mc\u202ed\x85") == "a\ufffdb\ufffd[31mc\ufffdd\ufffd"
    assert escape("tab\tand\nline") == "tab\tand\nline"


def test_numbers_are_written_with_the_precision_they_deserve() -> None:
    assert [count(0), count(1234567)] == ["0", "1,234,567"]
    assert [number(None), number(3.0), number(0.123456), number(1234.5), number(-2.0)] == [
        "\u2013",
        "3",
        "0.1235",
        "1234",
        "-2",
    ]
    assert [number(float(word)) for word in ("inf", "-inf", "nan")] == ["inf", "-inf", "nan"]
    assert [bits(0), bits(1023), bits(1024), bits(5 << 20), bits(300 << 30)] == [
        "0\u202fB",
        "1,023\u202fB",
        "1.0\u202fkB",
        "5.0\u202fMB",
        "300\u202fGB",
    ]
    assert [plural(1, "word"), plural(2, "word")] == ["1 word", "2 words"]


def test_shares_do_not_round_something_to_nothing_or_to_all() -> None:
    assert [share(0, 0), share(0, 5), share(1, 3), share(1, 100_000), share(5, 5)] == [
        "\u2013",
        "0\u202f%",
        "33.3\u202f%",
        "<0.1\u202f%",
        "100\u202f%",
    ]
    assert share(9_999, 10_000) != "100\u202f%"


def test_brief_rounds_into_the_next_unit_and_not_to_a_thousand_of_one() -> None:
    assert [brief(value) for value in (0, 0.1234, 7, 999, 999.6, 1024, 52_300_000, 999_960, 3.2e12)] == [
        "0", "0.123", "7", "999", "1k", "1.02k", "52.3M", "1M", "3.2T",
    ]  # fmt: skip


def test_durations_have_two_units_at_most() -> None:
    hour = 3600
    assert [duration(value) for value in (0, 42.4, 59.6, 754, 3 * hour + 420, 47.9 * hour, 122.2 * hour)] == [
        "0s", "42s", "1m", "13m", "3h07m", "47h54m", "5d02h",
    ]  # fmt: skip

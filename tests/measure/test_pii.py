import json
import re
from pathlib import Path

import pytest

from pipeline.text.edits import REPLACEMENTS
from schemas.recipe import C4Lines, Edits
from tests.measure.measuring import final_text, measured

MASK = Edits(mask=["email", "ip"])
EMAILS, IPS = REPLACEMENTS[2:4], REPLACEMENTS[4:10]
SHARED = Path(__file__).parents[2].parent / "shared/data/safety/pii_shared.jsonl"


def masked(text: str) -> str:
    """The text with E for each replaced e-mail address and I for each IPv4 address."""
    text = final_text(text, MASK)
    for name, replacements in (("E", EMAILS), ("I", IPS)):
        for replacement in replacements:
            text = text.replace(replacement, name)
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jane.doe+x@mail.example.co.uk.", "write to E."),
        ("<a@b.co>,c@d.org;", "<E>,E;"),
        ("письмо:вася@почта.рф и éa@b.co", "письмо:вася@почта.рф и éE"),
        ("a@b, @home, me@localhost, x@-y.com, a@@b.c", "a@b, @home, me@localhost, x@-y.com, a@@b.c"),
        ("a@b@c.com", "a@E"),
        ("a@b.co@c.com", "E@c.com"),
        ("", ""),
    ],
)
def test_email_addresses(text: str, expected: str):
    assert masked(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at 8.8.8.8.", "at I."),
        ("(1.1.1.1:80) 地址9.9.9.9是", "(I:80) 地址I是"),
        ("8.8.8.8,8.8.4.4", "I,I"),
        ("255.255.255.255 0.1.2.3 10.1.2.3 127.0.0.1 172.16.0.1 172.31.9.9 192.168.1.1", None),
        ("169.254.1.1 100.64.1.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.9 240.0.0.1", None),
        ("172.15.0.1 172.32.0.1 100.128.0.1 11.0.0.1 239.1.1.1", "I I I I I"),
        ("v1.2.3.4 1.2.3.4x 1.2.3 1.2.3.4.5 256.1.1.1 08.8.8.8 1234.1.1.1 1.1.1.1_", None),
    ],
)
def test_global_ipv4_addresses(text: str, expected: str | None):
    assert masked(text) == (text if expected is None else expected)


def test_an_address_has_the_same_replacement_everywhere_and_not_all_have_one():
    once = final_text("a1@b.co", MASK)
    assert final_text("x a1@b.co and A1@B.co", MASK) == f"x {once} and {once}"
    assert {final_text(f"a{i}@b.co", MASK) for i in range(20)} == set(EMAILS)
    assert {final_text(f"8.8.8.{i}", MASK) for i in range(100)} == set(IPS)


def test_a_number_inside_an_email_address_is_not_masked_twice():
    assert masked("8.8.8.8@b.co and a@8.8.8.8.com") == "E and E"


def test_only_what_the_recipe_asks_for_is_masked():
    assert final_text("a@b.co 8.8.8.8", Edits(mask=["ip"])).startswith("a@b.co ")
    assert final_text("a@b.co 8.8.8.8", Edits(mask=["email"])).endswith(" 8.8.8.8")
    assert measured("a@b.co 8.8.8.8")["edits"] == []


def test_masking_follows_the_rewriting_of_lines():
    edits = Edits(c4=C4Lines(), mask=["email", "ip"])
    text = "drop me@b.co\nAsk[1] us at me@b.co[2].\nor at me@b.co too late\nThe end of it."
    assert masked_lines(final_text(text, edits)) == ["Ask us at E.", "The end of it."]


def masked_lines(text: str) -> list[str]:
    return [re.sub("|".join(map(re.escape, EMAILS)), "E", line) for line in text.split("\n")]


def test_a_run_of_letters_without_end_takes_no_time():
    text = "a" * 200_000 + "@" + "b" * 200_000
    assert final_text(text, MASK) == text
    assert final_text("a." * 100_000 + "a@b.co", MASK).endswith(EMAILS)


def test_labelled_addresses_are_masked():
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not here")
    rows = [json.loads(line) for line in SHARED.open(encoding="utf-8")]
    emails = [(row["text"], span) for row in rows for span in row["spans"] if "EMAIL" in span["type"]]
    assert len(emails) > 10
    left = [span for text, span in emails if text[span["start"] : span["end"]] in final_text(text, MASK)]
    assert len(left) <= len(emails) // 50

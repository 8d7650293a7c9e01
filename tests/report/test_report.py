"""report.html: what it counts, that it is one harmless file, and that it is the same every time."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.part_files import open_parts
from pipeline.report.report import gather_facts, write_report
from pipeline.report.report_data import Facts
from schemas.dataset import open_dataset
from tests.made_dataset import doc_id
from tests.report.handmade import document, write_dataset

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>\x00"
DROPPED = {"kept": False, "num_tokens": None, "shard": None, "row": None, "split": None}
TEXT = "Debian is a free operating system that many people make together."


def records() -> list[dict[str, Any]]:
    """Nine records of two sources with every kind of fate, and names that want to be markup."""
    kept = doc_id("http://x/1")
    twin = {"twin": kept, "duplicate_of": kept, "cluster": kept, "cluster_size": 3}
    return [
        document("http://x/1", TEXT, cluster_size=3, num_tokens=20),
        document(
            f"javascript:{EVIL}", f"{EVIL} and some more words here", num_tokens=10, split="validation", language="de"
        ),
        document(
            "http://x/2",
            TEXT + " Yes.",
            **DROPPED,
            **twin,
            stage="near",
            rule="near.duplicate",
            value=0.9,
            threshold=0.8,
        ),
        document(
            "http://x/3", TEXT, **DROPPED, **twin, stage="exact", rule="exact.duplicate", value=1.0, threshold=1.0
        ),
        document(
            "http://x/4",
            "too few",
            **DROPPED,
            stage="rules",
            rule="gopher.too_few_words",
            value=2.0,
            threshold=5.0,
            **{"gopher.mean_word_length": 10.0},
        ),
        document(
            "http://x/5",
            "a b c d e f",
            **DROPPED,
            stage="rules",
            rule="gopher.words_too_long",
            value=9.5,
            threshold=9.0,
            **{"gopher.mean_word_length": 9.5},
        ),
        document("http://x/6", None, **DROPPED, stage="read", rule="read.status", value=404.0, source="wet"),
        document(
            None,
            None,
            **DROPPED,
            stage="read",
            rule="read.damaged",
            source="wet",
            record_id=None,
            position=77,
            doc_id=doc_id("d"),
        ),
        document("http://x/7", TEXT + " Wet.", source="wet", input="b.wet.gz", num_tokens=21),
    ]


def gathered(folder: Path, documents: list[dict[str, Any]]) -> Facts:
    """The facts of a dataset."""
    dataset = open_dataset(write_dataset(folder / "set", documents))
    return gather_facts(dataset, open_parts(dataset, None))


def test_every_record_is_counted_once_by_fate(tmp_path: Path) -> None:
    facts = gathered(tmp_path, records())
    assert (facts.rows, facts.kept, facts.tokens) == (9, 3, 51)
    assert [(drop.stage, drop.rule, drop.count) for drop in facts.drops] == [
        ("read", "read.damaged", 1),
        ("read", "read.status", 1),
        ("rules", "gopher.too_few_words", 1),
        ("rules", "gopher.words_too_long", 1),
        ("exact", "exact.duplicate", 1),
        ("near", "near.duplicate", 1),
    ]
    assert [
        (entry.label, entry.kept, entry.ruled_out, entry.duplicates, entry.tokens) for entry in facts.languages
    ] == [
        ("en", 2, 2, 2, 41),
        ("de", 1, 0, 0, 10),
    ]
    assert (sum(facts.words_kept.values()), sum(facts.words_dropped.values())) == (3, 4)
    assert [(entry.source, entry.split, entry.tokens, dict(entry.packed_rows)) for entry in facts.tokens_by] == [
        ("web", "train", 20, {"16": 2}),
        ("web", "validation", 10, {"16": 1}),
        ("wet", "train", 21, {"16": 2}),
    ]
    assert [(entry.source, entry.name, entry.rows, entry.kept) for entry in facts.inputs] == [
        ("web", "a.warc.gz", 6, 2),
        ("wet", "a.warc.gz", 2, 0),
        ("wet", "b.wet.gz", 1, 1),
    ]
    assert facts.corrupt == 1
    assert facts.damage[0][0].place == "a.warc.gz at 77"


def test_a_rule_is_credited_with_what_it_would_drop_alone(tmp_path: Path) -> None:
    yields = {
        drop.rule: (drop.alone, drop.only) for drop in gathered(tmp_path, records()).drops if drop.stage == "rules"
    }
    # The document with two words of ten letters fails both rules, and counts for the first.
    assert yields == {"gopher.too_few_words": (1, 0), "gopher.words_too_long": (2, 1)}


def test_rules_that_dropped_nothing_are_listed_in_the_order_of_testing(tmp_path: Path) -> None:
    facts = gathered(tmp_path, records()[:1])
    assert [(drop.rule, drop.count, drop.alone, drop.label) for drop in facts.drops] == [
        ("gopher.too_few_words", 0, 0, "gopher.num_words at least 5"),
        ("gopher.words_too_long", 0, 0, "gopher.mean_word_length at most 9"),
    ]


def test_clusters_show_what_the_kept_document_stands_for(tmp_path: Path) -> None:
    facts = gathered(tmp_path, records())
    assert facts.cluster_sizes == {3: 1, 1: 2}
    assert facts.similarities == {90: 1}
    (cluster,) = facts.clusters
    assert cluster.size == 3
    assert cluster.kept is not None
    assert cluster.kept.url == "http://x/1"
    assert sorted((other.url, rule) for other, rule in cluster.duplicates) == [
        ("http://x/2", "near.duplicate"),
        ("http://x/3", "exact.duplicate"),
    ]
    (pair,) = facts.pairs
    assert (pair.dropped.text, pair.nearest.text) == (TEXT + " Yes.", TEXT)


def test_samples_are_the_smallest_ids_of_their_rule_wherever_they_stand(tmp_path: Path) -> None:
    many = [
        document(f"http://x/{number}", "too few", **DROPPED, stage="rules", rule="gopher.too_few_words")
        for number in range(40)
    ]
    smallest = [row["url"] for row in sorted(many, key=lambda row: row["doc_id"])[:3]]
    for order, folder in ((many, "a"), (many[::-1], "b")):
        (drop,) = [drop for drop in gathered(tmp_path / folder, order).drops if drop.count]
        assert [sample.url for sample in drop.samples] == smallest


class Page(HTMLParser):
    """What an HTML page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]


def test_the_page_is_one_file_that_runs_and_fetches_nothing(tmp_path: Path) -> None:
    uri = write_dataset(tmp_path / "set", records())
    target = write_report(uri)
    assert target == f"{uri}/report.html"
    page = Path(target).read_text(encoding="utf-8")
    parser = Page()
    parser.feed(page)
    assert not {"script", "img", "link", "iframe", "object", "embed", "base", "form"} & set(parser.tags)
    assert not [
        entry for entry in parser.attributes if entry[1].startswith("on") or entry[1] in ("src", "srcset", "action")
    ]
    # Links lead within the page only.
    assert all(
        value and value.startswith("#") for _, name, value in parser.attributes if name in ("href", "xlink:href")
    )
    assert "url(" not in re.sub(r"url\(#[\w-]+\)", "", page)
    assert "default-src 'none'" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x00" not in page


def test_every_link_within_the_page_has_its_end(tmp_path: Path) -> None:
    page = Path(write_report(write_dataset(tmp_path / "set", records()))).read_text(encoding="utf-8")
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)


def test_the_same_dataset_gives_the_same_page(tmp_path: Path) -> None:
    uri = write_dataset(tmp_path / "set", records())
    first, second = write_report(uri, to=str(tmp_path / "1.html")), write_report(uri, to=str(tmp_path / "2.html"))
    assert Path(first).read_bytes() == Path(second).read_bytes()
    assert not Path(uri, "report.html").exists()


def test_without_the_work_folder_everything_but_texts_is_shown(tmp_path: Path) -> None:
    uri = write_dataset(tmp_path / "set", records())
    shutil.rmtree(f"{uri}/work")
    page = Path(write_report(uri)).read_text(encoding="utf-8")
    assert f"The texts cannot be shown: {uri}/work lacks 3 of 3 parts;" in page
    assert "gopher.too_few_words" in page
    assert "Debian is a free" not in page


@pytest.mark.parametrize("documents", [records()[6:8], records()[:1], [document("http://x/1", "", num_tokens=1)]])
def test_datasets_without_a_kept_document_or_without_a_drop_are_shown(
    tmp_path: Path, documents: list[dict[str, Any]]
) -> None:
    page = Path(write_report(write_dataset(tmp_path / "set", documents))).read_text(encoding="utf-8")
    assert f"Of {len(documents)} records read" in page

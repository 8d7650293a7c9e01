"""Groups of parts, and what a run decides again."""

import dataclasses

import pytest

from pipeline.ingest.receipts import PartRef
from pipeline.pack.groups import load_plan, pack_parts, plan_groups, plan_pack, safe_name, save_plan
from schemas.dataset import open_newest
from schemas.manifest import read_manifest
from tests.pack.corpus import Corpus, recipe, some_documents


def parts(*sizes, source="web", rows=1):
    refs = [PartRef(n, source, f"p{n}", rows, size, f"{n:064x}") for n, size in enumerate(sizes)]
    return pack_parts(refs, lambda part: f"v{part.number}")


def numbers(groups):
    return [[part.number for part in group] for group in groups]


def test_a_group_closes_before_the_part_that_would_exceed():
    assert numbers(plan_groups(parts(40, 60, 1, 200, 30, 70), 100)) == [[0, 1], [2], [3], [4, 5]]


def test_a_group_never_mixes_sources():
    mixed = [*parts(10, 10), dataclasses.replace(parts(10)[0], number=2, source="wiki")]
    assert numbers(plan_groups(mixed, 100)) == [[0, 1], [2]]


def test_parts_without_text_are_grouped_by_their_rows():
    assert numbers(plan_groups(parts(0, 0, 0, rows=1 << 20), 100)) == [[0, 1], [2]]


def test_groups_do_not_depend_on_what_is_kept(tmp_path):
    corpus = Corpus(tmp_path / "in")
    for number in range(4):
        corpus.add("web", some_documents(f"w{number}", 12))
    options = recipe(shards={"group_bytes": 9000})
    one = corpus.pack(options, tmp_path / "one")
    for number in range(4):
        kept = [dataclasses.replace(doc, rule="x") for doc in corpus.documents[number]]
        corpus.decide(number, [*kept[:-1], corpus.documents[number][-1]])
    other = corpus.pack(options, tmp_path / "other")
    assert [group.parts for group in one.groups] == [group.parts for group in other.groups] == [[0, 1], [2, 3]]


def test_a_plan_is_read_as_it_was_written(tmp_path):
    corpus = Corpus(tmp_path / "in")
    corpus.add("web", some_documents("web", 5))
    manifest = corpus.pack(recipe(), tmp_path / "ds")
    chosen = pack_parts(corpus.parts, corpus.verdict_uri)
    plan = plan_pack(chosen, recipe(), str(tmp_path / "ds"), str(tmp_path / "work"), manifest.tokenizer, None)
    assert load_plan(save_plan(plan)) == plan


def test_gaps_in_the_numbers_of_parts_are_refused(tmp_path):
    corpus = Corpus(tmp_path / "in")
    for number in range(3):
        corpus.add("web", some_documents(f"w{number}", 4))
    with pytest.raises(ValueError, match=r"numbered from 0 without gaps, got \[0, 2\]"):
        corpus.pack(recipe(), tmp_path / "ds", parts=[corpus.parts[0], corpus.parts[2]])
    with pytest.raises(ValueError, match="nothing to pack"):
        corpus.pack(recipe(tokenizer={"vocab_size": 257}), tmp_path / "ds", parts=[])


def test_a_source_is_decided_again_whole_or_not_at_all(tmp_path):
    corpus = Corpus(tmp_path / "in")
    for number in range(2):
        corpus.add("web", some_documents(f"w{number}", 40))
    corpus.pack(recipe(), tmp_path / "ds")
    assert len(read_manifest(str(tmp_path / "ds")).groups) == 2
    with pytest.raises(ValueError, match="source web, generation 1: give all of its parts, or none"):
        corpus.pack(recipe(), tmp_path / "ds", parts=corpus.parts[:1], previous=open_newest(str(tmp_path / "ds")))


def test_odd_names_of_sources_become_safe_and_stay_apart():
    assert safe_name("web-2024.01") == "web-2024.01"
    assert safe_name("a/b") != safe_name("a:b")
    assert safe_name("a/b").startswith("a_b.")
    assert len(safe_name("日" * 500)) < 64

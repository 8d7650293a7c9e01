"""From parts to verdicts, whole: what every row comes to, and that nothing but the parts and the recipe decides it."""

import json
import random
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from pipeline.select.columns import as_ids
from pipeline.select.decision.funnel import funnel_lines, load_funnel
from pipeline.select.select import _local_pipeline as local_pipeline
from pipeline.select.select import _run as run
from pipeline.select.select import decision_digest, plan_decision, select, verdict_uri
from schemas.arrow import VERDICT
from tests.made_parts import digest, make_recipe, text_id, write_part, write_texts

WORDS = [f"word{n}" for n in range(400)]


def words(seed, count=80):
    return random.Random(seed).choices(WORDS, k=count)


def text(seed, changes=0, count=80):
    """A text of its own for each seed; with `changes` words of it replaced, from the front and far apart."""
    chosen = words(seed, count)
    for change in range(changes):
        chosen[change * 12] = f"changed{change}"
    return " ".join(chosen)


def decide(folder, parts, recipe, recorded=None, **options):
    """The verdict rows of all parts, in the order of the parts, and the funnel."""
    decision = decision_digest(parts, recipe, recorded)
    funnel = select(parts, recipe, str(folder), decision, recorded_splits=recorded, **options)
    tables = [pa.ipc.open_file(verdict_uri(str(folder), decision, part.number)).read_all() for part in parts]
    assert all(table.schema.equals(VERDICT, check_metadata=True) for table in tables)
    return [row for table in tables for row in table.to_pylist()], funnel


def fates(rows):
    return ["kept" if row["kept"] else row["rule"] for row in rows]


def share(a, b):
    """Share of equal hashes of two texts' signatures."""
    from pipeline.measure.minhash.sign import sign
    from pipeline.text.edits import text_buffers
    from schemas.recipe import Minhash

    (x, y), _ = sign(*text_buffers(pa.array([a, b], pa.large_string())), Minhash())
    return float(np.mean(x == y))


def test_every_row_has_its_whole_verdict(tmp_path):
    near, far = text(1, changes=1), text(2)
    first = [
        {"text": text(1), "record_id": "a"},
        {"text": None, "record_id": "b"},
        {"text": far, "record_id": "c", "language.score": 0.1, "gopher.num_words": 2.0},
        {"text": "", "record_id": "d"},
        {"text": "too short for a shingle", "record_id": "e"},
    ]
    second = [
        {"text": text(1), "record_id": "f"},
        {"text": near, "record_id": "g"},
        {"text": text(1), "record_id": "a"},
        {"text": text(3), "record_id": "a"},
        {"text": text(3), "record_id": "a"},
    ]
    parts = [write_part(tmp_path, 0, first), write_part(tmp_path, 1, second)]
    recipe = make_recipe(
        rules={
            "few": {"signal": "gopher.num_words", "min": 1.0},
            "many": {"signal": "gopher.num_words", "max": 1.5},
            "odd": {"signal": "language.score", "min": 0.5},
        },
        split={"validation": 0.0},
        near={"threshold": 0.7},
    )
    rows, funnel = decide(tmp_path, parts, recipe)
    ids = {name: digest(f"web\0{name}") for name in "abcdefg"}
    renamed = xxhash.xxh3_128_digest(ids["a"] + digest(text(3)))
    # The longer of the near pair survives, so the copy's chain to it has two links.
    kept, cluster = ids["g"], min(ids["a"], ids["f"], ids["g"])
    value = share(text(1), near)
    assert len(near) > len(text(1))

    def row(doc_id, **known):
        nothing = dict.fromkeys(VERDICT.names) | {"doc_id": doc_id, "kept": False, "passed": False}
        return nothing | known

    dropped = {"passed": True, "cluster": cluster, "cluster_size": 3, "duplicate_of": kept}
    alive = {"passed": True, "kept": True, "split": "train"}
    first_id, copy_id = sorted([ids["a"], ids["f"]])
    near_row = row(first_id, stage="near", rule="near.duplicate", value=value, threshold=0.7, twin=kept, **dropped)
    copy_row = row(copy_id, stage="exact", rule="exact.duplicate", value=1.0, threshold=1.0, twin=first_id, **dropped)
    by_id = {first_id: near_row, copy_id: copy_row}
    again = {"stage": "exact", "rule": "exact.same_record", "value": 1.0, "threshold": 1.0}
    assert rows == [
        by_id[ids["a"]],
        row(ids["b"], stage="read", rule="read.status", value=404.0, threshold=200.0),
        row(ids["c"], stage="rules", rule="many", value=2.0, threshold=1.5),
        row(ids["d"], stage="edits", rule="edits.empty", value=0.0, threshold=1.0),
        row(ids["e"], **alive, cluster=ids["e"], cluster_size=1),
        by_id[ids["f"]],
        row(kept, **alive, cluster=cluster, cluster_size=3),
        row(ids["a"], **again),
        row(renamed, **alive, cluster=renamed, cluster_size=1),
        row(renamed, **again),
    ]
    assert funnel.dropped == {
        "read.status": 1,
        "exact.same_record": 2,
        "many": 1,
        "edits.empty": 1,
        "exact.duplicate": 1,
        "near.duplicate": 1,
    }
    assert list(funnel.dropped) == [line.split()[0] for line in funnel_lines(funnel)[1:-1]]
    assert (funnel.records_read, funnel.kept, funnel.splits, funnel.renamed) == (10, 3, {"train": 3}, 1)
    assert (funnel.clusters, funnel.largest_cluster) == (1, 3)
    assert funnel.kept_bytes == len(near) + len(text(3)) + len("too short for a shingle")


def corpus(seed=5):
    """Families of near and exact copies, and singles, shuffled."""
    draw = random.Random(seed)
    texts = [text(n) for n in range(60)]
    for family in range(12):
        base = words(family)
        for copy in range(family):
            changed = list(base)
            for _ in range(draw.randrange(4)):
                changed[draw.randrange(len(changed))] = f"new{copy}"
            texts.append(" ".join(changed))
    draw.shuffle(texts)
    return texts


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    """A corpus and its verdicts, in one part."""
    folder = tmp_path_factory.mktemp("one")
    texts = corpus()
    recipe = make_recipe(near={"threshold": 0.6}, split={"validation": 0.3})
    rows, funnel = decide(folder, write_texts(folder, texts), recipe)
    assert funnel.dropped["near.duplicate"] > 20
    assert funnel.dropped["exact.duplicate"] > 2
    return texts, recipe, rows


def test_every_removed_document_has_a_chain_of_verified_pairs_to_the_one_that_is_kept(decided):
    texts, _, rows = decided
    place = {row["doc_id"]: n for n, row in enumerate(rows)}
    for n, row in enumerate(rows):
        if row["kept"]:
            assert row["duplicate_of"] is None
            continue
        steps = 0
        while not rows[n]["kept"]:
            other = place[rows[n]["twin"]]
            if rows[n]["rule"] == "exact.duplicate":
                assert texts[n] == texts[other]
            else:
                assert rows[n]["value"] == share(texts[n], texts[other]) >= 0.6
            n = other
            steps += 1
            assert steps < len(rows)
        assert rows[n]["doc_id"] == row["duplicate_of"]


def test_a_cluster_is_named_after_its_smallest_member_and_counts_all_of_them(decided):
    _, _, rows = decided
    members = {}
    for row in rows:
        members.setdefault(row["cluster"], []).append(row)
    for name, cluster in members.items():
        assert name == min(row["doc_id"] for row in cluster)
        assert {row["cluster_size"] for row in cluster} == {len(cluster)}
        assert sum(row["kept"] for row in cluster) == 1


def test_the_side_of_a_cluster_is_a_hash_of_its_name(decided):
    _, recipe, rows = decided
    for row in rows:
        if row["kept"]:
            held_out = xxhash.xxh3_64_intdigest(row["cluster"], recipe.seed) < int(0.3 * 2**64)
            assert row["split"] == ("validation" if held_out else "train")
    assert {row["split"] for row in rows} == {"train", "validation", None}


@pytest.mark.parametrize("num_parts", [4, 9])
def test_how_the_parts_are_cut_and_listed_changes_no_verdict(tmp_path, decided, num_parts):
    texts, recipe, rows = decided
    parts = write_texts(tmp_path, texts, num_parts)
    shuffled = random.Random(num_parts).sample(parts, num_parts)
    select(shuffled, recipe, str(tmp_path), "d")
    found = [pa.ipc.open_file(verdict_uri(str(tmp_path), "d", part.number)).read_all().to_pylist() for part in parts]
    assert [row for table in found for row in table] == rows


def decide_planned(folder, texts, recipe, **changes):
    """Verdict rows of three parts, with other limits than the machine's."""
    parts = write_texts(folder, texts, 3)
    plan = replace(plan_decision(parts, recipe, str(folder / "d"), None, None), **changes)
    run(plan, [part.number for part in parts], local_pipeline)
    tables = [pa.ipc.open_file(str(folder / "d" / f"{n}.arrow")).read_all() for n in range(3)]
    return plan, [row for table in tables for row in table.to_pylist()]


def test_rounds_and_partitions_change_no_verdict(tmp_path, decided):
    texts, recipe, rows = decided
    plan, found = decide_planned(tmp_path, texts, recipe, round_bytes=6000, partition_bytes=1500)
    assert (len(plan.record_rounds()), len(plan.text_rounds())) == (2, 1)
    assert len(plan.band_rounds()) > 3 < plan.band_partitions() * len(plan.band_rounds())
    assert found == rows


def test_a_divided_bucket_still_joins_all_its_members(tmp_path, decided):
    texts, recipe, rows = decided
    _, found = decide_planned(tmp_path, texts, recipe, bucket_limit=3)
    # Other pairs of a cluster may have been verified, so a chain may be another one.
    columns = ("doc_id", "kept", "rule", "duplicate_of", "cluster", "cluster_size", "split")
    assert [[row[name] for name in columns] for row in found] == [[row[name] for name in columns] for row in rows]


def test_a_complete_decision_is_only_read_and_an_incomplete_one_made_again(tmp_path, decided):
    texts, recipe, rows = decided
    parts = write_texts(tmp_path, texts, 2)
    _, funnel = decide(tmp_path, parts, recipe)
    root = tmp_path / "select" / decision_digest(parts, recipe)
    assert sorted(path.name for path in root.iterdir()) == ["0.arrow", "1.arrow", "decision.json", "parts.json"]
    files = {path.name: path.read_bytes() for path in root.iterdir()}
    for part in parts:
        (tmp_path / f"hidden-{part.number}").write_bytes((tmp_path / f"part-{part.number}.arrow").read_bytes())
        (tmp_path / f"part-{part.number}.arrow").unlink()
    assert decide(tmp_path, parts, recipe) == (rows, funnel)
    for part in parts:
        (tmp_path / f"hidden-{part.number}").rename(tmp_path / f"part-{part.number}.arrow")
    (root / "1.arrow").unlink()
    assert load_funnel(str(root)) is None
    assert decide(tmp_path, parts, recipe) == (rows, funnel)
    assert {path.name: path.read_bytes() for path in root.iterdir()} == files


def test_by_exact_verification_the_value_is_the_jaccard_similarity_of_the_final_texts(tmp_path):
    draw = random.Random(1)
    base = words(1, 60)
    texts = [" ".join(base)]
    for _ in range(6):
        changed = list(base)
        changed[draw.randrange(60)] = "other"
        texts.append(" ".join(changed))
    texts.append(text(9))
    parts = write_texts(tmp_path, texts, 2)
    rows, _ = decide(tmp_path, parts, make_recipe(near={"threshold": 0.75, "verify": "exact"}))

    def shingles(text):
        split = text.split()
        return {tuple(split[n : n + 5]) for n in range(len(split) - 4)}

    place = {row["doc_id"]: n for n, row in enumerate(rows)}
    duplicates = [n for n, row in enumerate(rows) if row["rule"] == "near.duplicate"]
    assert len(duplicates) >= 4
    for n in duplicates:
        a, b = shingles(texts[n]), shingles(texts[place[rows[n]["twin"]]])
        assert rows[n]["value"] == len(a & b) / len(a | b) >= 0.75


@pytest.mark.parametrize(
    ("prefer", "kept"),
    [
        (["earlier_date"], 3),
        (["highest:language.score"], 0),
        (["lowest:language.score", "longer_text"], 1),
    ],
)
def test_preferences_choose_the_survivor_and_what_is_not_known_comes_last(tmp_path, prefer, kept):
    base = text(1)
    rows = [
        {"text": base + " a", "record_id": "0", "language.score": 0.9},
        {"text": base + " abc", "record_id": "1", "language.score": 0.5, "date": 5},
        {"text": base, "record_id": "2", "language.score": 0.5, "date": 9},
        {"text": base + " ab", "record_id": "3", "language.score": None, "date": 3},
    ]
    verdicts, _ = decide(tmp_path, [write_part(tmp_path, 0, rows)], make_recipe(prefer=prefer, near={"threshold": 0.8}))
    assert [n for n, row in enumerate(verdicts) if row["kept"]] == [kept]


def test_without_preferences_the_smallest_doc_id_survives(tmp_path):
    parts = write_texts(tmp_path, [text(1)] * 5, 2)
    rows, _ = decide(tmp_path, parts, make_recipe(prefer=[]))
    assert [row["doc_id"] for row in rows if row["kept"]] == [min(text_id(n) for n in range(5))]


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"near": None}, ["kept", "exact.duplicate", "kept"]),
        ({"exact": None}, ["kept", "near.duplicate", "near.duplicate"]),
        ({"exact": None, "near": None}, ["kept", "kept", "kept"]),
    ],
)
def test_a_section_that_is_off_drops_nothing(tmp_path, sections, expected):
    # The copy has a larger doc_id than what it repeats; the last text is shorter.
    first, second = sorted(["p", "q"], key=lambda name: digest(f"web\0{name}"))
    longer = text(1) + " end"
    named = {first: longer, second: longer, "n": text(1)}
    rows = [{"text": value, "record_id": name} for name, value in named.items()]
    verdicts, funnel = decide(tmp_path, [write_part(tmp_path, 0, rows)], make_recipe(**sections))
    assert fates(verdicts) == expected
    assert funnel.kept == expected.count("kept")


def test_ties_of_a_split_level_below_the_threshold_stand_on_one_side(tmp_path):
    texts = [text(n // 2, changes=(n % 2) * 3) for n in range(40)]
    recipe = make_recipe(near={"threshold": 0.95}, split={"validation": 0.5, "similarity": 0.4})
    rows, _ = decide(tmp_path, write_texts(tmp_path, texts, 2), recipe)
    assert fates(rows) == ["kept"] * 40
    pairs = [(rows[n]["split"], rows[n + 1]["split"]) for n in range(0, 40, 2)]
    assert set(pairs) == {("train", "train"), ("validation", "validation")}
    # The cluster itself is that of the threshold.
    assert {row["cluster_size"] for row in rows} == {1}


def recorded(**sides):
    ids = np.frombuffer(b"".join(digest(f"web\0{name}") for name in sides), ">u8").reshape(-1, 2).astype(np.uint64)
    return pa.table({"doc_id": as_ids(ids), "split": list(sides.values())})


def test_a_recorded_side_stays_and_later_members_take_it_from_their_cluster(tmp_path):
    rows = [
        {"text": text(1), "record_id": "old"},
        {"text": text(1, changes=1), "record_id": "longer"},
        {"text": text(2), "record_id": "lonely"},
        {"text": text(3), "record_id": "new"},
        {"text": text(4), "record_id": "copied"},
        {"text": text(4), "record_id": "copy"},
    ]
    sides = recorded(old="validation", lonely="validation", copy="validation", gone="train")
    parts = [write_part(tmp_path, 0, rows)]
    verdicts, _ = decide(tmp_path, parts, make_recipe(split={"validation": 0.0}, near={"threshold": 0.7}), sides)
    assert {(row["kept"], row["split"]) for row in verdicts if not row["kept"]} == {(False, None)}
    kept = {row["doc_id"]: row["split"] for row in verdicts if row["kept"]}
    assert len(kept) == 4
    assert kept[digest("web\0longer")] == "validation"
    assert kept[digest("web\0lonely")] == "validation"
    assert kept[digest("web\0new")] == "train"
    assert "validation" in (kept.get(digest("web\0copied")), kept.get(digest("web\0copy")))


def test_who_joins_a_training_and_a_validation_cluster_is_dropped(tmp_path):
    left, right = words(1, 60), words(2, 60)
    rows = [
        {"text": " ".join(left), "record_id": "left"},
        {"text": " ".join(right), "record_id": "right"},
        {"text": " ".join(left + right), "record_id": "both"},
        {"text": " ".join(right + left), "record_id": "mirror"},
    ]
    recipe = make_recipe(near={"threshold": 0.85}, split={"validation": 0.1, "similarity": 0.4})
    parts = [write_part(tmp_path, 0, rows)]
    one_side, _ = decide(tmp_path / "one", parts, recipe, recorded(left="train", right="train"))
    # Of the two that are alike only one is looked at: the other is its twin.
    assert sorted(fates(one_side)) == ["kept", "kept", "kept", "near.duplicate"]
    assert {row["split"] for row in one_side if row["kept"]} == {"train"}
    torn, funnel = decide(tmp_path / "two", parts, recipe, recorded(left="train", right="validation"))
    assert fates(torn) == ["kept", "kept", "split.conflict", "split.conflict"]
    assert [row["split"] for row in torn] == ["train", "validation", None, None]
    assert funnel.dropped == {"split.conflict": 2}


def test_other_rules_seeds_parts_or_recorded_sides_are_another_decision(tmp_path):
    parts = write_texts(tmp_path, [text(1), text(2)], 2)
    base = make_recipe()
    digests = {
        decision_digest(parts, base),
        decision_digest(parts[:1], base),
        decision_digest(parts, base, recorded(a="train")),
        decision_digest(parts, base, recorded(a="validation")),
        *(
            decision_digest(parts, make_recipe(**sections))
            for sections in (
                {"seed": 1},
                {"near": None},
                {"exact": None},
                {"prefer": []},
                {"split": {"validation": 0.5}},
                {"rules": {"gopher.too_few_words": 50}},
                {"measure": {"minhash": {"shingle": 3}}},
            )
        ),
    }
    assert len(digests) == 11
    assert decision_digest(parts, make_recipe(name="other", output="/tmp/x")) == decision_digest(parts, base)


def test_rules_in_another_order_are_another_decision(tmp_path):
    parts = write_texts(tmp_path, [text(1)])
    one, other = ({"signal": "language.score", "min": 0.5}, {"signal": "gopher.num_words", "min": 1.0})
    assert decision_digest(parts, make_recipe(rules={"a": one, "b": other})) != decision_digest(
        parts, make_recipe(rules={"b": other, "a": one})
    )


def test_a_preference_for_an_unknown_signal_is_refused_with_the_nearest_name(tmp_path):
    parts = write_texts(tmp_path, [text(1)])
    with pytest.raises(ValueError, match=r"highest:language\.scor: no such signal; did you mean language\.score\?"):
        select(parts, make_recipe(prefer=["highest:language.scor"]), str(tmp_path), "d")


def test_a_part_of_another_length_than_its_receipt_says_is_refused(tmp_path):
    (part,) = write_texts(tmp_path, [text(1), text(2)])
    with pytest.raises(ValueError, match="2 rows, its receipt says 3"):
        select([replace(part, rows=3)], make_recipe(), str(tmp_path), "d")


def test_a_recorded_document_on_both_sides_is_refused(tmp_path):
    twice = pa.concat_tables([recorded(a="train"), recorded(a="validation")])
    with pytest.raises(ValueError, match="is recorded in train and in validation"):
        decision_digest(write_texts(tmp_path, [text(1)]), make_recipe(), twice)


def test_no_parts_and_parts_without_rows_are_decided_too(tmp_path):
    assert select([], make_recipe(), str(tmp_path), "none").records_read == 0
    parts = [write_part(tmp_path, 0, []), write_part(tmp_path, 1, [{"text": text(1)}]), write_part(tmp_path, 2, [])]
    rows, funnel = decide(tmp_path, parts, make_recipe())
    assert (fates(rows), funnel.records_read, len(funnel.verdicts)) == (["kept"], 1, 3)
    assert json.loads((tmp_path / "select" / "none" / "decision.json").read_text())["kept"] == 0

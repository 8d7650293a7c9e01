"""Records of one doc_id inside a source: the same again, or another of that name."""

import numpy as np
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.select.columns import Parts, as_ids
from pipeline.select.context import KINDS
from pipeline.select.exact.equality_join import equal_groups, first_of_equals, link_equal
from pipeline.select.exact.record_identity import _record_rows, identities
from pipeline.select.rows import EQUAL_ROW, LINK_ROW, SHIFT
from tests.made_parts import digest, write_part

id_a, id_b = digest("web\0a"), digest("web\0b")


def by_address(addresses):
    return [addresses]


def resolved(folder, *parts_of_rows, sources=("web",) * 9):
    """Final doc_id and whether it is the same record, of every row of all parts: the shuffle done by hand."""
    refs = [write_part(folder, n, rows, sources[n]) for n, rows in enumerate(parts_of_rows)]
    parts = Parts(refs)
    links = {n: [np.empty(0, LINK_ROW)] for n in range(len(refs))}
    for kind in ("ids", "records"):
        firsts = []
        for ref in refs:
            rows = _record_rows(parts.open(ref.number))[kind]
            firsts.append(rows[~np.isin(rows["address"], link_equal(rows, by_address)[0])])
        for later, first in zip(*link_equal(np.concatenate(firsts), by_address), strict=True):
            links[int(later >> SHIFT)].append(np.array([(KINDS[kind], later & 0xFFFFFFFF, first)], LINK_ROW))
    found = []
    for ref, rows in zip(refs, parts_of_rows, strict=True):
        changed = identities(parts.open(ref.number), np.concatenate(links[ref.number])).to_pylist()
        by_row = {row["row"]: (row["doc_id"], row["same_record"]) for row in changed}
        ids = [row.get("doc_id", digest(f"{ref.source}\0{row['record_id']}")) for row in rows]
        found += [by_row.get(n, (doc_id, False)) for n, doc_id in enumerate(ids)]
    return found


def record(name, text, **fields):
    return {"record_id": name, "text": text, **fields}


def other(doc_id, text):
    return xxhash.xxh3_128_digest(doc_id + digest(text))


def test_the_same_record_again_keeps_its_name_and_is_marked(tmp_path):
    rows = [record("a", "one"), record("b", "one"), record("a", "one")]
    assert resolved(tmp_path, rows) == [(id_a, False), (id_b, False), (id_a, True)]


def test_another_text_under_a_taken_name_gets_a_name_of_its_own(tmp_path):
    assert resolved(tmp_path, [record("a", "one")], [record("a", "two")], [record("a", "three")]) == [
        (id_a, False),
        (other(id_a, "two"), False),
        (other(id_a, "three"), False),
    ]


def test_a_repeat_of_a_renamed_record_has_that_name_too(tmp_path):
    first, second = [record("a", "one"), record("a", "two")], [record("a", "two"), record("a", "one")]
    assert resolved(tmp_path, first, second) == [
        (id_a, False),
        (other(id_a, "two"), False),
        (other(id_a, "two"), True),
        (id_a, True),
    ]


def test_a_record_without_a_text_is_named_after_its_place(tmp_path):
    place = {"input": "b.warc", "position": 7, "offset": 9}
    found = resolved(tmp_path, [record("a", None)], [record("a", "one"), record("a", None, **place)])
    assert found == [
        (id_a, False),
        (other(id_a, "one"), False),
        (xxhash.xxh3_128_digest(id_a + b"b.warc\x007\x009"), False),
    ]


def test_records_of_two_sources_are_never_the_same(tmp_path):
    rows = [record("a", "one", doc_id=id_a)]
    assert resolved(tmp_path, rows, rows, sources=("web", "news")) == [(id_a, False), (id_a, False)]


@settings(max_examples=15, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["one", "two", None])), min_size=1, max_size=9),
    cut=st.integers(0, 9),
)
def test_names_are_unique_but_for_the_same_records_wherever_parts_are_cut(tmp_path_factory, rows, cut):
    rows = [record(name, text, position=n) for n, (name, text) in enumerate(rows)]
    whole = resolved(tmp_path_factory.mktemp("a"), rows)
    assert resolved(tmp_path_factory.mktemp("b"), rows[:cut], rows[cut:]) == whole
    kept = [doc_id for doc_id, same in whole if not same]
    assert len(set(kept)) == len(kept)
    seen = {}
    for row, (doc_id, same) in zip(rows, whole, strict=True):
        key = (row["record_id"], row["text"])
        assert same == (row["text"] is not None and key in seen)
        if same:
            assert doc_id == seen[key]
        seen.setdefault(key, doc_id)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 5)), max_size=30), st.randoms())
def test_equality_is_on_all_bits_and_the_first_does_not_depend_on_arrival(keys, shuffle):
    rows = np.array([(high, low, n) for n, (high, low, _) in enumerate(keys)], EQUAL_ROW)
    rank = np.array([key[2] for key in keys] + [0])

    def order(addresses):
        return [rank[addresses.astype(int)], addresses]

    expected = {}
    for n, key in enumerate(keys):
        best = min((keys[m][2], m) for m in range(len(keys)) if keys[m][:2] == key[:2])[1]
        if best != n:
            expected[n] = best
    places = list(range(len(keys)))
    shuffle.shuffle(places)
    later, firsts = link_equal(rows[places], order)
    assert dict(zip(later.tolist(), firsts.tolist(), strict=True)) == expected


def test_nothing_equals_nothing():
    empty = np.empty(0, np.uint64)
    members, groups = equal_groups(empty, empty)
    assert members.size == groups.size == first_of_equals(groups, [empty]).size == 0


def test_ids_become_columns_in_byte_order():
    assert as_ids(np.array([[1, 2]], np.uint64)).to_pylist() == [bytes(7) + b"\1" + bytes(7) + b"\2"]

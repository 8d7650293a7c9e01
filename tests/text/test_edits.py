from itertools import pairwise

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.edits import (
    EDITS,
    REPLACEMENTS,
    apply_edits,
    compose_edits,
    merge_edits,
    no_edits,
    text_buffers,
)

Span = tuple[int, int, int]


def column(*texts: str) -> pa.LargeStringArray:
    return pa.array(texts, pa.large_string())


def edits(*rows: list[Span]) -> pa.ListArray:
    return pa.array(
        [[{"start": s, "length": n, "replacement": r} for s, n, r in row] for row in rows],
        EDITS,
    )


def spans(array: pa.ListArray) -> list[list[Span]]:
    return [[(edit["start"], edit["length"], edit["replacement"]) for edit in row] for row in array.to_pylist()]


def apply_slowly(text: str, row: list[Span]) -> str:
    data = text.encode()
    for start, length, replacement in reversed(row):
        data = data[:start] + REPLACEMENTS[replacement].encode() + data[start + length :]
    return data.decode()


@st.composite
def rows(draw: st.DrawFn, size: int, replacements: st.SearchStrategy[int]) -> list[Span]:
    """Sorted, disjoint spans of a text of `size` bytes; deletions do not abut."""
    bounds = sorted(draw(st.sets(st.integers(0, size), max_size=8)))
    return [(low, high - low, draw(replacements)) for low, high in zip(bounds[::2], bounds[1::2], strict=False)]


ROWS = st.integers(0, len(REPLACEMENTS) - 1)
DELETE = st.just(0)


def test_the_table_of_replacements_only_grows():
    # Parts on disk refer to these by number.
    assert REPLACEMENTS[:10] == (
        *("", "\n", "email@example.com", "firstname.lastname@example.org", "192.0.2.14", "192.0.2.187"),
        *("198.51.100.23", "198.51.100.206", "203.0.113.51", "203.0.113.142"),
    )


def test_edits_delete_and_replace_bytes():
    texts = column("Привет a@b.c", "untouched", "", "gone")
    changed = apply_edits(texts, edits([(0, 2, 0), (13, 5, 2)], [], [], [(0, 4, 0)]))
    assert changed.to_pylist() == ["ривет email@example.com", "untouched", "", ""]
    assert changed.type == pa.large_string()


def test_texts_without_edits_are_returned_as_they_are():
    texts = column("a", "b")
    assert apply_edits(texts, no_edits(2)) is texts


@given(st.data(), st.lists(st.text("abcdefghij", max_size=20), min_size=1, max_size=4))
def test_edits_do_what_slicing_does(data: st.DataObject, texts: list[str]):
    chosen = [data.draw(rows(len(text), ROWS)) for text in texts]
    assert apply_edits(column(*texts), edits(*chosen)).to_pylist() == list(map(apply_slowly, texts, chosen))
    sliced = apply_edits(
        column("x", *texts, "y").slice(1, len(texts)), edits([(0, 1, 1)], *chosen, []).slice(1, len(texts))
    )
    assert sliced.to_pylist() == list(map(apply_slowly, texts, chosen))


@pytest.mark.parametrize(
    ("earlier", "later", "merged"),
    [
        ([(0, 2, 0)], [(5, 2, 2)], [(0, 2, 0), (5, 2, 2)]),
        ([(5, 2, 0)], [(0, 2, 2)], [(0, 2, 2), (5, 2, 0)]),
        ([(0, 2, 0), (4, 2, 0)], [(2, 2, 0)], [(0, 6, 0)]),  # deletions that abut become one
        ([(0, 2, 2)], [(2, 2, 0)], [(0, 2, 2), (2, 2, 0)]),  # a replacement is not touched by what abuts it
        ([(0, 4, 2)], [(2, 4, 3)], [(0, 6, 3)]),  # the later replacement absorbs
        ([(2, 4, 2)], [(0, 4, 3)], [(0, 6, 3)]),
        ([(0, 4, 0)], [(2, 4, 3)], [(0, 6, 0)]),  # deletion beats replacement
        ([(0, 4, 2)], [(2, 4, 0)], [(0, 6, 0)]),
        ([(1, 1, 2), (3, 1, 3), (5, 1, 0)], [(0, 9, 0)], [(0, 9, 0)]),
        ([(0, 3, 2), (4, 3, 3)], [(2, 3, 4)], [(0, 7, 4)]),
        ([(0, 9, 2)], [(1, 1, 3), (5, 1, 4)], [(0, 9, 3)]),
        ([], [(1, 1, 2)], [(1, 1, 2)]),
    ],
)
def test_a_later_edit_absorbs_those_that_it_overlaps(earlier: list[Span], later: list[Span], merged: list[Span]):
    assert spans(merge_edits(edits(earlier), edits(later))) == [merged]


def test_texts_are_merged_one_by_one():
    merged = merge_edits(edits([(0, 2, 0)], [], [(3, 1, 1)]), edits([], [(2, 2, 0)], [(3, 2, 0)]))
    assert spans(merged) == [[(0, 2, 0)], [(2, 2, 0)], [(3, 2, 0)]]


@given(st.data())
def test_merging_deletions_deletes_the_bytes_of_both(data: st.DataObject):
    text = "abcdefghijklmnopqrst"
    one, two = data.draw(rows(len(text), DELETE)), data.draw(rows(len(text), DELETE))
    gone = {i for start, length, _ in one + two for i in range(start, start + length)}
    left = "".join(char for i, char in enumerate(text) if i not in gone)
    merged = merge_edits(edits(one), edits(two))
    assert apply_edits(column(text), merged).to_pylist() == [left]
    ends = [(start, start + length) for start, length, _ in spans(merged)[0]]
    assert all(end < start for (_, end), (start, _) in pairwise(ends))


@given(st.data())
def test_deleting_from_a_view_is_deleting_from_the_text(data: st.DataObject):
    text = "abcdefghijklmnopqrst"
    view = data.draw(rows(len(text), DELETE))
    seen = apply_slowly(text, view)
    later = data.draw(rows(len(seen), DELETE))
    composed = compose_edits(edits(view), edits(later))
    assert apply_edits(column(text), composed).to_pylist() == [apply_slowly(seen, later)]


@pytest.mark.parametrize(
    ("view", "on_view", "composed"),
    [
        ([(2, 3, 0)], [(0, 2, 2)], [(0, 2, 2), (2, 3, 0)]),  # a deletion at its end stays outside
        ([(2, 3, 0)], [(2, 2, 2)], [(2, 3, 0), (5, 2, 2)]),  # and at its start
        ([(2, 3, 0)], [(1, 2, 2)], [(1, 5, 0)]),  # one inside is absorbed, and deletion beats replacement
        ([(2, 3, 1)], [(3, 2, 2)], [(2, 3, 1), (5, 2, 2)]),  # behind a newline that replaces three bytes
        ([(2, 3, 1)], [(2, 2, 2)], [(2, 4, 2)]),  # it takes that newline, and so all that it replaced
        ([(0, 1, 2)], [(3, 2, 4), (20, 1, 5)], [(0, 1, 4), (4, 1, 5)]),  # inside "email@example.com", then behind
        ([(0, 3, 0), (5, 1, 0)], [(2, 2, 0)], [(0, 3, 0), (5, 3, 0)]),
    ],
)
def test_edits_on_a_view_become_edits_on_the_text(view: list[Span], on_view: list[Span], composed: list[Span]):
    assert spans(compose_edits(edits(view), edits(on_view))) == [composed]


def test_a_column_with_a_null_is_a_mistake_of_ours():
    with pytest.raises(AssertionError, match="drop rows without text first"):
        text_buffers(pa.array(["a", None], pa.large_string()))
    with pytest.raises(AssertionError, match="drop rows without text first"):
        apply_edits(column("a", "b"), pa.array([[{"start": 0, "length": 1, "replacement": 0}], None], EDITS))

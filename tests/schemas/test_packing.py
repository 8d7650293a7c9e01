"""Best-fit packing of documents into rows (contracts, section 7)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.packing import packed_rows, place_documents


def naive(lengths, sequence_length):
    """The contract's words, one by one: [(document, offset, length, row)]."""
    pieces = [
        (document, offset, min(sequence_length, length - offset))
        for document, length in enumerate(lengths)
        for offset in range(0, length, sequence_length)
    ]
    pieces.sort(key=lambda piece: (-piece[2], piece[0], piece[1]))
    room, placed = [], []
    for document, offset, length in pieces:
        fits = [row for row in range(len(room)) if room[row] >= length]
        if fits:
            row = min(fits, key=lambda row: (room[row], row))
        else:
            row = len(room)
            room.append(sequence_length)
        room[row] -= length
        placed.append((document, offset, length, row))
    return placed


def test_pieces_go_longest_first_to_the_fullest_row_with_room():
    # T = 8: document 1 gives a full row and 2 more tokens; 5 + 3 fill a row, then 4 + 2 + 2.
    placement = place_documents(np.array([5, 10, 3, 4, 2]), 8)
    assert [tuple(int(x) for x in piece) for piece in zip(*placement, strict=True)] == [
        (1, 0, 8, 0),
        (0, 0, 5, 1),
        (3, 0, 4, 2),
        (2, 0, 3, 1),
        (1, 8, 2, 2),
        (4, 0, 2, 2),
    ]


def test_of_equally_full_rows_the_lowest_number_is_taken():
    # Rows 0, 1, 2 have room 3 each when the short pieces come.
    placement = place_documents(np.array([7, 7, 7, 1, 1, 3]), 10)
    assert placement.row.tolist() == [0, 1, 2, 0, 1, 1]


@given(st.lists(st.integers(1, 300), max_size=60), st.sampled_from([1, 2, 7, 63, 64, 65, 128, 200]))
def test_placement_follows_the_contract(lengths, sequence_length):
    placement = place_documents(np.array(lengths, dtype=np.int64), sequence_length)
    expected = naive(lengths, sequence_length)
    assert [tuple(int(x) for x in piece) for piece in zip(*placement, strict=True)] == expected
    assert packed_rows(np.array(lengths, dtype=np.int64), sequence_length) == len({row for *_, row in expected})


def test_many_documents_leave_little_padding():
    # 16.8 M tokens with lengths as web pages have them (log-normal); the contract states 0.02 % at T = 2,048.
    lengths = np.random.default_rng(5).lognormal(6.4, 1.1, 17_000).astype(np.int64) + 1
    rows = packed_rows(lengths, 2048)
    assert 1 - lengths.sum() / (rows * 2048) < 0.001


def test_no_documents_make_no_rows():
    assert packed_rows(np.array([], dtype=np.int64), 2048) == 0


def test_a_sequence_length_of_zero_is_refused():
    with pytest.raises(ValueError, match="sequence_length=0"):
        packed_rows(np.array([3]), 0)

"""trainer.order.batch_order refuses, in one line that names the value and the cure."""

from dataclasses import replace
from typing import Any

import pytest

from tests.trainer.made_runs import make_shards
from trainer.order.batch_order import Order, Phase

SHARDS = make_shards([("web", 0, 160), ("web", 1, 160), ("wiki", 2, 160)], sources=["empty"])
PHASE = Phase(0, 8, 16, "windows", {"web": "3", "wiki": "1"}, SHARDS)


def refused(*phases: Phase, seed: int = 7, skipped: tuple[int, ...] = ()) -> str:
    """The message."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        Order(seed, phases, skipped)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_phase_that_others_change_is_sound() -> None:
    assert len(Order(7, [PHASE]).batch(0)) == 8


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"global_batch": 0}, "phase at batch 0: global_batch=0: expected at least 1"),
        ({"sequence_length": 0}, "phase at batch 0: sequence_length=0: expected at least 1"),
        ({"packing": "rows"}, "phase at batch 0: packing='rows': expected one of windows, documents"),
        ({"at_cap": "halt"}, "phase at batch 0: at_cap='halt': expected one of redistribute, stop"),
        ({"weights": {}}, "phase at batch 0: weights name 0 sources: expected 1 to 65,536"),
        (
            {"weights": {"webb": "1"}},
            "phase at batch 0: weights name source 'webb', which has no shard; the data's sources: empty, web, wiki",
        ),
        (
            {"max_epochs": {"empty": "1"}},
            "phase at batch 0: max_epochs names source 'empty', which has no weight: give it one or drop it",
        ),
        (
            {"weights": {"web": "1", "wiki": "0"}},
            "phase at batch 0: weight of 'wiki'=0: expected a positive decimal number; "
            "leave the source out to not read it",
        ),
        (
            {"weights": {"web": "much"}},
            "phase at batch 0: weight of 'web'=much: expected a positive decimal number; "
            "leave the source out to not read it",
        ),
        (
            {"max_epochs": {"web": "-1"}},
            "phase at batch 0: max_epochs of 'web'=-1: expected a positive decimal number; "
            "drop it to not limit the source",
        ),
        (
            {"weights": {"web": "1", "wiki": "0.000001"}},
            "weight 0.000001 of source 'wiki' is less than one sample in 65,536: raise it, or leave the source out",
        ),
        (
            {"weights": {"web": "1", "empty": "1"}},
            "source 'empty' has no row at sequence_length=16, packing: windows: shorten the sequence, or leave the "
            "source out of the weights",
        ),
        (
            {"global_batch": 28},
            "source 'web' has 20 rows at sequence_length=16, packing: windows, fewer than its 21.0 of each batch: "
            "lower global_batch=28 or its weight, or leave it out",
        ),
        (
            {"packing": "documents"},
            "sequence_length=16 with packing: documents: the manifest does not count these rows: "
            "count them by trainer.data.packed_row_counts.with_packed_rows, as the trainer does, or name the "
            "length under sequence_lengths in the dataset's recipe",
        ),
    ],
)
def test_a_phase_that_cannot_work_is_refused(changed: dict[str, Any], message: str) -> None:
    assert refused(replace(PHASE, **changed)) == message


def test_not_a_number_and_infinity_are_no_weights() -> None:
    for text in ("nan", "inf", "-inf"):
        assert f"weight of 'web'={text}" in refused(replace(PHASE, weights={"web": text}))


def test_a_shard_listed_twice_is_refused() -> None:
    twice = make_shards([("web", 0, 160), ("web", 0, 160), ("wiki", 2, 160)])
    assert refused(replace(PHASE, shards=twice)) == (
        "source 'web' has two shards with sha256 "
        "da2ae8ba219c91797613747ed7554a2677ac797bb9cbe9557a884bfa0da6ad48: a dataset lists a shard once; "
        "drop one of them"
    )


def test_a_shard_without_rows_may_be_listed_twice() -> None:
    twice = make_shards([("web", 0, 160), ("web", 1, 15), ("web", 1, 15), ("wiki", 2, 160)])
    assert len(Order(7, [replace(PHASE, shards=twice)]).batch(0)) == 8


def test_phases_start_at_0_and_in_order() -> None:
    assert refused() == "phases start at batches []: expected the first phase to start at batch 0"
    later = replace(PHASE, start=3)
    assert refused(later) == "phases start at batches [3]: expected the first phase to start at batch 0"
    assert refused(PHASE, later, later) == (
        "a phase that starts at batch 3 follows one that starts at batch 3: put phases in order, each from a batch "
        "of its own"
    )


def test_a_later_phase_is_looked_at_before_the_run() -> None:
    assert "source 'web' has 20 rows" in refused(PHASE, replace(PHASE, start=1000, global_batch=28))


def test_seed_and_skipped_batches_have_their_ranges() -> None:
    assert refused(PHASE, seed=-1) == "seed=-1: expected a whole number from 0 to 2^64 - 1"
    assert refused(PHASE, seed=2**64).startswith("seed=18446744073709551616: ")
    assert refused(PHASE, skipped=(-1,)) == "skipped names batch -1: batches count from 0"


def test_batches_below_0_are_refused() -> None:
    with pytest.raises(ValueError, match="batch -1: batches count from 0"):
        Order(7, [PHASE]).batch(-1)

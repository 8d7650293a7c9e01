"""trainer.order.batch_order against the slow reference, on random runs with everything in them that section 7 knows."""

from collections import Counter
from itertools import takewhile

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.trainer.made_runs import Run, random_runs, rows_of
from tests.trainer.slow_order import slow_run
from trainer.order.batch_order import Batch, EndOfRun, Order, slice_of

MANY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
FEW = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def opened(run: Run, skipped: list[int] | None = None) -> Order:
    """Its order; a run whose sources are too small for a batch is skipped."""
    try:
        return Order(run.seed, run.phases, skipped or [])
    except ValueError:
        assume(False)
        raise


def all_batches(order: Order, count: int) -> list[Batch]:
    """The first batches, as far as the run goes."""
    last = order.last_batch()
    return [order.batch(b) for b in range(count if last is None else min(count, last + 1))]


@MANY
@given(random_runs())
def test_every_batch_is_that_of_the_slow_reference(run: Run) -> None:
    order = opened(run)
    slow = list(slow_run(run.seed, run.slow, run.batches))
    for b, rows in enumerate(slow):
        assert rows_of(order, order.batch(b)) == rows
    if len(slow) < run.batches:
        assert order.last_batch() == len(slow) - 1
        with pytest.raises((EndOfRun, ValueError), match=f"batch {len(slow)}"):
            order.batch(len(slow))


@SOME
@given(random_runs(), st.randoms(use_true_random=False))
def test_a_batch_is_the_same_whatever_was_asked_before(run: Run, random: object) -> None:
    expected = [rows_of(opened(run), batch) for batch in all_batches(opened(run), run.batches)]
    numbers = list(range(len(expected)))
    random.shuffle(numbers)  # type: ignore[attr-defined]
    order = opened(run)
    for b in numbers:
        order.consumed(b)
        assert rows_of(order, order.batch(b)) == expected[b]


@SOME
@given(random_runs())
def test_ranks_slices_joined_are_the_batch_for_any_number_of_ranks(run: Run) -> None:
    order = opened(run)
    for batch in all_batches(order, 3):
        for world in (1, 2, 3, 4, 6, 8):
            slices = [slice_of(batch, rank, world) for rank in range(world)]
            assert [row for part in slices for row in rows_of(order, part)] == rows_of(order, batch)
            assert max(map(len, slices)) - min(map(len, slices)) <= 1


@FEW
@given(random_runs())
def test_reverse_look_up_finds_every_reading_of_every_row(run: Run) -> None:
    batches = all_batches(opened(run), run.batches)
    order = opened(run)
    read = sorted(
        (shard, batch.number, epoch, row)
        for batch in batches
        for shard, epoch, row in zip(batch.shard_G.tolist(), batch.epoch_G.tolist(), batch.row_G.tolist(), strict=True)
    )
    for shard in range(len(order.shards.source_N)):
        found = order.positions(shard, lambda _length, _packing: range(60), len(batches))
        assert found == [(batch, epoch, row) for which, batch, epoch, row in read if which == shard]


@SOME
@given(random_runs(), st.integers(0, 6))
def test_windows_cover_what_batches_read_from_first_to_last(run: Run, start: int) -> None:
    order = opened(run)
    batches = all_batches(order, run.batches)
    assume(start < len(batches))
    windows = list(takewhile(lambda w: w.first_batch < len(batches), opened(run).windows_from(start)))
    assert [w.first_batch for w in windows] == sorted(w.first_batch for w in windows)
    reads = [
        {(s, e, shard) for s, e, shard in zip(batch.source_G, batch.epoch_G, batch.shard_G, strict=True)}
        for batch in batches
    ]
    held = [{(order.shards.sources.index(w.source), w.epoch, shard) for shard in w.shards} for w in windows]
    for b in range(start, len(batches)):
        open_ones = [h for w, h in zip(windows, held, strict=True) if w.first_batch <= b <= w.last_batch]
        assert reads[b] <= set().union(*open_ones)
    for window, triples in zip(windows, held, strict=True):
        assert window.last_batch >= start
        assert reads[window.first_batch] & triples
        if window.last_batch < len(batches):
            assert reads[window.last_batch] & triples


@SOME
@given(random_runs(), st.sets(st.integers(0, 12)))
def test_accounts_are_sums_over_batches(run: Run, skipped: set[int]) -> None:
    order = opened(run, sorted(skipped))
    batches = all_batches(order, run.batches)
    samples: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    steps = 0
    for batch in batches:
        consumed = order.consumed(batch.number)
        assert {name: given.samples for name, given in consumed.items() if given.samples} == +samples
        realised = order.realised_tokens(steps)
        assert {name: count for name, count in realised.items() if count} == +tokens
        names = [order.shards.sources[source] for source in batch.source_G]
        samples.update(names)
        if batch.number in skipped:
            assert order.step_of_batch(batch.number) is None
            continue
        assert order.step_of_batch(batch.number) == steps
        assert order.batch_of_step(steps) == batch.number
        length = order.phase_of(batch.number).sequence_length
        tokens.update({name: length * names.count(name) for name in set(names)})
        steps += 1


@SOME
@given(random_runs())
def test_epochs_consumed_are_those_of_the_next_row(run: Run) -> None:
    order = opened(run)
    for batch in all_batches(order, run.batches):
        for source, gone in enumerate(order.consumed(batch.number).values()):
            read = batch.epoch_G[batch.source_G == source]
            assert not len(read) or int(gone.epochs) == read.min()

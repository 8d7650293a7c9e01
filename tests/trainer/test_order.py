"""trainer.order.batch_order: the contract's vectors, epochs, joins, caps, skips, the digest, as literal runs."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest

from tests.trainer.made_runs import make_shards, rows_of, sha
from tests.trainer.slow_order import SlowPhase, slow_run
from trainer.order.batch_order import EndOfRun, LeftOut, Order, Phase, Window, slice_of, update_digest
from trainer.order.mixture import quotas
from trainer.order.source_order import Reads, Timeline

WEB = [("web", i, 16 * (3 + i)) for i in range(5)]
WIKI = [("wiki", 5, 115)]
FIRST = make_shards(WEB + WIKI)
JOINED = make_shards([*WEB[1:], ("web", 6, 64), ("web", 7, 80), *WIKI], {6: [0]})
WEIGHTS = {"web": "0.75", "wiki": "0.25"}
ONE = Phase(0, 8, 16, "windows", WEIGHTS, FIRST)
TWO = Phase(2, 8, 16, "windows", WEIGHTS, JOINED)


def shown(order: Order, b: int, source: str | None = None) -> str:
    """A batch as "shard.row ...", as the contract writes it; of one source if asked."""
    number = {sha(i): i for i in range(64)}
    rows = rows_of(order, order.batch(b))
    return " ".join(f"{number[digest]}.{row}" for name, *_, digest, row in rows if source in (None, name.decode()))


def read(order: Order, batches: Sequence[int], source: str) -> Counter[tuple[int, bytes, int]]:
    """How often (epoch, shard, row) of a source is read."""
    rows = (row for b in batches for row in rows_of(order, order.batch(b)) if row[0] == source.encode())
    return Counter((epoch, digest, row) for _, epoch, _, _, digest, row in rows)


# ---------------------------------------------------------------- the contract's run


def test_batches_are_those_of_the_contract() -> None:
    order = Order(7, [ONE])
    assert shown(order, 0) == "2.0 2.2 2.4 3.1 4.5 1.3 5.0 5.4"
    assert shown(order, 1) == "2.3 3.2 3.5 0.0 0.1 0.2 5.2 5.5"


def test_the_cycle_begins_as_in_the_contract() -> None:
    # Batches of one sample show the mixture sample by sample.
    order = Order(7, [replace(ONE, global_batch=1)])
    assert "".join("ab"[order.batch(b).source_G[0]] for b in range(24)) == "aabaaabaaabaaababaaaaaba"


def test_a_joined_run_reads_on_as_in_the_contract() -> None:
    order = Order(7, [ONE, replace(TWO, global_batch=1, weights={"web": "1"})])
    assert shown(order, 1) == "2.3 3.2 3.5 0.0 0.1 0.2 5.2 5.5"
    expected = "4.4 4.0 1.1 4.1 2.1 4.3 1.0 3.0 1.2 4.2 3.3 3.4 4.6 7.0 7.4 7.1 7.2 7.3"
    assert [shown(order, b) for b in range(2, 20)] == expected.split()
    # Shard 6, which replaces the begun shard 0, waits for the next epoch and is in it.
    later = read(order, range(20, 20 + 38), "web")
    assert {digest for _, digest, _ in later} == {sha(i) for i in (1, 2, 3, 4, 6, 7)}


def test_a_joined_run_lists_leftover_rows_first() -> None:
    order = Order(7, [ONE, TWO])
    assert [shown(order, b, "web") for b in (2, 3, 4)] == [
        "2.1 4.0 4.1 4.3 4.4 1.1",
        "3.0 3.3 3.4 4.2 1.0 1.2",
        "4.6 7.0 7.1 7.2 7.3 7.4",
    ]


def test_the_windows_of_a_joined_run() -> None:
    order = Order(7, [ONE, TWO])
    number = {digest.tobytes(): row for row, digest in enumerate(order.shards.sha256_N)}
    ids = {i: number[sha(i)] for i in range(8)}
    windows = islice((w for w in order.windows_from(1) if w.source == "web"), 3)
    assert list(windows) == [
        Window("web", 0, -1, 0, False, tuple(ids[i] for i in (2, 3, 0, 4, 1)), 0, 1),
        Window("web", 0, -1, 0, True, tuple(ids[i] for i in (2, 3, 4, 1)), 2, 4),
        Window("web", 0, 2, 0, False, (ids[7],), 4, 4),
    ]


# ---------------------------------------------------------------- epochs


def test_an_epoch_reads_each_row_once_whatever_the_batch() -> None:
    for size in (1, 5, 7, 25):
        order = Order(3, [replace(ONE, global_batch=size, weights={"web": "1"})])
        rows = read(order, range(2 * 25 // size + 1), "web")
        expected = {(e, sha(i), row) for e in (0, 1) for i in range(5) for row in range(3 + i)}
        assert {place for place in rows if place[0] < 2} == expected
        assert set(rows.values()) == {1}


def test_windows_of_a_light_source_hold_four_shards_or_fewer_in_turn() -> None:
    shards = make_shards([("a", i, 16) for i in range(40)] + [("b", 40 + i, 16) for i in range(9)])
    order = Order(1, [Phase(0, 1, 16, "windows", {"a": "62", "b": "1"}, shards)])
    sizes = [len(w.shards) for w in islice((w for w in order.windows_from(0) if w.source == "b"), 4)]
    assert sizes == [3, 3, 3, 3]  # ceil(9 / 4) = 3 windows


def test_the_order_of_a_listing_changes_nothing() -> None:
    order, shuffled = Order(7, [ONE]), Order(7, [replace(ONE, shards=make_shards([*WIKI, *reversed(WEB)]))])
    assert [shown(order, b) for b in range(9)] == [shown(shuffled, b) for b in range(9)]
    assert order.plan_digest(9) == shuffled.plan_digest(9)


def test_a_generation_with_equal_shards_cuts_nothing() -> None:
    again = replace(ONE, start=2, shards=make_shards([*WIKI, *reversed(WEB)]))
    order = Order(7, [ONE, again])
    assert not any(order.batch(b).carried_G.any() for b in range(6))
    assert read(order, range(8), "web") == Counter(dict.fromkeys(read(order, range(8), "web"), 1))


def test_another_sequence_length_drops_the_rest_of_the_window() -> None:
    order = Order(7, [ONE, replace(ONE, start=2, sequence_length=8)])
    assert order.left_out() == [LeftOut(2, "web", 13), LeftOut(2, "wiki", 3)]
    assert set(order.batch(2).epoch_G.tolist()) == {1}  # nothing remained: the next epoch began at once


def test_a_sample_far_away_is_found_without_those_before() -> None:
    order = Order(7, [ONE])
    b = 10_000_000_000 // 8
    assert len(order.batch(b)) == 8
    web = order.batch(b).epoch_G[order.batch(b).source_G == 0]
    assert set(web.tolist()) == {order.consumed(b)["web"].samples // 25}


# ---------------------------------------------------------------- caps


def test_a_capped_source_leaves_and_the_others_share() -> None:
    order = Order(7, [replace(ONE, max_epochs={"wiki": "1"}, global_batch=4)])
    sizes = [len(shown(order, b, "wiki").split()) for b in range(12)]
    assert sum(sizes) <= 7
    assert sum(sizes) + 2 > 7  # the batch that it left would have taken one or two of its rows
    assert [len(order.batch(b)) for b in range(12)] == [4] * 12
    assert sizes[8:] == [0, 0, 0, 0]
    assert order.last_batch() is None


def test_a_cap_that_stops_ends_the_run_before_the_batch_that_would_pass_it() -> None:
    order = Order(7, [replace(ONE, max_epochs={"wiki": "1"}, global_batch=4, at_cap="stop")])
    last = order.last_batch()
    assert last is not None
    assert order.consumed(last + 1)["wiki"].samples <= 7
    with pytest.raises(EndOfRun, match=rf"before batch {last + 1}: sources reach max_epochs there: wiki \(1\)"):
        order.batch(last + 1)
    assert order.consumed(last + 100) == order.consumed(last + 1)


def test_a_run_of_one_capped_source_gives_exactly_its_epochs_when_batches_fit() -> None:
    order = Order(7, [replace(ONE, weights={"web": "1"}, max_epochs={"web": "2.5"}, global_batch=2)])
    # 2 epochs of 25 rows, and 12 of the third.
    assert order.last_batch() == 30
    assert order.consumed(31)["web"].samples == 62


def test_a_cap_below_what_a_phase_finds_takes_the_source_out_at_once() -> None:
    capped = replace(ONE, start=4, max_epochs={"wiki": "0.5"})
    order = Order(7, [ONE, capped])
    assert shown(order, 3, "wiki") != ""
    assert all(shown(order, b, "wiki") == "" for b in range(4, 12))


def test_sources_that_cannot_fill_a_batch_after_a_cap_end_the_run_with_the_reason() -> None:
    order = Order(7, [replace(ONE, max_epochs={"web": "1"})])
    last = order.last_batch()
    assert last is not None
    assert len(order.batch(last)) == 8
    with pytest.raises(ValueError, match=f"from batch {last + 1} on, with sources at their caps: source 'wiki' has 7"):
        order.batch(last + 1)


# ---------------------------------------------------------------- steps, digest, slices


def test_skipped_batches_use_up_their_rows() -> None:
    order, plain = Order(7, [ONE], skipped=[4, 1, 2]), Order(7, [ONE])
    assert [order.batch_of_step(step) for step in range(5)] == [0, 3, 5, 6, 7]
    assert [order.step_of_batch(b) for b in range(8)] == [0, None, None, 1, None, 2, 3, 4]
    assert [shown(order, b) for b in range(8)] == [shown(plain, b) for b in range(8)]
    assert sum(order.realised_tokens(2).values()) == 2 * 8 * 16


def test_the_rolling_digest_is_that_of_digests_and_rows_in_batch_order() -> None:
    order = Order(7, [ONE])
    digest = bytes(32)
    for b, rows in ((0, "2.0 2.2 2.4 3.1 4.5 1.3 5.0 5.4"), (1, "2.3 3.2 3.5 0.0 0.1 0.2 5.2 5.5")):
        text = b"".join(sha(int(s)) + int(r).to_bytes(8, "little") for s, r in (p.split(".") for p in rows.split()))
        expected = hashlib.blake2b(digest + text, digest_size=32).digest()
        digest = update_digest(digest, order.batch(b), order)
        assert digest == expected


def test_slices_are_cut_at_floors() -> None:
    batch = Order(7, [ONE]).batch(0)
    assert [len(slice_of(batch, rank, 3)) for rank in range(3)] == [2, 3, 3]
    assert np.array_equal(slice_of(batch, 1, 3).row_G, batch.row_G[2:5])
    with pytest.raises(ValueError, match="rank 3 of 3: expected a rank from 0 to 2"):
        slice_of(batch, 3, 3)


def test_a_plan_digest_covers_the_phases_that_have_begun() -> None:
    plain, joined = Order(7, [ONE]), Order(7, [ONE, TWO])
    assert plain.plan_digest(2) == joined.plan_digest(2)
    assert plain.plan_digest(3) != joined.plan_digest(3)
    heavier = Order(7, [replace(ONE, weights={"web": "3", "wiki": "1"})])
    assert heavier.plan_digest(2) == plain.plan_digest(2)
    capped = Order(7, [replace(ONE, max_epochs={"web": "3"})])
    assert capped.plan_digest(2) != plain.plan_digest(2)


# ---------------------------------------------------------------- re-windows


def test_what_replaces_a_begun_shard_at_any_remove_waits_for_the_next_epoch() -> None:
    web = replace(ONE, weights={"web": "1"})
    second = make_shards([*WEB[1:], ("web", 6, 64), *WIKI], {6: [0]})
    third = make_shards([*WEB[1:], ("web", 8, 80), ("web", 9, 48), *WIKI], {6: [0], 8: [6]})
    order = Order(7, [web, replace(web, start=1, shards=second), replace(web, start=2, shards=third)])
    read_of = read(order, range(9), "web")
    assert not {digest for epoch, digest, _ in read_of if epoch == 0} & {sha(6), sha(8)}
    assert {row for epoch, digest, row in read_of if (epoch, digest) == (0, sha(9))} == {0, 1, 2}
    assert {row for epoch, digest, row in read_of if (epoch, digest) == (1, sha(8))} == {0, 1, 2, 3, 4}


def test_rows_left_out_or_retired_count_as_read_for_a_cap() -> None:
    # Two windows of four shards of ten rows; ten rows are read when three shards are retired.
    ids = np.arange(8)
    timeline = Timeline(7, "b", np.arange(8, dtype=np.uint64) << np.uint64(40), np.zeros((8, 32), np.uint8))
    timeline.rewindow(0, 0, Reads(16, "windows", ids, np.full(8, 10)), {})
    timeline.enter_phase(0, Fraction(1, 64))
    first, second = timeline.window(0), timeline.window(40)
    _, taken, _ = first.read(0, 10)
    gone = [first.ids_K[0], *second.ids_K[:2]]
    left_out = 10 - int((taken == gone[0]).sum())
    stay = np.setdiff1d(ids, gone)
    timeline.rewindow(5, 10, Reads(16, "windows", stay, np.full(5, 10)), {})
    # Half of 80 rows: 10 read, the retired running shard's unread ones and 20 ahead are gone; the rest are samples.
    assert timeline.cap_end(Fraction(1, 2)) == 10 + (40 - 10 - left_out - 20)
    assert timeline.cap_end(Fraction(1)) == 10 + (80 - 10 - left_out - 20)
    assert timeline.epochs_at(5, 10) == (10 + left_out + 20) / 80


def test_quotas_round_the_largest_remainders_up() -> None:
    tenths = [Fraction(1, 10), Fraction(2, 10), Fraction(7, 10)]  # 6553.6, 13107.2, 45875.2
    assert quotas(tenths).tolist() == [6554, 13107, 45875]
    assert quotas([Fraction(1)] * 3).tolist() == [21846, 21845, 21845]


def test_a_source_just_at_its_cap_stays_while_others_leave() -> None:
    # About one row of each a batch: where b would take its ninth row, c takes its ninth, which it may; it stays,
    # unless its share of that batch without b is two rows.
    shards = make_shards([(name, i, 128) for i, name in enumerate("abc")])
    rows = {name: {sha(i): 8} for i, name in enumerate("abc")}
    weights, caps = dict.fromkeys("abc", "1"), {"b": "1", "c": "1.125"}
    given = []
    for seed in range(5):
        order = Order(seed, [Phase(0, 3, 16, "windows", weights, shards, caps)])
        slow = list(slow_run(seed, [SlowPhase(0, 3, (16, "windows"), weights, rows, 0, {}, caps)], 15))
        assert [rows_of(order, order.batch(b)) for b in range(15)] == slow
        given.append(order.consumed(15)["c"].samples)
    assert set(given) == {8, 9}


def test_a_window_that_is_cut_twice_reads_on_without_the_shards_of_both_cuts() -> None:
    # The rows of the plain run, in its order, less the retired shards' after each cut.
    one = replace(ONE, weights={"web": "1"}, global_batch=1)
    without = [make_shards([*(w for w in WEB if w[1] not in gone), *WIKI]) for gone in ({4}, {4, 3}, {4, 3})]
    added = make_shards([*WEB[:3], ("web", 8, 160), *WIKI])
    phases = [one, replace(one, start=3, shards=without[0]), replace(one, start=6, shards=without[1])]
    order = Order(7, [*phases, replace(one, start=8, shards=added)])
    plain = [shown(Order(7, [one]), b) for b in range(25)]
    second = [row for row in plain[3:] if row[0] != "4"]
    third = [row for row in second[3:] if row[0] != "3"]
    expected = plain[:3] + second[:3] + third
    assert [shown(order, b) for b in range(len(expected))] == expected
    after = read(order, range(len(expected), len(expected) + 10), "web")
    assert set(after) == {(0, sha(8), row) for row in range(10)}

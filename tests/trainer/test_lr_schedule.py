"""Learning rates of steps."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.optim.lr_schedule import Schedule


def test_warmup_is_the_next_step_over_the_warmup_steps() -> None:
    schedule = Schedule("cosine", 0.4, 100, 4)
    assert [schedule.rate(step) for step in range(4)] == [0.1, 0.2, pytest.approx(0.3), 0.4]


def test_the_cosine_falls_from_the_peak_to_its_share_at_the_last_step() -> None:
    schedule = Schedule("cosine", 1.0, 15, 4, final=0.1)
    assert schedule.rate(4) == 1.0
    assert schedule.rate(9) == pytest.approx(0.1 + 0.45)  # half way, r = 5 / 10
    assert schedule.rate(14) == pytest.approx(0.1)
    # r = 0.2: 0.1 + 0.45 (1 + cos 36 degrees)
    assert schedule.rate(6) == pytest.approx(0.1 + 0.45 * (1 + 0.8090169943749475))


def test_warmup_stable_decay_holds_the_peak_and_falls_in_the_last_steps() -> None:
    linear = Schedule("wsd", 1.0, 12, 2, decay_steps=4)
    assert [linear.rate(step) for step in range(12)] == pytest.approx([0.5, *[1.0] * 7, 0.8, 0.6, 0.4, 0.2])
    root = Schedule("wsd", 1.0, 12, 2, decay_steps=3, decay="sqrt")
    assert [root.rate(step) for step in range(8, 12)] == pytest.approx(
        [1.0, 1 - math.sqrt(0.25), 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)]
    )


def test_no_warmup_begins_at_the_peak() -> None:
    assert Schedule("cosine", 0.3, 10, 0).rate(0) == pytest.approx(0.3)
    assert Schedule("wsd", 0.3, 10, 0).rate(0) == pytest.approx(0.3)
    assert Schedule("cosine", 0.3, 1, 0).rate(0) == pytest.approx(0.3)


def test_stretches_longer_than_the_run_are_refused() -> None:
    with pytest.raises(ValueError, match="warmup_steps=6 and decay_steps=5 exceed steps=10"):
        Schedule("wsd", 1.0, 10, 6, decay_steps=5)
    with pytest.raises(ValueError, match="warmup_steps=11 exceeds steps=10"):
        Schedule("cosine", 1.0, 10, 11, decay_steps=5)


@given(
    st.sampled_from([("cosine", "linear"), ("wsd", "linear"), ("wsd", "sqrt")]),
    st.integers(1, 500),
    st.data(),
)
def test_rates_rise_to_the_peak_and_then_only_fall_and_stay_above_zero(
    kinds: tuple[str, str], steps: int, data: st.DataObject
) -> None:
    warmup = data.draw(st.integers(0, steps))
    decay = data.draw(st.integers(0, steps - warmup))
    schedule = Schedule(kinds[0], 0.01, steps, warmup, decay, kinds[1])
    rates = [round(schedule.rate(step), 15) for step in range(steps)]  # past the last bits
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[max(0, warmup - 1) :] == sorted(rates[max(0, warmup - 1) :], reverse=True)
    assert 0 < min(rates) <= max(rates) <= 0.01
    assert warmup == 0 or rates[warmup - 1] == 0.01

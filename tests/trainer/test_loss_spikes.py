"""The spike rule: planted spikes, drifts, ordinary noise, and what is left of it after a resume."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.monitor.loss_spikes import SpikeRule


def rule(action: str = "skip", window: int = 128, warmup: int = 64, threshold: float = 8.0) -> SpikeRule:
    return SpikeRule(window, warmup, threshold, action)


def curve(seed: int, steps: int, heavy: bool = False) -> list[tuple[float, float]]:
    """(loss, gradient norm) of an ordinary run: both fall, with noise that is normal or has heavy tails."""
    draws, step = np.random.default_rng(seed), np.arange(steps)
    noise = [draws.standard_t(4, steps) / math.sqrt(2) if heavy else draws.standard_normal(steps) for _ in range(2)]
    loss = 2.5 + 8.3 * np.exp(-step / 150) + 0.6 * np.exp(-step / 2000) + (0.03 + 0.02 * (seed % 3)) * noise[0]
    norm = (0.4 + 4 * np.exp(-step / 100)) * np.exp((0.08 + 0.04 * (seed % 3)) * noise[1])
    return list(zip(loss.tolist(), norm.tolist(), strict=True))


def spikes(judge: SpikeRule, values: list[tuple[float, float]]) -> list[int]:
    return [step for step, (loss, norm) in enumerate(values) if judge.judge(loss, norm).spike]


def judged(values: list[float], **options: int) -> SpikeRule:
    """A rule that has seen losses."""
    judge = rule("log", warmup=8, **options)
    for loss in values:
        judge.judge(loss, 1.0)
    return judge


# Both halves have the median 2.5, so that there is no trend; deviations 1.5 .5 .5 97.5 twice, their median 1.
LEVEL = [1.0, 2.0, 3.0, 100.0, 1.0, 2.0, 3.0, 100.0]


def test_the_score_is_the_deviation_from_the_median_over_the_scaled_mad() -> None:
    assert judged(LEVEL).judge(5.0, 1.0).score == pytest.approx(2.5 / 1.4826)


def test_a_trend_is_followed_and_its_noise_measured_around_it() -> None:
    # Two less a step; deviations .5 each.
    falling = [20.5, 17.5, 16.5, 13.5, 12.5, 9.5, 8.5, 5.5]
    assert judged(falling).judge(4.0 + 2.0, 1.0).score == pytest.approx(2.0 / (0.5 * 1.4826))


@pytest.mark.parametrize(("value", "spike"), [(2.5 + 7.999 * 1.4826, False), (2.5 + 8.001 * 1.4826, True)])
def test_a_step_is_a_spike_above_the_threshold(value: float, spike: bool) -> None:
    assert judged(LEVEL).judge(value, 1.0).spike is spike


def test_ordinary_noise_makes_no_alarm_and_heavy_tails_few() -> None:
    assert [spikes(rule(), curve(seed, 2000)) for seed in range(6)] == [[]] * 6
    alarms = sum(len(spikes(rule(), curve(seed, 2000, heavy=True))) for seed in range(6))
    assert 0 < alarms < 12_000 // 200


@pytest.mark.parametrize("action", ["log", "skip", "rewind"])
def test_a_planted_run_of_spikes_is_found_and_nothing_else(action: str) -> None:
    values = curve(1, 600)
    for step in range(400, 410):
        values[step] = (values[step][0] + 2.0, values[step][1])
    values[500] = (values[500][0], values[500][1] * 5)
    assert spikes(rule(action), values) == [*range(400, 410), 500]


def test_a_spike_of_one_nat_is_found_while_the_loss_still_falls() -> None:
    for seed in range(6):
        judge, values = rule(), curve(seed, 301)
        assert values[172][0] - values[300][0] > 1  # over the window
        spikes(judge, values[:300])
        assert judge.judge(values[300][0] + 1, values[300][1]).spike is True


def test_the_reason_names_the_value_that_stands_out() -> None:
    values = curve(1, 300)
    judge = rule()
    spikes(judge, values)
    assert judge.judge(9.0, 0.4).reason.startswith("loss 9, ")
    assert judge.judge(3.9, 50.0).reason.startswith("gradient norm 50, ")
    assert judge.judge(3.9, 0.4).reason == ""


def test_slow_drifts_and_sudden_falls_are_none() -> None:
    noise = curve(3, 1500)
    rising = [(3 + 0.002 * step + noise[step][0] - noise[1499][0], 0.5 + 0.001 * step) for step in range(600, 1500)]
    assert spikes(rule(), rising) == []
    assert spikes(rule(), [(3.0, 1.0)] * 100 + [(0.5, 0.01)] * 100) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("action", ["log", "skip", "rewind"])
def test_what_is_not_finite_is_refused_from_the_first_step_on_and_never_remembered(action: str, bad: float) -> None:
    judge = rule(action)
    for values in ((bad, 1.0), (1.0, bad)):
        verdict = judge.judge(*values)
        assert (verdict.spike, verdict.refused, verdict.score) == (True, True, math.inf)
        assert verdict.reason.endswith("not finite")
    assert judge.state_dict() == {"loss": [], "norm": []}


def test_the_first_steps_are_not_judged() -> None:
    judge = rule(warmup=10)
    assert spikes(judge, [(1.0, 1.0)] * 9 + [(1000.0, 1000.0)]) == []
    assert spikes(judge, [(1000.0, 1.0)]) == [0]


def test_a_loss_that_stands_still_is_not_alarmed_by_a_trifle() -> None:
    judge = rule(warmup=10)
    spikes(judge, [(2.0, 1.0)] * 20)
    # 0.5 % of the loss and 10 % of the norm, which is judged by its logarithm: e^0.8 = 2.226.
    assert judge.judge(2.0 * 1.039, 2.22).spike is False
    assert judge.judge(2.0 * 1.041, 1.0).spike is True
    assert judge.judge(2.0, 2.23).spike is True


def test_a_norm_falls_to_nothing_and_comes_back() -> None:
    judge = rule(warmup=10)
    assert spikes(judge, [(2.0, 0.0)] * 20 + [(2.0, 1.0)]) == [20]


def test_refused_steps_leave_the_history_and_logged_ones_join_it() -> None:
    values = curve(2, 200)
    for action, length in (("log", 1), ("skip", 0), ("rewind", 0)):
        judge = rule(action, window=256)
        spikes(judge, values)
        verdict = judge.judge(50.0, 1.0)
        assert (verdict.spike, verdict.refused) == (True, action != "log")
        assert len(judge.state_dict()["loss"]) == 200 + length


def test_the_window_forgets_the_oldest() -> None:
    judge = rule(window=16, warmup=8)
    spikes(judge, [(float(step), 1.0) for step in range(40, 0, -1)])
    assert judge.state_dict()["loss"] == [float(step) for step in range(16, 0, -1)]


@given(st.integers(0, 250), st.integers(0, 9), st.sampled_from(["log", "skip"]))
def test_a_resumed_rule_judges_on_bit_by_bit(stop: int, seed: int, action: str) -> None:
    values = curve(seed, 260, heavy=True)
    values[200] = (40.0, 9.0)
    uninterrupted, before, after = (rule(action, window=64, warmup=16) for _ in range(3))
    want = [uninterrupted.judge(*each) for each in values]
    for each in values[:stop]:
        before.judge(*each)
    after.judge(7.0, 7.0)  # forgotten when the state is loaded
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert [after.judge(*each) for each in values[stop:]] == want[stop:]
    assert after.state_dict() == uninterrupted.state_dict()


@pytest.mark.parametrize("action", ["log", "skip", "rewind"])
def test_a_spike_in_the_first_steps_of_a_phase_is_its_new_level(action: str) -> None:
    values = [(2.0 + 0.01 * (step % 3), 1.0) for step in range(100)]
    judge = rule(action, warmup=16)
    spikes(judge, values)
    verdict = judge.judge(4.0, 1.0, since_change=15)
    assert (verdict.spike, verdict.refused) == (True, False)
    assert verdict.reason.endswith("; 15 batches into a phase that is its level, and the history begins anew")
    assert judge.state_dict() == {"loss": [4.0], "norm": [1.0]}
    assert judge.judge(math.nan, 1.0, since_change=16).refused is True


def test_later_in_a_phase_a_spike_is_one_and_a_phase_without_one_keeps_the_history() -> None:
    values = [(2.0 + 0.01 * (step % 3), 1.0) for step in range(100)]
    judge = rule("skip", warmup=16)
    spikes(judge, values)
    assert [judge.judge(*each, since_change=step).spike for step, each in enumerate(values[:10])] == [False] * 10
    assert len(judge.state_dict()["loss"]) == 110
    verdict = judge.judge(4.0, 1.0, since_change=16)
    assert (verdict.spike, verdict.refused) == (True, True)

"""p-values mean what they say, ties count against a finding, and thresholds keep the budget on the days they come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import calibration

SHAPES = {
    "normal": lambda c, n: c.normal(size=n),
    "heavy": lambda c, n: c.standard_t(4, n),
    "exponential": lambda c, n: c.exponential(size=n),
    "mostly nought": lambda c, n: np.where(c.random(n) < 0.001, c.exponential(size=n), 0.0),
}


@pytest.mark.parametrize("shape", ["normal", "heavy", "exponential"])
def test_p_values_of_new_minutes_are_uniform(shape: str) -> None:
    chance = np.random.default_rng(1)
    knots = calibration.fit_tail(SHAPES[shape](chance, 20_000))
    p = calibration.p_values(SHAPES[shape](chance, 400_000).astype(np.float32)[:, None, None], knots[None, None])
    for border in (0.2, 0.05, 0.01, 1e-3, 1e-4):
        assert (p <= border).mean() == pytest.approx(border, rel=0.15 if border >= 0.01 else 0.8)


def test_what_never_happened_in_calibration_is_rare_and_what_did_is_not() -> None:
    quiet = calibration.fit_tail(np.zeros(20_000))
    digits = calibration.digits(np.array([0.0, 0.7, 3.0], np.float32)[:, None, None], quiet[None, None])[:, 0, 0]
    assert digits[0] <= 0.31
    assert digits[1] > 4
    assert digits[2] > digits[1]
    common = calibration.fit_tail(np.zeros(20_000), prior=0.01, prior_minutes=20_000)
    assert calibration.digits(np.full((1, 1, 1), 0.3, np.float32), common[None, None])[0, 0, 0] < 4 < digits[1]


@given(st.lists(st.floats(-50, 50), min_size=1, max_size=60), st.lists(st.floats(-60, 60), min_size=2, max_size=20))
@settings(max_examples=60, deadline=None)
def test_greater_values_are_never_less_unusual(learnt: list[float], asked: list[float]) -> None:
    knots = calibration.fit_tail(np.array(learnt))
    assert (np.diff(knots) > 0).all()
    values = np.sort(np.array(asked, np.float32))
    digits = calibration.digits(values[:, None, None], knots[None, None])[:, 0, 0]
    assert (np.diff(digits) >= 0).all()
    assert ((digits >= 0) & (digits <= calibration.MOST_DIGITS)).all()


def test_two_of_three_minutes_or_one_that_is_far_rarer() -> None:
    evidence = np.array([0, 3, 0, 3, 0, 0, 3, 0, 0, 5, 0], np.float32)[:, None]
    weight = calibration.debounce(evidence)[:, 0]
    assert weight.tolist() == pytest.approx([0, 1.4, 0, 3, 0, 0, 1.4, 0, 0, 3.4, 0])


def test_runs_within_ten_minutes_are_one_episode() -> None:
    weight = np.zeros(100)
    weight[[5, 6, 16, 40, 51]] = 4
    assert calibration.count_episodes(weight, 3) == 3
    assert calibration.count_episodes(weight, 5) == 0


def test_thresholds_keep_the_budget_on_the_days_they_come_from() -> None:
    chance = np.random.default_rng(2)
    weight = [chance.exponential(1 / np.log(10), 14 * 1440) * scale for scale in (1.0, 1.0, 1.3)]
    table = np.stack([calibration.episode_table(part) for part in weight])
    days = np.full(3, 14.0)
    for budget in (0.2, 0.5, 2.0):
        limits = calibration.thresholds(table, days, budget)
        found = sum(calibration.count_episodes(part, limit) for part, limit in zip(weight, limits, strict=True))
        assert found / 42 == pytest.approx(budget, rel=0.5)
        assert limits[2] > limits[0]


def test_sparse_services_of_a_shard_are_no_reason_for_more_findings_of_the_busy_ones() -> None:
    chance = np.random.default_rng(4)
    sizes = [1.0] * 6 + [0.5] * 6
    days = np.full(12, 14.0)
    learnt, live = ([chance.exponential(1 / np.log(10), 14 * 1440) * size for size in sizes] for _ in range(2))
    limits = calibration.thresholds(np.stack([calibration.episode_table(part) for part in learnt]), days, 0.5)
    found = [calibration.count_episodes(part, limit) / 14 for part, limit in zip(live, limits, strict=True)]
    assert np.mean(found[:6]) == pytest.approx(0.5, rel=0.3)
    assert np.mean(found[6:]) <= 0.5


def test_evidence_that_never_falls_is_no_licence_for_a_low_threshold() -> None:
    chance = np.random.default_rng(3)
    floor = np.maximum(chance.exponential(1 / np.log(10), 14 * 1440), 1.5)
    table = calibration.episode_table(floor)
    assert table[0] == 1 and table.max() > 100
    (limit,) = calibration.thresholds(table[None], np.full(1, 14.0), 0.5)
    assert limit > 2 and calibration.count_episodes(floor, limit) <= 8

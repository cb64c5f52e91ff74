"""What a dismissal may do to a service, and what it may not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml import calibration, detectors
from ml.dismissals import MARGIN, MOST_A_WEEK, WEEK, Dismissed, excess, excused, shifted
from ml.evaluation.days import DAY, live
from ml.evaluation.harness import case_of
from ml.evaluation.services import make_service
from ml.features import Frame
from ml.shard_parts import part_of
from ml.signals import HISTORY
from tests.unit.ml.trained import small_shard


@cache
def surge() -> Frame:
    """Minutes of the second service with eight at the end in which it writes five times as much of one kind."""
    chance = np.random.default_rng((1, 1))
    days = live(make_service(1, 20.0, chance), chance, quiet_days=4, test_days=0)
    frame = case_of(days, 3 * DAY, (), chance).train.rows(2 * DAY, 2 * DAY + HISTORY + 8)
    counts = frame.counts.copy()
    counts[HISTORY:, 1] *= 5
    return replace(frame, counts=counts)


def budget_at(over: float) -> float:
    """An alert budget by which the surge is so many decades above its service's threshold, or up to 0.2 more."""
    shard = small_shard().shard
    part = part_of(shard, shard.services[1:])
    for budget in np.geomspace(0.001, 100, 200):
        limit = float(detectors.thresholds(shard, budget)[1])
        if over <= excess(part, surge(), limit) < over + 0.2:
            return float(budget)
    raise AssertionError(f"no budget puts the surge {over} decades above the threshold")


def test_what_was_dismissed_is_no_finding_and_other_services_are_as_they_were() -> None:
    shard, frame, end, budget = small_shard().shard, surge(), 3 * DAY, budget_at(0.05)
    dismissed = Dismissed(shard.services[1], end - 100, frame)
    after = excused(shard, [dismissed], end, budget)
    limit = float(detectors.thresholds(after, budget)[1])
    assert limit == detectors.thresholds(shard, budget)[1]
    assert excess(part_of(shard, shard.services[1:]), frame, limit) >= 0
    assert excess(part_of(after, shard.services[1:]), frame, limit) < 0
    assert (after.tails[0] == shard.tails[0]).all()
    moved = (after.tails[1] != shard.tails[1]).any(axis=1)
    assert 0 < moved.sum() < len(moved)


def test_what_is_far_above_stays_a_finding_until_a_second_week_says_the_same() -> None:
    shard, frame, end, budget = small_shard().shard, surge(), 30 * DAY, budget_at(MOST_A_WEEK + MARGIN)
    one = Dismissed(shard.services[1], end - 100, frame)
    assert (excused(shard, [one, one], end, budget).tails == shard.tails).all()
    twice = excused(shard, [one, replace(one, first=end - WEEK - 100)], end, budget)
    assert (twice.tails[1] != shard.tails[1]).any()


def test_without_a_dismissal_a_shard_is_as_it_was() -> None:
    shard = small_shard().shard
    assert excused(shard, [], 0, 0.5) is shard


@given(st.lists(st.floats(0.05, 3), min_size=15, max_size=15), st.floats(0.01, 1), st.floats(0, 60))
def test_a_shifted_tail_rises_and_gives_no_value_more_decades_than_before(
    steps: list[float], decades: float, value: float
) -> None:
    knots = np.cumsum(steps).astype(np.float32)
    after = shifted(knots, decades)
    assert (np.diff(after) > 0).all()
    at = np.array([[value]], np.float32)
    before, now = (calibration.digits(at[..., None], k[None, None])[0, 0, 0] for k in (knots, after))
    assert now <= before + 1e-3
    exact = float(np.interp(2.0 + decades, -np.log10(calibration.SHARES), knots))
    assert calibration.digits(np.array([[[exact]]], np.float32), after[None, None])[0, 0, 0] == pytest.approx(
        2.0, abs=0.01
    )

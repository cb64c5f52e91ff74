"""What a dismissal may do to a service, and what it may not."""

from __future__ import annotations

from dataclasses import replace

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

BUDGET = 0.5


def surge(factor: float) -> Frame:
    """Minutes of svc-1 with eight at the end in which it writes so many times as much."""
    chance = np.random.default_rng((1, 1))
    days = live(make_service(1, 20.0, chance), chance, quiet_days=4, test_days=0)
    frame = case_of(days, 3 * DAY, (), chance).train.rows(2 * DAY, 2 * DAY + HISTORY + 8)
    counts = frame.counts.copy()
    counts[HISTORY:] *= factor
    return replace(frame, counts=counts)


def heavy(over: float) -> Frame:
    """A surge whose weight is above the threshold by some decades, in (over, over + 0.4)."""
    shard = small_shard().shard
    part, limit = part_of(shard, shard.services[1:]), float(detectors.thresholds(shard, BUDGET)[1])
    found = (
        frame for factor in np.arange(1.2, 8, 0.1) if 0 <= excess(part, frame := surge(factor), limit) - over < 0.4
    )
    return next(found)


def test_what_was_dismissed_is_no_finding_and_other_services_are_as_they_were() -> None:
    shard, frame, end = small_shard().shard, heavy(0.01), 3 * DAY
    dismissed = Dismissed(shard.services[1], end - 100, frame)
    after = excused(shard, [dismissed], end, BUDGET)
    limit = float(detectors.thresholds(after, BUDGET)[1])
    assert limit == detectors.thresholds(shard, BUDGET)[1]
    assert excess(part_of(shard, shard.services[1:]), frame, limit) >= 0
    assert excess(part_of(after, shard.services[1:]), frame, limit) < 0
    assert (after.tails[0] == shard.tails[0]).all()
    moved = (after.tails[1] != shard.tails[1]).any(axis=1)
    assert 0 < moved.sum() < len(moved)


def test_what_is_far_above_stays_a_finding_until_a_second_week_says_the_same() -> None:
    shard, frame, end = small_shard().shard, heavy(MOST_A_WEEK + MARGIN), 30 * DAY
    one = Dismissed(shard.services[1], end - 100, frame)
    assert (excused(shard, [one, one], end, BUDGET).tails == shard.tails).all()
    twice = excused(shard, [one, replace(one, first=end - WEEK - 100)], end, BUDGET)
    assert (twice.tails[1] != shard.tails[1]).any()


def test_without_a_dismissal_a_shard_is_as_it_was() -> None:
    shard = small_shard().shard
    assert excused(shard, [], 0, BUDGET) is shard


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

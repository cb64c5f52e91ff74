"""What people dismissed is normal: the signals that found it are read as less rare from then on, for that service alone.

A finding is asked about as if it happened once more: with the templates that are known by now. The tails of the signals
that reach the service's threshold then are shifted by what it takes to stay below, at most half a decade for each week in
which something was dismissed. What is heavier than that stays a finding: dismissing cannot silence a service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ml import detectors
from ml.budgets import Budget
from ml.calibration import SHARES
from ml.detectors import Shard
from ml.features import Frame
from ml.panel import Floats
from ml.shard_parts import part_of

MOST_A_WEEK = 0.5
"""Decades."""
MARGIN = 0.05
ROUNDS = 8
"""A tail is kept at a few values, and between them a shift is nearly, not wholly, what was asked for."""
WEEK = 7 * 1440


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The minutes of a dismissed finding as they would be seen again, ``HISTORY`` of them in front."""

    service: str
    first: int
    frame: Frame


def excused(shard: Shard, dismissed: Sequence[Dismissed], end: int, budget: Budget) -> Shard:
    """The shard with tails by which as many of these as may be are no findings; ``end`` is the minute it learned up to."""
    if not dismissed:
        return shard
    tails, limits = shard.tails.copy(), detectors.thresholds(shard, budget)
    for service in sorted({one.service for one in dismissed} & set(shard.services)):
        mine = [one for one in dismissed if one.service == service]
        number = shard.services.index(service)
        most = MOST_A_WEEK * len({(end - one.first) // WEEK for one in mine})
        part = part_of(shard, [service])
        raised = np.zeros(tails.shape[1])
        # The lightest first: they take the least, and what is left may do for the next.
        for one in sorted(mine, key=lambda one: excess(part, one.frame, float(limits[number]))):
            raised = _raised(part, raised, one.frame, float(limits[number]), most)
        tails[number] = _lowered(part, raised).tails[0]
    return replace(shard, tails=tails)


def excess(part: Shard, frame: Frame, limit: float) -> float:
    """By how many decades the weightiest minute of a service's frame is above its threshold; below: less than nought."""
    return float(detectors.score(part, [frame]).weight.max()) - limit


def shifted(knots: Floats, decades: float) -> Floats:
    """Knots [len(SHARES)] by which every value is less rare by so many decades; the last ones are drawn on straight."""
    heights = -np.log10(np.array(SHARES))
    wanted = heights + decades
    slope = (knots[-1] - knots[-2]) / (heights[-1] - heights[-2])
    beyond = knots[-1] + (wanted - heights[-1]) * slope
    return np.where(wanted > heights[-1], beyond, np.interp(wanted, heights, knots)).astype(np.float32)


def _raised(part: Shard, raised: Floats, frame: Frame, limit: float, most: float) -> Floats:
    """Decades by vote at which this is no finding either; as they were where that takes more than is allowed.

    Every vote that reaches the threshold is shifted alike: what the two of three, or the one, weigh falls by as much.
    """
    more = raised.copy()
    for _ in range(ROUNDS):
        scores = detectors.score(_lowered(part, more), [frame])
        over = float(scores.weight.max()) - limit
        if over < 0:
            return more
        more[scores.digits[:, 0].max(0) >= limit] += over + MARGIN
        if more.max() > most:
            return raised
    return raised


def _lowered(part: Shard, raised: Floats) -> Shard:
    tails = [shifted(knots, by) if by else knots for knots, by in zip(part.tails[0], raised, strict=True)]
    return replace(part, tails=np.stack(tails)[None])

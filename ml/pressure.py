"""A service that has more findings than its budget is asked for more: its threshold rises from week to week, and falls again.

Thresholds come from the days that a model learned from, and the days that follow may be others. What people confirmed does
not count: it was right to tell. The threshold is never lowered below the model's, because a budget is the most that
somebody wants to be told and not the least. All of it follows from the findings that are kept, so nothing has to be
remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import log10

from ml.budgets import Budget, budget_for

WEEK = 7 * 1440
"""Minutes."""
WEEKS = 4
"""Whole weeks that are looked back."""
GAIN = 0.5
"""Of the decades that the week was too many: a week is few findings, and chance among them."""
MOST_A_WEEK, MOST = 0.5, 1.0
"""Decades: no noisy week, and no noisy month, silences a service."""


def week_of(minute: int) -> int:
    """Weeks since 1970, which began on a Thursday."""
    return minute // WEEK


def pressures(opened: Iterable[tuple[str, int]], minute: int, budget: Budget) -> dict[str, float]:
    """Decades by which services' thresholds rise now, those above nought. ``opened``: service and minute of each finding that
    nobody confirmed.
    """
    now = week_of(minute)
    weeks: dict[str, list[int]] = {}
    for service, first in opened:
        back = now - week_of(first)
        if 1 <= back <= WEEKS:
            weeks.setdefault(service, [0] * WEEKS)[WEEKS - back] += 1
    found = {service: pressure(counts, budget_for(budget, service)) for service, counts in weeks.items()}
    return {service: decades for service, decades in found.items() if decades > 0}


def pressure(weeks: Sequence[int], budget: float) -> float:
    """Decades out of the findings of whole weeks, oldest first, at ``budget`` findings a day."""
    decades = 0.0
    for findings in weeks:
        # One finding more in so much longer a time: a week without any is no proof of a rate of nought.
        realised = (findings + 1) / (7 + 1 / budget)
        step = max(-MOST_A_WEEK, min(MOST_A_WEEK, GAIN * log10(realised / budget)))
        decades = max(0.0, min(MOST, decades + step))
    return decades

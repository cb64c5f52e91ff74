"""Whether a model still fits its services: are their signals as rare as they were in the days that it learned from.

For each signal of a service the minutes of a day are counted by how rare they are, and held against what they were in the
calibration days (population stability index, the sum of ``(o - e) ln(o / e)``). Minutes of a day follow one another, so no
day is like the mean of all: a signal is worn where two days in a row are further off than the customary border and
further than any day that was learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.panel import Floats

WORN = 0.2
"""The customary border between a moderate and a major shift is 0.25, a moderate one begins at 0.1."""
DAYS = 2
"""In a row."""
LEAST_MINUTES = 720
"""Of a day, counted: half a day of a service with a season is another service."""
SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
"""Tail probabilities between which minutes are counted."""
BINS = len(SHARES) + 1
_FAIR = -np.diff(np.array([1.0, *SHARES, 0.0]))
_BORDERS = -np.log10(np.array(SHARES))


@dataclass(frozen=True, slots=True)
class Usual:
    """What is usual of services [S] and signals [C]: shares of minutes by rarity [S, C, BINS], and the index of the calibration
    day that is furthest from them [S, C].
    """

    shares: Floats
    furthest: Floats

    def of(self, services: Sequence[int]) -> Usual:
        """Those of some services."""
        return Usual(self.shares[list(services)], self.furthest[list(services)])


@dataclass(frozen=True, slots=True)
class Worn:
    """A signal of a service that is unlike the days that were learned from, and by how much on the last day."""

    service: str
    signal: str
    index: float


def usual_of(digits: Floats, counted: NDArray[np.bool_], minutes: NDArray[np.int64]) -> Usual:
    """One service's, out of the decades [T, C] of its calibration minutes since 1970, each by the tails of other days."""
    shares = _shares(histogram(digits[counted]))
    furthest = np.zeros(digits.shape[1])
    days = minutes // 1440
    for day in np.unique(days):
        rows = counted & (days == day)
        if rows.sum() >= LEAST_MINUTES:
            furthest = np.maximum(furthest, stability(shares, histogram(digits[rows])))
    return Usual(shares[None].astype(np.float32), furthest[None].astype(np.float32))


def histogram(digits: Floats) -> NDArray[np.int64]:
    """Minutes [C, BINS] of decades [T, C] by how rare they are."""
    reached = np.stack([(digits >= border - 1e-4).sum(0) for border in _BORDERS], axis=1)
    every = np.full((digits.shape[1], 1), len(digits))
    at_least = np.concatenate([every, reached, np.zeros_like(every)], axis=1)
    return -np.diff(at_least, axis=1)


def stability(usual: Floats, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The index [C] of counted minutes [C, BINS] against shares [C, BINS].

    Shares below a tenth of what a bin has by chance count as that, so an empty bin is far off and not infinitely far.
    """
    e, o = (np.maximum(part, 0.1 * _FAIR) for part in (usual, _shares(counts)))
    return ((o - e) * np.log(o / e)).sum(1)


def worn_signals(usual: Usual, service: int, days: list[NDArray[np.int64]]) -> dict[int, float]:
    """Signals of one service that are worn, by number, with the last day's index. ``days`` are histograms, oldest first."""
    if len(days) < DAYS or any(day[0].sum() < LEAST_MINUTES for day in days[-DAYS:]):
        return {}
    border = np.maximum(WORN, usual.furthest[service])
    indices = [stability(usual.shares[service], day) for day in days[-DAYS:]]
    worn = np.logical_and.reduce([index > border for index in indices])
    return {int(n): round(float(indices[-1][n]), 2) for n in np.flatnonzero(worn)}


def _shares(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)

"""What is expected: each template's rate by weekday class and hour, times how busy the service is just now.

A rate by hour is noisy for a quiet template and sound for a busy one, so each is drawn towards a prior in the measure of
its own evidence: the service's season where the template follows the traffic, a constant where it does not (a heartbeat).
Between hours the rates are interpolated, or each full hour would look like a change. Training minutes are compared with
what the *other* days say, or no training day would ever look unusual.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

DAY = 1440
CLASSES = 2
"""Weekdays, and Saturday with Sunday."""
BUCKETS = CLASSES * 24
PRIOR_LINES = 25.0
"""How many lines' worth of evidence (over-dispersion taken off) the prior counts for in each hour."""
LEAST_RATE = 1e-6

Floats = NDArray[np.floating[Any]]
Minutes = NDArray[np.int64]


def bucket_of(minutes: Minutes) -> NDArray[np.int64]:
    """Weekday class and hour of each minute since 1970, by whose clocks ever: 0 to 47."""
    weekday = (minutes // DAY + 3) % 7
    return (weekday >= 5) * 24 + minutes % DAY // 60


def bucket_sums(
    counts: Floats, minutes: Minutes, observed: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Per day and bucket: lines [D, 48, K] and observed minutes [D, 48]. Minutes are consecutive, but where clocks are set."""
    hour = minutes // 60
    starts = np.flatnonzero(np.r_[True, hour[1:] != hour[:-1]])
    day = minutes // DAY - minutes[0] // DAY
    sums = np.zeros((int(day[-1]) + 1, BUCKETS, counts.shape[1]))
    seen = np.zeros(sums.shape[:2])
    at = (day[starts], bucket_of(minutes[starts]))
    sums[at] = np.add.reduceat(counts * observed[:, None], starts, axis=0, dtype=np.float64)
    seen[at] = np.add.reduceat(observed.astype(np.float64), starts)
    return sums, seen


def log_rates(
    lines: NDArray[np.float64], seen: NDArray[np.float64], spread: Floats, follows: NDArray[np.bool_]
) -> Floats:
    """Logarithm of lines a minute [48, K] from lines [48, K] in ``seen`` minutes [48], drawn towards the prior."""
    total = max(1.0, float(seen.sum()))
    base = lines.sum(0) / total
    traffic = lines[:, follows].sum(1)
    traffic_base = traffic.sum() / total
    # The service's own season: drawn towards a flat one, or an hour without lines would forbid lines.
    own = PRIOR_LINES * float(np.mean(spread[follows])) if follows.any() else PRIOR_LINES
    shape = (traffic + own) / (traffic_base * seen + own) if traffic_base > 0 else np.ones(BUCKETS)
    prior = np.maximum(base * np.where(follows, shape[:, None], 1.0), LEAST_RATE)
    strength = PRIOR_LINES * np.maximum(spread, 0.1)
    shrunk = prior * (lines + strength) / (prior * seen[:, None] + strength)
    return np.log(np.maximum(shrunk, LEAST_RATE)).astype(np.float32)


def expected(rates: Floats, minutes: Minutes) -> Floats:
    """Lines a minute [T, K] out of ``log_rates`` [48, K], interpolated between the middles of hours."""
    between = between_hours(rates, minutes)
    return np.exp(between, out=between)


def between_hours(rates: Floats, minutes: Minutes) -> Floats:
    """Rates by hour [48, K] for each minute [T, K], interpolated between the middles of hours."""
    weight = ((minutes - 30) % 60 / 60).astype(np.float32)[:, None]
    before, after = rates[bucket_of(minutes - 30)], rates[bucket_of(minutes + 30)]
    after -= before
    after *= weight
    after += before
    return after


def expected_left_out(
    sums: NDArray[np.float64], seen: NDArray[np.float64], minutes: Minutes, spread: Floats, follows: NDArray[np.bool_]
) -> Floats:
    """As ``expected``, each day out of all other days (all days where there is only one)."""
    day = minutes // DAY - minutes[0] // DAY
    out = np.empty((len(minutes), sums.shape[2]), np.float32, order="F")
    all_sums, all_seen = sums.sum(0), seen.sum(0)
    for number in range(len(sums)):
        rows = slice(*np.searchsorted(day, (number, number + 1)))
        if (all_seen - seen[number]).sum() > 0:
            rates = log_rates(all_sums - sums[number], all_seen - seen[number], spread, follows)
        else:
            rates = log_rates(all_sums, all_seen, spread, follows)
        out[rows] = expected(rates, minutes[rows])
    return out


def rolling_sum(values: NDArray[np.floating], minutes: int) -> Floats:
    """Sum over the last ``minutes`` rows, of as many as there are at the start.

    By doubling: sums of 1, 2, 4, ... rows, put together. Few additions, and none of them far from the last.
    """
    doubled = np.asarray(values, np.float32)
    out, covered, size = None, 0, 1
    while size <= minutes:
        if minutes & size:
            if out is None:
                out = doubled.copy("K")
            else:
                out[covered:] += doubled[: len(doubled) - covered] if covered else doubled
            covered += size
        if size * 2 <= minutes:
            longer = doubled.copy("K")
            longer[size:] += doubled[:-size]
            doubled = longer
        size *= 2
    assert out is not None
    return out

"""From signals to probabilities, and from those to a threshold that keeps the promised number of findings a day.

A signal's p-value is its rank among calibration minutes (conformal: ties count against it), and beyond the hundredth part a
generalised Pareto tail fitted by probability-weighted moments (Hosking and Wallis 1987; the use on streams is SPOT's,
Siffer et al. 2017). The least p-value of a minute is no probability itself, and minutes of one incident are not
independent, so the threshold is not computed from it: it is the one at which the calibration days, debounced and merged
as live minutes are, have as many episodes as the budget allows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml.panel import Floats

SHARES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 5e-4, 2e-4, 1e-4, 1e-5, 1e-6, 1e-8)
"""Tail probabilities at which a signal's value is kept."""
TAIL_SHARE = 0.01
ENOUGH_RANKS = 10
"""A quantile with fewer minutes beyond it is the Pareto tail's."""
MOST_SHAPE = 0.5
LEAST_SCALE = 0.3
LEAST_STEP = 1e-4
MOST_DIGITS = 8.0

EXTREME = 1.6
"""Decades that one minute alone has to be rarer than two out of three: 4 alpha against alpha / 10."""
MERGE_MINUTES = 10
THRESHOLDS = np.arange(1.0, 8.0, 0.1)
"""Decades at which the episodes of the calibration days are counted; any budget is read off this table later."""
OWN_DAYS = 14.0
"""Days that what all services of a shard have in common counts for, beside a service's own days."""
OFTEN = 3.0
"""Episodes a day of all services at a threshold at which how many a service has beside the others is known."""
FEW_DAYS = 2.0
"""Days that the others' rate counts for there."""


def fit_tail(values: NDArray[np.floating], prior: float = 0.0, prior_minutes: int = 0) -> Floats:
    """Values [len(SHARES)] whose exceedance has the probabilities ``SHARES``, from one signal's calibration minutes.

    Strictly rising. Where most minutes have the same value (no error for days) any higher one is in the tail, whose
    probability is then drawn towards ``prior`` as if that had been seen for ``prior_minutes``.
    """
    # In single precision, as they come, they are sorted in half the time.
    ordered = np.sort(values).astype(np.float64)
    n = len(ordered)
    if n == 0:
        return np.linspace(1, 15, len(SHARES)).astype(np.float32)
    border = ordered[min(n - 1, int((1 - TAIL_SHARE) * n))]
    excess = ordered[np.searchsorted(ordered, border, side="right") :] - border
    mass = (len(excess) + 1 + prior * prior_minutes) / (n + 1 + prior_minutes)
    shape, scale = _pareto(excess)
    knots = np.empty(len(SHARES))
    for number, share in enumerate(SHARES):
        if share >= TAIL_SHARE or share * n >= ENOUGH_RANKS:
            # The smallest value that at most this share of minutes reach, ties counted against it.
            knots[number] = ordered[min(n - 1, n - int(share * n))] if share * n >= 1 else ordered[-1]
        elif share >= mass:
            knots[number] = border
        elif shape < 1e-6:
            knots[number] = border + scale * np.log(mass / share)
        else:
            knots[number] = border + scale / shape * ((share / mass) ** -shape - 1)
    step = LEAST_STEP * (1 + np.abs(knots).max())
    return (np.maximum.accumulate(knots) + step * np.arange(len(knots))).astype(np.float32)


def lawful_tail(values: NDArray[np.floating], law: NDArray[np.floating]) -> Floats:
    """Values [len(SHARES)] of a signal whose law is known, ``law`` [len(SHARES)], stretched where its own minutes reach further.

    For signals over hours: two weeks have too few hours that are apart to know a tail by ranks.
    """
    reach = float(np.quantile(values, 1 - TAIL_SHARE)) if len(values) else 0.0
    return (law * max(1.0, reach / float(law[SHARES.index(TAIL_SHARE)]))).astype(np.float32)


def exponential_law() -> NDArray[np.float64]:
    """Values [len(SHARES)] of minus the logarithm of a probability."""
    return -np.log(np.array(SHARES))


def digits(values: Floats, knots: Floats) -> Floats:
    """``-log10 p`` of values [.., S, C] by knots [S, C, len(SHARES)]; below the first knot 0, at most ``MOST_DIGITS``."""
    heights = -np.log10(np.array(SHARES, np.float32))
    out = np.zeros(values.size, np.float32)
    rows, flat = knots.reshape(-1, len(SHARES)), values.ravel()
    # Knots rise, so what reaches one is among what reached the one before: half of all, a fifth, a tenth, ...
    at = np.arange(values.size)
    owner = at % len(rows)
    for low in range(len(SHARES) - 1):
        reached = flat[at] >= rows[owner, low]
        at, owner = at[reached], owner[reached]
        left, right = rows[owner, low], rows[owner, low + 1]
        part = heights[low] + (flat[at] - left) * ((heights[low + 1] - heights[low]) / (right - left))
        out[at] = np.minimum(part, heights[low + 1])
    return np.minimum(out, MOST_DIGITS).reshape(values.shape)


def p_values(values: Floats, knots: Floats) -> Floats:
    """The p-values themselves, for drift and for people."""
    return 10 ** -digits(values, knots)


def _pareto(excess: NDArray[np.float64]) -> tuple[float, float]:
    """Shape and scale by probability-weighted moments; shape clipped to [0, 0.5]: never lighter than exponential."""
    n = len(excess)
    if n < ENOUGH_RANKS:
        return 0.0, max(LEAST_SCALE, float(excess.mean()) if n else 0.0)
    first = float(excess.mean())
    second = float((excess * (n - 1 - np.arange(n)) / (n - 1)).mean())
    shape = 2 - first / max(first - 2 * second, 1e-12)
    # Hosking and Wallis's k is minus the shape of today's notation.
    shape = float(np.clip(shape, 0, MOST_SHAPE))
    return shape, max(LEAST_STEP, first * (1 - shape))


def debounce(evidence: Floats) -> Floats:
    """Two of three minutes, or one that is ``EXTREME`` decades rarer: [T, S] decades in, decades out."""
    rows = evidence.shape[0]
    three = np.zeros((3, *evidence.shape), np.float32)
    for back in range(min(3, rows)):
        three[back, back:] = evidence[: rows - back]
    second = np.sort(three, axis=0)[1]
    # The second of three may be the minute before: this one has to take part itself.
    return np.maximum(evidence - EXTREME, np.minimum(second, evidence)).astype(np.float32)


def count_episodes(weight: NDArray[np.floating], threshold: float) -> int:
    """Runs of minutes at or above the threshold that are more than ``MERGE_MINUTES`` apart."""
    rows = np.flatnonzero(weight >= threshold)
    return int(len(rows) > 0) + int((np.diff(rows) > MERGE_MINUTES).sum())


def episode_table(weight: Floats) -> NDArray[np.int32]:
    """Episodes of one service's calibration minutes [T] at each of ``THRESHOLDS``."""
    return np.array([count_episodes(weight, threshold) for threshold in THRESHOLDS], np.int32)


def thresholds(
    episodes: NDArray[np.integer], days: NDArray[np.floating], budgets: float | NDArray[np.floating]
) -> Floats:
    """Each service's threshold [S] for ``budgets`` findings a day, one or each its own [S], from ``episode_table`` rows [S, G] and days [S].

    A service's own rate is drawn towards the shard's, times what the service has of it where there are many; beyond the
    table the last decades are extrapolated, a decade of rarity for a decade of episodes.
    """
    pooled = episodes.sum(0) / max(float(days.sum()), 1e-9)
    rate = (episodes + OWN_DAYS * pooled * _own_part(episodes, days, pooled)) / (days[:, None] + OWN_DAYS)
    # What is above a low threshold all the time is one long episode there: only what is rare at every higher one is rare.
    rate = np.maximum.accumulate(np.maximum(rate, 1e-9)[:, ::-1], axis=1)[:, ::-1]
    out = np.empty(len(rate), np.float32)
    for number, (row, budget) in enumerate(zip(rate, np.broadcast_to(budgets, len(rate)).tolist(), strict=True)):
        below = np.flatnonzero(row <= budget)
        if len(below) == 0:
            out[number] = THRESHOLDS[-1] + np.log10(row[-1] / budget)
        elif below[0] == 0:
            out[number] = THRESHOLDS[0]
        else:
            at = int(below[0])
            before, after = np.log(row[at - 1]), np.log(row[at])
            part = (before - np.log(budget)) / max(before - after, 1e-9)
            out[number] = THRESHOLDS[at - 1] + part * (THRESHOLDS[at] - THRESHOLDS[at - 1])
    return out


def _own_part(
    episodes: NDArray[np.integer], days: NDArray[np.floating], pooled: NDArray[np.floating]
) -> NDArray[np.float64]:
    """How many times as often as the shard each service is above the threshold where the shard is ``OFTEN`` [S, 1].

    A sparse service has fewer minutes that can be unusual than a busy one: with one rate for both, the busy one would have
    more findings than its budget, and the sparse one fewer.
    """
    often = np.flatnonzero(pooled > OFTEN)
    at = int(often[-1]) + 1 if len(often) else 0
    at = min(at, len(pooled) - 1)
    wanted = max(float(pooled[at]), 1e-9)
    return ((episodes[:, at] + FEW_DAYS * wanted) / (wanted * (days + FEW_DAYS)))[:, None]


def rarity_per_day(episodes: NDArray[np.integer], days: float, weight: float) -> float:
    """How often a day calibration days had an episode of this weight, for the sentence of a finding."""
    at = int(np.clip(np.searchsorted(THRESHOLDS, weight, side="right") - 1, 0, len(THRESHOLDS) - 1))
    return float((episodes[at] + 0.5) / max(days, 1e-9))

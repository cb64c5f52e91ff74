"""What the signals of a whole service over hours are held against: its season in lines and calls, its spread, its own silences.

A service of a hundred lines a day has forty in the Mondays to Fridays of one hour, so its season is put together of what has
more evidence: the hours of all days, how much less there is on weekends, and only then the hour on weekends itself. A
training day is judged by the season of the others, as everywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ml import hours, seasonal
from ml.panel import Floats, Panel
from ml.quarters import QUARTER

PRIOR_CALLS = 3.0
"""Calls that the flatter season counts for beside the finer one."""
MOST_SHARE = 0.9
"""Of the minutes of an hour: where every minute has a line, the next one may still be without."""
LEAST_RATE = 1e-6
LEAST_SILENCE_SCALE = 0.4
"""Lines that come by the clock leave shorter silences than chance would, but a late one is no fault."""
LEAST_SCALE = 0.8
LEAST_A = 0.01
"""Square of the share by which a service may change for hours and be the same: a deploy adds a tenth of the lines."""
TAIL = 0.01
"""Share of minutes that spans are scaled by: few spans of hours are apart in two weeks."""
STEP = 5
"""Minutes from one looked at span to the next: they overlap."""
WINSOR = 0.995


def fit_hours(panel: Panel, history: int) -> tuple[dict[str, NDArray], Floats]:
    """Parameters of the one service of ``panel``, and its three signals [T', 1, 3] with each day judged by the others."""
    wrote, seen = hours.totals(panel), panel.observed[:, 0]
    lines, minutes = seasonal.bucket_sums(wrote, panel.on_the_wall, seen)
    calls, _ = seasonal.bucket_sums((wrote > 0).astype(np.float64), panel.on_the_wall, seen)
    # Evidence is counted in calls: a clump of lines is one.
    clump = max(1.0, float(lines.sum() / max(1.0, calls.sum())))
    fit = {
        "hour_lines": log_lines(lines.sum(0), minutes.sum(0), clump),
        "hour_calls": log_calls(calls.sum(0), minutes.sum(0)),
    }
    middles = hours.quarters_of(panel)
    day = np.clip(middles // seasonal.DAY - panel.on_the_wall[0] // seasonal.DAY, 0, len(lines) - 1)
    by_lines, by_calls = np.empty((len(middles), 1), np.float32), np.empty((len(middles), 1), np.float32)
    for number in range(len(lines)):
        rows, left = day == number, minutes.sum(0) - minutes[number]
        alone = left.sum() == 0
        less = 0 if alone else 1
        left = minutes.sum(0) if alone else left
        by_lines[rows] = seasonal.expected(log_lines(lines.sum(0) - less * lines[number], left, clump), middles[rows])
        by_calls[rows] = seasonal.expected(log_calls(calls.sum(0) - less * calls[number], left), middles[rows])
    sums = hours.hours(panel, history, by_lines, by_calls)
    fit["hour_silence"] = _silence_scale(sums)
    out = np.zeros((*sums.until["lines"].shape, 3), np.float32)
    out[:, :, 0] = hours.silence(sums, fit["hour_silence"])
    _fit_spans(fit, out, sums)
    return fit, out


def log_lines(lines: NDArray[np.float64], seen: NDArray[np.float64], clump: float = 1.0) -> Floats:
    """Logarithm of lines a minute [48, 1] from lines [48, 1] in ``seen`` minutes [48], ``clump`` of them to a call."""
    return np.log(np.maximum(_shrunk(lines[:, 0], seen, PRIOR_CALLS * clump), LEAST_RATE)).astype(np.float32)[:, None]


def log_calls(calls: NDArray[np.float64], seen: NDArray[np.float64]) -> Floats:
    """Logarithm of the hazard a minute [48, 1] that there is a line, from minutes with one [48, 1]."""
    share = np.minimum(_shrunk(calls[:, 0], seen, PRIOR_CALLS), MOST_SHARE)
    return np.log(np.maximum(-np.log1p(-share), LEAST_RATE)).astype(np.float32)[:, None]


def _shrunk(number: NDArray[np.float64], seen: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """Rate a minute [48]: the hours of all days, times what weekdays and weekends are to those, each drawn to the flatter one."""
    by_class, minutes = number.reshape(seasonal.CLASSES, 24), seen.reshape(seasonal.CLASSES, 24)
    base = number.sum() / max(1.0, seen.sum())
    if base <= 0:
        return np.zeros(seasonal.BUCKETS)
    every = _drawn(by_class.sum(0), base * minutes.sum(0), prior)
    flat = base * every
    of_class = _drawn(by_class.sum(1), (minutes * flat).sum(1), prior)
    finer = flat * of_class[:, None]
    return (finer * _drawn(by_class, minutes * finer, prior)).ravel()


def _drawn(number: NDArray[np.float64], wanted: NDArray[np.float64], prior: float) -> NDArray[np.float64]:
    """Ratio of a number to what was wanted, drawn towards 1: the posterior mean under a gamma prior of that weight."""
    return (number + prior) / (wanted + prior)


def _silence_scale(sums: hours.Hours) -> Floats:
    """Expected calls to an e-fold of rarity [1]: by the third longest silence of the days, as two may have been faults."""
    calls, _ = hours.silences(sums)
    calls = calls[:, 0]
    ends = np.flatnonzero((calls[:-1] > 0) & (calls[1:] < calls[:-1]))
    longest = np.sort(calls[ends])
    if len(longest) < 10:
        return np.ones(1, np.float32)
    scale = longest[-3] / np.log(len(longest) / 2.5)
    return np.array([max(scale, LEAST_SILENCE_SCALE)], np.float32)


def _fit_spans(fit: dict[str, NDArray], out: Floats, sums: hours.Hours) -> None:
    for name in ("hour_phi", "hour_a", "hour_up", "hour_down"):
        fit[name] = np.ones((len(hours.SPANS), 1), np.float32)
    silent = hours.over_silences(sums, fit["hour_silence"])
    for number, quarters in enumerate(hours.SPANS):
        known = (sums.span("seen", quarters) >= hours.LEAST_OBSERVED * QUARTER * quarters)[::STEP, 0]
        if not known.any():
            continue
        observed, wanted = (sums.span(n, quarters // hours.PARTS)[::STEP, 0][known] for n in ("lines", "expected"))
        fit["hour_phi"][number], fit["hour_a"][number] = spread(observed, wanted)
        up, down = hours.deviation(sums, number, fit["hour_phi"][number], fit["hour_a"][number], silent)
        for name, values in (("hour_up", up), ("hour_down", down)):
            high = float(np.quantile(values[::STEP, 0][known], 1 - TAIL))
            fit[name][number] = max(high / -np.log(TAIL), LEAST_SCALE)
        hours.add_span(out, up, down, fit["hour_up"][number], fit["hour_down"][number])


def spread(observed: Floats, wanted: Floats) -> tuple[float, float]:
    """``phi`` and ``a`` of variance ``phi M + a M^2`` of sums [N], ``phi`` at least 1; the largest squares cut off."""
    squares = np.square(observed - wanted)
    squares = np.minimum(squares, np.quantile(squares, WINSOR))
    m1, m2, m3 = (float((wanted**power).mean()) for power in (1, 2, 3))
    r0, r1 = float(squares.mean()), float((squares * wanted).mean())
    det = m1 * m3 - m2 * m2
    a = (m1 * r1 - m2 * r0) / det if det > 1e-3 * m1 * m3 else 0.0
    a = float(np.clip(a, 0, r0 / max(m2, 1e-9)))
    return max((r0 - a * m2) / max(m1, 1e-9), 1.0), max(a, LEAST_A)

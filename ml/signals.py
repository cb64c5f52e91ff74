"""The signals: for each minute and service, how unusual it is in each of eleven respects; not yet a probability.

A count over a window of 1 to 10 minutes is compared with what was expected on the scale of its square root, where a
count's spread hardly depends on its size: ``2 (sqrt Y - sqrt M) / sqrt(phi + a M)`` for variance ``phi M + a M^2`` (Anscombe
1948, extended to over-dispersed counts). Totals are held against the season times the level that the last hour foretells;
single templates against the level that *the others* have in the same minutes, so that a burst of everything is no news of
any of them. Each statistic is divided by the template's own tail, or the noisiest template would own the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.panel import ERROR, ERROR_SUM, INFO, Floats, Panel
from ml.seasonal import expected, rolling_sum

HORIZONS = (1, 2, 5, 10)
"""Minutes of a window: short ones for strong changes, long ones for weak ones."""
SUSTAINED = 7
"""Minutes that all have to be high for ``sustained_up``: a burst that is usually over after five is not."""
LAGS = (*HORIZONS, SUSTAINED)
LEVEL_WINDOWS = (2, 10, 60)
TOOK_HORIZONS = (1, 5)
HISTORY = 75
"""Minutes before the first one that can be scored."""
LEVEL_LINES = 5.0
"""Added to both sides of a ratio of totals: a service of one line a minute has no steady ratio."""
MOST_LOG_RATIO = 1.5
ROOT_SHIFT = 0.375
"""Anscombe's constant."""
MOST_Z2 = 25.0
LEAST_TOOK_LINES = 3

CHANNELS = (
    "total_up",
    "total_down",
    "sustained_up",
    "errors_up",
    "new_errors",
    "template_up",
    "template_down",
    "silence",
    "mix",
    "latency_up",
)
"""Order of the last axis of ``channels``; the forest's vote is added by ``detectors.py``."""

Params = Mapping[str, NDArray[np.generic]]
"""A fitted shard, see ``fitting.py``: arrays over columns [K], durations [D] or services [S]."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Totals of the templates that follow the traffic [T, S], what was expected of them, and what the past foretells.

    ``total`` has the lines of unknown templates too. ``past`` [T, S, 4] are the regressors of ``level``.
    """

    total: Floats
    followers: Floats
    expected: Floats
    past: Floats


@dataclass(frozen=True, slots=True)
class TemplateWindow:
    """Windows of one length that end at each scored minute, [T', K]: observed, expected at the present level, z."""

    observed: Floats
    expected: Floats
    z: Floats


def expected_counts(fit: Params, panel: Panel) -> Floats:
    """Lines a minute by the season [T, K], nought where nobody looked."""
    rates = expected(fit["rates"], panel.minutes)  # pyright: ignore[reportArgumentType]
    if not panel.observed.all():
        rates *= by_column(panel.observed, panel.owner)
    return rates


def by_column(per_service: NDArray[np.generic], owner: NDArray[np.intp]) -> NDArray:
    """[.., S] spread over columns [.., K]."""
    return per_service if per_service.shape[-1] == 1 else per_service[..., owner]


def sums(values: Floats, starts: NDArray[np.intp]) -> Floats:
    """[T, K] summed over each service's columns: [T, S]."""
    return values.sum(1, keepdims=True) if len(starts) == 1 else np.add.reduceat(values, starts, axis=1)


def maxima(values: Floats, starts: NDArray[np.intp]) -> Floats:
    """[T, K], the greatest of each service's columns: [T, S]."""
    return values.max(1, keepdims=True) if len(starts) == 1 else np.maximum.reduceat(values, starts, axis=1)


def traffic(panel: Panel, rates: Floats, follows: NDArray[np.bool_]) -> Traffic:
    """Totals over the templates that follow the traffic."""
    counted = follows & (panel.kind != ERROR_SUM)
    followers = sums(panel.counts * counted, panel.starts)
    wanted = sums(rates * counted, panel.starts)
    past = [np.ones_like(followers)]
    past += [log_ratio(rolling_sum(followers, w), rolling_sum(wanted, w)) for w in LEVEL_WINDOWS]
    return Traffic(followers + panel.unknown, followers, wanted, np.stack(past, axis=2))


def log_ratio(observed: Floats, wanted: Floats) -> Floats:
    """Bounded logarithm of observed over expected lines."""
    ratio = np.log((observed + LEVEL_LINES) / (wanted + LEVEL_LINES))
    return np.clip(ratio, -MOST_LOG_RATIO, MOST_LOG_RATIO)


def level(flow: Traffic, coefficients: Floats, lag: int) -> Floats:
    """Foretold ratio of traffic to season [T', S] from what lay at least ``lag`` minutes back; coefficients [S, 4]."""
    past = flow.past[HISTORY - lag : len(flow.past) - lag]
    return np.exp(np.einsum("tsr,sr->ts", past, coefficients)).astype(np.float32)


def total_window(flow: Traffic, ahead: Floats, horizon: int) -> tuple[Floats, Floats]:
    """Observed and expected lines [T', S] of the windows that end at each scored minute."""
    wanted = rolling_sum(flow.expected, horizon)[HISTORY:] * ahead
    return rolling_sum(flow.total, horizon)[HISTORY:], wanted


def root_z(observed: Floats, wanted: Floats, phi: NDArray, a: NDArray) -> Floats:
    """Standardised difference on the scale of square roots."""
    z = np.sqrt(observed + np.float32(ROOT_SHIFT))
    z -= np.sqrt(wanted + np.float32(ROOT_SHIFT))
    z *= 2 / np.sqrt(phi + a * wanted)
    return z


def template_expected(
    panel: Panel, rates: Floats, flow: Traffic, ahead: Floats, follows: NDArray[np.bool_], horizon: int, phi: NDArray, a: NDArray
) -> tuple[Floats, Floats]:
    """Observed and expected lines [T', K] at the level that the other templates have in the same window.

    The level is the posterior mean of a gamma prior (foretold level ``ahead``, relative variance ``a``) and over-dispersed
    counts (``phi``), both [S].
    """
    observed = rolling_sum(panel.counts, horizon)[HISTORY:]
    wanted = rolling_sum(rates, horizon)[HISTORY:]
    weight = 1 / np.maximum(a, 1e-3)
    lines = rolling_sum(flow.followers, horizon)[HISTORY:] / phi + ahead * weight
    season = rolling_sum(flow.expected, horizon)[HISTORY:] / phi + weight
    own = (follows & (panel.kind != ERROR_SUM)) / by_column(phi, panel.owner)
    ratio = (by_column(lines, panel.owner) - observed * own) / (by_column(season, panel.owner) - wanted * own)
    np.copyto(ratio, 1, where=~follows)
    ratio *= wanted
    return observed, ratio.astype(np.float32, copy=False)


def gaps(counts: Floats) -> Floats:
    """Minutes since each template's last line [T', K], at most ``HISTORY``."""
    rows = np.arange(len(counts), dtype=np.int32)[:, None]
    last = np.maximum.accumulate(np.where(counts > 0, rows, -1), axis=0)
    return np.minimum(rows - np.maximum(last, rows - HISTORY), HISTORY)[HISTORY:].astype(np.float32)


def took_window(panel: Panel, base: Floats, horizon: int) -> tuple[Floats, Floats]:
    """Mean excess of log durations over ``base`` [T, D], weighted by lines, and those lines: [T', D] each."""
    lines = rolling_sum(panel.took_lines, horizon)[HISTORY:]
    excess = rolling_sum(panel.took_lines * (panel.took_log - base), horizon)[HISTORY:]
    return excess / np.maximum(lines, 1), lines


def took_z(excess: Floats, lines: Floats, v0: NDArray, v1: NDArray) -> Floats:
    """Standardised excess; nought where there are too few lines for a median."""
    return np.where(lines >= LEAST_TOOK_LINES, excess / np.sqrt(v0 + v1 / np.maximum(lines, 1)), 0).astype(np.float32)


def sustained(flow: Traffic, ahead: Floats, phi: NDArray, a: NDArray) -> Floats:
    """The least z of all windows of two minutes within the last ``SUSTAINED`` minutes, against the level before them."""
    pairs, season = rolling_sum(flow.total, 2), rolling_sum(flow.expected, 2)
    least = None
    for back in range(SUSTAINED - 1):
        rows = slice(HISTORY - back, len(pairs) - back)
        z = root_z(pairs[rows], season[rows] * ahead, phi, a)
        least = z if least is None else np.minimum(least, z)
    assert least is not None
    return least


def channels(fit: Params, panel: Panel) -> Floats:
    """All signals of the minutes from ``HISTORY`` on: [T', S, C], greater is more unusual."""
    rates = expected_counts(fit, panel)
    follows = fit["follows"].astype(np.bool_)
    flow = traffic(panel, rates, follows)
    out = np.zeros((len(panel.minutes) - HISTORY, panel.services, len(CHANNELS)), np.float32)
    out[:, :, 4] = np.log1p(rolling_sum(panel.fresh, 3)[HISTORY:])
    out[:, :, 7] = maxima(gaps(panel.counts) * fit["gap_rate"] - fit["gap_offset"], panel.starts)
    for number, horizon in enumerate(LAGS):
        ahead = level(flow, fit["level"][number], horizon)
        phi, a = fit["total_phi"][number], fit["total_a"][number]
        if horizon == SUSTAINED:
            out[:, :, 2] = sustained(flow, ahead, phi, a)
            continue
        z = root_z(*total_window(flow, ahead, horizon), phi, a)
        np.maximum(out[:, :, 0], z / fit["total_up"][number], out=out[:, :, 0])
        np.maximum(out[:, :, 1], -z / fit["total_down"][number], out=out[:, :, 1])
        observed, wanted = template_expected(panel, rates, flow, ahead, follows, horizon, phi, a)
        z = root_z(observed, wanted, fit["phi"][number], fit["a"][number])
        add_template_channels(out, panel, z, fit["up"][number], fit["down"][number])
        if horizon > 1:
            spread = (mix(panel, z, wanted) - fit["mix_mean"][number]) / fit["mix_sd"][number]
            np.maximum(out[:, :, 8], spread, out=out[:, :, 8])
    base = np.log(expected(fit["took_base"], panel.minutes))  # pyright: ignore[reportArgumentType]
    for number, horizon in enumerate(TOOK_HORIZONS):
        z = took_z(*took_window(panel, base, horizon), fit["took_v0"][number], fit["took_v1"][number])
        np.maximum(out[:, :, 9], maxima(z / fit["took_up"][number], panel.took_starts), out=out[:, :, 9])
    return out


def add_template_channels(out: Floats, panel: Panel, z: Floats, up: NDArray, down: NDArray) -> None:
    """Raise errors_up, template_up and template_down of ``out`` to what windows of one more length show."""
    above, below = z / up, z / -down
    for channel, values, kinds in (
        (3, above, (ERROR, ERROR_SUM)),
        (5, above, (INFO,)),
        (6, below, (INFO, ERROR)),
    ):
        of_kind = np.where(np.isin(panel.kind, kinds), values, 0)
        np.maximum(out[:, :, channel], maxima(of_kind, panel.starts), out=out[:, :, channel])


def mix(panel: Panel, z: Floats, wanted: Floats) -> Floats:
    """Sum of bounded squares over templates of which a line was to be expected: how different the mixture is [T', S]."""
    squares = np.minimum(np.square(z), MOST_Z2)
    squares *= (wanted > 0.5) & (panel.kind != ERROR_SUM)
    return sums(squares, panel.starts)

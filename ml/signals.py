"""The signals: for each minute and service, how unusual it is in each of thirteen respects; not yet a probability.

A count over a window of 1 to 10 minutes is compared with what was expected on the scale of its square root, where a
count's spread hardly depends on its size: ``2 (sqrt Y - sqrt M) / sqrt(phi + a M)`` for variance ``phi M + a M^2`` (Anscombe
1948, extended to over-dispersed counts). Totals are held against the season times the level that the last hour foretells;
single templates against the level that *the others* have in the same minutes, so that a burst of everything is no news of
any of them. Each statistic is divided by the template's own tail, or the noisiest template would own the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml import hours
from ml.panel import ERROR, ERROR_SUM, INFO, Floats, Panel
from ml.seasonal import between_hours, expected, rolling_sum

HORIZONS = (1, 2, 5, 10)
"""Minutes of a window: short ones for strong changes, long ones for weak ones."""
SUSTAINED = ((8, 3), (12, 6))
"""``sustained_up`` looks at the lowest 3 of 8 minutes, and at the lowest 6 of 12: a burst of five minutes is not in them."""
LAGS = (*HORIZONS, *(span for span, _ in SUSTAINED))
SHORT, LONG = 2, 10
"""Minutes of the windows that the level is foretold from, beside the hour."""
UNKNOWN_WINDOW = 5
TOOK_HORIZONS = (1, 5)
NEW_ERROR_MINUTES = 5
SILENCE_UNIT = 3.0
"""Makes the logarithm of a rarity about as large as the other signals' values."""
HISTORY = 75
"""Minutes before the first one that can be scored."""
LEVEL_LINES = 5.0
"""Added to both sides of a ratio of totals: a service of one line a minute has no steady ratio."""
MOST_LOG_RATIO = 1.5
ROOT_SHIFT = 0.375
"""Anscombe's constant."""
MOST_Z2 = 25.0
LEAST_TOOK_LINES = 3
REST = 1 - 1e-5
"""Of a total, what is looked for among its parts: sums of single precision differ by less than the rest."""

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
    "quiet",
    "hours_down",
    "hours_up",
)
"""Order of the last axis of ``channels``; the forest's vote is added by ``detectors.py``."""

HOURS = slice(CHANNELS.index("quiet"), len(CHANNELS))
"""The signals of ``hours.py``."""

Params = Mapping[str, NDArray[Any]]
"""A fitted shard, see ``fitting.py``: arrays over columns [K], durations [D] or services [S]."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Totals of the templates that follow the traffic [T, S], what was expected of them, and what the past foretells.

    ``unknown`` are lines of templates that the model has never seen. ``past`` [T, S, 4] are the regressors of ``level``.
    """

    followers: Floats
    unknown: Floats
    expected: Floats
    past: Floats


def expected_counts(fit: Params, panel: Panel) -> Floats:
    """Lines a minute by the season [T, K], nought where nobody looked."""
    rates = expected(fit["rates"], panel.on_the_wall)
    if not panel.observed.all():
        rates *= by_column(panel.observed, panel.owner)
    return rates


def by_column(per_service: NDArray[Any], owner: NDArray[np.intp]) -> NDArray:
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
    short, long = (log_ratio(rolling_sum(followers, w), rolling_sum(wanted, w)) for w in (SHORT, LONG))
    # The median of six stretches is what the hour was like, whatever happened in a quarter of it.
    stretches = [
        np.concatenate([long[:1].repeat(back, 0), long[: len(long) - back]]) for back in range(0, 6 * LONG, LONG)
    ]
    past = np.stack([np.ones_like(short), short, long, np.median(np.stack(stretches), axis=0)], axis=2)
    return Traffic(followers, panel.unknown, wanted, past.astype(np.float32))


def recent(values: Floats, rows: int, minutes: int) -> Floats:
    """Sums over ``minutes`` that end at each of the last ``rows`` rows."""
    return rolling_sum(values[len(values) - rows - minutes + 1 :], minutes)[minutes - 1 :]


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
    rows = len(flow.past) - HISTORY
    observed = recent(flow.followers, rows, horizon)
    wanted = recent(flow.expected, rows, horizon) * ahead
    if not flow.unknown.any():
        return observed, wanted
    return observed + recent(flow.unknown, rows, horizon), wanted + horizon * _unknown_before(flow, horizon)


def _unknown_before(flow: Traffic, lag: int) -> Floats:
    """Lines a minute of unknown templates just before a window: after a deploy they are there to stay."""
    before = rolling_sum(flow.unknown, UNKNOWN_WINDOW) / UNKNOWN_WINDOW
    return before[HISTORY - lag : len(before) - lag]


def root_z(observed: Floats, wanted: Floats, phi: NDArray, a: NDArray) -> Floats:
    """Standardised difference on the scale of square roots."""
    z = np.sqrt(observed + np.float32(ROOT_SHIFT))
    z -= np.sqrt(wanted + np.float32(ROOT_SHIFT))
    z *= 2 / np.sqrt(phi + a * wanted)
    return z


def template_expected(
    panel: Panel,
    counts: Floats,
    rates: Floats,
    flow: Traffic,
    ahead: Floats,
    follows: NDArray[np.bool_],
    horizon: int,
    phi: NDArray,
    a: NDArray,
) -> tuple[Floats, Floats]:
    """Observed and expected lines [T', K] at the level that the other templates have in the same window.

    The level is the posterior mean of a gamma prior (foretold level ``ahead``, relative variance ``a``) and over-dispersed
    counts (``phi``), both [S]. ``counts`` and ``rates`` are of softened lines.
    """
    rows = len(flow.past) - HISTORY
    observed = recent(counts, rows, horizon)
    wanted = recent(rates, rows, horizon)
    seen, season = recent(flow.followers, rows, horizon), recent(flow.expected, rows, horizon)
    # Where the level is plainly not the foretold one, as in a burst, what was foretold counts for as little.
    surprise = np.square(seen / np.maximum(season, 1) - ahead) - phi * ahead / np.maximum(season, 1)
    weight = 1 / np.maximum(np.maximum(a, 1e-3), surprise)
    own = (follows & (panel.kind != ERROR_SUM)) / by_column(phi, panel.owner)
    ratio = _others(seen / phi, observed * own, ahead * weight, panel)
    ratio /= _others(season / phi, wanted * own, weight, panel)
    np.copyto(ratio, 1, where=~follows)
    ratio *= wanted
    return observed, ratio.astype(np.float32, copy=False)


def _others(total: Floats, own: Floats, prior: Floats, panel: Panel) -> Floats:
    """What all but each template have [T', K], and the prior; where one template is all there is, nothing but the prior."""
    rest = by_column(total * np.float32(REST) + prior, panel.owner) - own
    return np.maximum(rest, by_column(prior, panel.owner), out=rest)


def new_errors(panel: Panel) -> Floats:
    """Logarithm of the error lines of fresh templates in the last five minutes [T', S]."""
    return np.log1p(recent(panel.fresh, len(panel.minutes) - HISTORY, NEW_ERROR_MINUTES))


def gaps(panel: Panel) -> Floats:
    """Minutes since each template's last line [T', K], at most ``HISTORY``; a minute that nobody observed ends a gap."""
    rows = np.arange(len(panel.counts), dtype=np.int32)[:, None]
    seen = panel.counts > 0
    if not panel.observed.all():
        seen |= ~by_column(panel.observed, panel.owner)
    last = np.maximum.accumulate(np.where(seen, rows, -1), axis=0)
    return np.minimum(rows - np.maximum(last, rows - HISTORY), HISTORY)[HISTORY:].astype(np.float32)


def silence(gap: Floats, rate: NDArray, offset: NDArray, panel: Panel) -> Floats:
    """Of the most surprising gap [T', S]: how much rarer it is than the rarest of the training days, in units of e^3."""
    return maxima(gap * rate - offset, panel.starts) / SILENCE_UNIT


def took_window(panel: Panel, base: Floats, horizon: int) -> tuple[Floats, Floats]:
    """Mean excess of log durations over ``base`` [T, D], weighted by lines, and those lines: [T', D] each."""
    rows = len(panel.minutes) - HISTORY
    lines = recent(panel.took_lines, rows, horizon)
    excess = recent(panel.took_lines * (panel.took_log - base), rows, horizon)
    return excess / np.maximum(lines, 1), lines


def took_z(excess: Floats, lines: Floats, v0: NDArray, v1: NDArray) -> Floats:
    """Standardised excess; nought where there are too few lines for a median."""
    return np.where(lines >= LEAST_TOOK_LINES, excess / np.sqrt(v0 + v1 / np.maximum(lines, 1)), 0).astype(np.float32)


def sustained(flow: Traffic, ahead: Floats, span: int, lowest: int) -> Floats:
    """Mean difference of square roots [T', S] over the ``lowest`` of the last ``span`` minutes, held against the level before."""
    seen = np.sqrt(flow.followers + flow.unknown + np.float32(ROOT_SHIFT))
    extra, end = _unknown_before(flow, span) + np.float32(ROOT_SHIFT), len(seen)
    rows = [slice(HISTORY - back, end - back) for back in range(span)]
    minutes = np.stack([seen[part] - np.sqrt(flow.expected[part] * ahead + extra) for part in rows])
    return np.partition(minutes, lowest - 1, axis=0)[:lowest].mean(0)


def softened(counts: Floats, soft: NDArray) -> Floats:
    """Counts with clumps pressed together: ``s log(1 + y / s)`` for templates of finite ``s`` [K].

    Of a template that comes in clumps many minutes with a few lines say more than one with many.
    """
    sparse = np.flatnonzero(np.isfinite(soft))
    if len(sparse) == 0:
        return counts
    out = counts.copy("K")
    out[:, sparse] = soft[sparse] * np.log1p(out[:, sparse] / soft[sparse])
    return out


def channels(fit: Params, panel: Panel) -> Floats:
    """All signals of the minutes from ``HISTORY`` on: [T', S, C], greater is more unusual."""
    rates = expected_counts(fit, panel)
    follows = fit["follows"].astype(np.bool_)
    flow = traffic(panel, rates, follows)
    counts = softened(panel.counts[HISTORY - max(HORIZONS) :], fit["soft"])
    soft_rates = rates[HISTORY - max(HORIZONS) :] * fit["soft_share"]
    out = np.zeros((len(panel.minutes) - HISTORY, panel.services, len(CHANNELS)), np.float32)
    out[:, :, 4] = new_errors(panel)
    out[:, :, 7] = silence(gaps(panel), fit["gap_rate"], fit["gap_offset"], panel)
    for number, horizon in enumerate(LAGS):
        ahead = level(flow, fit["level"][number], horizon)
        phi, a = fit["total_phi"][number], fit["total_a"][number]
        if number >= len(HORIZONS):
            low = sustained(flow, ahead, *SUSTAINED[number - len(HORIZONS)])
            np.maximum(out[:, :, 2], (low - phi) / a, out=out[:, :, 2])
            continue
        z = root_z(*total_window(flow, ahead, horizon), phi, a)
        seen = mostly_seen(panel, horizon)
        if seen is not None:
            z *= seen
        np.maximum(out[:, :, 0], z / fit["total_up"][number], out=out[:, :, 0])
        np.maximum(out[:, :, 1], -z / fit["total_down"][number], out=out[:, :, 1])
        observed, wanted = template_expected(panel, counts, soft_rates, flow, ahead, follows, horizon, phi, a)
        z = root_z(observed, wanted, fit["phi"][number], fit["a"][number])
        if seen is not None:
            z *= by_column(seen, panel.owner)
        add_template_channels(out, panel, z, fit["up"][number], fit["down"][number])
        if horizon > 1:
            spread = (mix(panel, z, wanted) - fit["mix_mean"][number]) / fit["mix_sd"][number]
            if seen is not None:
                spread *= seen
            np.maximum(out[:, :, 8], spread, out=out[:, :, 8])
    base = between_hours(fit["took_base"], panel.on_the_wall)
    for number, horizon in enumerate(TOOK_HORIZONS):
        z = took_z(*took_window(panel, base, horizon), fit["took_v0"][number], fit["took_v1"][number])
        np.maximum(out[:, :, 9], maxima(z / fit["took_up"][number], panel.took_starts), out=out[:, :, 9])
    season = [hours.season(fit[name], panel) for name in ("hour_lines", "hour_calls")]
    out[:, :, HOURS] = hours.channels(hours.hours(panel, HISTORY, *season), fit)
    return out


def mostly_seen(panel: Panel, horizon: int) -> NDArray[np.bool_] | None:
    """Windows [T', S] of which at least half was observed; None where all were.

    What a window of many minutes varies by says nothing about the one minute of it that somebody saw.
    """
    if panel.observed.all():
        return None
    rows = len(panel.minutes) - HISTORY
    return 2 * recent(panel.observed.astype(np.float32), rows, horizon) >= horizon


def add_template_channels(out: Floats, panel: Panel, z: Floats, up: NDArray, down: NDArray) -> None:
    """Raise errors_up, template_up and template_down of ``out`` to what windows of one more length show."""
    above, below = z / up, z / -down
    for channel, values, kinds in (
        (3, above, (ERROR, ERROR_SUM)),
        (5, above, (INFO,)),
        (6, below, (INFO, ERROR)),
    ):
        chosen = np.isin(panel.kind, kinds)
        if panel.services == 1:
            highest = values[:, chosen].max(1, keepdims=True, initial=0)
        else:
            highest = maxima(np.where(chosen, values, 0), panel.starts)
        np.maximum(out[:, :, channel], highest, out=out[:, :, channel])


def mix(panel: Panel, z: Floats, wanted: Floats) -> Floats:
    """Sum of bounded squares over templates of which a line was to be expected: how different the mixture is [T', S]."""
    squares = np.minimum(np.square(z), MOST_Z2)
    squares *= (wanted > 0.5) & (panel.kind != ERROR_SUM)
    return sums(squares, panel.starts)

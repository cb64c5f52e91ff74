"""One service's numbers: season, who follows the traffic, spreads, own tails. Plain arrays, as ``signals.py`` wants them.

Everything is a moment or a quantile of residuals, so 14 days of a service cost well under a second. Training minutes
are judged by the season of the other days; what is fitted to them besides are a handful of numbers a template.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ml import seasonal, signals
from ml.hours_fitting import fit_hours
from ml.panel import ERROR_SUM, Floats, Panel
from ml.signals import CHANNELS, HISTORY, HORIZONS, LAGS, SUSTAINED, TOOK_HORIZONS, Traffic

TAIL = 0.998
"""The quantile that a statistic is scaled by: forty minutes in 14 days are beyond it."""
TAIL_Z = 2.878
"""The same quantile of a normal distribution."""
LEAST_SCALE = 0.7
WINSOR = 0.995
LEAST_LINES = 50
"""A template with fewer lines has no tail of its own: that it appears is for ``new_errors`` and for notices to say."""
FOLLOW_WINDOW = 10
LEAST_RELIABLE = 0.25
"""Share of the variance of a service's traffic that is taken for more than chance, at least."""
REGULAR_GAPS = 50
"""A template that came back less often than this has no known rhythm."""
SOFT = 0.5
"""Times the variance over the mean."""
CLUMPED = 20.0
"""Lines a minute from which on no template counts as sparse."""
TOOK_PRIOR_LINES = 200.0
NEAR_COLUMNS = 8

Arrays = dict[str, NDArray]


def fit_panel(panel: Panel) -> tuple[Arrays, Floats]:
    """Parameters of the one service in ``panel``, and its signals [T', 1, C] with each day judged by the others."""
    if panel.services != 1:
        raise ValueError(f"one service is fitted at a time, there are {panel.services}")
    panel = by_columns(panel)
    seen = panel.observed[:, 0]
    lines, minutes = seasonal.bucket_sums(panel.counts, panel.on_the_wall, seen)
    follows, spread = _followers(panel, lines.sum((0, 1)) / max(1.0, minutes.sum()))
    rates = seasonal.expected_left_out(lines, minutes, panel.on_the_wall, spread, follows)
    rates *= panel.observed
    flow = signals.traffic(panel, rates, follows)
    fit: Arrays = {
        "rates": seasonal.log_rates(lines.sum(0), minutes.sum(0), spread, follows),
        "follows": follows,
    }
    out = np.zeros((len(panel.minutes) - HISTORY, 1, len(CHANNELS)), np.float32)
    out[:, :, 4] = signals.new_errors(panel)
    _fit_windows(fit, out, panel, rates, flow, follows)
    _fit_silence(fit, out, panel)
    _fit_durations(fit, out, panel)
    of_hours, out[:, :, signals.HOURS] = fit_hours(panel, HISTORY)
    return fit | of_hours, out


def by_columns(panel: Panel) -> Panel:
    """The same with a column's minutes side by side in memory: everything here goes along them, thousands at a time."""
    tables = {name: np.asfortranarray(getattr(panel, name)) for name in ("counts", "took_lines", "took_log")}
    return replace(panel, **tables)


def _followers(panel: Panel, base: NDArray[np.float64]) -> tuple[NDArray[np.bool_], Floats]:
    """Which templates move with the rest of the service from day to night and minute to minute, and their spread.

    The slope of a template's relative counts on the relative rest, over windows of ten minutes: 1 follows, 0 does not.
    """
    whole = len(panel.counts) // FOLLOW_WINDOW * FOLLOW_WINDOW
    windows = panel.counts[:whole].reshape(-1, FOLLOW_WINDOW, panel.counts.shape[1]).sum(1, dtype=np.float64)
    mean = np.maximum(base * FOLLOW_WINDOW, 1e-9)
    counted = panel.kind != ERROR_SUM
    total = (windows * counted).sum(1, keepdims=True)
    rest = (total - windows * counted) / np.maximum((mean * counted).sum() - mean * counted, 1e-9) - 1
    own = windows / mean - 1
    # What changes from one window to the next is mostly chance, and chance in the rest makes every slope too flat.
    square = np.maximum((rest**2).mean(0), 1e-9)
    power = (
        np.maximum(square - (np.diff(rest, axis=0) ** 2).mean(0) / 2, LEAST_RELIABLE * square)
        if len(rest) > 1
        else square
    )
    slope = (rest * own).mean(0) / power
    residual = own - slope * rest
    error = np.sqrt((residual**2).mean(0) * square / max(1, len(windows) - 1)) / power
    spread = (residual**2).mean(0) * mean
    follows = slope + 1.5 * error > 0.6
    if not (follows & counted).any():
        follows = np.ones_like(follows)
    return follows, np.clip(spread, 0.1, 100).astype(np.float32)


def _fit_windows(
    fit: Arrays, out: Floats, panel: Panel, rates: Floats, flow: Traffic, follows: NDArray[np.bool_]
) -> None:
    shape, kinds = (len(LAGS), 1), (len(LAGS), panel.counts.shape[1])
    fit["level"] = np.zeros((*shape, 4), np.float32)
    for name in ("total_phi", "total_a", "total_up", "total_down", "mix_mean", "mix_sd"):
        fit[name] = np.ones(shape, np.float32)
    for name in ("phi", "a", "up", "down"):
        fit[name] = np.ones(kinds, np.float32)
    fit["soft"], fit["soft_share"] = _softness(panel)
    counts = signals.softened(panel.counts, fit["soft"])
    soft_rates = rates * fit["soft_share"]
    rare = panel.counts.sum(0) < LEAST_LINES
    for number, horizon in enumerate(LAGS):
        fit["level"][number] = _foretell(flow, horizon)
        ahead = signals.level(flow, fit["level"][number], horizon)
        if number >= len(HORIZONS):
            low = signals.sustained(flow, ahead, *SUSTAINED[number - len(HORIZONS)])
            middle, high = _quantiles(low, 0.5, 0.99)
            fit["total_phi"][number], fit["total_a"][number] = middle, np.maximum(high - middle, 0.01)
            np.maximum(out[:, :, 2], (low - middle) / fit["total_a"][number], out=out[:, :, 2])
            continue
        # Windows of many minutes overlap: every second or third says the same.
        step = min(3, (horizon + 2) // 3)
        observed, wanted = signals.total_window(flow, ahead, horizon)
        phi, a = _spread(observed, wanted)
        fit["total_phi"][number], fit["total_a"][number] = phi, a
        z = signals.root_z(observed, wanted, phi, a)
        up, down = _tails(z)
        fit["total_up"][number], fit["total_down"][number] = up, down
        np.maximum(out[:, :, 0], z / up, out=out[:, :, 0])
        np.maximum(out[:, :, 1], -z / down, out=out[:, :, 1])
        squares = np.zeros((len(out), 1), np.float32)
        for part in _some_columns(panel):
            some = _taken(panel, part)
            observed, wanted = signals.template_expected(
                some, counts[:, part], soft_rates[:, part], flow, ahead, follows[part], horizon, phi, a
            )
            fit["phi"][number, part], fit["a"][number, part] = own = _spread(observed, wanted, step)
            z = signals.root_z(observed, wanted, *own)
            up, down = _tails(z, step)
            up = np.where(rare[part], np.inf, up).astype(np.float32)
            fit["up"][number, part], fit["down"][number, part] = up, down
            signals.add_template_channels(out, some, z, up, down)
            if horizon > 1:
                squares += signals.mix(some, z, wanted)
        if horizon > 1:
            fit["mix_mean"][number], fit["mix_sd"][number] = squares.mean(0), np.maximum(squares.std(0), 1)
            spread = (squares - fit["mix_mean"][number]) / fit["mix_sd"][number]
            np.maximum(out[:, :, 8], spread, out=out[:, :, 8])


def _some_columns(panel: Panel) -> list[slice]:
    """A few columns at a time, whose windows stay near the processor while they are worked on."""
    return [slice(first, first + NEAR_COLUMNS) for first in range(0, panel.counts.shape[1], NEAR_COLUMNS)]


def _taken(panel: Panel, part: slice) -> Panel:
    """These columns of counts alone."""
    return replace(panel, counts=panel.counts[:, part], kind=panel.kind[part], owner=panel.owner[part])


def _softness(panel: Panel) -> tuple[Floats, Floats]:
    """From how many lines a minute on clumps are pressed together, infinite for steady templates, and what is left of lines."""
    mean = panel.counts.mean(0, dtype=np.float64)
    spread = panel.counts.var(0, dtype=np.float64) / np.maximum(mean, 1e-9)
    soft = np.where((mean < spread) & (mean < CLUMPED) & (spread > 1.5), np.maximum(SOFT * spread, 1), np.inf).astype(
        np.float32
    )
    share = signals.softened(panel.counts, soft).mean(0, dtype=np.float64) / np.maximum(mean, 1e-9)
    return soft, share.astype(np.float32)


def _foretell(flow: Traffic, lag: int) -> Floats:
    """Least squares of the log ratio of a window on what was known ``lag`` minutes before its end: [1, 4]."""
    ratio = signals.log_ratio(seasonal.rolling_sum(flow.followers, lag), seasonal.rolling_sum(flow.expected, lag))
    y = np.clip(ratio[HISTORY:, 0], -0.7, 0.7).astype(np.float64)
    x = flow.past[HISTORY - lag : len(flow.past) - lag, 0].astype(np.float64)
    ridge = np.diag([1e-9, *[0.3] * (x.shape[1] - 1)])
    return np.linalg.solve(x.T @ x + ridge, x.T @ y)[None].astype(np.float32)


def _spread(observed: Floats, wanted: Floats, step: int = 1) -> tuple[Floats, Floats]:
    """``phi`` and ``a`` of variance ``phi M + a M^2`` by moments, the largest squares cut off: a burst is no spread.

    Nothing is cut off of a template that is silent in most windows, where every line is among the largest squares.
    """
    m = np.ascontiguousarray(wanted[::step].T)
    squares = np.square(observed[::step].T - m)
    m1 = m.sum(1, dtype=np.float64)
    busy = np.flatnonzero(m1 >= m.shape[1])
    if len(busy):
        cut = round(WINSOR * (m.shape[1] - 1))
        squares[busy] = np.minimum(squares[busy], np.partition(squares[busy], cut, axis=1)[:, cut, None])
    # Scaled to a mean of one, cubes stay within single precision.
    scale = np.maximum(m1 / m.shape[1], 1e-9)[:, None]
    unit = m / scale.astype(np.float32)
    m2, m3 = (np.einsum("ij,ij->i", x, unit) * scale[:, 0] ** power for x, power in ((unit, 2), (unit * unit, 3)))
    r0, r1 = squares.sum(1, dtype=np.float64), np.einsum("ij,ij->i", squares, unit) * scale[:, 0]
    det = m1 * m3 - m2 * m2
    sound = det > 1e-3 * m1 * m3
    a = np.where(sound, (m1 * r1 - m2 * r0) / np.where(sound, det, 1), 0)
    a = np.clip(a, 0, r0 / np.maximum(m2, 1e-9))
    phi = np.maximum((r0 - a * m2) / np.maximum(m1, 1e-9), 0.05)
    return phi.astype(np.float32), a.astype(np.float32)


def _tails(z: Floats, step: int = 1) -> tuple[Floats, Floats]:
    """Scales up and down, such that a quantile far out is as far out as a normal variable's."""
    high, low = _quantiles(z[::step], TAIL, 1 - TAIL)
    return np.maximum(high / TAIL_Z, LEAST_SCALE), np.maximum(-low / TAIL_Z, LEAST_SCALE)


def _quantiles(values: Floats, *shares: float) -> list[Floats]:
    by_column = np.ascontiguousarray(values.T)
    places = [round(share * (len(values) - 1)) for share in shares]
    # One by one: several places at once are not looked for by the processor's wide instructions.
    return [np.partition(by_column, place, axis=1)[:, place] for place in places]


def _fit_silence(fit: Arrays, out: Floats, panel: Panel) -> None:
    """How surprising each minute of silence is: gaps fall off exponentially, at the rate of the third longest one."""
    gap = signals.gaps(panel)
    ended = (panel.counts[HISTORY:] > 0) & (np.r_[np.zeros((1, gap.shape[1]), np.float32), gap[:-1]] >= 0)
    number = ended.sum(0)
    longest = np.partition(gap, -3, axis=0)[-3] + 1 if len(gap) >= 3 else np.full(gap.shape[1], HISTORY)
    regular = (number >= REGULAR_GAPS) & (longest < HISTORY / 2) & (panel.kind != ERROR_SUM)
    rate = np.where(regular, np.log(np.maximum(number, 3) / 3) / longest, 0)
    fit["gap_rate"] = rate.astype(np.float32)
    fit["gap_offset"] = np.where(regular, np.log(np.maximum(number, 1)), 0).astype(np.float32)
    out[:, :, 7] = signals.silence(gap, fit["gap_rate"], fit["gap_offset"], panel)


def _fit_durations(fit: Arrays, out: Floats, panel: Panel) -> None:
    logs = panel.took_log
    weight, _seen = seasonal.bucket_sums(panel.took_lines, panel.on_the_wall, panel.observed[:, 0])
    summed, _ = seasonal.bucket_sums(panel.took_lines * logs, panel.on_the_wall, panel.observed[:, 0])
    mean = summed.sum((0, 1)) / np.maximum(weight.sum((0, 1)), 1)
    base = (summed.sum(0) + TOOK_PRIOR_LINES * mean) / (weight.sum(0) + TOOK_PRIOR_LINES)
    fit["took_base"] = base.astype(np.float32)
    excess_base = np.asfortranarray(seasonal.between_hours(fit["took_base"], panel.on_the_wall))
    shape = (len(TOOK_HORIZONS), logs.shape[1])
    for name in ("took_v0", "took_v1", "took_up"):
        fit[name] = np.ones(shape, np.float32)
    for number, horizon in enumerate(TOOK_HORIZONS):
        excess, n = signals.took_window(panel, excess_base, horizon)
        v0, v1 = _took_spread(excess, n)
        z = signals.took_z(excess, n, v0, v1)
        up, _ = _tails(z)
        fit["took_v0"][number], fit["took_v1"][number], fit["took_up"][number] = v0, v1, up
        np.maximum(out[:, :, 9], signals.maxima(z / up, panel.took_starts), out=out[:, :, 9])


def _took_spread(excess: Floats, lines: Floats) -> tuple[Floats, Floats]:
    """``v0`` and ``v1`` of variance ``v0 + v1 / n`` of a mean over ``n`` lines."""
    there = lines >= signals.LEAST_TOOK_LINES
    squares = np.where(there, np.square(excess), 0)
    squares = np.minimum(squares, _quantiles(squares, WINSOR)[0])
    n = np.where(there, lines, 0)
    s_1 = there.sum(0)
    s_n, s_i, r_n, r_1 = (part.sum(0, dtype=np.float64) for part in (n, there / np.maximum(n, 1), squares * n, squares))
    det = np.maximum(s_n * s_i - s_1.astype(np.float64) ** 2, 1e-9)
    v0 = np.clip((r_n * s_i - r_1 * s_1) / det, 0, None)
    v0 = np.minimum(v0, r_n / np.maximum(s_n, 1))
    v1 = np.maximum((r_n - v0 * s_n) / np.maximum(s_1, 1), 1e-3)
    return np.maximum(v0, 1e-4).astype(np.float32), v1.astype(np.float32)

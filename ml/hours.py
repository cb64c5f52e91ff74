"""The signals of a whole service over hours: how long it has written nothing, and whether it writes less or more than it did.

A service of a hundred lines a day says nothing in ten minutes; in four hours it does. A silence is held against the lines that the
season has in it: of a Poisson process it lasts for more than ``x`` expected calls with probability ``e^-x``, and calls are
minutes with a line, since lines come in clumps. Sums over 1, 3 and 6 hours are held against the season on the scale of square
roots, as in ``signals.py``. Everything is in whole quarter hours and the one that is not over, so that a scorer that carries on
a day of quarter hours sees what training saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.panel import Floats, Panel
from ml.quarters import QUARTER, REMEMBERED
from ml.seasonal import expected

SPANS = (4, 12, 24)
"""Quarter hours before the one that is not over."""
RECENTLY = 4
"""The last fourth of a span has to show the same: what is over for hours is no finding any more."""
LEAST_OBSERVED = 0.8
"""Share of a span that somebody has to have observed."""
LEAST_SILENCE = QUARTER
"""Observed minutes without a line below which there is no silence: of busy services shorter ones are told by others."""
ROOT_SHIFT = 0.375
"""Anscombe's constant."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Sums up to and with each scored minute [T', S], and up to each quarter hour [G + 1, S], of lines, of what the season has

    in the observed minutes in lines and in calls, and of observed minutes. ``place`` [T'] is each minute's quarter hour in G.
    """

    place: NDArray[np.intp]
    until: dict[str, Floats]
    before: dict[str, Floats]

    def span(self, name: str, quarters: int) -> Floats:
        """A sum over so many quarter hours and the one that is not over [T', S]."""
        return self.until[name] - self.before[name][self.place - quarters]


def hours(panel: Panel, history: int, lines: Floats, calls: Floats) -> Hours:
    """Sums for the minutes from ``history`` on; ``lines`` and ``calls`` [R, S] are the season's rates a minute by quarter hour,

    of the quarter hours of ``quarters_of``.
    """
    first = int(panel.minutes[0]) // QUARTER
    place = panel.minutes // QUARTER - first + REMEMBERED - 1
    starts = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])
    wrote, seen = totals(panel), panel.observed.astype(np.float64)
    by_minute = {"lines": wrote, "seen": seen, "expected": seen * lines[place], "calls": seen * calls[place]}
    known = {"lines": panel.earlier_lines, "seen": panel.earlier_seen}
    known["expected"] = known["seen"] * lines[:REMEMBERED]
    known["calls"] = known["seen"] * calls[:REMEMBERED]
    until, before = {}, {}
    for name, values in by_minute.items():
        sums = np.zeros((int(place[-1]) + 2, panel.services))
        sums[1 : REMEMBERED + 1] = known[name]
        sums[place[starts] + 1] += np.add.reduceat(values, starts, axis=0)
        before[name] = sums.cumsum(0)
        until[name] = (known[name].sum(0, dtype=np.float64) + values.cumsum(0))[history:]
    return Hours(place[history:], until, before)


def quarters_of(minutes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Minutes since 1970 in the middle of each quarter hour that matters to these minutes [R]: a day before and all of them."""
    first, last = int(minutes[0]) // QUARTER, int(minutes[-1]) // QUARTER
    return np.arange(first - REMEMBERED + 1, last + 1) * QUARTER + QUARTER // 2


def season(rates: Floats, minutes: NDArray[np.int64]) -> Floats:
    """Rates a minute [R, S] out of logarithms by weekday class and hour [48, S]."""
    return expected(rates, quarters_of(minutes))


def totals(panel: Panel) -> NDArray[np.float64]:
    """Lines of each service in each observed minute [T, S], of known templates and of others."""
    ends = np.r_[panel.starts[1:], panel.counts.shape[1]] - 1
    # A service's last column is the sum of its errors, which are counted already.
    if panel.services == 1:
        known = panel.counts.sum(1, keepdims=True) - panel.counts[:, ends]
    else:
        known = np.add.reduceat(panel.counts, panel.starts, axis=1) - panel.counts[:, ends]
    return (known + panel.unknown).astype(np.float64)


def silences(sums: Hours) -> tuple[Floats, Floats]:
    """Of each minute, how long nothing was written: in calls of the season, and in observed minutes; [T', S] each.

    Counted from the end of the quarter hour of the last line; of a silence that began before the day that is remembered the
    part in it counts.
    """
    lines = sums.before["lines"]
    wrote = np.diff(lines, axis=0) > 0
    numbers = np.arange(1, len(wrote) + 1)[:, None]
    # Up to each quarter hour: the number of quarter hours up to and with the last one that has a line.
    ended = np.concatenate([np.zeros((1, lines.shape[1]), np.int64), np.maximum.accumulate(wrote * numbers, axis=0)])
    began = np.maximum(ended[sums.place], sums.place[:, None] - REMEMBERED + 1)
    silent = sums.span("lines", 0) <= 0
    out = []
    for name in ("calls", "seen"):
        since = sums.until[name] - np.take_along_axis(sums.before[name], began, axis=0)
        out.append(np.where(silent, since, 0).astype(np.float32))
    return out[0], out[1]


def silence(sums: Hours, scale: NDArray[Any]) -> Floats:
    """Of the silence up to each minute minus the logarithm of its probability [T', S]; ``scale`` [S] as fitted."""
    calls, minutes = silences(sums)
    return np.where(minutes >= LEAST_SILENCE, calls / scale, 0).astype(np.float32)


def deviation(sums: Hours, number: int, phi: NDArray[Any], a: NDArray[Any]) -> tuple[Floats, Floats]:
    """How many standard deviations above and below the season a span is, and has been of late: [T', S] each."""
    quarters = SPANS[number]
    whole, late = (_root_z(sums, n, phi, a) for n in (quarters, quarters // RECENTLY))
    # Of a steady change, a fourth of the time shows half as many deviations.
    up, down = np.minimum(whole, 2 * late), np.minimum(-whole, -2 * late)
    known = sums.span("seen", quarters) >= LEAST_OBSERVED * QUARTER * quarters
    return np.where(known, up, 0).astype(np.float32), np.where(known, down, 0).astype(np.float32)


def _root_z(sums: Hours, quarters: int, phi: NDArray[Any], a: NDArray[Any]) -> Floats:
    observed, wanted = sums.span("lines", quarters), sums.span("expected", quarters)
    return 2 * (np.sqrt(observed + ROOT_SHIFT) - np.sqrt(wanted + ROOT_SHIFT)) / np.sqrt(phi + a * wanted)


def channels(sums: Hours, fit: Mapping[str, NDArray[Any]]) -> Floats:
    """The three signals [T', S, 3]: quiet, hours_down, hours_up; greater is more unusual."""
    out = np.zeros((*sums.until["lines"].shape, 3), np.float32)
    out[:, :, 0] = silence(sums, fit["hour_silence"])
    for number in range(len(SPANS)):
        up, down = deviation(sums, number, fit["hour_phi"][number], fit["hour_a"][number])
        np.maximum(out[:, :, 1], down / fit["hour_down"][number], out=out[:, :, 1])
        np.maximum(out[:, :, 2], up / fit["hour_up"][number], out=out[:, :, 2])
    return out

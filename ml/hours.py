"""The signals of a whole service over hours: how long it has written nothing, and whether it writes less or more than it did.

A service of a hundred lines a day says nothing in ten minutes; in four hours it does. A silence is held against the season:
in a Poisson process there are more than ``x`` expected calls in it with probability ``e^-x``, and calls are minutes with a
line, since lines come in clumps. Of 1, 3 and 6 hours each fourth has to be above the season, or below, on the scale of square
roots of ``signals.py``: for independent fourths the probabilities multiply. A silence that is over is left out of those: it was
a finding of its own, and would be another one half an hour after its end. Everything is in whole quarter hours and the one
that is not over, so that a scorer that carries on a day of quarter hours sees what training saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import erfc, log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.panel import Floats, Panel
from ml.quarters import QUARTER, REMEMBERED
from ml.seasonal import expected
from ml.zones import on_the_wall

SPANS = (4, 12, 24)
"""Quarter hours before the one that is not over."""
PARTS = 4
LEAST_OBSERVED = 0.8
"""Share of a span that somebody has to have observed."""
LEAST_SILENCE = QUARTER
"""Observed minutes without a line below which there is no silence: of busy services shorter ones are told by others."""
PLAIN_SILENCE = log(1e3)
"""Minus the logarithm of the probability of a silence that is no part of what the hours around it are like."""
LONGEST_SILENCE = 72
"""Quarter hours of a silence that its probability is of: with the longest span before them they are still remembered."""
ROOT_SHIFT = 0.375
"""Anscombe's constant."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Sums up to and with each scored minute [T', S] and up to each quarter hour [G + 1, S], by name.

    ``lines``, ``unknown`` ones of them, ``seen`` minutes, and what the season has in those: ``expected`` lines and ``calls``.
    ``place`` [T'] is each minute's quarter hour in G.
    """

    place: NDArray[np.intp]
    until: dict[str, Floats]
    before: dict[str, Floats]

    def span(self, name: str, quarters: int) -> Floats:
        """A sum over so many quarter hours and the one that is not over [T', S]."""
        return self.until[name] - self.before[name][self.place - quarters]


def hours(panel: Panel, history: int, lines: Floats, calls: Floats) -> Hours:
    """Sums for the minutes from ``history`` on; ``lines`` and ``calls`` [R, S] are rates a minute as ``season`` gives them."""
    first = int(panel.minutes[0]) // QUARTER
    place = panel.minutes // QUARTER - first + REMEMBERED - 1
    starts = np.flatnonzero(np.r_[True, place[1:] != place[:-1]])
    wrote, seen = totals(panel), panel.observed.astype(np.float64)
    by_minute = {
        "lines": wrote,
        "unknown": panel.unknown.astype(np.float64),
        "seen": seen,
        "expected": seen * lines[place],
        "calls": seen * calls[place],
    }
    known: dict[str, Floats] = dict(zip(("lines", "unknown", "seen"), panel.earlier, strict=True))
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


def quarters_of(panel: Panel) -> NDArray[np.int64]:
    """The middle of each quarter hour that matters to a panel's minutes, a day before and all of them [R], on the wall."""
    first, last = int(panel.minutes[0]) // QUARTER, int(panel.minutes[-1]) // QUARTER
    return on_the_wall(np.arange(first - REMEMBERED + 1, last + 1) * QUARTER + QUARTER // 2, panel.zone)


def season(rates: Floats, panel: Panel) -> Floats:
    """Rates a minute [R, S] out of logarithms by weekday class and hour [48, S]."""
    return expected(rates, quarters_of(panel))


def totals(panel: Panel) -> NDArray[np.float64]:
    """Lines of each service in each observed minute [T, S], of known templates and of others."""
    ends = np.r_[panel.starts[1:], panel.counts.shape[1]] - 1
    # A service's last column is the sum of its errors, which are counted already.
    if panel.services == 1:
        known = panel.counts.sum(1, keepdims=True) - panel.counts[:, ends]
    else:
        known = np.add.reduceat(panel.counts, panel.starts, axis=1) - panel.counts[:, ends]
    return (known + panel.unknown).astype(np.float64)


def began(sums: Hours) -> NDArray[np.intp]:
    """The first quarter hour after the last one that has a line and is over, of each minute [T', S]; a day back at most."""
    wrote = np.diff(sums.before["lines"], axis=0) > 0
    numbers = np.arange(1, len(wrote) + 1)[:, None]
    ended = np.concatenate([np.zeros_like(wrote[:1], np.intp), np.maximum.accumulate(wrote * numbers, axis=0)])
    return np.maximum(ended[sums.place], sums.place[:, None] - REMEMBERED + 1)


def silences(sums: Hours) -> tuple[Floats, Floats]:
    """Of each minute, how long nothing was written: in calls of the season, and in observed minutes; [T', S] each.

    Counted from the end of the quarter hour of the last line; of a silence that began before the day that is remembered the
    part in it counts.
    """
    silent, first = sums.span("lines", 0) <= 0, began(sums)
    out = []
    for name in ("calls", "seen"):
        since = sums.until[name] - np.take_along_axis(sums.before[name], first, axis=0)
        out.append(np.where(silent, since, 0).astype(np.float32))
    return out[0], out[1]


def silence(sums: Hours, scale: NDArray[Any]) -> Floats:
    """Of the silence up to each minute minus the logarithm of its probability [T', S]; ``scale`` [S] as fitted."""
    calls, minutes = silences(sums)
    return np.where(minutes >= LEAST_SILENCE, calls / scale, 0).astype(np.float32)


@dataclass(frozen=True, slots=True)
class OverSilences:
    """Lines that the season has in silences that are over and were no chance, up to each quarter hour [G + 1, S].

    ``over`` [T', S] is the quarter hour before which, at each minute, they are over.
    """

    expected: Floats
    over: NDArray[np.intp]

    def between(self, low: NDArray[np.intp], high: NDArray[np.intp]) -> Floats:
        """Of the quarter hours from ``low`` to before ``high`` [T'], as it was known at each minute [T', S]."""
        ends = (np.minimum(bound[:, None], self.over) for bound in (high, low))
        upper, lower = (np.take_along_axis(self.expected, end, axis=0) for end in ends)
        return upper - lower


def over_silences(sums: Hours, scale: NDArray[Any]) -> OverSilences:
    """Whole quarter hours of silences rarer than ``PLAIN_SILENCE``; ``scale`` [S] as fitted."""
    silent = np.diff(sums.before["lines"], axis=0) <= 0
    numbers = np.arange(len(silent))[:, None]
    # Of each quarter hour the first of its silence, and the first after it.
    first = np.maximum.accumulate(np.where(silent, 0, numbers + 1), axis=0)
    last = np.minimum.accumulate(np.where(silent, len(silent), numbers)[::-1], axis=0)[::-1]
    calls = sums.before["calls"]
    begin = np.maximum(first, last - LONGEST_SILENCE)
    rarity = (np.take_along_axis(calls, last, axis=0) - np.take_along_axis(calls, begin, axis=0)) / scale
    left_out = np.where(silent & (rarity >= PLAIN_SILENCE), np.diff(sums.before["expected"], axis=0), 0)
    expected = np.concatenate([np.zeros_like(left_out[:1]), left_out.cumsum(0)])
    return OverSilences(expected, np.where(sums.span("lines", 0) > 0, sums.place[:, None], began(sums)))


def deviation(
    sums: Hours, number: int, phi: NDArray[Any], a: NDArray[Any], silent: OverSilences
) -> tuple[Floats, Floats]:
    """Minus the logarithm of the probability that all fourths of a span are as far above, and below, the season [T', S] each.

    The one of them that is least so decides: what was a finding for an hour is none again for the rest of the span.
    """
    part = SPANS[number] // PARTS
    bounds = [sums.place - n * part for n in range(PARTS + 1)]
    shape = sums.until["lines"].shape
    least, most = np.full(shape, np.inf), np.full(shape, -np.inf)
    for n, low in enumerate(bounds[1:]):
        observed, unknown, wanted = (
            (sums.until[name] if n == 0 else sums.before[name][bounds[n]]) - sums.before[name][low]
            for name in ("lines", "unknown", "expected")
        )
        if silent.expected[-1].any():
            wanted = np.maximum(wanted - silent.between(low, bounds[n]), 0)
        below = root_z(observed, wanted, phi, a)
        # After a deploy, lines that are new are no rise, and those in whose place they come are no loss.
        above = root_z(observed - unknown, wanted, phi, a) if unknown.any() else below
        least, most = np.minimum(least, above), np.maximum(most, below)
    known = sums.span("seen", SPANS[number]) >= LEAST_OBSERVED * QUARTER * SPANS[number]
    up, down = (np.where(known, PARTS * _rarity(side), 0).astype(np.float32) for side in (least, -most))
    return up, down


_STEPS = np.arange(-5, 35, 0.05)
_RARITIES = np.array([-log(erfc(step / sqrt(2)) / 2) for step in _STEPS])


def _rarity(z: Floats) -> Floats:
    """Minus the logarithm of a standard normal variable's probability of being above ``z``; straight between steps of 0.05."""
    return np.interp(z, _STEPS, _RARITIES)


def root_z(observed: Floats, wanted: Floats, phi: NDArray[Any], a: NDArray[Any]) -> Floats:
    """Standardised difference on the scale of square roots."""
    return 2 * (np.sqrt(observed + ROOT_SHIFT) - np.sqrt(wanted + ROOT_SHIFT)) / np.sqrt(phi + a * wanted)


def channels(sums: Hours, fit: Mapping[str, NDArray[Any]]) -> Floats:
    """The three signals [T', S, 3]: quiet, hours_down, hours_up; greater is more unusual."""
    out = np.zeros((*sums.until["lines"].shape, 3), np.float32)
    out[:, :, 0] = silence(sums, fit["hour_silence"])
    silent = over_silences(sums, fit["hour_silence"])
    for number in range(len(SPANS)):
        up, down = deviation(sums, number, fit["hour_phi"][number], fit["hour_a"][number], silent)
        add_span(out, up, down, fit["hour_up"][number], fit["hour_down"][number])
    return out


def add_span(out: Floats, up: Floats, down: Floats, up_scale: NDArray[Any], down_scale: NDArray[Any]) -> None:
    """Raise hours_down and hours_up of ``out`` to what one more span shows."""
    np.maximum(out[:, :, 1], down / down_scale, out=out[:, :, 1])
    np.maximum(out[:, :, 2], up / up_scale, out=out[:, :, 2])

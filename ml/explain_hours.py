"""What the signals over hours say in numbers: since when, how many lines there were, how many the season has in that time.

Of a silence, which templates are missing: all of them, so those of which most lines were to be expected. Of sums over hours no
template can be named, since of the hours before the last one only totals are remembered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml import hours
from ml.panel import ERROR_SUM, Panel
from ml.quarters import QUARTER
from ml.seasonal import expected
from ml.signals import HISTORY


@dataclass(frozen=True, slots=True)
class Stretch:
    """``minutes`` up to the last one of a panel, observed and expected lines in those of them that somebody observed.

    Lines that were expected in silences that were over are left out, as the signals leave them out.
    ``missing``: columns of templates and the lines expected of each, most first; of a silence alone.
    """

    minutes: int
    observed: float
    expected: float
    missing: Sequence[tuple[int, float]] = ()


def stretch(fit: Mapping[str, NDArray[Any]], panel: Panel, signal: str) -> Stretch:
    """Of the last minute of one service's panel (with ``HISTORY`` before it) and of one of the signals of ``hours.py``."""
    season = [hours.season(fit[name], panel) for name in ("hour_lines", "hour_calls")]
    sums = hours.hours(panel, HISTORY, *season)
    if signal == "quiet":
        began, left_out = int(hours.began(sums)[-1, 0]), 0.0
    else:
        silent = hours.over_silences(sums, fit["hour_silence"])
        side, scale = 0 if signal == "hours_up" else 1, fit[signal.replace("hours", "hour")]
        values = [
            hours.deviation(sums, number, fit["hour_phi"][number], fit["hour_a"][number], silent)[side][-1, 0]
            / scale[number, 0]
            for number in range(len(hours.SPANS))
        ]
        began = int(sums.place[-1]) - hours.SPANS[int(np.argmax(values))]
        left_out = float(silent.between(np.full_like(sums.place, began), sums.place)[-1, 0])
    last = int(panel.minutes[-1])
    minutes = last + 1 - (last // QUARTER - (int(sums.place[-1]) - began)) * QUARTER
    observed, wanted = (float(sums.until[n][-1, 0] - sums.before[n][began, 0]) for n in ("lines", "expected"))
    missing = _missing(fit, panel, sums, began) if signal == "quiet" else ()
    return Stretch(minutes, observed, wanted - left_out, missing)


def _missing(fit: Mapping[str, NDArray[Any]], panel: Panel, sums: hours.Hours, began: int) -> list[tuple[int, float]]:
    seen = np.diff(sums.before["seen"][:, 0])[began:]
    middles = hours.quarters_of(panel)[began:]
    lines = (expected(fit["rates"], middles) * seen[:, None]).sum(0) * (panel.kind != ERROR_SUM)
    return [(int(column), float(lines[column])) for column in np.argsort(-lines) if lines[column] > 0]

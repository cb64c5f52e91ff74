"""A service's last day by quarter hours: the memory of signals that look back further than ``HISTORY`` minutes.

Lines and observed minutes of 97 quarter hours are two numbers each, whatever the service writes, so a scorer can carry them
from minute to minute and over a restart. What is known of a quarter hour only grows; one that nobody observed is nought
minutes long, and a signal leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

QUARTER = 15
"""Minutes."""
REMEMBERED = 97
"""Quarter hours: a day, and the one that is not over."""

Quantities = NDArray[np.float32]


def _nothing() -> Quantities:
    return np.zeros(REMEMBERED, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Quarters:
    """``lines`` and ``seen`` minutes [REMEMBERED] of the quarter hours that end with number ``newest`` since 1970."""

    newest: int = 0
    lines: Quantities = field(default_factory=_nothing)
    seen: Quantities = field(default_factory=_nothing)

    def ending(self, quarter: int) -> tuple[Quantities, Quantities]:
        """Lines and observed minutes [REMEMBERED] of the quarter hours up to this one, as copies."""
        away = quarter - self.newest
        if away == 0:
            return self.lines.copy(), self.seen.copy()
        lines, seen = _nothing(), _nothing()
        if 0 < away < REMEMBERED:
            lines[:-away], seen[:-away] = self.lines[away:], self.seen[away:]
        elif -REMEMBERED < away < 0:
            lines[-away:], seen[-away:] = self.lines[:away], self.seen[:away]
        return lines, seen

    def followed_by(self, start: int, lines: NDArray[Any], observed: NDArray[np.bool_]) -> Quarters:
        """With the minutes from ``start`` on: their lines [T], and which of them were observed [T]."""
        rows = len(lines)
        if rows == 0:
            return self
        newest = max(self.newest, (start + rows - 1) // QUARTER)
        kept, seen = self.ending(newest)
        first = newest - REMEMBERED + 1
        if rows == 1:
            kept[start // QUARTER - first] += lines[0] * observed[0]
            seen[start // QUARTER - first] += observed[0]
            return Quarters(newest, kept, seen)
        place = (start + np.arange(rows)) // QUARTER - first
        inside = observed & (place >= 0)
        kept += np.bincount(place[inside], np.asarray(lines, np.float64)[inside], REMEMBERED).astype(np.float32)
        seen += np.bincount(place[inside], None, REMEMBERED).astype(np.float32)
        return Quarters(newest, kept, seen)

    def plain(self) -> dict[str, Any]:
        """For JSON: what was observed alone."""
        there = np.flatnonzero(self.seen)
        rows = zip(there.tolist(), self.lines[there].tolist(), self.seen[there].tolist(), strict=True)
        return {"newest": self.newest, "rows": [list(row) for row in rows]}

    @staticmethod
    def of_plain(body: Mapping[str, Any]) -> Quarters:
        """Out of ``plain``. Raises KeyError, IndexError or TypeError for anything else."""
        lines, seen = _nothing(), _nothing()
        for row in body["rows"]:
            lines[row[0]], seen[row[0]] = row[1], row[2]
        return Quarters(int(body["newest"]), lines, seen)


def side_by_side(quarters: Sequence[Quarters], newest: int) -> tuple[Quantities, Quantities]:
    """Lines and observed minutes [REMEMBERED, S] of services, up to the same quarter hour."""
    parts = [one.ending(newest) for one in quarters]
    return np.stack([part[0] for part in parts], axis=1), np.stack([part[1] for part in parts], axis=1)

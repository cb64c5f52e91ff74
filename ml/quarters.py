"""A service's last day by quarter hours: the memory of signals that look back further than ``HISTORY`` minutes.

Of each of 97 quarter hours there are three numbers, whatever the service writes, so a scorer can carry them
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
    return np.zeros((3, REMEMBERED), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Quarters:
    """``table`` [3, REMEMBERED]: lines, those of them of templates that the model did not know, and observed minutes.

    Of the quarter hours that end with number ``newest`` since 1970.
    """

    newest: int = 0
    table: Quantities = field(default_factory=_nothing)

    def ending(self, quarter: int) -> Quantities:
        """The table of the quarter hours up to this one, as a copy."""
        away = quarter - self.newest
        if away == 0:
            return self.table.copy()
        table = _nothing()
        if 0 < away < REMEMBERED:
            table[:, :-away] = self.table[:, away:]
        elif -REMEMBERED < away < 0:
            table[:, -away:] = self.table[:, :away]
        return table

    def followed_by(
        self, start: int, lines: NDArray[Any], unknown: NDArray[Any], observed: NDArray[np.bool_]
    ) -> Quarters:
        """With the minutes from ``start`` on: their lines [T], of unknown templates [T], and which were observed [T]."""
        rows = len(lines)
        if rows == 0:
            return self
        newest = max(self.newest, (start + rows - 1) // QUARTER)
        table, first = self.ending(newest), newest - REMEMBERED + 1
        if rows == 1:
            place = start // QUARTER - first
            if place >= 0 and observed[0]:
                table[0, place] += lines[0]
                table[1, place] += unknown[0]
                table[2, place] += 1
            return Quarters(newest, table)
        place = (start + np.arange(rows)) // QUARTER - first
        inside = observed & (place >= 0)
        for row, values in enumerate((lines, unknown, observed)):
            weights = np.asarray(values, np.float64)[inside]
            table[row] += np.bincount(place[inside], weights, REMEMBERED).astype(np.float32)
        return Quarters(newest, table)

    def plain(self) -> dict[str, Any]:
        """For JSON: what was observed alone."""
        there = np.flatnonzero(self.table[2])
        return {"newest": self.newest, "at": there.tolist(), "table": self.table[:, there].tolist()}

    @staticmethod
    def of_plain(body: Mapping[str, Any]) -> Quarters:
        """Out of ``plain``. Raises KeyError, IndexError, TypeError or ValueError for anything else."""
        table = _nothing()
        table[:, body["at"]] = body["table"]
        return Quarters(int(body["newest"]), table)


def side_by_side(quarters: Sequence[Quarters], newest: int) -> Quantities:
    """The tables [3, REMEMBERED, S] of services, up to the same quarter hour."""
    return np.stack([one.ending(newest) for one in quarters], axis=2)

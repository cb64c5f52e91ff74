"""Minutes by the clock on the wall: what people do follows it, and twice a year it jumps by an hour."""

from __future__ import annotations

from datetime import datetime
from functools import cache, lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

UTC = "UTC"
QUARTER = 15
"""Minutes; clocks of all zones are set at quarters of an hour."""


def check_zone(name: str) -> str:
    """The name of a time zone of the IANA database, as it was given. Raises ValueError, with what is expected."""
    try:
        _zone(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected a time zone such as Europe/Berlin or UTC, found {name!r}") from None
    return name


def on_the_wall(minutes: NDArray[np.int64], zone: str) -> NDArray[np.int64]:
    """Minutes since 1970 (UTC) as minutes since 1970 by the zone's clocks; raises ZoneInfoNotFoundError.

    An hour that the clocks repeat is there twice, one that they leave out is not.
    """
    if zone == UTC:
        return minutes
    quarters, place = np.unique(minutes // QUARTER, return_inverse=True)
    return minutes + np.array([_offset(zone, quarter) for quarter in quarters.tolist()], np.int64)[place]


@lru_cache(100_000)
def _offset(zone: str, quarter: int) -> int:
    offset: Any = datetime.fromtimestamp(quarter * QUARTER * 60, _zone(zone)).utcoffset()
    return int(offset.total_seconds()) // 60


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)

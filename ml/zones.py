"""Minutes by the clock on the wall: what people do follows it, and twice a year it jumps by an hour."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

UTC = "UTC"
QUARTER = 15
"""Minutes; clocks of all zones are set at quarters of an hour."""


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
    offset: Any = datetime.fromtimestamp(quarter * QUARTER * 60, ZoneInfo(zone)).utcoffset()
    return int(offset.total_seconds()) // 60

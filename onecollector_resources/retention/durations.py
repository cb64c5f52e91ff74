"""Durations as Loki writes and reads them (``31d``, ``1w``, ``2h41m0s``), in whole seconds.

Years have 365 days, as in Loki. A day is 24 hours whatever the clocks do.
"""

from __future__ import annotations

import re

UNITS = {"y": 31_536_000, "w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
PART = re.compile(r"(\d+)(ms|us|µs|ns|[ywdhms])")


class DurationError(ValueError):
    """Text that is no duration; the message says what was expected and found."""


def seconds_of(text: object) -> int:
    """Seconds of a duration; less than a second counts as none. Raises DurationError."""
    if isinstance(text, str) and text.strip() == "0":
        return 0
    if not isinstance(text, str):
        kind = "a number without a unit" if isinstance(text, int | float) else "no text"
        raise DurationError(f"expected a duration such as 24h, 31d or 1y, found {text!r}, {kind}")
    if text.strip().startswith("-"):
        raise DurationError(f"expected a duration such as 24h, 31d or 1y, found {text!r}, a negative one")
    parts = PART.findall(text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise DurationError(f"expected a duration such as 24h, 31d or 1y, found {text!r}")
    return sum(int(number) * UNITS.get(unit, 0) for number, unit in parts)


def loki_text(seconds: int) -> str:
    """The duration for Loki's configuration, in hours where they are whole."""
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds}s"


def short_text(seconds: int) -> str:
    """The duration for people: ``31d``, ``36h``, ``100y``."""
    for unit in ("y", "d", "h", "m"):
        if seconds and seconds % UNITS[unit] == 0:
            return f"{seconds // UNITS[unit]}{unit}"
    return f"{seconds}s"

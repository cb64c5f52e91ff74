"""Stretches of time as people write them: how far back, or from and to. All times are UTC unless they say otherwise."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime

import typer

SCALE_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

AHEAD_NS = 10**9
"""A range that ends now takes in lines whose host's clock is this much ahead."""

LONGEST_S = 1000 * 366 * 86_400
"""What nobody means; beyond it dates overflow."""

YEARS = range(1970, 9999)
"""A day more or less, or another zone, is a date as well."""

STAMP = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d)?(?:\.(\d{1,9}))?)?([Zz]|[+-]\d\d:\d\d)?")


@dataclass(frozen=True, slots=True)
class Span:
    """[start_ns, end_ns) in nanoseconds since the epoch."""

    start_ns: int
    end_ns: int


def seconds_of(duration: str) -> float:
    """``90s``, ``5m``, ``1h30m``, ``2d`` in seconds. Raises typer.BadParameter naming what is expected."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhdw])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise typer.BadParameter(f"expected a duration such as 90s, 5m, 1h30m or 2d, found {duration!r}")
    seconds = sum(float(number) * SCALE_S[unit] for number, unit in parts)
    if seconds > LONGEST_S:
        raise typer.BadParameter(f"expected a duration of 1000 years at most, found {duration!r}")
    return seconds


def day_of(text: str) -> date:
    """A day, UTC. Raises typer.BadParameter naming what is expected."""
    try:
        day = date.fromisoformat(text)
        _check_year(day.year)
    except ValueError as error:
        raise typer.BadParameter(f"expected a day such as 2026-11-03, found {text!r} ({error})") from None
    return day


def instant_ns(text: str, now_ns: int) -> int:
    """A date, an RFC 3339 time or ``now``, in nanoseconds since the epoch; without an offset it is UTC.

    Raises typer.BadParameter naming what is expected.
    """
    if text == "now":
        return now_ns
    match = STAMP.fullmatch(text)
    try:
        if match is None:
            raise ValueError("unknown form")
        day, minute, second, fraction, offset = match.groups()
        zone = "+00:00" if offset in (None, "Z", "z") else offset
        whole = datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}{zone}")
        _check_year(int(day[:4]))
        _check_year(whole.astimezone(UTC).year)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(
            f"expected a date or an RFC 3339 time such as 2026-11-01 or 2026-11-01T14:02:11Z, found {text!r} ({error})"
        ) from error
    return int(whole.timestamp()) * 10**9 + int((fraction or "0").ljust(9, "0"))


def _check_year(year: int) -> None:
    if year not in YEARS:
        raise ValueError(f"not within {YEARS[0]} to {YEARS[-1]}")


def told(time_ns: int) -> str:
    """``2026-11-01T14:02:11Z``: what ``instant_ns`` reads."""
    return datetime.fromtimestamp(time_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def span_of(since: str | None, from_: str | None, to: str | None, now_ns: int, default: str = "1h") -> Span:
    """The stretch that the options mean. Raises typer.BadParameter for one that is empty or lies in the future."""
    if since is not None and from_ is not None:
        raise typer.BadParameter("give --since or --from, not both")
    end_ns = now_ns + AHEAD_NS if to is None else instant_ns(to, now_ns)
    if from_ is not None:
        start_ns = instant_ns(from_, now_ns)
    else:
        start_ns = min(end_ns, now_ns) - int(seconds_of(since or default) * 1e9)
    if start_ns > now_ns:
        raise typer.BadParameter(f"the range begins in the future: {told(start_ns)}, and now is {told(now_ns)} (UTC)")
    if end_ns <= start_ns:
        raise typer.BadParameter(f"the range ends before it begins: from {told(start_ns)} to {told(end_ns)}")
    return Span(start_ns, end_ns)

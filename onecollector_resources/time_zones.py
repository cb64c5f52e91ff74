"""Names of time zones, as the settings give them and models keep them."""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def check_zone(name: str) -> str:
    """The name of a time zone of the IANA database, as it was given. Raises ValueError, with what is expected."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"expected a time zone such as Europe/Berlin or UTC, found {name!r}") from None
    return name

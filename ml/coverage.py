"""Whether a minute is all there: a drop of everything at once is first of all a question to those who collect.

Lines come late after an outage, and a collector that lags looks like services that fell silent. So a minute in which most
services wrote far less than of late is looked at again until its lines stand still, and one in which nobody wrote
anything was seen by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from ml.live_window import KeptMinute

NOBODY = "no service wrote a line"
"""Why everything is hidden in a minute in which nothing came."""
LOOKED_BACK = 15
"""Minutes that say what is usual."""
LEAST_LINES = 3.0
"""A service that usually writes fewer in a minute says nothing about it."""
LEAST_SERVICES = 3
DROP, WIDE = 0.5, 0.5
"""So much of its usual lines, or less, is a drop; so many of the services, or more, are most of them."""


def usual_lines(minutes: Sequence[KeptMinute]) -> dict[str, float]:
    """Each service's lines in a minute of late, of those with at least ``LEAST_LINES``."""
    # Of a silence that was proved to be real nothing is learned about what is usual: its next minute is a question again.
    seen = [one for one in minutes if not one.blind.everything and any(one.tally.lines.values())][-LOOKED_BACK:]
    if len(seen) < 3:
        return {}
    services = {service for one in seen for service in one.tally.lines}
    usual = {service: float(median(one.tally.lines.get(service, 0) for one in seen)) for service in services}
    return {service: lines for service, lines in usual.items() if lines >= LEAST_LINES}


def wide_drop(lines: Mapping[str, int], usual: Mapping[str, float]) -> bool:
    """Whether most services wrote far less than usual."""
    dropped = sum(lines.get(service, 0) <= DROP * usually for service, usually in usual.items())
    return len(usual) >= LEAST_SERVICES and dropped >= WIDE * len(usual)


def nothing_came(lines: Mapping[str, int], minutes: Sequence[KeptMinute]) -> bool:
    """Whether nobody wrote a line although several always do, or did until nobody could be seen any more."""
    if any(lines.values()) or not minutes:
        return False
    before = minutes[-1].blind
    hidden = before.everything or NOBODY in before.services.values()
    return bool(hidden) or len(usual_lines(minutes)) >= LEAST_SERVICES

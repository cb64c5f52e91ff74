"""A minute of a tenant read and counted, also where a service floods it: then only the first of its lines are read."""

from __future__ import annotations

from collections.abc import Mapping

from ml.minute_tally import MinuteCounter, MinuteTally
from onecollector.scorer.reader import LineReader

MOST_LINES = 2_000_000
"""Lines of a minute that are read; beyond, of the busiest services only the first."""
FLOODED_LINES = 200_000


def counted(reader: LineReader, counter: MinuteCounter, minute: int, lines: Mapping[str, int]) -> MinuteTally:
    """Every line of the minute, of which each service has about so many ``lines``. Raises ReadTrouble."""
    flooded = flooding(lines)
    for batch in reader.lines(minute, without=flooded):
        counter.add(batch)
    for service in flooded:
        read = 0
        for batch in reader.lines(minute, only=[service], most=FLOODED_LINES):
            counter.add(batch)
            read += batch.height
        counter.unread(service, lines[service] - read)
    return counter.done()


def flooding(lines: Mapping[str, int]) -> list[str]:
    """The busiest services, of which only the first lines are read, so that a minute has at most ``MOST_LINES``."""
    total, out = sum(lines.values()), []
    for service, n in sorted(lines.items(), key=lambda pair: (-pair[1], pair[0])):
        if total <= MOST_LINES or n <= FLOODED_LINES:
            break
        out.append(service)
        total -= n - FLOODED_LINES
    return out

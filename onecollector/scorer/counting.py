"""A minute of a tenant read and counted, also where a service floods it: then only the first of its lines are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from onecollector.scorer.reader import LineReader

if TYPE_CHECKING:
    import polars as pl

MOST_LINES = 2_000_000
"""Lines of a minute that are read; beyond, of the busiest services only the first."""
FLOODED_LINES = 200_000


class Counter(Protocol):
    """What lines are counted with: a MinuteCounter, or one like it."""

    def add(self, lines: pl.DataFrame) -> None: ...
    def unread(self, service: str, lines: int) -> None: ...


def count(
    reader: LineReader, counters: Sequence[Counter], minute: int, lines: Mapping[str, int], only: Sequence[str] = ()
) -> None:
    """Every line of the minute, of which each service has about so many ``lines``, into all counters. Raises ReadTrouble.

    Of the services ``only``, if there are any.
    """
    flooded = flooding({service: lines[service] for service in only} if only else lines)
    calm = [service for service in only if service not in flooded]
    if calm or not only:
        for batch in reader.lines(minute, only=calm, without=[] if only else flooded):
            for counter in counters:
                counter.add(batch)
    for service in flooded:
        read = 0
        for batch in reader.lines(minute, only=[service], most=FLOODED_LINES):
            for counter in counters:
                counter.add(batch)
            read += batch.height
        for counter in counters:
            counter.unread(service, lines[service] - read)


def flooding(lines: Mapping[str, int]) -> list[str]:
    """The busiest services, of which only the first lines are read, so that a minute has at most ``MOST_LINES``."""
    total, out = sum(lines.values()), []
    for service, n in sorted(lines.items(), key=lambda pair: (-pair[1], pair[0])):
        if total <= MOST_LINES or n <= FLOODED_LINES:
            break
        out.append(service)
        total -= n - FLOODED_LINES
    return out

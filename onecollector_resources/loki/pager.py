"""What to ask Loki for next, so that every line of a window comes out once: decisions alone, over pages that came in.

A page that is not full holds all that was asked for. Of a full one the lines of its last instant are left out and asked
for again, because more of them may follow: so no line is told from another by less than all of it, and none is stepped
over. An instant that fills a page by itself is asked for alone, with the largest page there is, and then in parts by
conditions and their opposites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onecollector_resources.loki.splits import Condition, Row, best_cut

LEAST_SPAN_NS = 1_000_000
"""A span is not halved below this for being slow: what is slow then is the number of lines."""


class TooManyAtOnce(RuntimeError):
    """Lines of one instant that cannot be asked for in parts."""


@dataclass(frozen=True, slots=True)
class Request:
    """Lines in [start_ns, end_ns) under all of ``conditions``, the first ``limit`` of them."""

    start_ns: int
    end_ns: int
    limit: int
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """What a page says to the pager: how many rows, and the last one's time (0 without rows)."""

    rows: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with a page: keep its rows before ``keep_before_ns``, then ask for ``follow``, the earliest first."""

    keep_before_ns: int
    follow: tuple[Request, ...] = ()


def advance(request: Request, found: Found, largest: int, rows: Callable[[], Sequence[Row]]) -> Step:
    """The step after a page. ``largest``: the most rows that Loki gives in one; ``rows`` answers the page's rows, and
    is asked only where an instant must be cut. Raises TooManyAtOnce naming the instant.
    """
    if found.rows < request.limit:
        return Step(request.end_ns)
    at = found.last_ns
    if at > request.start_ns:
        return Step(at, (replace(request, start_ns=at),))
    # All of it is one instant, and perhaps not all of the instant.
    instant = replace(request, end_ns=at + 1, limit=max(largest, request.limit))
    after = (replace(request, start_ns=at + 1),) if request.end_ns > at + 1 else ()
    if request.limit < instant.limit:
        return Step(at, (instant, *after))
    condition = best_cut(rows())
    if condition is None:
        raise TooManyAtOnce(
            f"{found.rows:,} lines at {at} ns fill a page of {request.limit:,}, and nothing in them can be asked for in "
            "parts; raise max_entries_limit_per_query for this tenant"
        )
    sides = (condition, condition.opposite())
    parts = tuple(replace(instant, conditions=(*request.conditions, side)) for side in sides)
    return Step(at, (*parts, *after))


def smaller(request: Request) -> Request:
    """The same with half the rows a page: for a page that was too much for Loki, or for the way."""
    return replace(request, limit=max(1, request.limit // 2))


def shorter(request: Request) -> tuple[Request, ...]:
    """The same in two halves of its time; itself where it is short already."""
    if request.end_ns - request.start_ns <= LEAST_SPAN_NS:
        return (request,)
    middle = (request.start_ns + request.end_ns) // 2
    return replace(request, end_ns=middle), replace(request, start_ns=middle)

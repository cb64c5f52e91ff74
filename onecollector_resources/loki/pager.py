"""What to ask Loki for next, so that every line of a window comes out once: decisions alone, over pages that came in.

A page that is not full holds all that was asked for. Of a full one the lines of its last instant are left out and asked
for again, because more of them may follow: so no line is told from another by less than all of it, and none is stepped
over. Loki 3.7.8 does not look into a chunk that ends in the millisecond that a query begins in, so every question begins
before that millisecond, and what lies before the window is dropped. Where such lines, or those of the first instant,
fill a page, the next millisecond is read from its end backwards: then they come last, and are in nobody's way. An
instant that fills a page by itself is asked for in parts, by conditions and their opposites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onecollector_resources.loki.splits import Condition, Row, best_cut

MS = 1_000_000
LEAST_SPAN_NS = MS
"""A span is not halved below this for being slow: what is slow then is the number of lines."""


class TooManyAtOnce(RuntimeError):
    """Lines of one instant that cannot be asked for in parts."""


@dataclass(frozen=True, slots=True)
class Request:
    """Lines in [start_ns, end_ns) under all of ``conditions``, the first (``backward``: last) ``limit`` of them."""

    start_ns: int
    end_ns: int
    limit: int
    conditions: tuple[Condition, ...] = ()
    backward: bool = False

    @property
    def asked_from_ns(self) -> int:
        """Where the question to Loki begins: before the millisecond of the start, by as little as can be."""
        return max(0, self.start_ns // MS * MS - 1)

    @property
    def plain(self) -> bool:
        """Whether all before it has been read once it is the next."""
        return not self.conditions and not self.backward


@dataclass(frozen=True, slots=True)
class Found:
    """What a page says to the pager: how many rows, and the earliest and the latest time (0 without rows).

    Rows from before the request's start count.
    """

    rows: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with a page: keep its rows in [keep_from_ns, keep_before_ns), then ask for ``follow``, in this order."""

    keep_from_ns: int
    keep_before_ns: int
    follow: tuple[Request, ...] = ()


def stuck(request: Request, found: Found) -> bool:
    """Whether a page has nothing that can be kept: what fills it lies at the start or before."""
    return not request.backward and found.rows >= request.limit and found.last_ns <= request.start_ns


def advance(request: Request, found: Found, largest: int, rows: Callable[[], Sequence[Row]]) -> Step:
    """The step after a page. ``largest``: the most rows that Loki gives in one; ``rows`` answers the page's rows, and
    is asked only where an instant must be cut. Raises TooManyAtOnce naming the instant.
    """
    if found.rows < request.limit:
        return Step(request.start_ns, request.end_ns)
    if request.backward:
        return _backward(request, found, rows)
    at = found.last_ns
    if not stuck(request, found):
        return Step(request.start_ns, at, (replace(request, start_ns=at),))
    near_end = min(request.end_ns, request.start_ns // MS * MS + MS)
    near = replace(request, end_ns=near_end, limit=max(largest, request.limit), backward=request.limit >= largest)
    after = (replace(request, start_ns=near_end),) if near_end < request.end_ns else ()
    return Step(request.start_ns, request.start_ns, (near, *after))


def _backward(request: Request, found: Found, rows: Callable[[], Sequence[Row]]) -> Step:
    at = found.first_ns
    if at < request.start_ns:
        return Step(request.start_ns, request.end_ns)
    if found.last_ns > at:
        return Step(at + 1, request.end_ns, (replace(request, end_ns=at + 1),))
    condition = best_cut(rows())
    if condition is None:
        raise TooManyAtOnce(
            f"{found.rows:,} lines at {at} ns fill a page of {request.limit:,}, and nothing in them can be asked for in "
            "parts; raise max_entries_limit_per_query for this tenant"
        )
    instant = replace(request, start_ns=at, end_ns=at + 1)
    sides = (condition, condition.opposite())
    parts = tuple(replace(instant, conditions=(*request.conditions, side)) for side in sides)
    before = (replace(request, end_ns=at),) if at > request.start_ns else ()
    return Step(at + 1, at + 1, (*parts, *before))


def smaller(request: Request) -> Request:
    """The same with half the rows a page: for a page that was too much for Loki, or for the way."""
    return replace(request, limit=max(1, request.limit // 2))


def shorter(request: Request) -> tuple[Request, ...]:
    """The same in two halves of its time; itself where it is short already."""
    if request.end_ns - request.start_ns <= LEAST_SPAN_NS:
        return (request,)
    middle = (request.start_ns + request.end_ns) // 2
    return replace(request, end_ns=middle), replace(request, start_ns=middle)

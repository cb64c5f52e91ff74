"""Every line of a range, each once, whatever the size of a page and however many lines share one nanosecond.

Pages overlap by one instant, so none is stepped over; lines are told apart by all parts of their identity. A page that
is full of a single instant may not be all of it: then the instant is cut into parts by what its lines say until each
part fits into a page. In what order Loki keeps the lines of one instant does not matter to any of this.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from onecollector_resources.loki import calls, procedures
from onecollector_resources.loki.answers import Entry, Identity
from onecollector_resources.loki.calls import Call, Direction
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.loki.logql import LogqlError
from onecollector_resources.loki.splits import Row, best_cut

PAGE = 20_000
"""Lines in a page: larger ones save nothing more, smaller ones make Loki read the same blocks again."""

SMALLEST_PAGE = 50
"""Below that it is not the size of the answer that Loki fails at."""

MOST_PARTS = 2_000
"""Queries for one instant before it is given up."""

Pages = Generator[Call[Any] | tuple[Entry, ...], Any, None]
"""Yields calls, whose results it is sent, and lines, each batch in the order that was asked for."""


def pages(
    query: str,
    start_ns: int,
    end_ns: int,
    *,
    page: int = PAGE,
    direction: Direction = "forward",
    most: int | None = None,
) -> Pages:
    """Lines of a log query in [start_ns, end_ns), each once, by time; the first ``most`` of them where given.

    Raises LokiError where Loki does, and where an instant has more lines than a page and they cannot be told apart by
    anything that can be asked for.
    """
    low, high, size, left = start_ns, end_ns, page, most
    border: set[Identity] = set()
    while low < high and left != 0:
        # Lines of the border come again, whatever is wanted comes after them.
        wanted = size if left is None else min(size, left + len(border))
        try:
            found = yield calls.entries(query, low, high, wanted, direction)
        except LokiError as error:
            size = _smaller(wanted, error)
            continue
        batch = sorted(found, key=lambda entry: entry.time_ns, reverse=direction == "backward")
        fresh = _unseen(batch, border)
        whole = len(batch) < wanted
        enough = left is not None and len(fresh) >= left
        at = batch[-1].time_ns if batch else low
        if not whole and not enough and batch[0].time_ns == at:
            fresh = _unseen((yield from _instant(query, at, size)), border)
            low, high = (at + 1, high) if direction == "forward" else (low, at)
            border = set()
        else:
            low, high = (at, high) if direction == "forward" else (low, at + 1)
            border = {entry.identity() for entry in batch if entry.time_ns == at}
        if left is not None:
            fresh = fresh[:left]
            left -= len(fresh)
        if fresh:
            yield tuple(fresh)
        if whole:
            return


def _unseen(batch: list[Entry], seen: set[Identity]) -> list[Entry]:
    known = set(seen)
    fresh = []
    for entry in batch:
        identity = entry.identity()
        if identity not in known:
            known.add(identity)
            fresh.append(entry)
    return fresh


def _smaller(page: int, error: LokiError) -> int:
    """The size of the next try. Raises the error where a smaller page would not help."""
    limit = error.most_entries
    if limit is not None and limit < page:
        return limit
    # A message over the size that Loki's parts send each other is no error to it: it hangs, and closes the connection.
    if page > SMALLEST_PAGE and (error.cut or (error.status or 0) >= 500):
        return max(SMALLEST_PAGE, page // 2)
    raise error


def _instant(query: str, time_ns: int, size: int) -> Generator[Call[Any], Any, list[Entry]]:
    """All lines of one nanosecond, which are ``size`` or more."""
    size = max(size, (yield from _largest_page(size)))
    found: list[Entry] = []
    parts, asked = [query], 0
    while parts:
        part = parts.pop()
        asked += 1
        try:
            entries = yield calls.entries(part, time_ns, time_ns + 1, size, "forward")
        except LokiError as error:
            size = _smaller(size, error)
            parts.append(part)
            continue
        if len(entries) < size:
            found += entries
            continue
        condition = best_cut([Row(entry.labels, entry.line, entry.metadata) for entry in entries])
        if condition is None or asked > MOST_PARTS:
            raise LokiError(
                f"more than {size} lines at {time_ns} ns cannot be told apart; "
                "raise max_entries_limit_per_query of the tenant, or ask for fewer streams"
            )
        try:
            parts += [condition.added_to(part), condition.opposite().added_to(part)]
        except LogqlError as error:
            raise LokiError(f"more than {size} lines at {time_ns} ns; the query cannot be cut: {error}") from error
    return found


def _largest_page(size: int) -> Generator[Call[Any], Any, int]:
    try:
        limits = yield from procedures.limits()
    except LokiError as error:
        if error.away:
            raise
        return size
    return limits.max_entries or size

"""Every line of a range as entries, each once, in the order that is asked for: the pager's requests as calls.

What Loki itself holds twice (in two shards of a stream) comes out once: lines are told apart by all parts of their
identity. In what order Loki keeps the lines of one instant does not matter to any of this.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any

from onecollector_resources.loki import calls, procedures
from onecollector_resources.loki.answers import Entry, Identity
from onecollector_resources.loki.calls import Call, Direction
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.loki.logql import LogqlError
from onecollector_resources.loki.pager import Found, Request, Step, TooManyAtOnce, advance, stuck
from onecollector_resources.loki.splits import Row, query_of

PAGE = 20_000
"""Lines in a page: larger ones save nothing more, smaller ones make Loki read the same blocks again."""

SMALLEST_PAGE = 50
"""Below that it is not the size of the answer that Loki fails at."""

SPARE = 20
"""Lines over what is wanted: some may be doubles, or lie before the range."""

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
    backward, left = direction == "backward", most
    largest: int | None = None
    limit = page if most is None else min(page, most + SPARE)
    todo = [Request(start_ns, end_ns, limit, backward=backward)] if start_ns < end_ns and most != 0 else []
    held: list[Entry] = []
    parts = 0
    while todo:
        request = todo.pop()
        try:
            found = yield _call(query, request)
        except LokiError as error:
            largest = _smaller(request.limit, error)
            todo.append(replace(request, limit=largest))
            continue
        inside = [entry for entry in found if entry.time_ns >= request.start_ns]
        if left is not None and not held and _usual(request, backward) and len(_each_once(inside)) >= left:
            # Which of the lines of its last instant are the first is for nobody to say.
            yield _in_order(inside, backward)[:left]
            return
        known = _found(found)
        if largest is None and stuck(request, known):
            largest = yield from _largest_page(page)
        step = _step(request, known, largest or request.limit, found)
        held += [entry for entry in inside if step.keep_from_ns <= entry.time_ns < step.keep_before_ns]
        todo += step.follow[::-1]
        parts = parts + 1 if request.conditions else 0
        if parts > MOST_PARTS:
            raise LokiError(f"more than {MOST_PARTS} queries for {request.start_ns} ns; ask for fewer streams")
        if held and (not todo or (len(todo) == 1 and _usual(todo[0], backward))):
            batch, held = _in_order(held, backward)[:left], []
            left = None if left is None else left - len(batch)
            yield batch
            if left == 0:
                return


def _usual(request: Request, backward: bool) -> bool:
    """Whether all that comes before it in the order that is asked for was read before it."""
    return not request.conditions and request.backward == backward


def _call(query: str, request: Request) -> Call[tuple[Entry, ...]]:
    try:
        asked = query_of(query, request.conditions)
    except LogqlError as error:
        raise LokiError(f"more lines at {request.start_ns} ns than a page; the query cannot be cut: {error}") from error
    way: Direction = "backward" if request.backward else "forward"
    return calls.entries(asked, request.asked_from_ns, request.end_ns, request.limit, way)


def _found(entries: tuple[Entry, ...]) -> Found:
    times = [entry.time_ns for entry in entries]
    return Found(len(times), min(times, default=0), max(times, default=0))


def _step(request: Request, found: Found, largest: int, entries: tuple[Entry, ...]) -> Step:
    try:
        return advance(
            request, found, largest, lambda: [Row(entry.labels, entry.line, entry.metadata) for entry in entries]
        )
    except TooManyAtOnce as error:
        raise LokiError(f"{error}, or ask for fewer streams") from error


def _in_order(entries: list[Entry], backward: bool) -> tuple[Entry, ...]:
    return tuple(sorted(_each_once(entries), key=lambda entry: entry.time_ns, reverse=backward))


def _each_once(entries: list[Entry]) -> list[Entry]:
    first: dict[Identity, Entry] = {}
    for entry in entries:
        first.setdefault(entry.identity(), entry)
    return list(first.values())


def _smaller(page: int, error: LokiError) -> int:
    """The size of the next try. Raises the error where a smaller page would not help."""
    limit = error.most_entries
    if limit is not None and limit < page:
        return limit
    # A message over the size that Loki's parts send each other is no error to it: it hangs, and closes the connection.
    if page > SMALLEST_PAGE and (error.cut or (error.status or 0) >= 500):
        return max(SMALLEST_PAGE, page // 2)
    raise error


def _largest_page(size: int) -> Generator[Call[Any], Any, int]:
    try:
        limits = yield from procedures.limits()
    except LokiError as error:
        if error.away:
            raise
        return size
    return max(size, limits.max_entries or size)

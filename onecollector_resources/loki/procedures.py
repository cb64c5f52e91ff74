"""What takes more than one call: the tenant's limits, how many lines a query has, and deleting lines.

A procedure is a generator that yields calls and is sent their results (or thrown their LokiError); it never sends
anything itself, so the waiting client and the one for asyncio run the same ones.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from onecollector_resources.loki import calls
from onecollector_resources.loki.calls import API, Call, json_of
from onecollector_resources.loki.catalogue import TenantLimits
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.loki.logql import LogqlError, parse

T = TypeVar("T")
Procedure = Generator[Call[Any], Any, T]

COUNTED_BYTES = 500 * 10**6
"""A range of more bytes is estimated from the index: counting reads every line of it."""


NO_DELETION = "it deletes nothing (compactor.retention_enabled, limits_config.deletion_mode)"


@dataclass(frozen=True, slots=True)
class LineCount:
    """How many lines a query has; ``exact`` where Loki counted them, else what its index holds of the selector."""

    lines: int
    exact: bool


@dataclass(frozen=True, slots=True)
class DeleteRequest:
    """A request to delete lines of ``query`` in [start_ns, end_ns], nanoseconds since the epoch.

    ``status`` is ``received``, ``processed`` or what Loki calls a part of it. Loki hides the lines from queries when
    it next reads its requests, and deletes them after its cancel period, 24 h by default.
    """

    id: str
    query: str
    start_ns: int
    end_ns: int
    status: str
    created_ns: int


def limits() -> Procedure[TenantLimits]:
    """The tenant's limits. Raises LokiError where Loki tells them on neither of its two paths."""
    try:
        return (yield calls.drilldown_limits())
    except LokiError as error:
        if error.away:
            raise
    return (yield calls.configured_limits())


def count(query: str, start_ns: int, end_ns: int) -> Procedure[LineCount]:
    """How many lines a log query has in [start_ns, end_ns), to the millisecond: counted, or for large ranges estimated from the index.

    A hint, no oracle: Loki counts lines that its queries leave out as doubles. Raises LokiError.
    """
    try:
        selector = parse(query).selector
    except LogqlError as error:
        raise LokiError(f"expected a log query: {error}") from error
    stats = yield calls.stats(selector, start_ns, end_ns)
    try:
        # What is not flushed yet is in no index, but in this.
        size = sum(volume.bytes for volume in (yield calls.volume(selector, start_ns, end_ns)))
    except LokiError as error:
        if error.away:
            raise
        size = 0
    if max(size, stats.bytes) <= COUNTED_BYTES:
        # A range [w] at T covers (T - w, T].
        counting = f"sum(count_over_time({query}\n[{-(-(end_ns - start_ns) // 10**6)}ms]))"
        try:
            found = yield calls.samples(counting, end_ns - 1)
        except LokiError as error:
            # A line that a stage of the query cannot read makes numbers of it impossible, lines are still given.
            if error.away:
                raise
        else:
            return LineCount(int(sum(sample.value for sample in found)), True)
    return LineCount(stats.entries, False)


def delete_requests() -> Call[list[DeleteRequest]]:
    """Delete requests of the tenant, in Loki's order. Raises LokiError, with status 404 where deletion is off."""

    def read(answer: Any) -> list[DeleteRequest]:
        return [
            DeleteRequest(
                row["request_id"],
                row["query"],
                _ns(row["start_time"]),
                _ns(row["end_time"]),
                row["status"],
                _ns(row.get("created_at") or 0),
            )
            for row in answer or []
        ]

    return Call(f"{API}/delete", json_of(read), absent=NO_DELETION)


def delete_lines(query: str, start_ns: int, end_ns: int) -> Procedure[DeleteRequest]:
    """Ask Loki to delete the lines of a log query in [start_ns, end_ns], both ends in, rounded inwards to milliseconds.

    The query is checked first: Loki takes one that is wrong, and then fails at each query of the tenant. Loki answers
    without an id, so the request is looked for in its list. One that waits already is not made again. Raises LokiError.
    """
    start_ms, end_ms = -(-start_ns // 10**6), end_ns // 10**6
    if end_ms < start_ms:
        raise LokiError(f"expected a range that ends after it starts, found {start_ns} to {end_ns} ns")
    try:
        parse(query)
    except LogqlError as error:
        raise LokiError(f"expected a log query: {error}") from error
    yield calls.format_query(query)
    before = yield delete_requests()
    waiting = _matching([one for one in before if one.status == "received"], query, start_ms, end_ms)
    if waiting is not None:
        return waiting
    known = {one.id for one in before}
    params = {"query": query, "start": _rfc3339(start_ms), "end": _rfc3339(end_ms)}
    yield Call(f"{API}/delete", lambda _: None, params, query, "POST", NO_DELETION)
    made = _matching([one for one in (yield delete_requests()) if one.id not in known], query, start_ms, end_ms)
    if made is None:
        raise LokiError(
            f"Loki took the request to delete {query} and does not list it; look again with delete_requests"
        )
    return made


def cancel_delete(request_id: str, *, force: bool = False) -> Call[None]:
    """Take a request back; with ``force`` also what is left of one that is half done. Raises LokiError."""
    params = {"request_id": request_id, "force": "true" if force else None}
    return Call(f"{API}/delete", lambda _: None, params, "", "DELETE")


def _matching(found: list[DeleteRequest], query: str, start_ms: int, end_ms: int) -> DeleteRequest | None:
    wanted = (query.strip(), start_ms, end_ms)
    return next(
        (one for one in found if (one.query.strip(), one.start_ns // 10**6, one.end_ns // 10**6) == wanted), None
    )


def _rfc3339(ms: int) -> str:
    # Loki takes seconds as whole numbers alone.
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03d}Z"


def _ns(seconds: float) -> int:
    return round(float(seconds) * 1e3) * 10**6

"""Which partitions a range of lines falls into: hours from the clock, services from Loki, so none is forgotten.

Services are asked for hour by hour; Loki may name some that have no line in it. Every hour has the partition of lines
without a service, mostly with an empty file: "nothing was there" is written down and does not look like "nobody looked".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from onecollector_resources.exports.partitions import Partition, hours_between
from onecollector_resources.exports.sources import Selection

SERVICE_LABEL = "service_name"


class PlanError(ValueError):
    """The range or the query cannot be exported; the message says what was expected and found."""


class Services(Protocol):
    """What is asked of Loki."""

    def label_values(
        self, name: str, query: str | None = None, start_ns: int | None = None, end_ns: int | None = None
    ) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants exported: lines of ``query`` in [start_ns, end_ns) of one tenant.

    ``selector`` is the query's stream selector alone.
    """

    tenant: str
    query: str
    selector: str
    start_ns: int
    end_ns: int


def check_range(start_ns: int, end_ns: int, now_ns: int) -> None:
    """Raise PlanError for a range that ends before it starts or lies in the future."""

    def told(ns: int) -> str:
        return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

    if end_ns <= start_ns:
        raise PlanError(f"expected a range that ends after it starts, found {told(start_ns)} to {told(end_ns)}")
    if start_ns >= now_ns:
        raise PlanError(
            f"expected a range in the past, found one that starts at {told(start_ns)}; now is {told(now_ns)}"
        )


def plan(request: Request, loki: Services) -> list[Selection]:
    """One selection per service and hour, by hour; raises LokiError."""
    selections: list[Selection] = []
    for hour in hours_between(request.start_ns, request.end_ns):
        whole = Partition(request.tenant, "", hour)
        start_ns, end_ns = max(whole.start_ns, request.start_ns), min(whole.end_ns, request.end_ns)
        services = set(loki.label_values(SERVICE_LABEL, request.selector, start_ns, end_ns))
        selections += _of_hour(request, hour, sorted({"", *services}), start_ns, end_ns)
    return selections


def _of_hour(request: Request, hour: datetime, services: Iterable[str], start_ns: int, end_ns: int) -> list[Selection]:
    return [
        Selection(Partition(request.tenant, service, hour), request.query, start_ns, end_ns) for service in services
    ]

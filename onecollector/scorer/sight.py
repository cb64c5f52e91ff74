"""Whose lines of a minute may be missing, as the registry knows it: gaps, sources that are not whole, agents that are away.

A service is hidden as soon as one of its sources is: what the others wrote says nothing about all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ml.live_window import Blind
from onecollector_resources.records import Gap, LogSource
from onecollector_resources.registry.store import LogSourceRegistry

AGENT_AWAY = timedelta(minutes=3)
"""An agent tells everything once a minute."""


class Sight(Protocol):
    """Raises RegistryError."""

    def blind(self, tenant: str, first: int, end: int, now: float) -> dict[int, Blind]:
        """Who is hidden in each minute of [first, end) that hides anybody."""
        ...


@dataclass(frozen=True, slots=True)
class RegistrySight:
    """A Sight out of the registry."""

    registry: LogSourceRegistry

    def blind(self, tenant: str, first: int, end: int, now: float) -> dict[int, Blind]:
        since = datetime.fromtimestamp(first * 60, UTC)
        gaps = self.registry.list_gaps(since=since)
        sources = self.registry.lookup_sources(tenant=tenant)
        agents = {row["host"]: (row["last_seen"], row["health"]) for row in self.registry.agents()}
        return hidden(tenant, gaps, sources, agents, first, end, datetime.fromtimestamp(now, UTC))


def hidden(
    tenant: str,
    gaps: Sequence[Gap],
    sources: Sequence[LogSource],
    agents: dict[str, tuple[datetime, str]],
    first: int,
    end: int,
    now: datetime,
) -> dict[int, Blind]:
    """Pure. What is so now holds for the minutes since the agent was heard of; for a source, for the last two."""
    found: dict[int, dict[str, str]] = {}

    def hide(service: str, low: datetime, high: datetime, why: str) -> None:
        for minute in range(max(first, _minute(low)), min(end, _minute(high) + 1)):
            found.setdefault(minute, {}).setdefault(service, why)

    for gap in gaps:
        if gap.tenant == tenant:
            hide(gap.service, gap.started, gap.ended, gap.cause)
    for source in sources:
        if source.phase != "collecting":
            continue
        seen, health = agents.get(source.host, (now, "ok"))
        if now - seen > AGENT_AWAY:
            hide(source.service, seen, now, f"the agent of {source.host} is away")
        elif health == "degraded":
            hide(source.service, now - timedelta(minutes=2), now, f"the collector of {source.host} is not well")
        elif source.flow == "suspect":
            hide(source.service, now - timedelta(minutes=2), now, source.flow_reason or "lines are missing in Loki")
    return {minute: Blind("", services) for minute, services in found.items()}


def _minute(time: datetime) -> int:
    return int(time.timestamp() // 60)

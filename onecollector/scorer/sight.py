"""Whose lines of a minute may be missing, as the registry knows it: gaps, sources that are not whole, agents that are away.

A service is hidden as soon as one of its sources is: what the others wrote says nothing about all of it. And up to when
nothing is missing: twice a minute the records that every source wrote are held against what Loki has of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ml.live_window import Blind
from onecollector_resources.health.memory import PROVED_AT
from onecollector_resources.records import Gap, LogSource
from onecollector_resources.registry.store import LogSourceRegistry

AGENT_AWAY = timedelta(minutes=3)
"""An agent tells everything once a minute."""
COMPLETE = ("proved", "silent")
"""Flows of sources of which Loki has every record."""


@dataclass(frozen=True, slots=True)
class Whole:
    """Nothing is missing up to minute ``through`` of ``services``, those that are collected here; -1: nobody knows."""

    through: int = -1
    services: frozenset[str] = frozenset()


class Sight(Protocol):
    """Raises RegistryError."""

    def blind(self, tenant: str, first: int, end: int, now: float) -> dict[int, Blind]:
        """Who is hidden in each minute of [first, end) that hides anybody."""
        ...

    def whole(self, tenant: str, now: float) -> Whole:
        """Up to when Loki has all that the tenant's sources wrote."""
        ...


@dataclass(frozen=True, slots=True)
class RegistrySight:
    """A Sight out of the registry."""

    registry: LogSourceRegistry

    def blind(self, tenant: str, first: int, end: int, now: float) -> dict[int, Blind]:
        since = datetime.fromtimestamp(first * 60, UTC)
        gaps = self.registry.list_gaps(since=since)
        sources = self.registry.lookup_sources(tenant=tenant)
        return hidden(tenant, gaps, sources, self._agents(), first, end, datetime.fromtimestamp(now, UTC))

    def whole(self, tenant: str, now: float) -> Whole:
        # The mark first: what is proved after it was set is proved of more.
        proved_at = self.registry.get_mark(PROVED_AT)
        sources = self.registry.lookup_sources(tenant=tenant)
        return proved(sources, self._agents(), proved_at, datetime.fromtimestamp(now, UTC))

    def _agents(self) -> dict[str, tuple[datetime, str]]:
        """When each host's agent was heard of, and how it is."""
        return {row["host"]: (row["last_seen"], row["health"]) for row in self.registry.agents()}


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


def proved(
    sources: Sequence[LogSource], agents: dict[str, tuple[datetime, str]], proved_at: float, now: datetime
) -> Whole:
    """Pure. ``proved_at`` (epoch seconds): when the records were counted that Loki's lines were last held against."""
    mine = [source for source in sources if source.phase not in ("gone", "uncollectable")]
    if not mine or any(source.phase == "waiting" or source.flow not in COMPLETE for source in mine):
        return Whole()
    known = [agents.get(source.host) for source in mine]
    if not all(agent is not None and agent[1] == "ok" and now - agent[0] <= AGENT_AWAY for agent in known):
        return Whole()
    return Whole(int(proved_at // 60) - 1, frozenset(source.service for source in sources))


def _minute(time: datetime) -> int:
    return int(time.timestamp() // 60)

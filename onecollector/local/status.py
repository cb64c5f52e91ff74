"""`status`: one screen that answers "is it well, what is collected, is it all there".

Everything is read from the parts themselves; what cannot be asked is shown as unknown, never as fine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from onecollector.local.engine import engine_health
from onecollector.local.health import ANSWER_S, PartHealth, agent_status, part_health
from onecollector.local.supervisor import Supervisor
from onecollector_resources.collector.metrics import metric_sum
from onecollector_resources.health.memory import PROVED_AT, PROVED_LINES
from onecollector_resources.records import LogSource
from onecollector_resources.registry.store import LogSourceRegistry, RegistryError
from onecollector_resources.runtime import Runtime
from onecollector_resources.settings import Settings


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """How many sources are in which state; ``problem`` where the registry could not be asked."""

    by_state: Mapping[str, int]
    oldest_silent: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """All of `status`."""

    parts: tuple[PartHealth, ...]
    sources: SourceCounts
    proved: int
    provable: int
    proved_at: int
    """When that was looked at last, as epoch seconds; 0: not yet."""
    proved_lines: int
    gaps_24h: int | None
    agent: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether every part is healthy."""
        return bool(self.parts) and all(part.ok for part in self.parts)


def count_sources(sources: Sequence[LogSource]) -> SourceCounts:
    """Counts by the state people are shown, without what is gone."""
    live = [source for source in sources if source.phase != "gone"]
    silent = sorted((s.last_seen or s.first_seen or datetime.now(UTC), s.service) for s in live if s.state == "silent")
    return SourceCounts(Counter(source.state for source in live), silent[0][1] if silent else "")


def _collector_note(runtime: Runtime, agent: Mapping[str, Any]) -> str:
    collector = agent.get("collector", {})
    note = f"config {str(collector.get('config_hash') or '?')[:8]}"
    try:
        text = httpx.get(runtime.collector_metrics_url, timeout=ANSWER_S).text
    except httpx.HTTPError:
        return note
    size, capacity = (
        metric_sum(text, "otelcol_exporter_queue_size"),
        metric_sum(text, "otelcol_exporter_queue_capacity"),
    )
    if size is not None and capacity:
        note += f", queue {100 * size / capacity:.1f} %"
    return note + f", {metric_sum(text, 'otelcol_receiver_refused_log_records_total') or 0:.0f} refused"


def _agent_note(agent: Mapping[str, Any]) -> str:
    counts = agent.get("counts", {})
    return ", ".join(f"{counts.get(key, 0)} {key}" for key in ("containers", "linked", "spooled", "uncollectable"))


def read_status(settings: Settings, runtime: Runtime) -> Status:
    """Ask everybody. Never raises for a part that is away: that is what it reports."""
    supervisor = Supervisor(settings.layout)
    agent = agent_status(settings, runtime) or {}
    parts = []
    engine = engine_health(settings, runtime)
    if engine is not None:
        parts.append(engine)
    for found in part_health(settings, runtime, supervisor):
        part = found
        if part.ok and part.part == "collector":
            part = _noted(part, _collector_note(runtime, agent))
        elif part.ok and part.part == "agent":
            part = _noted(part, _agent_note(agent))
        parts.append(part)
    try:
        registry = LogSourceRegistry(settings.registry_url)
        sources = registry.lookup_sources()
        counts = count_sources(sources)
        live = [source for source in sources if source.phase in ("collecting", "finished")]
        proved = sum(1 for source in live if source.flow == "proved")
        proved_at, proved_lines = registry.get_mark(PROVED_AT), registry.get_mark(PROVED_LINES)
        gaps = len(registry.list_gaps(since=datetime.now(UTC) - timedelta(days=1)))
    except RegistryError as error:
        counts, live, proved, gaps = SourceCounts({}, "", str(error)), [], 0, None
        proved_at = proved_lines = 0
    return Status(tuple(parts), counts, proved, len(live), proved_at, proved_lines, gaps, agent)


def _noted(part: PartHealth, note: str) -> PartHealth:
    return PartHealth(part.part, part.ok, part.pid, part.port, part.memory, part.since, part.log, note)


def human_age(seconds: float) -> str:
    """``12s``, ``3m 10s``, ``2h 04m``, ``5d 3h``."""
    seconds = int(max(0, seconds))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m {seconds % 60:02d}s"
    if seconds < 86_400:
        return f"{seconds // 3600}h {seconds % 3600 // 60:02d}m"
    return f"{seconds // 86_400}d {seconds % 86_400 // 3600}h"


def proved_line(found: Status, now: float) -> str:
    """``4 of 4 sources complete as of 12s ago (1,204 lines)``. ``now`` in epoch seconds."""
    if not found.proved_at:
        return "nothing yet"
    when = human_age(now - found.proved_at)
    return f"{found.proved} of {found.provable} sources complete as of {when} ago ({found.proved_lines:,} lines)"


def sources_line(counts: SourceCounts) -> str:
    """``flowing 201 · silent 10 (oldest: cron) · uncollectable 3 → onecollector sources --state uncollectable``."""
    if counts.problem:
        return counts.problem
    if not counts.by_state:
        return "none yet"
    order = ("flowing", "collecting", "silent", "waiting", "suspect", "uncollectable")
    words = []
    for state in order:
        number = counts.by_state.get(state, 0)
        if number:
            extra = f" (oldest: {counts.oldest_silent})" if state == "silent" and counts.oldest_silent else ""
            words.append(f"{state} {number}{extra}")
    trouble = next((s for s in ("suspect", "uncollectable", "waiting") if counts.by_state.get(s)), None)
    return " · ".join(words) + (f" → onecollector sources --state {trouble}" if trouble else "")

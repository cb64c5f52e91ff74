"""What the registry hears of a host: a row per source, only those that changed, and now and then all of them.

A registry that is away costs nothing but time: gaps wait in the journal, and the first report that gets through tells
everything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from onecollector.agent.journal import AgentJournal
from onecollector_resources.records import CollectMode, LogSource, ObservedSource, Phase
from onecollector_resources.registry.store import LogSourceRegistry, RegistryError

log = structlog.get_logger()

ACTOR = "agent"
FULL_EVERY_S = 60.0


def source_row(host: str, observed: ObservedSource, phase: Phase, mode: CollectMode, reason: str) -> LogSource:
    """A source as the registry shows it."""
    return LogSource(
        host=host,
        source_id=observed.source_id,
        kind=observed.kind,
        name=observed.name,
        safe_name=observed.safe_name,
        tenant=observed.tenant,
        service=observed.service,
        service_raw=observed.service_raw,
        profile=observed.profile,
        multiline=observed.multiline,
        mode=mode,
        path=observed.log_path,
        phase=phase,
        reason=reason,
        image=observed.image,
        labels=dict(observed.labels),
        ended=observed.ended,
    )


class HostReports:
    """Tells the registry of this host. ``problem`` is why it could not the last time, empty where it could."""

    def __init__(self, registry: LogSourceRegistry, journal: AgentJournal) -> None:
        self._registry, self._journal = registry, journal
        self._reported: dict[str, LogSource] = {}
        self._full_due = 0.0
        self.problem = ""

    def report(
        self,
        host: str,
        sources: Iterable[LogSource],
        *,
        complete: bool,
        health: Callable[[], str],
        config_hash: Callable[[], str],
    ) -> None:
        """Tell what changed; every minute, and after the registry was away, everything.

        With ``complete`` false nothing is taken for gone. ``health`` and ``config_hash`` are asked for a full report
        only.
        """
        rows = {row.source_id: row for row in sources}
        full = time.monotonic() >= self._full_due or bool(self.problem)
        try:
            if full:
                self._registry.sync_host(host, list(rows.values()), actor=ACTOR, full=complete)
                self._full_due = time.monotonic() + FULL_EVERY_S
            else:
                changed = [row for key, row in rows.items() if self._reported.get(key) != row]
                gone = [
                    _gone(old)
                    for key, old in self._reported.items()
                    if key not in rows and complete and old.phase != "gone"
                ]
                if changed or gone:
                    self._registry.sync_host(host, [*changed, *gone], actor=ACTOR, full=False)
            self._reported = rows
            gaps = self._journal.gaps(unsent=True)
            if gaps:
                self._registry.record_gaps(gaps, actor=ACTOR)
                self._journal.gaps_sent([gap.key for gap in gaps])
            if full:
                self._registry.record_agent(host, health=health(), effective_hash=config_hash())
            self.problem = ""
        except RegistryError as error:
            if not self.problem:
                log.warning("registry.away", error=str(error))
            self.problem = str(error)


def _gone(old: LogSource) -> LogSource:
    return replace(old, phase="gone", mode="none", reason="no longer on the host", ended=old.ended or datetime.now(UTC))

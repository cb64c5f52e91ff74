"""The evidence of an incident: lines around it, what else happened then, and what could not be had. Nothing here knows Dagster.

It is bounded however large the incident is: a few queries, a few lines of each, cut and without secrets. What Loki does
not give is named, so that nobody takes an empty page for a quiet service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from ml.redaction import redacted
from onecollector_resources.findings.message import iso
from onecollector_resources.findings.records import Incident, MovedTemplate, Notice, StoredFinding
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.records import Gap, LogSource
from onecollector_resources.registry.decision_rows import Rollout
from onecollector_resources.registry.store import LogSourceRegistry

MINUTE = timedelta(minutes=1)
BEFORE, AFTER = 15 * MINUTE, 5 * MINUTE
"""So much around an incident is looked at for what may have caused it."""
FIRST_WITHIN = timedelta(hours=1)
"""A template that is new wrote its first line within this before the finding's window."""
MOST_TEMPLATES = 12
EACH = 3
"""Templates of one finding."""
LINES = 5
MOST_EVENTS = 30
MOST_FINDINGS = 20
NEW = 0.5
"""Of fewer expected lines a template is new, or as good as."""


class Lines(Protocol):
    """A tenant's Loki."""

    def entries(
        self, query: str, start_ns: int, end_ns: int, limit: int = ..., direction: Any = ...
    ) -> Sequence[Entry]:
        """Raises LokiError."""
        ...


@dataclass(frozen=True, slots=True)
class Beside:
    """What the registry knows of the time around an incident."""

    sources: Sequence[LogSource] = ()
    gaps: Sequence[Gap] = ()
    rollouts: Sequence[Rollout] = ()
    notices: Sequence[Notice] = ()
    findings: Sequence[StoredFinding] = ()


def investigate(
    incident: Incident, store: FindingStore, registry: LogSourceRegistry, loki: Callable[[str], Lines], now: datetime
) -> dict[str, Any]:
    """Collect an incident's evidence and keep it with the incident. Raises RegistryError."""
    members = store.of_incident(incident.key)
    beside = beside_of(incident, store, registry)
    try:
        reader = loki(incident.tenant)
    except LokiError as error:
        templates, missing = [], [f"lines of {', '.join(incident.services)}: {error}"]
    else:
        templates, missing = lines_of(members, reader)
    evidence = {
        "collected": iso(now),
        "templates": templates,
        "events": events_of(incident, beside),
        "findings": [
            {"number": one.number, "first": iso(one.finding.first), "sentence": one.finding.sentence}
            for one in beside.findings
        ],
        "missing": missing,
    }
    store.add_evidence(incident.key, evidence)
    return evidence


def beside_of(incident: Incident, store: FindingStore, registry: LogSourceRegistry) -> Beside:
    """What the registry knows. Raises RegistryError."""
    since, until = incident.first - BEFORE, incident.last + AFTER
    others = store.find(incident.tenant, since=since, until=until, limit=MOST_FINDINGS + len(incident.findings))
    return Beside(
        registry.lookup_sources(tenant=incident.tenant),
        [gap for gap in registry.list_gaps(since) if gap.tenant == incident.tenant and gap.started <= until],
        [one for one in registry.rollouts() if one.started <= until and (one.ended is None or one.ended >= since)],
        store.notices(incident.tenant, since, until),
        [one for one in others if one.finding.incident != incident.key][:MOST_FINDINGS],
    )


def lines_of(members: Sequence[StoredFinding], loki: Lines) -> tuple[list[dict[str, Any]], list[str]]:
    """Lines of each template that moved, of new ones the first; and what could not be read, once for each reason."""
    found: list[dict[str, Any]] = []
    missing: dict[str, None] = {}
    for stored, template in list(_templates(members))[:MOST_TEMPLATES]:
        one = stored.finding
        start, end = one.window_first, max(one.window_last, one.last) + MINUTE
        # Of what became rare the last lines tell; of what came, those it came with.
        direction = "backward" if template.observed < template.expected else "forward"
        try:
            lines = loki.entries(template.query, _ns(start), _ns(end), LINES, direction)
            first: Sequence[Entry] = ()
            if template.expected < NEW and template.observed > 0:
                first = loki.entries(template.query, _ns(start - FIRST_WITHIN), _ns(end), 1, "forward")
        except LokiError as error:
            missing[f"lines of {one.service}: {error}"] = None
            continue
        found.append(
            {
                "finding": stored.number,
                "service": one.service,
                "text": template.text,
                "first": _shown(first[0]) if first else None,
                "lines": [_shown(entry) for entry in sorted(lines, key=lambda entry: entry.time_ns)[:LINES]],
            }
        )
    return found, list(missing)


def events_of(incident: Incident, beside: Beside) -> list[dict[str, str]]:
    """What happened around it, by time; what is about the incident's own services goes first where not all can be told."""
    since, until = incident.first - BEFORE, incident.last + AFTER
    events: list[tuple[datetime, bool, str]] = []
    for source in beside.sources:
        mine = source.service in incident.services
        for time, what in ((source.first_seen, "started"), (source.ended, "ended")):
            if time is not None and since <= time <= until:
                events.append((time, mine, f"{source.kind} {source.name} of {source.service} {what}"))
    for gap in beside.gaps:
        lost = f"{gap.lines:,} lines" if gap.lines is not None else "lines"
        events.append((gap.started, gap.service in incident.services, f"{lost} of {gap.service} missing: {gap.cause}"))
    for rollout in beside.rollouts:
        events.append((rollout.started, True, f"config {rollout.hash[:8]} rolled out: {rollout.state}"))
    for notice in beside.notices:
        told = f"deploy or restart of {notice.service}: {notice.templates} new templates"
        events.append((notice.first, notice.service in incident.services, told))
    ranked = sorted(events, key=lambda event: (not event[1], event[0]))
    shown = sorted(ranked[:MOST_EVENTS])
    out = [{"time": iso(time), "what": redacted(what, 200)} for time, _, what in shown]
    if len(ranked) > MOST_EVENTS:
        out.append({"time": iso(until), "what": f"and {len(ranked) - MOST_EVENTS} more events of other services"})
    return out


def _templates(members: Sequence[StoredFinding]) -> Iterable[tuple[StoredFinding, MovedTemplate]]:
    """The heaviest template of each finding, then the second of each: no finding takes all the room."""
    for rank in range(EACH):
        for stored in members:
            if rank < len(stored.finding.templates):
                yield stored, stored.finding.templates[rank]


def _shown(entry: Entry) -> dict[str, str]:
    return {"time": iso(datetime.fromtimestamp(entry.time_ns / 1e9, UTC)), "line": redacted(entry.line)}


def _ns(time: datetime) -> int:
    return int(time.timestamp()) * 10**9

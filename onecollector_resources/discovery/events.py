"""Engine events, and what can be said of the time in which nobody listened.

An event only ever says "look now". What matters after a break is the opposite: whether containers may have come and gone
unseen. The engine remembers its last few events (256, of every kind) in memory only; where they reach back to the time
until which we listened, everything is known, where they do not, one gap says from when to when it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from onecollector_resources.discovery.identity import PREFIX, is_excluded, safe_name, service_of
from onecollector_resources.records import ContainerEvent, Gap

ACTIONS = ("create", "start", "restart", "die", "destroy", "rename")
EVENT_FILTER = {"type": ["container"], "event": list(ACTIONS)}
"""Health checks make three events each; they stay with the engine."""

REMEMBERED = 256
"""Events that an engine remembers (moby, daemon/events: eventsLimit). With fewer of them it has forgotten none."""

MARGIN_NS = 1_000_000_000
"""Events are replayed from this much before the last one seen: their times are not quite in the order of the stream."""


def parse_event(row: Mapping[str, Any]) -> ContainerEvent | None:
    """One event of the engine; None for what is not about a container's life."""
    if row.get("Type", "container") != "container":
        return None
    action = str(row.get("Action") or row.get("status") or "").split(":", maxsplit=1)[0]
    actor = row.get("Actor") or {}
    container_id = actor.get("ID") or row.get("id") or ""
    if action not in ACTIONS or len(container_id) != 64:
        return None
    time_ns = int(row.get("timeNano") or int(row.get("time") or 0) * 1_000_000_000)
    return ContainerEvent("docker", action, container_id, time_ns, dict(actor.get("Attributes") or {}))


@dataclass(frozen=True, slots=True)
class Unheard:
    """A time in which nobody listened. Times in ns on the engine's clock.

    ``since_ns``: until then everything was heard. ``ended_by_engine``: the stream ended because the engine went away, so
    nothing can have been created between its end and the engine's return. ``away``: this process was not there either,
    so nobody linked the files of what was created.
    """

    since_ns: int
    until_ns: int
    ended_by_engine: bool
    away: bool


def forgotten(unheard: Unheard, times_ns: Sequence[int], engine_started_ns: int | None) -> tuple[int, int] | None:
    """(from, to) in which containers may have come and gone unknown; None where the engine remembers it all.

    ``times_ns``: of all that the engine remembers. ``engine_started_ns``: None where it is not known.
    """
    oldest = min(times_ns, default=None)
    if oldest is not None and oldest <= unheard.since_ns:
        return None
    if len(times_ns) >= REMEMBERED:
        return unheard.since_ns, oldest or unheard.until_ns
    # It remembers everything since its start; what was before that start is the question.
    if unheard.ended_by_engine or (engine_started_ns is not None and engine_started_ns <= unheard.since_ns):
        return None
    until = min(t for t in (engine_started_ns, oldest, unheard.until_ns) if t is not None)
    return (unheard.since_ns, until) if until > unheard.since_ns else None


def came_and_went(events: Iterable[ContainerEvent], since_ns: int) -> list[tuple[ContainerEvent, int]]:
    """(create event, time of its destroy in ns) of containers that were created, started and removed after ``since_ns``.

    One that was never started had nothing to say, and an excluded one is nobody's loss.
    """
    created: dict[str, ContainerEvent] = {}
    started: set[str] = set()
    gone: dict[str, int] = {}
    for event in events:
        if event.time_ns <= since_ns:
            continue
        if event.action == "create" and not is_excluded(event.attributes):
            created[event.source_id] = event
        elif event.action == "start":
            started.add(event.source_id)
        elif event.action == "destroy":
            gone[event.source_id] = event.time_ns
    return [(event, gone[key]) for key, event in created.items() if key in started and key in gone]


def gap_of_container(created: ContainerEvent, destroyed_ns: int, host: str) -> Gap:
    """The gap of one container that nobody saw; its name, image and labels are in its event."""
    facts = created.attributes
    name, image = facts.get("name", ""), facts.get("image", "")
    return Gap(
        host=host,
        source_id=created.source_id,
        service=safe_name(service_of(facts, image, name) or created.source_id[:12]),
        tenant=safe_name(facts.get(PREFIX + "tenant") or "default"),
        cause="unknown_containers",
        started=_time(created.time_ns),
        ended=_time(destroyed_ns),
        detail=f"container {name[:100]} of image {image[:100]} came and went while nobody looked",
        key=f"{host}/{created.source_id}/unknown_containers",
    )


def gap_of_unknown(span: tuple[int, int], host: str) -> Gap:
    """The gap of a time that the engine has forgotten."""
    return Gap(
        host=host,
        source_id="",
        service="",
        tenant="",
        cause="unknown_containers",
        started=_time(span[0]),
        ended=_time(span[1]),
        detail="unknown containers: nobody looked, and the engine does not remember this time",
        key=f"{host}//unknown_containers/{span[0]}",
    )


def _time(time_ns: int) -> datetime:
    return datetime.fromtimestamp(time_ns / 1e9, UTC)

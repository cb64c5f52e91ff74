"""The health sensor: what Loki shows of each source, and which files are delivered and may go.

Twice a minute it compares what was written with what Loki holds; what is complete the agent is told, so that links of
finished containers go; what changed for people is written to the registry, and nothing for what did not.
"""

import functools
import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import httpx

from onecollector_resources.collector.builder import AGENT_CLASS
from onecollector_resources.collector.leaving import leaving_tenants, let_go
from onecollector_resources.collector.names import CollectorBinaryError
from onecollector_resources.collector.transports import TransportError
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.health.delivery import delivered, gaps_of
from onecollector_resources.health.memory import PROVED_AT, PROVED_LINES
from onecollector_resources.health.monitor import Discarded, judge_flow, rises
from onecollector_resources.health.rounds import ProofRounds
from onecollector_resources.loki.querier import LokiError
from onecollector_resources.registry.store import RegistryError
from onecollector_resources.runtime import RuntimeMissing
from onecollector_resources.settings import SettingsError

ACTOR = "health"
LAST_LINES_MIN = 60
"""So far back Loki is asked, once, when each source spoke last."""


@functools.cache
def _rounds_of(state: str) -> ProofRounds:
    """What this code server remembers of earlier rounds."""
    return ProofRounds()


@dg.sensor(
    name="health",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Proves what arrived, judges each source, and lets delivered files go.",
)
def health(context: dg.SensorEvaluationContext, onecollector: OneCollectorResource) -> dg.SkipReason | dg.SensorResult:
    try:
        return _look(context, onecollector)
    except (
        RegistryError,
        RuntimeMissing,
        SettingsError,
        TransportError,
        LokiError,
        CollectorBinaryError,
        httpx.HTTPError,
    ) as error:
        return dg.SkipReason(f"cannot be judged now: {error}")


def _look(context: dg.SensorEvaluationContext, onecollector: OneCollectorResource) -> dg.SkipReason | dg.SensorResult:
    kept = json.loads(context.cursor) if context.cursor else {}
    settings, registry, transport, monitor = (
        onecollector.settings(),
        onecollector.registry(),
        onecollector.transport(),
        onecollector.monitor(),
    )
    now = datetime.now(UTC)
    before = tuple(Discarded(*row) for row in kept.get("discarded", []))
    after = monitor.discarded()
    risen = rises(before, after)
    records = transport.records()
    rounds = _rounds_of(str(settings.layout.root))
    begun = rounds.memory.empty
    rows, lost = rounds.look(records, onecollector.loki, now, lambda: datetime.now(UTC), monitor.tenants_probed)
    if begun:
        last: dict[str, datetime] = {}
        for tenant in settings.tenants:
            last.update(monitor.last_lines(tenant, LAST_LINES_MIN))
        rounds.memory.seed(last, now - timedelta(minutes=LAST_LINES_MIN))
    last_lines = rounds.memory.last_lines()
    done = transport.delivered(delivered(rows))
    first_seen = {record.source_id: record.first_seen for record in records}
    new_gaps = registry.record_gaps(gaps_of(lost, settings.agent.host_name, now, first_seen), actor=ACTOR)
    by_source: dict[str, list] = {}
    for row in rows:
        by_source.setdefault(row.source_id, []).append(row)
    flows = {
        source.key: judge_flow(
            source, by_source.get(source.source_id, ()), last_lines.get(source.source_id), risen, now
        )
        for source in registry.lookup_sources()
        if source.phase in ("collecting", "finished")
    }
    changed = registry.set_flow(flows, actor=ACTOR)
    empty = _let_drained_go(onecollector, kept.get("empty", []))
    summary = {name: status.state for name, status in monitor.summarize_component_status().items()}
    cursor = json.dumps(
        {
            "discarded": [[d.tenant, d.reason, d.lines] for d in after],
            "summary": summary,
            "empty": empty,
        }
    )
    complete = sum(1 for row in rows if row.complete)
    registry.set_mark(PROVED_AT, int(now.timestamp()))
    registry.set_mark(PROVED_LINES, sum(row.found for row in rows))
    context.log.info(
        "%s of %s files complete, %s delivered, %s flows changed, %s new gaps",
        complete,
        len(rows),
        done,
        changed,
        new_gaps,
    )
    events = []
    if summary != kept.get("summary"):
        events.append(
            dg.AssetObservation(
                "collector_rollout", metadata={"components": summary, "complete files": complete, "files": len(rows)}
            )
        )
    return dg.SensorResult(
        cursor=cursor, asset_events=events, skip_reason=None if events else f"{complete} of {len(rows)} files complete"
    )


def _let_drained_go(onecollector: OneCollectorResource, empty_before: list[str]) -> list[str]:
    """Tenants off the list whose queue was empty at two looks lose their pipeline; answers whose queue is empty now."""
    registry = onecollector.registry()
    leaving = leaving_tenants(registry, onecollector.settings().tenants, AGENT_CLASS)
    if not leaving:
        return []
    queued = onecollector.transport().status()["collector"]["queued"]
    for one in leaving:
        if one.tenant in empty_before and queued.get(one.tenant) == 0:
            let_go(registry, one.tenant)
            registry.record_event("policy", {"drained": one.tenant}, actor=ACTOR)
    return [one.tenant for one in leaving if queued.get(one.tenant) == 0]

"""The health sensor: what Loki shows of each source, and which files are delivered and may go.

Twice a minute it compares what was written with what Loki holds; what is complete the agent is told, so that links of
finished containers go; what changed for people is written to the registry, and nothing for what did not.
"""

import json
from datetime import UTC, datetime, timedelta

import dagster as dg
import httpx

from onecollector_resources.collector.names import CollectorBinaryError
from onecollector_resources.collector.transports import TransportError
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.health.delivery import gaps_of, prove_records
from onecollector_resources.health.monitor import Discarded, judge_flow, rises
from onecollector_resources.loki.querier import LokiError
from onecollector_resources.registry.store import RegistryError
from onecollector_resources.runtime import RuntimeMissing
from onecollector_resources.settings import SettingsError

ACTOR = "health"
SETTLE = timedelta(seconds=60)
"""A finished file is given this long before what is missing counts as lost."""


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
    rows = prove_records(records, onecollector.loki, now)
    done = transport.delivered(
        [(row.source_id, row.segment, row.records) for row in rows if row.complete and row.final]
    )
    old = {r.source_id: r.first_seen for r in records if now - r.first_seen > SETTLE}
    # A file that has just ended may still be on its way: it is a gap when it was missing in the look before, too.
    missing_before = set(kept.get("missing", []))
    lost = [row for row in rows if row.source_id in old and f"{row.source_id}/{row.segment}" in missing_before]
    new_gaps = registry.record_gaps(gaps_of(lost, settings.agent.host_name, now, old), actor=ACTOR)
    last: dict[str, datetime] = {}
    for tenant in settings.tenants:
        last.update(monitor.last_lines(tenant))
    by_source: dict[str, list] = {}
    for row in rows:
        by_source.setdefault(row.source_id, []).append(row)
    flows = {
        source.key: judge_flow(source, by_source.get(source.source_id, ()), last.get(source.source_id), risen, now)
        for source in registry.lookup_sources()
        if source.phase in ("collecting", "finished")
    }
    changed = registry.set_flow(flows, actor=ACTOR)
    summary = {name: status.state for name, status in monitor.summarize_component_status().items()}
    cursor = json.dumps(
        {
            "discarded": [[d.tenant, d.reason, d.lines] for d in after],
            "summary": summary,
            "missing": sorted(
                f"{r.source_id}/{r.segment}" for r in rows if not r.complete and r.final and not r.behind
            )[:2000],
        }
    )
    complete = sum(1 for row in rows if row.complete)
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

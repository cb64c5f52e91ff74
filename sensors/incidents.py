"""New incidents: one run for each, which collects its evidence while all of it is still there."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from onecollector_assets.incident_runs import OP, investigate_incident
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.registry.store import RegistryError
from onecollector_resources.settings import SettingsError

MOST_AT_ONCE = 10
STALE = timedelta(hours=24)
"""An incident that ended longer ago is not looked into any more: whoever needed the evidence has looked."""


@dg.sensor(
    job=investigate_incident,
    name="new_incidents",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts one investigation for each new incident.",
)
def new_incidents(
    context: dg.SensorEvaluationContext, onecollector: OneCollectorResource
) -> dg.SensorResult | dg.SkipReason:
    seen = int(context.cursor or 0)
    try:
        store = onecollector.findings()
        try:
            incidents = store.incidents_after(seen, MOST_AT_ONCE)
        finally:
            store.disconnect()
    except (RegistryError, SettingsError) as error:
        return dg.SkipReason(f"cannot be looked at now: {error}")
    if not incidents:
        return dg.SkipReason("no new incident")
    fresh = [one for one in incidents if datetime.now(UTC) - one.last < STALE]
    requests = [
        dg.RunRequest(
            run_key=one.key,
            run_config={"ops": {OP: {"config": {"incident": one.key}}}},
            tags={"onecollector/incident": one.key, "onecollector/tenant": one.tenant},
        )
        for one in fresh
    ]
    return dg.SensorResult(run_requests=requests, cursor=str(incidents[-1].number))

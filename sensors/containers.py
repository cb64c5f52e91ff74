"""The long poll: waits inside the tick until the registry changes, then asks for one run for all that changed.

Dagster's loop would look every five seconds at best; waiting inside the tick answers within a tenth of a second. A failed
read is a skip with its reason, never an empty registry.
"""

import json
import time

import dagster as dg

from onecollector_assets.jobs import TAGS, reconcile
from onecollector_assets.sources import MARK
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.registry.store import CONCERNS, RegistryError
from onecollector_resources.runtime import RuntimeMissing
from onecollector_resources.settings import SettingsError
from sensors.decisions import Look, decide

WAIT_S = 18.0
"""Inside Dagster's limit of 60 s for a tick, and long enough that ticks are few."""

QUIET_S = 0.15
"""A burst of starts is one run: wait until nothing changed for this long, at most MOST_S."""

MOST_S = 0.6
WAITING = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]


@dg.sensor(
    job=reconcile,
    name="containers",
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Waits for new and changed containers, files and policies, and starts one reconcile for all of them.",
)
def containers(
    context: dg.SensorEvaluationContext, onecollector: OneCollectorResource
) -> dg.SensorResult | dg.SkipReason:
    requested = int(json.loads(context.cursor)["requested"]) if context.cursor else 0
    end = time.monotonic() + WAIT_S
    try:
        registry = onecollector.registry()
        reconciled = registry.get_mark(MARK)
        floor = max(reconciled, requested)
        newest = registry.wait_for_revision(floor, WAIT_S, CONCERNS)
        if newest > floor:
            burst_end = time.monotonic() + MOST_S
            while time.monotonic() < burst_end:
                later = registry.wait_for_revision(newest, QUIET_S, CONCERNS)
                if later == newest:
                    break
                newest = later
        queued = running = True
        while True:
            queued = context.instance.get_runs_count(dg.RunsFilter(job_name="reconcile", statuses=WAITING)) > 0
            running = (
                context.instance.get_runs_count(
                    dg.RunsFilter(job_name="reconcile", statuses=[dg.DagsterRunStatus.STARTED])
                )
                > 0
            )
            reconciled = registry.get_mark(MARK)
            decision = decide(Look(newest, reconciled, requested, queued, running))
            if decision.request or newest <= reconciled or time.monotonic() > end:
                break
            # Look again in this tick: the next one may be five seconds away.
            time.sleep(0.1)
            newest = max(newest, registry.revision(CONCERNS))
        if not decision.request:
            return dg.SkipReason(decision.why)
        events = registry.events_after(reconciled, 200, CONCERNS)
    except (RegistryError, RuntimeMissing, SettingsError) as error:
        return dg.SkipReason(str(error))
    ids = sorted({event.source_id[:12] for event in events if event.source_id})
    request = dg.RunRequest(
        tags={**TAGS, "onecollector/revision": str(decision.revision), "onecollector/sources": " ".join(ids)[:1000]},
    )
    return dg.SensorResult(run_requests=[request], cursor=json.dumps({"requested": decision.revision}))

"""Schedules: the reconcile that takes nothing for granted, and the daily pruning."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from onecollector_assets.jobs import TAGS, reconcile
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.settings import Settings


@dg.schedule(
    name="reconcile_everything",
    job=reconcile,
    cron_schedule="*/5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every five minutes, whatever happened: a missed event costs latency, never correctness.",
)
def reconcile_everything(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    busy = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
    if context.instance.get_runs_count(dg.RunsFilter(job_name="reconcile", statuses=busy)):
        return dg.SkipReason("a reconcile is under way")
    return dg.RunRequest(tags=TAGS)


@dg.op(description="Removes history from before registry.history_days, and old successful runs.")
def prune_history(context: dg.OpExecutionContext, onecollector: OneCollectorResource) -> None:
    before = datetime.now(UTC) - timedelta(days=onecollector.settings().registry.history_days)
    rows = onecollector.registry().prune(before)
    rows += onecollector.findings().forget(datetime.now(UTC) - _days_of_findings(onecollector.settings()))
    runs = context.instance.get_run_records(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], created_before=before), limit=1000
    )
    # The newest run of each asset keeps its materialisation; only runs that later ones have overtaken are removed.
    kept = {
        event.run_id
        for key in ("log_sources", "collector_config", "collector_rollout", "loki_rules")
        if (event := context.instance.get_latest_materialization_event(dg.AssetKey(key))) is not None
    }
    removed = 0
    for record in runs:
        run_id = record.dagster_run.run_id
        # Deleting a run un-materialises the service partitions that it made: those runs stay.
        made_partitions = any(m.partition for m in _materializations(context.instance, run_id))
        if run_id not in kept and not made_partitions:
            context.instance.delete_run(run_id)
            removed += 1
    context.log.info("removed %s rows and %s runs from before %s", rows, removed, before)


def _days_of_findings(settings: Settings) -> timedelta:
    """Findings are kept as long as models learn from the days that they are about, and as long as other history."""
    return timedelta(days=max(settings.registry.history_days, settings.models.train_days + 1))


def _materializations(instance: dg.DagsterInstance, run_id: str) -> list[dg.AssetMaterialization]:
    events = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION).records
    return [m for record in events if (m := record.event_log_entry.asset_materialization) is not None]


@dg.job(name="prune", executor_def=dg.in_process_executor, description="Keeps registry and run history small.")
def prune() -> None:
    prune_history()


prune_daily = dg.ScheduleDefinition(
    name="prune_daily",
    job=prune,
    cron_schedule="17 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Once a night.",
)

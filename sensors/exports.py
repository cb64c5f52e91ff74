"""When hours are exported: five minutes after each ended, wherever a place for them is set."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from onecollector_assets.exports import KEY, log_exports
from onecollector_resources.dagster_resources import OneCollectorResource
from sensors.preconditions import settings_with

export_hour = dg.define_asset_job(
    "export_hour",
    selection=dg.AssetSelection.assets(log_exports),
    executor_def=dg.in_process_executor,
    tags={"onecollector/plane": "data", "dagster/max_runtime": "7200"},
    description="One hour's lines as Parquet, and earlier hours of which late lines came.",
)


@dg.schedule(
    name="export_hourly",
    job=export_hour,
    cron_schedule="5 * * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every hour where export.out is set. In a Loki of ours the hour is flushed first.",
)
def export_hourly(
    context: dg.ScheduleEvaluationContext, onecollector: OneCollectorResource
) -> dg.RunRequest | dg.SkipReason:
    settings = settings_with(
        onecollector, lambda s: s.export.out, "set export.out to export every hour, such as out: s3://exports"
    )
    if isinstance(settings, dg.SkipReason):
        return settings
    ended = datetime.fromtimestamp(context.scheduled_execution_time.timestamp(), UTC) - timedelta(hours=1)
    key = ended.replace(minute=0, second=0, microsecond=0).strftime(KEY)
    return dg.RunRequest(run_key=key, partition_key=key)

"""When models are learned: a day is counted in the night after it, and every tenant's model trained an hour later.

Training counts for itself what is missing, so a day that was not counted in time costs a longer run and nothing else.
"""

from datetime import UTC, timedelta

import dagster as dg

from onecollector_assets.anomaly_models import TENANTS, count_day, train_models
from onecollector_assets.start_dates import start_date
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.settings import Settings
from sensors.preconditions import settings_with

UNSET = "no hours are exported: set export.out, such as out: s3://exports"


def _exports(settings: Settings) -> str | None:
    return settings.export.out


@dg.schedule(
    name="count_daily",
    job=count_day,
    cron_schedule="37 1 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Templates and minute tallies of the day that ended, where hours are exported.",
)
def count_daily(
    context: dg.ScheduleEvaluationContext, onecollector: OneCollectorResource
) -> dg.RunRequest | dg.SkipReason:
    settings = settings_with(onecollector, _exports, UNSET)
    if isinstance(settings, dg.SkipReason):
        return settings
    day = (context.scheduled_execution_time.astimezone(UTC) - timedelta(days=1)).date().isoformat()
    if day < (first := start_date("models")):
        return dg.SkipReason(f"{day} is before models.start_date, {first}")
    return dg.RunRequest(run_key=f"count {day}", partition_key=day)


@dg.schedule(
    name="train_daily",
    job=train_models,
    cron_schedule="37 2 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every tenant's model, on the days up to yesterday; into production where it passes its gates.",
)
def train_daily(
    context: dg.ScheduleEvaluationContext, onecollector: OneCollectorResource
) -> list[dg.RunRequest] | dg.SkipReason:
    settings = settings_with(onecollector, _exports, UNSET)
    if isinstance(settings, dg.SkipReason):
        return settings
    day = context.scheduled_execution_time.astimezone(UTC).date().isoformat()
    return [
        dg.RunRequest(run_key=f"train {tenant} {day}", partition_key=tenant) for tenant in TENANTS.get_partition_keys()
    ]

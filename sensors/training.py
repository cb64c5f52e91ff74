"""When models are learned and when they serve: a day is counted in the night after it, every tenant's model trained an hour
later, and a candidate judged when it was long enough in the shadow of the model that serves.

Training counts for itself what is missing, so a day that was not counted in time costs a longer run and nothing else.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from onecollector_assets.anomaly_models import TENANTS, count_day, promote_models, train_models
from onecollector_assets.start_dates import start_date
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.settings import Settings
from sensors.preconditions import settings_with

UNSET = "no hours are exported: set export.out, such as out: s3://exports"
OFF = "models are off: set models.enabled: true"


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
    description="Every tenant's model, on the days up to yesterday; a candidate where it passes its gates.",
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


@dg.sensor(
    name="shadows_that_are_whole",
    job=promote_models,
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="A candidate that was shadowed for models.shadow_hours is judged, and serves where it did well.",
)
def shadows_that_are_whole(
    context: dg.SensorEvaluationContext, onecollector: OneCollectorResource
) -> list[dg.RunRequest] | dg.SkipReason:
    from ml.model_manifest import ModelRefused
    from onecollector_assets.model_training import models_of
    from onecollector_assets.promotion import due
    from onecollector_resources.storage.objects import StoreError

    settings = settings_with(onecollector, lambda found: found.models.enabled or None, OFF)
    if isinstance(settings, dg.SkipReason):
        return settings
    requests, trouble = [], []
    for tenant in TENANTS.get_partition_keys():
        try:
            models = models_of(settings, tenant)
            shadow = due(settings, models, models.channels.current())
        except (ModelRefused, StoreError) as error:
            trouble.append(f"{tenant}: {error}")
            continue
        if shadow is not None:
            # Asked for again in an hour where nothing came of it.
            key = f"{tenant} {shadow.model_id} {datetime.now(UTC):%Y-%m-%dT%H}"
            requests.append(dg.RunRequest(run_key=key, partition_key=tenant))
    return requests or dg.SkipReason("; ".join(trouble) or "no candidate was shadowed to its end")

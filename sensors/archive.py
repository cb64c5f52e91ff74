"""When days are archived, and when one of them is brought back to see that it can be."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from onecollector_assets.archive import archive_job, drill_job
from onecollector_assets.start_dates import start_date
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.settings import Settings
from sensors.preconditions import settings_with

UNSET = "no archive is set: archive.url"


def _archive(settings: Settings) -> str | None:
    return settings.archive.url


def last_closed(now: datetime, closed_after_h: float) -> str:
    """The newest day that is closed, as a partition."""
    return (now - timedelta(days=1, hours=closed_after_h)).date().isoformat()


@dg.schedule(
    name="archive_daily",
    job=archive_job,
    cron_schedule="23 5 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="The newest closed day, and with it earlier ones that lines came for since.",
)
def archive_daily(
    context: dg.ScheduleEvaluationContext, onecollector: OneCollectorResource
) -> dg.RunRequest | dg.SkipReason:
    settings = settings_with(onecollector, _archive, UNSET)
    if isinstance(settings, dg.SkipReason):
        return settings
    day = last_closed(context.scheduled_execution_time.astimezone(UTC), settings.archive.closed_after_h)
    if day < (first := start_date("archive")):
        return dg.SkipReason(f"{day} is before archive.start_date, {first}")
    return dg.RunRequest(run_key=f"archive {day}", partition_key=day)


@dg.schedule(
    name="restore_drill_weekly",
    job=drill_job,
    cron_schedule="43 6 * * 0",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="One archived day a week, in turn: an archive that was never restored is a hope.",
)
def restore_drill_weekly(
    context: dg.ScheduleEvaluationContext, onecollector: OneCollectorResource
) -> dg.RunRequest | dg.SkipReason:
    settings = settings_with(onecollector, _archive, UNSET)
    return settings if isinstance(settings, dg.SkipReason) else dg.RunRequest()

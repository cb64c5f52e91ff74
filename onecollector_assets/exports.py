"""``log_exports``: every hour's lines as Parquet, of every tenant and service, with the proof that they are all there.

A partition is an hour, and a run leaves as it is what is complete and of which Loki holds nothing new, so a backfill
that was interrupted goes on where it stopped. Lines come late: a run also looks at the hours before its own that were
exported already, and does those anew that Loki holds more of now; their partitions get a materialisation of their own.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from onecollector_assets.presentation import markdown_table
from onecollector_assets.start_dates import start_date
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.exports.exporting import Outcome, export_all
from onecollector_resources.exports.partitions import HOUR_NS
from onecollector_resources.exports.session import ExportSession

KEY = "%Y-%m-%d-%H:%M"
"""How Dagster names an hour."""


HOURS = dg.HourlyPartitionsDefinition(start_date=f"{start_date('export')}-00:00", timezone="UTC")

COMPLETE = "export_is_complete"


@dg.asset(
    partitions_def=HOURS,
    group_name="exports",
    description="Lines of an hour as Parquet: tenant=…/service=…/date=…/hour=…, each folder with its manifest.",
    kinds={"loki", "parquet"},
    owners=["team:platform"],
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=24),
    check_specs=[
        dg.AssetCheckSpec(
            COMPLETE,
            asset="log_exports",
            blocking=True,
            description="Every line that Loki holds is in the files: entries less duplicates are the rows, nothing was "
            "unreadable, and no record number is missing that the registry does not know of.",
        )
    ],
)
def log_exports(context: dg.AssetExecutionContext, onecollector: OneCollectorResource):
    settings = onecollector.settings()
    wanted = [datetime.strptime(key, KEY).replace(tzinfo=UTC) for key in context.partition_keys]
    outcomes: list[Outcome] = []
    engines: Counter[str] = Counter()
    url, loki_url = "", settings.loki.url or onecollector.runtime().loki_url
    began = time.monotonic()
    for tenant in settings.tenants:
        with ExportSession.open(settings, tenant, loki_url) as session:
            url = session.store.url
            exporter = session.exporter(settings.export.query)
            for hour in (*wanted, *earlier_hours(wanted, settings.export.look_back_hours)):
                start_ns = int(hour.timestamp()) * 10**9
                tasks = session.plan(settings.export.query, start_ns, start_ns + HOUR_NS, time.time_ns())
                if hour not in wanted:
                    nobody = [
                        replace(task.selection, partition=replace(task.selection.partition, service=""))
                        for task in tasks
                    ]
                    if not any(map(exporter.present, [*nobody[:1], *(task.selection for task in tasks)])):
                        continue
                    tasks = [task for task in tasks if exporter.up_to_date(task.selection, task.source) is None]
                engines.update(f"{task.source.name} ({task.reason})" for task in tasks)
                # Of an earlier hour only what is out of date is left.
                force = hour not in wanted
                for outcome in export_all(tasks, exporter, workers=session.workers(tasks), force=force):
                    outcomes.append(outcome)
                    context.log.info("%s: %s", outcome.task.selection.partition, told(outcome))
    seconds = time.monotonic() - began
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        # What was written stays: the next run takes up the rest.
        raise dg.Failure(f"{len(failed)} partitions could not be read or written, the first: {failed[0].error}")
    for hour in sorted({*wanted, *(outcome.task.selection.partition.hour for outcome in outcomes)}):
        mine = [outcome for outcome in outcomes if outcome.task.selection.partition.hour == hour]
        metadata = {
            **hour_metadata(mine),
            "engines": dict(engines),
            "where": dg.MetadataValue.path(url),
            "look": f"onecollector export '{settings.export.query}' --from {hour:%Y-%m-%dT%H:%M} --to {hour + timedelta(hours=1):%Y-%m-%dT%H:%M}",
            "seconds": round(seconds, 2),
        }
        if hour in wanted:
            context.add_asset_metadata(metadata, partition_key=hour.strftime(KEY))
        else:
            late = dg.AssetMaterialization("log_exports", partition=hour.strftime(KEY), metadata=metadata)
            context.log_event(late)
    lacking = [outcome for outcome in outcomes if not outcome.complete]

    yield dg.Output(None)
    yield dg.AssetCheckResult(
        check_name=COMPLETE,
        passed=not lacking,
        description=f"{len(outcomes) - len(lacking)} of {len(outcomes)} partitions are complete, "
        f"{sum(o.manifest.rows for o in outcomes if o.manifest):,} rows",
        metadata={"incomplete": dg.MetadataValue.md(services_table(lacking))},
    )


def earlier_hours(wanted: Sequence[datetime], look_back: int) -> list[datetime]:
    """Hours before the newest one of a run that may have had late lines, newest first. A backfill looks at none."""
    if len(wanted) != 1 or datetime.now(UTC) - wanted[0] > timedelta(hours=3):
        return []
    return [wanted[0] - timedelta(hours=n) for n in range(1, look_back + 1)]


def hour_metadata(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What people look at: figures over all tenants and services of an hour, and a row for each."""
    manifests = [outcome.manifest for outcome in outcomes if outcome.manifest is not None]
    return {
        "rows": sum(m.rows for m in manifests),
        "duplicates left out": sum(m.duplicates for m in manifests),
        "files": sum(len(m.files) for m in manifests),
        "bytes": sum(file.bytes for m in manifests for file in m.files),
        "bytes of lines": sum(m.line_bytes for m in manifests),
        "were up to date": sum(outcome.skipped for outcome in outcomes),
        "services": dg.MetadataValue.md(services_table(outcomes)),
    }


def told(outcome: Outcome) -> str:
    """An outcome in a few words."""
    if outcome.manifest is None:
        return outcome.error
    if outcome.skipped:
        return f"up to date, {outcome.manifest.rows:,} rows"
    return f"{outcome.manifest.rows:,} rows through {outcome.manifest.engine}" + "".join(
        f"; {problem}" for problem in outcome.manifest.problems
    )


def services_table(outcomes: Sequence[Outcome]) -> str:
    """Partitions, those with trouble first, then by size."""
    ranked = sorted(outcomes, key=lambda o: (o.complete, -(o.manifest.rows if o.manifest else 0)))
    return markdown_table(
        ("tenant", "service", "hour", "rows", "duplicates", "bytes", "engine", "what"),
        [
            (
                o.task.selection.partition.tenant,
                o.task.selection.partition.service or "(none)",
                f"{o.task.selection.partition.hour:%m-%d %H:00}",
                f"{o.manifest.rows:,}" if o.manifest else "",
                f"{o.manifest.duplicates:,}" if o.manifest else "",
                f"{sum(file.bytes for file in o.manifest.files):,}" if o.manifest else "",
                o.task.source.name,
                o.error
                or "; ".join(o.manifest.problems if o.manifest else ())
                or ("up to date" if o.skipped else "written"),
            )
            for o in ranked
        ],
    )

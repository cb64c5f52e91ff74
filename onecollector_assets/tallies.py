"""``minute_tallies``: a day's lines counted by minute and template, which is what models learn from.

A day is mined once; training reads two weeks of tallies. Hours that nobody exported are kept as unknown, and said so.
"""

import time
from datetime import date

import dagster as dg

from onecollector_assets.presentation import markdown_table
from onecollector_assets.templates import DAYS, log_templates
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.storage.opening import model_store

KNOWN = "hours_are_known"


@dg.asset(
    partitions_def=DAYS,
    deps=[log_templates],
    group_name="models",
    description="Lines by minute and template of a day, a row group for each service. What models are learned from.",
    kinds={"parquet", "polars"},
    owners=["team:platform"],
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[
        dg.AssetCheckSpec(
            KNOWN,
            asset="minute_tallies",
            description="Every hour of the day was exported, whole. What was not is a gap, and nothing is learned from it.",
        )
    ],
)
def minute_tallies(context: dg.AssetExecutionContext, onecollector: OneCollectorResource):
    from onecollector_assets.tallying import keep_tallies

    settings = onecollector.settings()
    store = model_store(settings)
    rows, unknown = [], 0
    for key in context.partition_keys:
        began, day, mine = time.monotonic(), date.fromisoformat(key), []
        for tenant in settings.tenants:
            found = keep_tallies(settings, store, tenant, day)
            if found is None:
                mine.append((tenant, key, 0, 0, 1440, 0, "nothing is exported"))
                continue
            covered = found.day.coverage
            minutes = sum(end - first for first, end in covered.unknown)
            size = sum(file.bytes for file in found.day.files)
            lines = sum(sum(file.lines) for file in found.day.files)
            what = "counted" if found.lines is not None else "was counted"
            mine.append((tenant, key, len(found.day.services), lines, minutes, size, what))
            # Of a tenant that is new the day is no gap; of one that has lines it is.
            unknown += minutes
        rows += mine
        columns = ("tenant", "day", "services", "lines", "minutes unknown", "bytes", "what")
        metadata = {
            "lines": sum(row[3] for row in mine),
            "services": sum(row[2] for row in mine),
            "minutes unknown": sum(row[4] for row in mine),
            "bytes": sum(row[5] for row in mine),
            "tenants": dg.MetadataValue.md(markdown_table(columns, mine)),
            "where": dg.MetadataValue.path(store.url),
            "seconds": round(time.monotonic() - began, 2),
        }
        context.add_asset_metadata(metadata, partition_key=key)
    yield dg.Output(None)
    yield dg.AssetCheckResult(
        check_name=KNOWN,
        passed=unknown == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{unknown:,} minutes are unknown: backfill log_exports" if unknown else "every hour was exported",
    )

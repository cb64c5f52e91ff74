"""``log_templates``: which kinds of lines each service wrote on a day, how many of each, what is new and what is gone.

A day's exported lines are mined with what is known of the tenant's templates, which grows by it; a day that is counted
again gives the same counts under the same ids. A service's flood of different lines fills its own limits, is counted as
overflow and fails the check, not the run.
"""

import html
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg

from onecollector_assets.presentation import markdown_table
from onecollector_assets.start_dates import start_date
from onecollector_assets.template_counts import CountedDay, count_and_keep, day_start_ns
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.storage.opening import model_store

FEW_OVERFLOW = 0.01
"""Share of a day's lines without a template of their own that is still well."""

WELL = "lines_have_templates"


DAYS = dg.DailyPartitionsDefinition(start_date=start_date("models"), timezone="UTC")


@dg.asset(
    partitions_def=DAYS,
    deps=["log_exports"],
    group_name="models",
    description="Kinds of lines of a day, with counts: what is new, what is gone. Look: onecollector templates list",
    kinds={"parquet", "polars"},
    owners=["team:platform"],
    # Day after day in one run: each goes on from what the one before has learned.
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[
        dg.AssetCheckSpec(
            WELL,
            asset="log_templates",
            description="At most 1 % of the day's lines are overflow: lines of services that write too many kinds.",
        )
    ],
)
def log_templates(context: dg.AssetExecutionContext, onecollector: OneCollectorResource):
    settings = onecollector.settings()
    store = model_store(settings)
    lines = overflow = 0
    for key in context.partition_keys:
        began = time.monotonic()
        day = date.fromisoformat(key)
        counted = [count_and_keep(settings, store, tenant, day) for tenant in settings.tenants]
        seconds = round(time.monotonic() - began, 2)
        metadata = {**day_metadata(counted, day), "where": dg.MetadataValue.path(store.url), "seconds": seconds}
        context.add_asset_metadata(metadata, partition_key=key)
        context.log.info("%s: %s lines, %s templates", day, metadata["lines"], metadata["templates"])
        lines, overflow = lines + metadata["lines"], overflow + metadata["overflow"]

    yield dg.Output(None)
    yield dg.AssetCheckResult(
        check_name=WELL,
        passed=overflow <= lines * FEW_OVERFLOW,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{overflow:,} of {lines:,} lines are overflow",
    )


def day_metadata(counted: Sequence[CountedDay], day: date) -> dict[str, Any]:
    """What people look at: figures over all tenants of a day, and what is new and gone."""
    new = [row for one in counted for row in never_seen_before(one, day)]
    gone = [row for one in counted for row in vanished(one, day)]
    services = [row for one in counted for row in services_of(one)]
    where = ("tenant", "service")
    return {
        "lines": sum(one.facts["lines"] for one in counted),
        "templates": sum(one.counts.height - bool(one.facts["overflow"]) for one in counted),
        "new templates": len(new),
        "vanished templates": len(gone),
        "overflow": sum(one.facts["overflow"] for one in counted),
        "incomplete partitions": sum(one.facts["incomplete"] for one in counted),
        "services": dg.MetadataValue.md(markdown_table((*where, "lines", "templates", "errors"), services)),
        "new": dg.MetadataValue.md(markdown_table((*where, "lines", "id", "template"), new)),
        "vanished": dg.MetadataValue.md(markdown_table((*where, "lines the day before", "id", "template"), gone)),
        "look": f"onecollector templates list --day {day}",
    }


def services_of(one: CountedDay) -> Iterator[tuple[object, ...]]:
    """A row for each service, the most lines first."""
    import polars as pl

    sums = one.counts.group_by("service").agg(
        pl.col("lines").sum(), pl.len().alias("templates"), pl.col("errors").sum()
    )
    for service, lines, templates, errors in sums.sort("lines", "service", descending=[True, False]).iter_rows():
        yield one.tenant, service or "(none)", f"{lines:,}", templates, f"{errors:,}"


def never_seen_before(one: CountedDay, day: date) -> list[tuple[object, ...]]:
    """Rows for templates whose first line ever is of this day; none on a tenant's first day, when all would be."""
    start_ns, seen = day_start_ns(day), one.state.seen
    if not any(when.first_ns < start_ns for when in seen.values()):
        return []
    return [
        _row(one, row, "lines")
        for row in one.counts.iter_rows(named=True)
        if (when := seen.get((row["service"], row["id"]))) and when.first_ns >= start_ns
    ]


def vanished(one: CountedDay, day: date) -> list[tuple[object, ...]]:
    """Rows for templates that had lines the day before and have none now."""
    from ml.template_days import difference

    before = one.kept.load_day(day - timedelta(days=1))
    if before is None:
        return []
    rows = difference(before[1], one.counts, one.state).iter_rows(named=True)
    return [_row(one, row, "before") for row in rows if row["what"] == "gone"]


def _row(one: CountedDay, row: Mapping[str, Any], count: str) -> tuple[object, ...]:
    return one.tenant, row["service"] or "(none)", f"{row[count]:,}", row["id"], unmarked(row["template"])


def unmarked(text: str) -> str:
    """A line's text that a page shows as it is: it is neither HTML nor Markdown, whatever it holds."""
    return re.sub(r"([*_\[\]])", r"\\\1", html.escape(text[:100], quote=False))

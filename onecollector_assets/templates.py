"""``log_templates``: which kinds of lines each service wrote on a day, how many of each, what is new and what is gone.

A day's exported lines are mined with what is known of the tenant's templates, which grows by it; a day that is counted
again gives the same counts under the same ids. A service's flood of different lines fills its own limits, is counted as
overflow and fails the check, not the run.
"""

import html
import re
import time
from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING

import dagster as dg

from onecollector_assets.presentation import markdown_table
from onecollector_assets.template_counts import count_day, day_start_ns, exported_day, model_store
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.settings import SettingsError, load_settings

if TYPE_CHECKING:
    import polars as pl

    from ml.template_store import StoredTemplates, TemplateStore

FEW_OVERFLOW = 0.01
"""Share of a day's lines without a template of their own that is still well."""

WELL = "lines_have_templates"


def first_day() -> str:
    """The first partition. With settings that cannot be read the location still loads, and says so when it runs."""
    try:
        return load_settings().models.start_date
    except SettingsError:
        return "2026-01-01"


DAYS = dg.DailyPartitionsDefinition(start_date=first_day(), timezone="UTC")


@dg.asset(
    partitions_def=DAYS,
    deps=["log_exports"],
    group_name="models",
    description="Kinds of lines of a day, with counts: what is new, what is gone. Look: onecollector templates list",
    kinds={"parquet", "polars"},
    owners=["team:platform"],
    # What is known of templates has one writer at a time.
    pool="log_templates",
    check_specs=[
        dg.AssetCheckSpec(
            WELL,
            asset="log_templates",
            description="At most 1 % of the day's lines are overflow: lines of services that write too many kinds.",
        )
    ],
)
def log_templates(context: dg.AssetExecutionContext, onecollector: OneCollectorResource):
    from ml.template_store import TemplateStore

    settings = onecollector.settings()
    store = model_store(settings)
    day = date.fromisoformat(context.partition_key)
    began = time.monotonic()
    rows: list[tuple[object, ...]] = []
    new: list[tuple[object, ...]] = []
    gone: list[tuple[object, ...]] = []
    lines = templates = overflow = incomplete = 0
    for tenant in settings.tenants:
        kept = TemplateStore(store, tenant)
        state = kept.load()
        dataset = exported_day(settings, tenant, day)
        counter = count_day(settings, state, dataset, day)
        counts = counter.frame()
        state.take(counter.miner)
        counter.note_seen(state)
        kept.save(state)
        facts = {"lines": counter.tally.lines, "overflow": counter.tally.overflow, "cut": counter.tally.cut}
        kept.save_day(day, counts, {**facts, "incomplete": len(dataset.incomplete)})
        lines, overflow = lines + counter.tally.lines, overflow + counter.tally.overflow
        templates, incomplete = templates + counts.height, incomplete + len(dataset.incomplete)
        rows += services_of(tenant, counts)
        new += never_seen_before(tenant, state, counts, day)
        gone += vanished(tenant, kept, state, counts, day)
        context.log.info("%s: %s lines, %s templates", tenant, counter.tally.lines, counts.height)
    context.add_asset_metadata(
        {
            "lines": lines,
            "templates": templates,
            "new templates": len(new),
            "vanished templates": len(gone),
            "overflow": overflow,
            "incomplete partitions": incomplete,
            "services": dg.MetadataValue.md(
                markdown_table(("tenant", "service", "lines", "templates", "errors"), rows)
            ),
            "new": dg.MetadataValue.md(markdown_table(("tenant", "service", "lines", "id", "template"), new)),
            "vanished": dg.MetadataValue.md(
                markdown_table(("tenant", "service", "lines the day before", "id", "template"), gone)
            ),
            "where": dg.MetadataValue.path(store.url),
            "look": f"onecollector templates list --day {day}",
            "seconds": round(time.monotonic() - began, 2),
        }
    )

    yield dg.Output(None)
    yield dg.AssetCheckResult(
        check_name=WELL,
        passed=overflow <= lines * FEW_OVERFLOW,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{overflow:,} of {lines:,} lines are overflow",
    )


def services_of(tenant: str, counts: "pl.DataFrame") -> Iterator[tuple[object, ...]]:
    """A row for each service, the most lines first."""
    import polars as pl

    sums = counts.group_by("service").agg(pl.col("lines").sum(), pl.len().alias("templates"), pl.col("errors").sum())
    for service, lines, templates, errors in sums.sort("lines", descending=True).iter_rows():
        yield tenant, service or "(none)", f"{lines:,}", templates, f"{errors:,}"


def never_seen_before(
    tenant: str, state: "StoredTemplates", counts: "pl.DataFrame", day: date
) -> list[tuple[object, ...]]:
    """Rows for templates whose first line ever is of this day; none on a tenant's first day, when all would be."""
    start_ns = day_start_ns(day)
    if not any(seen.first_ns < start_ns for seen in state.seen.values()):
        return []
    return [
        (tenant, row["service"] or "(none)", f"{row['lines']:,}", row["id"], unmarked(row["template"]))
        for row in counts.iter_rows(named=True)
        if (seen := state.seen.get((row["service"], row["id"]))) and seen.first_ns >= start_ns
    ]


def vanished(
    tenant: str, kept: "TemplateStore", state: "StoredTemplates", counts: "pl.DataFrame", day: date
) -> list[tuple[object, ...]]:
    """Rows for templates that had lines the day before and have none now."""
    from ml.template_days import difference

    before = kept.load_day(day - timedelta(days=1))
    if before is None:
        return []
    return [
        (tenant, row["service"] or "(none)", f"{row['before']:,}", row["id"], unmarked(row["template"]))
        for row in difference(before[1], counts, state).iter_rows(named=True)
        if row["what"] == "gone"
    ]


def unmarked(text: str) -> str:
    """A line's text that a page shows as it is: it is neither HTML nor Markdown, whatever it holds."""
    return re.sub(r"([*_\[\]])", r"\\\1", html.escape(text[:100], quote=False))

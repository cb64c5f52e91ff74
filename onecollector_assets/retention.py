"""``retention_report``: what each tenant holds by retention rule, what the next day takes, what should be gone already.

Nothing is changed here: policies come into force by ``onecollector retention apply``, which shows first what will go.
"""

import time
from dataclasses import replace
from typing import Any, cast

import dagster as dg

from onecollector_assets.presentation import markdown_table
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.loki.querier import LokiError, LokiQuerierClient
from onecollector_resources.retention.durations import short_text
from onecollector_resources.retention.keeps import AGES
from onecollector_resources.retention.measure import Held
from onecollector_resources.retention.preview import GRACE_S, Holding, holdings
from onecollector_resources.retention.survey import TenantRetention, survey
from onecollector_resources.settings import config_file

COUNT_BELOW = 32 << 20
"""Bytes that a daily report reads to count lines; more is estimated."""


def surveyed(onecollector: OneCollectorResource) -> list[TenantRetention]:
    """All tenants: files, what was applied, what is in force."""
    from pathlib import Path

    config = Path(onecollector.config_file) if onecollector.config_file else config_file()
    return survey(onecollector.settings(), config, onecollector.loki)


def lines_text(held: Held) -> str:
    """``1,200``; ``~1,200`` where it is an estimate, ``?`` where the index does not tell."""
    return "?" if held.lines is None else f"{'' if held.counted else '~'}{held.lines:,}"


def keep_text(seconds: int) -> str:
    """``31d`` or ``forever``."""
    return short_text(seconds) if 0 < seconds < AGES else "forever"


@dg.asset(
    group_name="retention",
    description="How long lines are kept, how much that is, and what the next sweeps remove: by tenant and rule, from Loki.",
    kinds={"loki"},
    owners=["team:platform"],
)
def retention_report(context: dg.AssetExecutionContext, onecollector: OneCollectorResource) -> dg.MaterializeResult:
    began, settings = time.monotonic(), onecollector.settings()
    rows: list[Holding] = []
    unread: list[tuple[str, str]] = []
    for tenant in surveyed(onecollector):
        if tenant.tenant not in settings.tenants:
            continue
        access = settings.loki.access(onecollector.runtime().loki_url, tenant.tenant)
        try:
            with LokiQuerierClient(replace(access, timeout_s=300)) as client:
                rows += holdings(client, tenant, time.time_ns(), count_below=COUNT_BELOW)
        except LokiError as error:
            if error.away:
                raise
            # One tenant's limits must not keep the others from their report.
            unread.append((tenant.tenant, str(error)))
    table = [
        (
            row.tenant,
            row.selector,
            keep_text(row.keep_s),
            lines_text(row.held),
            f"{row.held.bytes:,}",
            row.held.oldest or "",
            lines_text(row.next_day),
            lines_text(row.overdue),
            row.why,
        )
        for row in rows
    ]
    columns = ("tenant", "selector", "keep", "lines", "bytes", "oldest", "next day removes", "overdue", "why")
    context.log.info("%s rules hold lines, %s tenants could not be read", len(rows), len(unread))
    return dg.MaterializeResult(
        metadata={
            "bytes held": sum(row.held.bytes for row in rows),
            "bytes that the next day removes": sum(row.next_day.bytes for row in rows),
            "bytes overdue": sum(row.overdue.bytes for row in rows),
            "overdue": dg.MetadataValue.json(
                [
                    {"tenant": row.tenant, "selector": row.selector, "bytes": row.overdue.bytes}
                    for row in rows
                    if row.overdue.bytes
                ]
            ),
            "table": dg.MetadataValue.md(markdown_table(columns, table)),
            "not read": dg.MetadataValue.md(markdown_table(("tenant", "why"), unread)),
            "note": "~ is an estimate from Loki's index, often too high",
            "seconds": round(time.monotonic() - began, 3),
        }
    )


@dg.asset_check(
    asset=retention_report,
    blocking=False,
    description="Nothing is still there that is well past its date: Loki's compactor keeps up.",
)
def retention_is_kept(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    event = context.instance.get_latest_materialization_event(retention_report.key)
    found = event.asset_materialization.metadata.get("overdue") if event and event.asset_materialization else None
    if found is None:
        return dg.AssetCheckResult(
            passed=False, severity=dg.AssetCheckSeverity.WARN, description="there is no report yet: materialise it"
        )
    overdue = cast("list[dict[str, Any]]", found.value)
    return dg.AssetCheckResult(
        passed=not overdue,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(overdue)} rules hold lines more than {GRACE_S // 3600} h past their date: the compactor is behind, or "
            "retention is off; look at compactor.retention_enabled and at: onecollector logs loki"
            if overdue
            else "nothing is past its date"
        ),
        metadata={
            "overdue": dg.MetadataValue.md(
                markdown_table(
                    ("tenant", "selector", "bytes"), [(r["tenant"], r["selector"], f"{r['bytes']:,}") for r in overdue]
                )
            )
        },
    )


@dg.asset_check(
    asset=retention_report,
    blocking=False,
    description="What the policy files say is what Loki keeps, and every file is good.",
)
def retention_policies_are_in_force(onecollector: OneCollectorResource) -> dg.AssetCheckResult:
    found = surveyed(onecollector)
    faults = [(one.tenant, str(fault)) for one in found for fault in one.faults]
    others = [(one.tenant, one.state, one.note) for one in found if one.state in ("waiting", "unknown")]
    if faults:
        said = f"{len(faults)} faults in policy files; their tenants keep what was in force"
    elif others:
        said = f"not in force for {len(others)} tenants; run: onecollector retention plan, then apply"
    else:
        said = f"in force for all {len(found)} tenants"
    return dg.AssetCheckResult(
        passed=not faults and not others,
        severity=dg.AssetCheckSeverity.WARN,
        description=said,
        metadata={
            "faults": dg.MetadataValue.md(markdown_table(("tenant", "fault"), faults)),
            "not in force": dg.MetadataValue.md(markdown_table(("tenant", "state", "note"), others)),
        },
    )


report_retention = dg.define_asset_job(
    "report_retention",
    selection=dg.AssetSelection.groups("retention"),
    executor_def=dg.in_process_executor,
    description="The daily account of what is held and what is due.",
)

report_retention_daily = dg.ScheduleDefinition(
    name="report_retention_daily",
    job=report_retention,
    cron_schedule="47 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Once a night.",
)

"""Commands that read what is known of sources: sources, prove, gaps."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.text import Text

from onecollector.cli.machine import Json
from onecollector.cli.render import console, print_json, table
from onecollector.cli.spans import seconds_of


def sources(
    state: Annotated[
        str | None, typer.Option(help="flowing, collecting, silent, waiting, suspect, uncollectable, gone.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also what is gone.")] = False,
    json_: Json = False,
) -> None:
    """What is collected, and what is not and why.

    Example: onecollector sources --state uncollectable
    """
    from onecollector.local.status import human_age
    from onecollector_resources.registry.store import LogSourceRegistry
    from onecollector_resources.settings import load_settings

    known = {"flowing", "collecting", "silent", "waiting", "suspect", "uncollectable", "gone"}
    if state is not None and state not in known:
        raise typer.BadParameter(f"expected one of {', '.join(sorted(known))}, found {state!r}")
    registry = LogSourceRegistry(load_settings().registry_url)
    found = [
        source
        for source in registry.lookup_sources(tenant=tenant, service=service)
        if (state is None or source.state == state) and (all_ or state == "gone" or source.phase != "gone")
    ]
    if json_:
        print_json([{**_plain(source), "state": source.state} for source in found])
        return
    now = datetime.now(UTC)
    rows = [
        (
            source.state,
            source.tenant,
            source.service,
            source.name[:40],
            source.source_id[:12],
            source.mode,
            source.pipeline,
            human_age((now - source.first_seen).total_seconds()) if source.first_seen else "",
            source.reason or source.flow_reason,
        )
        for source in found
    ]
    out = console()
    out.print(table(("STATE", "TENANT", "SERVICE", "NAME", "ID", "MODE", "PIPELINE", "AGE", "REASON"), rows))
    out.print(Text(f"{len(found)} sources"))


def _plain(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def prove(
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    json_: Json = False,
) -> None:
    """Compare what containers wrote with what Loki holds, line by line. Exit code 0 only when all is there.

    Example: onecollector prove --service payments
    """
    from onecollector_resources.collector.manager import AgentManager
    from onecollector_resources.collector.transports.local_http import LocalHttpTransport
    from onecollector_resources.health.delivery import confirm_lost, delivered, gaps_of, prove_records
    from onecollector_resources.health.monitor import HealthMonitor
    from onecollector_resources.loki.querier import LokiQuerierClient
    from onecollector_resources.registry.store import LogSourceRegistry
    from onecollector_resources.runtime import load_runtime
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    runtime = load_runtime(settings.layout)
    transport = LocalHttpTransport.of(settings.layout, runtime)
    now = datetime.now(UTC)
    records = [
        record
        for record in transport.records()
        if (service is None or record.service == service) and (tenant is None or record.tenant == tenant)
    ]

    def loki(name: str) -> LokiQuerierClient:
        return LokiQuerierClient(settings.loki.access(runtime.loki_url, name))

    manager = AgentManager(transport, loki, confirm_within_s=settings.agent.confirm_within_s)
    monitor = HealthMonitor(settings.loki.access(runtime.loki_url, "default"), manager)
    began = time.monotonic()
    rows = prove_records(records, loki, now)
    lost = confirm_lost(rows, records, loki, lambda: datetime.now(UTC), monitor.tenants_probed)
    # What was on its way when it was first looked for came in front of the probe.
    open_files = {(row.source_id, row.segment) for row in rows if not row.complete and not row.problem}
    again = prove_records([r for r in records if (r.source_id, r.segment) in open_files], loki, datetime.now(UTC))
    rows = [row for row in rows if (row.source_id, row.segment) not in open_files] + again
    took = time.monotonic() - began
    transport.delivered(delivered(rows))
    first_seen = {record.source_id: record.first_seen for record in records}
    new_gaps = LogSourceRegistry(settings.registry_url).record_gaps(
        gaps_of(lost, settings.agent.host_name, now, first_seen), actor="prove"
    )
    by_source: dict[str, list[Any]] = {}
    for row in rows:
        by_source.setdefault(row.source_id, []).append(row)
    incomplete = [source for source, mine in by_source.items() if not all(row.complete for row in mine)]
    if json_:
        print_json({"complete": not incomplete, "rows": rows, "seconds": took, "new_gaps": new_gaps})
        raise typer.Exit(1 if incomplete else 0)
    out = console()
    for source, mine in sorted(by_source.items(), key=lambda item: (item[0] in incomplete, item[1][0].service)):
        found, expected = sum(row.found for row in mine), sum(row.expected for row in mine)
        mark = Text("✓ ", style="green") if source not in incomplete else Text("✗ ", style="bold red")
        out.print(
            mark.append(f"{mine[0].tenant}/{mine[0].service} {source[:12]}: {found:,} of {expected:,}", style="default")
        )
        for row in mine:
            if not row.complete:
                name = "" if row.segment == 0 else f" of file {row.segment}"
                out.print(Text(f"    missing records{name}: {row.missing_text()}"))
                if row.behind:
                    out.print(Text(f"    {row.behind:,} bytes are not read yet: look again in a moment"))
    total, there = sum(row.expected for row in rows), sum(row.found for row in rows)
    out.print(
        Text(
            f"{len(by_source) - len(incomplete)} of {len(by_source)} sources complete, {there:,} of {total:,} lines, {took:.1f}s"
        )
    )
    raise typer.Exit(1 if incomplete else 0)


def gaps(
    since: Annotated[str, typer.Option(help="How far back.")] = "1d",
    json_: Json = False,
) -> None:
    """What was lost or may have been: from, to, cause, count.

    Example: onecollector gaps --since 7d
    """
    from onecollector_resources.registry.store import LogSourceRegistry
    from onecollector_resources.settings import load_settings

    registry = LogSourceRegistry(load_settings().registry_url)
    found = registry.list_gaps(since=datetime.now(UTC) - timedelta(seconds=seconds_of(since)))
    if json_:
        print_json([_plain(gap) for gap in found])
        return
    rows = [
        (
            gap.started.strftime("%m-%d %H:%M:%S"),
            gap.ended.strftime("%m-%d %H:%M:%S"),
            gap.tenant,
            gap.service,
            gap.source_id[:12],
            gap.cause,
            "?" if gap.lines is None else f"{gap.lines:,}",
            "?" if gap.bytes is None else f"{gap.bytes:,}",
            gap.detail[:60],
        )
        for gap in found
    ]
    out = console()
    out.print(
        table(
            ("FROM", "TO", "TENANT", "SERVICE", "SOURCE", "CAUSE", "LINES", "BYTES", "DETAIL"), rows, ("LINES", "BYTES")
        )
    )
    out.print(Text(f"{len(found)} gaps in {since}"))

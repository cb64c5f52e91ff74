"""``onecollector query`` and ``onecollector labels``: questions to Loki from the command line."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from onecollector.cli.lines import Form, LinePrinter, as_record, show_series
from onecollector.cli.machine import Json
from onecollector.cli.render import print_json, warn
from onecollector.cli.spans import Span, seconds_of, span_of, told
from onecollector.cli.visible import on_one_line

if TYPE_CHECKING:
    from onecollector_resources.loki.access import LokiAccess
    from onecollector_resources.loki.answers import Samples
    from onecollector_resources.loki.procedures import LineCount
    from onecollector_resources.loki.querier import LokiQuerierClient

FORMS = ("text", "raw", "jsonl", "parquet")
POINTS = 60
"""Of a metric query over a range, where no step is given."""

Tenant = Annotated[str, typer.Option(help="Tenant; a|b asks several, where Loki allows it.")]
Since = Annotated[str | None, typer.Option(help="How far back: 90s, 5m, 1h30m, 2d; left out: 1h.")]
From = Annotated[str | None, typer.Option("--from", help="Begin: a date or an RFC 3339 time, UTC without an offset.")]
To = Annotated[str | None, typer.Option("--to", help="End, exclusive; now where left out.")]


def loki_access(tenant: str) -> LokiAccess:
    """The Loki of the settings, else the one that runs here. Raises SettingsError, RuntimeMissing."""
    from onecollector_resources.runtime import load_runtime
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    return settings.loki.access(settings.loki.url or load_runtime(settings.layout).loki_url, tenant)


def query(
    logql: Annotated[str, typer.Argument(help="A LogQL query.")],
    since: Since = None,
    from_: From = None,
    to: To = None,
    tenant: Tenant = "default",
    limit: Annotated[
        int | None,
        typer.Option(help="At most so many lines, the newest; 0: all. Left out: 100, for parquet all.", min=0),
    ] = None,
    step: Annotated[str | None, typer.Option(help="Between points of a metric query, as a duration.")] = None,
    output: Annotated[str, typer.Option(help="text, raw, jsonl or parquet.")] = "text",
    out: Annotated[Path | None, typer.Option(help="File for --output parquet.")] = None,
    json_: Json = False,
) -> None:
    """Ask Loki: lines in order of time, or a metric query's numbers. Bad LogQL is shown with a caret under the spot.

    Example: onecollector query '{service_name="payments"} |= "error"' --since 5m
    """
    from onecollector_resources.loki.faults import NoLogQuery
    from onecollector_resources.loki.procedures import LineCount
    from onecollector_resources.loki.querier import LokiQuerierClient

    if output not in FORMS:
        raise typer.BadParameter(f"expected one of {', '.join(FORMS)}, found {output!r}")
    if (output == "parquet") != (out is not None):
        raise typer.BadParameter("--output parquet and --out FILE go together")
    span = span_of(since, from_, to, time.time_ns())
    most = (0 if output == "parquet" else 100) if limit is None else limit
    with LokiQuerierClient(loki_access(tenant)) as client:
        try:
            found = client.all_entries(logql, span.start_ns, span.end_ns, direction="backward", most=most or None)
            entries = list(found)[::-1]
        except NoLogQuery:
            if output == "parquet":
                raise typer.BadParameter("--output parquet is for lines, and this is a metric query") from None
            _show_numbers(client, logql, span, step, json_=json_ or output == "jsonl")
            return
        total = _count(client, logql, span, most) if most and len(entries) == most else LineCount(len(entries), True)
    if out is not None:
        from onecollector_resources.loki.entry_table import write_parquet

        warn(f"{write_parquet(out, entries):,} lines in {out}")
    elif json_:
        lines = [as_record(entry) for entry in entries]
        print_json({**_asked(logql, tenant, span), "lines": lines, "total": total})
    else:
        LinePrinter(cast(Form, output)).show(entries)
    if total is None:
        warn(f"{len(entries):,} lines, the newest; there may be more: --limit 0")
    elif total.lines > len(entries):
        about = "" if total.exact else "about "
        warn(f"{len(entries):,} of {about}{total.lines:,} lines, the newest; all of them: --limit 0")


def _asked(logql: str, tenant: str, span: Span) -> dict[str, Any]:
    return {"query": logql, "tenant": tenant, "from": told(span.start_ns), "to": told(span.end_ns)}


def _count(client: LokiQuerierClient, logql: str, span: Span, shown: int) -> LineCount | None:
    from onecollector_resources.loki.faults import LokiError
    from onecollector_resources.loki.procedures import LineCount

    try:
        found = client.count(logql, span.start_ns, span.end_ns)
        return LineCount(max(found.lines, shown), found.exact)
    except LokiError:
        # The lines are there already; how many more there are is an extra.
        return None


def _show_numbers(client: LokiQuerierClient, logql: str, span: Span, step: str | None, *, json_: bool) -> None:
    step_s = seconds_of(step) if step else max(1.0, round((span.end_ns - span.start_ns) / 1e9 / POINTS))
    answer = cast("Samples", client.query_range(logql, span.start_ns, span.end_ns, step_s=step_s))
    if json_:
        series = [{"labels": one.labels, "points": one.points} for one in answer.series]
        print_json({**_asked(logql, client.tenant, span), "kind": answer.kind, "step_s": step_s, "series": series})
    elif answer.series:
        show_series(answer.series)
    else:
        warn("no data in this range")


def labels(
    name: Annotated[str | None, typer.Argument(help="A label whose values to list; left out: all labels.")] = None,
    query: Annotated[str | None, typer.Option(help="Of the streams of this selector alone.")] = None,
    since: Since = None,
    from_: From = None,
    to: To = None,
    tenant: Tenant = "default",
    json_: Json = False,
) -> None:
    """List Loki's labels, or the values of one.

    Example: onecollector labels service_name --query '{deployment_environment_name="prod"}' --since 2d
    """
    from onecollector_resources.loki.querier import LokiQuerierClient

    span = span_of(since, from_, to, time.time_ns())
    with LokiQuerierClient(loki_access(tenant)) as client:
        if name is None:
            found = client.labels(span.start_ns, span.end_ns, query)
        else:
            found = client.label_values(name, query, span.start_ns, span.end_ns)
            if not found:
                known = client.labels(span.start_ns, span.end_ns, query)
                warn(
                    f"no stream has the label {name!r} in this range; labels are: {', '.join(sorted(known)) or 'none'}"
                )
    if json_:
        print_json(sorted(found))
        return
    for one in sorted(found):
        typer.echo(on_one_line(one) if sys.stdout.isatty() else one)

"""Commands about log templates: which kinds of lines a service writes, one of them looked at, two days compared."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from onecollector.cli.lines import BARS
from onecollector.cli.machine import Json
from onecollector.cli.render import console, print_json, table, warn
from onecollector.cli.spans import day_of
from onecollector.cli.visible import on_one_line

if TYPE_CHECKING:
    import polars as pl

    from ml.template_store import StoredTemplates, TemplateStore
    from onecollector_resources.settings import Settings

app = typer.Typer(help="Kinds of lines: which there are, how many of each, what is new.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option(help="Tenant.")]
Service = Annotated[str | None, typer.Option(help="Only this service.")]
Day = Annotated[str | None, typer.Option(help="A day, UTC: 2026-11-03. Empty: the newest that was counted.")]


@app.command("list")
def list_(
    day: Day = None,
    service: Service = None,
    tenant: Tenant = "default",
    new: Annotated[bool, typer.Option("--new", help="Only those that were never seen before this day.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Rows shown.")] = 50,
    json_: Json = False,
) -> None:
    """A day's templates, the most lines first. A day that the asset log_templates has not counted is counted now.

    Example: onecollector templates list --day 2026-11-03 --service payments
    """
    wanted, settings, kept = _opened(day, tenant)
    state, facts, counts = _day(settings, kept, wanted, tenant)
    if service is not None:
        counts = _of_service(counts, service, wanted)
    rows = counts.sort(["lines", "service", "id"], descending=[True, False, False]).to_dicts()
    if new:
        from onecollector_assets.template_counts import day_start_ns

        start_ns = day_start_ns(wanted)
        rows = [row for row in rows if _first_ns(state, row) >= start_ns]
    if json_:
        print_json({"tenant": tenant, "day": str(wanted), **facts, "templates": [_plain(row) for row in rows]})
        return
    columns = ("id", "service", "lines", "errors", "hours", "template")
    shown = [
        (r["id"], r["service"], f"{r['lines']:,}", f"{r['errors']:,}", _bars(r["hours"]), _told(r))
        for r in rows[:limit]
    ]
    console().print(table(columns, shown, right=("lines", "errors")))
    more = f", {len(rows) - limit} not shown (--limit)" if len(rows) > limit else ""
    console().print(Text(f"{wanted} {tenant}: {sum(r['lines'] for r in rows):,} lines, {len(rows)} templates{more}"))
    _say_incomplete(facts)


@app.command("show")
def show(
    template: Annotated[str, typer.Argument(help="Id of a template, or how it begins.")],
    day: Day = None,
    tenant: Tenant = "default",
    json_: Json = False,
) -> None:
    """One template: what it is made of, when it was seen, lines of it, and a query for more.

    Example: onecollector templates show 4f1c
    """
    from ml.template_query import query_matching

    wanted, settings, kept = _opened(day, tenant)
    state, _, counts = _day(settings, kept, wanted, tenant)
    identities = {
        state.current(s, i) for s in state.merged_into for i in state.merged_into[s] if i.startswith(template)
    }
    rows = [
        {
            **_plain(row),
            "query": query_matching(row["template"], row["service"], row["examples"]),
            "parts": sorted(i for i in state.merged_into.get(row["service"], {}) if state.current(row["service"], i) == row["id"]),
        }
        for row in counts.to_dicts()
        if row["id"].startswith(template) or row["id"] in identities
    ]  # fmt: skip
    if not rows:
        typer.echo(
            f"no template of {wanted} has an id that begins with {template!r}; look: onecollector templates list --day {wanted}",
            err=True,
        )
        raise typer.Exit(1)
    if json_:
        print_json(rows)
        return
    out = console()
    for row in rows:
        seen = state.seen.get((row["service"], row["id"]))
        ever = f"first seen {_stamp(seen.first_ns)}, last {_stamp(seen.last_ns)}" if seen else "not kept yet"
        out.print(Text(_told(row), style="bold"))
        out.print(Text(f"  id        {row['id']}   service {on_one_line(row['service']) or '(none)'}   {ever}"))
        out.print(
            Text(f"  {wanted}  {row['lines']:,} lines, {row['errors']:,} errors   {_bars(row['hours'])}  00-23 h UTC")
        )
        for number, line in enumerate(row["examples"]):
            out.print(Text(f"  {'lines     ' if not number else '          '}{on_one_line(line)}"))
        out.print(Text(f"  query     {row['query']}"))
        if row["parts"]:
            out.print(Text(f"  has taken in {', '.join(row['parts'][:10])}{' …' if len(row['parts']) > 10 else ''}"))


@app.command("diff")
def diff(
    before: Annotated[str, typer.Argument(help="A day, UTC: 2026-11-02.")],
    after: Annotated[str | None, typer.Argument(help="A later day; empty: the day after.")] = None,
    service: Service = None,
    tenant: Tenant = "default",
    factor: Annotated[float, typer.Option(min=1, help="Also show templates whose lines changed by so much.")] = 3.0,
    json_: Json = False,
) -> None:
    """What a day has that another had not: templates that are new, that are gone, that have many more or fewer lines.

    Example: onecollector templates diff 2026-11-02 2026-11-03
    """
    from ml.template_days import difference

    first, settings, kept = _opened(before, tenant)
    second = day_of(after) if after is not None else first + timedelta(days=1)
    state, _, old = _day(settings, kept, first, tenant)
    state, facts, now = _day(settings, kept, second, tenant, state)
    rows = [
        {**row, "what": row["what"] if row["what"] != "both" else "more" if row["after"] > row["before"] else "fewer"}
        for row in difference(old, now, state).to_dicts()
        if service in (None, row["service"])
        and (row["what"] != "both" or max(row["before"], row["after"]) >= factor * min(row["before"], row["after"]))
    ]
    if json_:
        print_json({"tenant": tenant, "before": str(first), "after": str(second), "templates": rows})
        return
    styles = {"new": "green", "gone": "red"}
    shown = [
        (
            Text(row["what"], style=styles.get(row["what"], "default")),
            *(row["id"], row["service"], f"{row['before']:,}", f"{row['after']:,}", _told(row)),
        )
        for row in sorted(
            rows, key=lambda r: (("new", "gone", "more", "fewer").index(r["what"]), -r["after"] - r["before"])
        )
    ]
    columns = ("", "id", "service", str(first), str(second), "template")
    console().print(table(columns, shown, right=columns[3:5]))
    counted = {what: sum(row["what"] == what for row in rows) for what in ("new", "gone", "more", "fewer")}
    console().print(Text("   ".join(f"{number} {what}" for what, number in counted.items())))
    _say_incomplete(facts)


def _opened(day: str | None, tenant: str) -> tuple[date, Settings, TemplateStore]:
    from ml.template_store import TemplateStore
    from onecollector_resources.settings import load_settings
    from onecollector_resources.storage.opening import model_store

    settings = load_settings()
    kept = TemplateStore(model_store(settings), tenant)
    if tenant not in settings.tenants and not kept.days():
        raise typer.BadParameter(f"expected one of {', '.join(sorted(settings.tenants))}, found {tenant!r}")
    if day is not None:
        return day_of(day), settings, kept
    days = kept.days()
    return (days[-1] if days else datetime.now(UTC).date() - timedelta(days=1)), settings, kept


def _day(
    settings: Settings, kept: TemplateStore, day: date, tenant: str, known: StoredTemplates | None = None
) -> tuple[StoredTemplates, Mapping[str, Any], pl.DataFrame]:
    """What is kept of a day; counted from the exported lines where nothing is, which keeps nothing.

    ``known`` are templates to go on from instead of those that are kept.
    """
    from onecollector_assets.template_counts import count_day, exported_day

    state, found = known or kept.load(), kept.load_day(day)
    if found is not None:
        facts = {name: found[0].get(name, 0) for name in ("lines", "overflow", "cut", "incomplete")}
        return state, facts, found[1]
    dataset = exported_day(settings, tenant, day)
    if not dataset.manifests:
        typer.echo(
            f"no lines of {tenant} are exported for {day}; run: onecollector export '{{service_name=~\".+\"}}' "
            f"--from {day} --to {day + timedelta(days=1)}" + (f" --tenant {tenant}" if tenant != "default" else ""),
            err=True,
        )
        raise typer.Exit(1)
    warn(f"{day} was not counted by log_templates yet: counted now, not kept")
    counter = count_day(settings, state, dataset, day)
    counts, tally = counter.frame(), counter.tally
    state.take(counter.miner)
    counter.note_seen(state)
    facts = {"lines": tally.lines, "overflow": tally.overflow, "cut": tally.cut, "incomplete": len(dataset.incomplete)}
    return state, facts, counts


def _of_service(counts: pl.DataFrame, service: str, day: date) -> pl.DataFrame:
    import polars as pl

    mine = counts.filter(pl.col("service") == service)
    if not mine.height:
        there = on_one_line(", ".join(sorted(counts["service"].unique().to_list()))) or "none"
        typer.echo(f"no lines of service {service!r} on {day}; there are: {there}", err=True)
        raise typer.Exit(1)
    return mine


def _first_ns(state: StoredTemplates, row: Mapping[str, Any]) -> int:
    seen = state.seen.get((row["service"], row["id"]))
    return seen.first_ns if seen else row["first_ns"]


def _told(row: Mapping[str, Any]) -> str:
    return on_one_line(row["template"]) or ("(no text)" if row["id"] != "overflow" else "(too many kinds)")


def _bars(hours: list[int]) -> str:
    most = max(hours) or 1
    return "".join(" " if not n else BARS[min(len(BARS) - 1, n * len(BARS) // (most + 1))] for n in hours)


def _stamp(time_ns: int) -> str:
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}"


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "first": _stamp(row["first_ns"]), "last": _stamp(row["last_ns"])}


def _say_incomplete(facts: Mapping[str, Any]) -> None:
    if facts.get("overflow"):
        warn(f"{facts['overflow']:,} lines are overflow: their service writes too many kinds of lines to tell apart")
    if facts.get("incomplete"):
        warn(f"{facts['incomplete']} exported partitions of the day lack lines; look: onecollector export … for why")

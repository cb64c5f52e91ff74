"""Commands about retention: what is kept how long, what a change would delete, and bringing it into force."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from onecollector.cli.invocation import as_pasted
from onecollector.cli.render import console, human_bytes, print_json, table, warn

if TYPE_CHECKING:
    from onecollector_resources.retention.measure import Held
    from onecollector_resources.retention.preview import Going
    from onecollector_resources.retention.survey import TenantRetention
    from onecollector_resources.settings import Settings

app = typer.Typer(help="How long lines are kept: policies, a dry run, bringing them into force.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Tenant = Annotated[str | None, typer.Option(help="Only this tenant.")]
Count = Annotated[bool, typer.Option("--count", help="Read all lines and count them, however many there are.")]


def _look(tenant: str | None) -> tuple[Settings, list[TenantRetention], str]:
    """Settings, the survey and Loki's URL. Exits with 2 for a tenant that there is not."""
    from onecollector_resources.loki.querier import LokiQuerierClient
    from onecollector_resources.retention.survey import survey
    from onecollector_resources.runtime import load_runtime
    from onecollector_resources.settings import config_file, load_settings

    settings = load_settings()
    url = settings.loki.url or load_runtime(settings.layout).loki_url
    found = survey(settings, config_file(), lambda name: LokiQuerierClient(settings.loki.access(url, name)))
    if tenant is not None and tenant not in {one.tenant for one in found}:
        typer.echo(f"no tenant {tenant!r}; there are: {', '.join(one.tenant for one in found)}", err=True)
        raise typer.Exit(2)
    return settings, [one for one in found if tenant in (None, one.tenant)], url


def _keep(seconds: int) -> str:
    from onecollector_resources.retention.durations import short_text
    from onecollector_resources.retention.keeps import AGES

    return short_text(seconds) if 0 < seconds < AGES else "forever"


def _say_faults(tenants: Sequence[TenantRetention]) -> None:
    for one in tenants:
        for fault in one.faults:
            # Not folded: an editor or a person copies the place.
            typer.echo(str(fault), err=True)
        if one.faults:
            typer.echo(f"    tenant {one.tenant} keeps what was in force; the other tenants are not held up", err=True)


@app.command("show")
def show(tenant: Tenant = None, json_: Json = False) -> None:
    """What is kept how long: by the policy files, and by what Loki says is in force. Exit code 1 where a file is bad.

    Example: onecollector retention show
    """
    _, found, _ = _look(tenant)
    bad = any(one.faults for one in found)
    if json_:
        print_json([_as_data(one) for one in found])
        raise typer.Exit(1 if bad else 0)
    rows: list[tuple[Any, ...]] = []
    for one in found:
        style = {"in force": "green", "waiting": "yellow", "bad file": "bold red"}.get(one.state, "default")
        known = {rule.matchers: rule.keep_s for rule in one.in_force.rules} if one.in_force else {}
        state = Text(one.state, style=style)
        for number, rule in enumerate(one.planned.rules):
            now = known.pop(rule.matchers, None)
            rows.append(
                (
                    one.tenant,
                    rule.selector,
                    _keep(rule.keep_s),
                    "-" if now is None else _keep(now),
                    state,
                    one.why(number),
                )
            )
        gone = [rule for rule in one.in_force.rules if rule.matchers in known] if one.in_force else []
        rows += [(one.tenant, rule.selector, "-", _keep(rule.keep_s), state, "in no file") for rule in gone]
        in_force = _keep(one.in_force.default_s) if one.in_force else "?"
        rows.append((one.tenant, "everything else", _keep(one.planned.default_s), in_force, state, one.note))
    console().print(table(("TENANT", "SELECTOR", "KEEP", "IN FORCE", "STATE", "WHY"), rows))
    _say_faults(found)
    if any(one.state == "waiting" for one in found):
        console().print(
            Text(
                as_pasted(
                    "waiting: onecollector retention plan shows what would go, then: onecollector retention apply"
                )
            )
        )
    raise typer.Exit(1 if bad else 0)


def _as_data(one: TenantRetention) -> dict[str, Any]:
    def keeps(these: Any) -> dict[str, Any] | None:
        rules = [{"selector": rule.selector, "keep_s": rule.keep_s} for rule in these.rules] if these else []
        return {"keep_s": these.default_s, "rules": rules} if these else None

    return {
        "tenant": one.tenant,
        "state": one.state,
        "file": one.file,
        "faults": [str(fault) for fault in one.faults],
        "planned": keeps(one.planned),
        "in_force": keeps(one.in_force),
        "note": one.note,
    }


@app.command("plan")
def plan(
    tenant: Tenant = None,
    count: Count = False,
    yaml_: Annotated[bool, typer.Option("--yaml", help="Print the limits for Loki's runtime_config file.")] = False,
    json_: Json = False,
) -> None:
    """Dry run: what would be deleted, by tenant and selector. Changes nothing. Exit code 1 where a file is bad.

    Example: onecollector retention plan --tenant payments
    """
    settings, found, url = _look(tenant)
    if yaml_:
        from onecollector_resources.retention.apply import overrides_for

        typer.echo(overrides_for(settings, found), nl=False)
        _say_faults(found)
        raise typer.Exit(1 if any(one.faults for one in found) else 0)
    rows = _going(settings, found, url, count)
    if json_:
        print_json({"tenants": [_as_data(one) for one in found], "going": [asdict(row) for row in rows]})
    else:
        _say_plan(found, rows)
    raise typer.Exit(1 if any(one.faults for one in found) else 0)


def _going(settings: Settings, found: Sequence[TenantRetention], url: str, count: bool) -> list[Going]:
    from onecollector_resources.loki.querier import LokiQuerierClient
    from onecollector_resources.retention.measure import COUNT_BELOW
    from onecollector_resources.retention.preview import going

    rows: list[Going] = []
    for one in found:
        if one.tenant in settings.tenants:
            with LokiQuerierClient(settings.loki.access(url, one.tenant, timeout_s=300)) as client:
                rows += going(client, one, time.time_ns(), count_below=1 << 62 if count else COUNT_BELOW)
    return rows


def _say_plan(found: Sequence[TenantRetention], rows: Sequence[Going]) -> None:
    shown = [row for row in rows if row.held.bytes or row.now_s != row.then_s]
    cells = [
        (
            row.tenant,
            row.selector,
            _keep(row.now_s),
            _keep(row.then_s),
            _lines(row.newly),
            _bytes(row.newly),
            row.newly.oldest,
            row.newly.newest,
            _lines(row.anyway),
            row.why,
        )
        for row in shown
    ]
    columns = ("TENANT", "SELECTOR", "NOW", "THEN", "LINES", "BYTES", "OLDEST", "NEWEST", "DUE ANYWAY", "WHY")
    out = console()
    if cells:
        out.print(table(columns, cells, ("LINES", "BYTES", "DUE ANYWAY")))
    lines = [row.newly.lines for row in rows]
    size = sum(row.newly.bytes for row in rows)
    exact = all(row.newly.counted for row in rows)
    total = "an unknown number of" if None in lines else f"{sum(n or 0 for n in lines):,}"
    out.print(Text(f"{'' if exact else 'about '}{total} lines, {human_bytes(size)} would go because of the change"))
    if not exact:
        out.print(Text("~ is an estimate from Loki's index, often too high: --count reads and counts the lines"))
    for one in found:
        if one.in_force is None and one.note:
            warn(f"{one.tenant}: what is in force is not known, so all counts as new: {one.note}")
    _say_faults(found)


def _lines(held: Held) -> str:
    return "?" if held.lines is None else f"{'' if held.counted else '~'}{held.lines:,}"


def _bytes(held: Held) -> str:
    return f"{'' if held.counted else '~'}{human_bytes(held.bytes)}"


@app.command("apply")
def apply(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, count: Count = False, json_: Json = False
) -> None:
    """Bring the policy files into force, after showing what will go. What is deleted does not come back.

    A bad file blocks its own tenant alone; the exit code is 1 then.

    Example: onecollector retention apply
    """
    from onecollector_resources.retention.apply import apply as bring_into_force
    from onecollector_resources.retention.policies import RetentionError

    settings, found, url = _look(None)
    if settings.loki.url is not None:
        raise RetentionError(
            f"Loki at {url} is not ours to configure: give its operator what `onecollector retention plan --yaml` prints, "
            "for the file that its runtime_config names"
        )
    if not yes or not json_:
        rows = _going(settings, found, url, count)
        if not json_:
            _say_plan(found, rows)
    if not yes:
        typer.confirm("Bring this into force? Lines that it deletes do not come back.", abort=True, err=json_)
    done = bring_into_force(
        settings, found, lambda name: settings.loki.access(url, name), clock=time.monotonic, sleep=time.sleep
    )
    if json_:
        print_json(asdict(done))
    else:
        changed = f"changed: {', '.join(done.changed)}" if done.changed else "nothing has changed"
        console().print(Text(f"in force after {done.seconds:.1f}s as Loki says; {changed}"))
        if done.blocked:
            warn(f"blocked by their files, and as before: {', '.join(done.blocked)}")
    raise typer.Exit(1 if done.blocked else 0)

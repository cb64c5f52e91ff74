"""Commands about findings: which there are, what one says, and what a person says of it."""

from __future__ import annotations

import getpass
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from onecollector.cli.invocation import as_pasted, command_name
from onecollector.cli.machine import Json
from onecollector.cli.render import console, print_json, table, warn
from onecollector.cli.visible import on_one_line

if TYPE_CHECKING:
    from onecollector_resources.findings.records import Judgement, StoredFinding
    from onecollector_resources.findings.store import FindingStore
    from onecollector_resources.settings import Settings

app = typer.Typer(help="Findings: what services did that is not usual.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(help="Number of a finding, as in `findings list`.")]
Note = Annotated[str, typer.Option(help="Why, for the record.")]
STATES = ("open", "closed", "confirmed", "dismissed")
STYLES = {"error": "red", "warning": "yellow", "confirmed": "red", "dismissed": "dim"}


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Option(help="Tenant; left out: all.")] = None,
    service: Annotated[str | None, typer.Option(help="Service; left out: all.")] = None,
    since: Annotated[str, typer.Option(help="How far back: 5m, 12h, 7d, or a date or RFC 3339 time.")] = "7d",
    state: Annotated[str | None, typer.Option(help="open, closed, confirmed or dismissed.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Findings shown, the newest.")] = 50,
    json_: Json = False,
) -> None:
    """Findings, newest first. Says why there are none where there are none.

    Example: onecollector findings list --service payments --since 2d
    """
    from onecollector_resources.findings.message import plain_stored

    if state not in (None, *STATES):
        raise typer.BadParameter(f"expected one of {', '.join(STATES)}, found {state!r}")
    settings, store = _opened()
    if tenant not in (None, *settings.tenants) and not store.find(tenant, limit=1):
        raise typer.BadParameter(f"expected one of {', '.join(sorted(settings.tenants))}, found {tenant!r}")
    began = _moment(since)
    found = store.find(
        tenant,
        service,
        began,
        state if state in ("open", "closed") else None,
        state if state in ("confirmed", "dismissed") else None,
        limit + 1,
    )
    more, found = len(found) > limit, found[:limit]
    if json_:
        print_json([plain_stored(one) for one in found])
        return
    if not found:
        warn(as_pasted(_why_none(settings, store, tenant)))
        return
    columns = ("no", "from", "for", "service", "", "", "what")
    console().print(table(columns, [_row(one, tenant) for one in found], right=("no", "for")))
    if more:
        console().print(Text("there are more (--limit)"))


@app.command("show")
def show(number: Number, json_: Json = False) -> None:
    """One finding: what moved and by how much, what did not, lines, what happened beside it, and what to ask next.

    Example: onecollector findings show 118
    """
    from onecollector_resources.findings.message import plain_stored, storable
    from onecollector_resources.findings.report import Told, headline, rarity, rows

    _, store = _opened()
    stored = _found(store, number)
    incident, deliveries = store.incident(stored.finding.incident), store.deliveries(stored.finding.key)
    if json_:
        sent = [
            {"channel": d.channel, "kind": d.kind, "state": d.state, "attempts": d.attempts, "error": d.last_error}
            for d in deliveries
        ]
        beside = {"services": incident.services, "findings": incident.findings} if incident else {}
        evidence = incident.evidence if incident else {}
        print_json(storable(plain_stored(stored) | {"sent": sent, "together": beside, "evidence": evidence}))
        return
    out = console()
    title = Text(on_one_line(headline(stored)), style="bold")
    title.append(f"   {rarity(stored.finding)}", style="not bold dim")
    out.print(title)
    for label, text in rows(stored, Told(incident, deliveries)):
        # Folded by the terminal, if at all: what is copied from it is one line.
        out.print(Text(f"{label:<10}{on_one_line(_pastable(label, text))}"), soft_wrap=True)


@app.command("confirm")
def confirm(number: Number, note: Note = "", json_: Json = False) -> None:
    """It was a real one: models learn nothing from its minutes, and have to find it again.

    Example: onecollector findings confirm 118 --note "the database was down"
    """
    _judge(number, "confirmed", note, json_, "its minutes are left out when the next model is trained")


@app.command("dismiss")
def dismiss(number: Number, note: Note = "", json_: Json = False) -> None:
    """It was nothing: the next model takes it for normal, by half a decade of rarity a week at most.

    Example: onecollector findings dismiss 118 --note "the nightly import"
    """
    _judge(number, "dismissed", note, json_, "the next model raises this service's bar for it")


def _judge(number: int, judgement: Judgement, note: str, json_: bool, then: str) -> None:
    from onecollector_resources.findings.message import plain_stored

    _, store = _opened()
    _found(store, number)
    stored = store.judge(number, judgement, _who(), note)
    if json_:
        print_json(plain_stored(stored))
        return
    console().print(Text(f"{number} {judgement}: {then}"))


def _who() -> str:
    """Who runs this, for the record: by number where the machine has no name for it, as in many a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _opened() -> tuple[Settings, FindingStore]:
    from onecollector_resources.findings.opening import finding_store
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    return settings, finding_store(settings)


def _found(store: FindingStore, number: int) -> StoredFinding:
    from onecollector_resources.findings.store import UnknownFinding

    try:
        return store.by_number(number)
    except UnknownFinding as error:
        typer.echo(as_pasted(str(error)), err=True)
        raise typer.Exit(1) from None


def _pastable(label: str, text: str) -> str:
    """Our own commands as they work from here; a log line that looks like one, also in a query, stays as it is."""
    if label == "ask":
        return command_name() + text.removeprefix("onecollector")
    return as_pasted(text) if label == "judge" else text


def _moment(since: str) -> datetime:
    from onecollector.cli.spans import instant_ns, seconds_of

    now_ns = time.time_ns()
    ns = instant_ns(since, now_ns) if "-" in since else now_ns - int(seconds_of(since) * 1e9)
    return datetime.fromtimestamp(max(0, ns) / 1e9, UTC)


def _row(stored: StoredFinding, tenant: str | None) -> tuple[Any, ...]:
    found = stored.finding
    minutes = int((found.last - found.first).total_seconds()) // 60 + 1
    service = found.service if tenant or found.tenant == "default" else f"{found.tenant}/{found.service}"
    state = stored.judgement if stored.judgement != "none" else stored.state
    return (
        stored.number,
        f"{found.first:%Y-%m-%d %H:%M}",
        f"{minutes} min",
        service,
        Text(found.severity, STYLES.get(found.severity, "")),
        Text(state, STYLES.get(state, "")),
        found.sentence,
    )


def _why_none(settings: Settings, store: FindingStore, tenant: str | None) -> str:
    """What keeps findings from being there, the first thing first."""
    from ml.model_manifest import ModelRefused
    from onecollector.local.supervisor import Supervisor, SupervisorError
    from onecollector_assets.model_training import models_of

    if store.find(limit=1):
        return "no finding matches; there are others: onecollector findings list --since 365d"
    if not settings.models.enabled:
        return "no finding, and none will come: models are off; set models.enabled: true, then run: onecollector up"
    wanted = [tenant] if tenant else sorted(settings.tenants)
    serving = {}
    for name in wanted:
        try:
            serving[name] = models_of(settings, name).channels.current("production")
        except ModelRefused as error:
            return f"no finding, and none will come: {error}"
    if not any(serving.values()):
        return (
            f"no finding, and none will come: no model of {', '.join(wanted)} serves; "
            "train one: onecollector models train --promote"
        )
    try:
        running = any(
            one.name == "scorer" and one.state == "RUNNING" for one in Supervisor(settings.layout).processes()
        )
    except (SupervisorError, OSError):
        running = False
    if not running:
        return "no finding, and none will come: the scorer does not run here; look: onecollector status"
    return "no finding yet: a model serves and the scorer runs; new ones come within a minute of what they are about"

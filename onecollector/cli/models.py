"""Commands about models: which there are, what one was learned from and how good it is, which one serves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from onecollector.cli.machine import Json
from onecollector.cli.render import console, human_bytes, print_json, table, warn
from onecollector.cli.spans import day_of

if TYPE_CHECKING:
    from ml.model_channels import Channel
    from ml.model_store import ModelStore
    from onecollector_resources.settings import Settings

app = typer.Typer(help="Models of what is normal: train, look, let one serve, go back.", no_args_is_help=True)

Tenant = Annotated[str, typer.Option(help="Tenant.")]
CHANNELS: tuple[Channel, ...] = ("production", "candidate", "previous")


@app.command("list")
def list_(tenant: Tenant = "default", json_: Json = False) -> None:
    """Models of a tenant, newest first, and which of them serves.

    Example: onecollector models list
    """
    from ml.model_manifest import ModelRefused

    _, models = _opened(tenant)
    channels, problems = _channels(models)
    shadowed = {one.model_id: f"{one.minutes / 60:.1f} h" for one in models.shadows.open_ones()}
    rows: list[dict[str, Any]] = []
    for model_id in reversed(models.ids()):
        here = [name for name in CHANNELS if channels[name] == model_id]
        try:
            manifest = models.manifest(model_id)
            passed = models.evaluation(manifest)["passed"]
        except ModelRefused as error:
            rows.append({"model": model_id, "channels": here, "problem": str(error)})
            continue
        rows.append(
            {
                "model": model_id,
                "channels": here,
                "passed": passed,
                "services": manifest.services,
                "learning": manifest.learning,
                "days": f"{manifest.learned.first_day} to {manifest.learned.last_day}",
                "bytes": manifest.bytes,
                "shadow": shadowed.get(model_id, ""),
            }
        )
    if json_:
        print_json({"tenant": tenant, "channels": channels, "models": rows, "problems": problems})
        return
    columns = ("model", "", "gates", "services", "learning", "days", "size", "shadow")
    shown = [
        (row["model"], " ".join(row["channels"]), *(["damaged"] if "problem" in row else _told(row))) for row in rows
    ]
    console().print(table(columns, shown, right=("services", "learning", "size")))
    for problem in [*problems, *(row["problem"] for row in rows if "problem" in row)]:
        warn(problem)
    if not rows:
        warn(f"{tenant} has no model yet; train one: onecollector models train")


@app.command("show")
def show(
    model: Annotated[
        str | None, typer.Argument(help="Id of a model, or how it begins; empty: the one that serves.")
    ] = None,
    tenant: Tenant = "default",
    limit: Annotated[int, typer.Option(min=1, help="Services shown.")] = 30,
    json_: Json = False,
) -> None:
    """One model: what it was learned from, how it did in its examination, its gates, its services.

    Example: onecollector models show
    """
    settings, models = _opened(tenant)
    loaded = models.load(_named(models, model))
    manifest, shadow = loaded.manifest, _shadow_of(settings, models, loaded.model_id)
    evaluation, services = models.evaluation(manifest), models.services(manifest)
    if json_:
        plain = {"manifest": asdict(manifest), "evaluation": evaluation, "services": [asdict(one) for one in services]}
        print_json({**plain, "shadow": shadow})
        return
    out = console()
    learned = manifest.learned
    out.print(Text(manifest.model_id, style="bold"), Text(_where(models, manifest.model_id), style="green"))
    out.print(Text(f"  learned   {learned.first_day} to {learned.last_day}, {learned.minutes:,} service minutes"))
    out.print(Text(f"  services  {manifest.services:,}, {manifest.learning:,} of them learning"))
    out.print(
        Text(f"  size      {human_bytes(manifest.bytes)} in {len(manifest.files)} files, all as they were written")
    )
    out.print(Text(f"  parent    {manifest.parent or 'none'}"))
    if shadow:
        out.print(Text(f"  shadow    {shadow['found']}{'; ' + shadow['ended'] if shadow['ended'] else ''}"))
    out.print()
    _print_gates(evaluation)
    if evaluation["verdicts"]:
        out.print()
        columns = ("detector", "recall", "false a day", "delay")
        rows = [
            (v["detector"], _figure(v["recall"]), _figure(v["false_a_day"]), _minutes(v["median_delay"]))
            for v in evaluation["verdicts"]
        ]
        out.print(table(columns, rows))
    out.print()
    ranked = sorted(services, key=lambda one: (not one.learning, -one.lines))
    rows = [
        (
            *(one.service, f"{one.days:.1f}", f"{one.lines:,}", one.templates, f"{one.missing_share:.1%}"),
            "learning: only new errors count" if one.learning else "",
        )
        for one in ranked[:limit]
    ]
    columns = ("service", "days", "lines", "kinds", "missing", "")
    out.print(table(columns, rows, right=columns[1:5]))
    if len(ranked) > limit:
        out.print(Text(f"{len(ranked) - limit} more (--limit)"))


@app.command("train")
def train(
    tenant: Tenant = "default",
    until: Annotated[str | None, typer.Option(help="Last day, UTC: 2026-11-03. Empty: the newest whole one.")] = None,
    promote_: Annotated[bool, typer.Option("--promote", help="Let it serve where it passes its gates.")] = False,
    json_: Json = False,
) -> None:
    """Train a model on exported days, examine it and keep it as the candidate. Exit code 1 where a gate fails.

    Example: onecollector models train --promote
    """
    from ml.gates import passed
    from onecollector_assets.model_training import train_tenant
    from onecollector_assets.promotion import Promoted, Waiting, promote_candidate

    settings, models = _opened(tenant)
    last = day_of(until) if until is not None else None
    tell = (lambda text: None) if json_ else (lambda text: console().print(Text(text, style="dim")))
    trained = train_tenant(settings, models.store, tenant, last, tell=tell)
    good = passed(trained.gates)
    done = promote_candidate(settings, models.store, tenant) if promote_ and good else None
    promoted = done if isinstance(done, Promoted) else None
    for problem in (*trained.problems, *([promoted.problem] if promoted and promoted.problem else ())):
        warn(problem)
    if json_:
        gates = [gate.plain() for gate in trained.gates]
        name = trained.manifest.model_id
        print_json({"tenant": tenant, "model": name, "passed": good, "gates": gates, "promoted": promoted is not None})
    else:
        _print_gates({"gates": [gate.plain() for gate in trained.gates]})
        name = trained.manifest.model_id
        if promoted:
            console().print(Text(f"{name} serves now; back: onecollector models rollback"))
        elif isinstance(done, Waiting):
            console().print(Text(f"{name} is the candidate: {done.why}; at once: onecollector models promote --force"))
        elif good:
            console().print(Text(f"{name} is the candidate; let it serve: onecollector models promote"))
        else:
            console().print(Text(f"{name} stays a candidate: it failed a gate", style="red"))
    raise typer.Exit(0 if good else 1)


@app.command("promote")
def promote(
    model: Annotated[str | None, typer.Argument(help="Id of a model, or how it begins; empty: the candidate.")] = None,
    tenant: Tenant = "default",
    force: Annotated[
        bool, typer.Option("--force", help="Whatever its gates say, and over a pointer that cannot be read.")
    ] = False,
    why: Annotated[str, typer.Option(help="Why, for the record.")] = "by hand",
    json_: Json = False,
) -> None:
    """Let a model serve that passed its gates. It is read whole and checked first.

    Example: onecollector models promote
    """
    from onecollector_assets.promotion import promote as promoted

    settings, models = _opened(tenant)
    wanted = _named(models, model, "candidate")
    done = promoted(settings, models.store, tenant, wanted, why, force=force)
    if done.problem:
        warn(done.problem)
    _moved(done.pointer, tenant, json_)


@app.command("rollback")
def rollback(
    tenant: Tenant = "default",
    why: Annotated[str, typer.Option(help="Why, for the record.")] = "by hand",
    json_: Json = False,
) -> None:
    """Let the model serve again that did before. Given twice, it is undone.

    Example: onecollector models rollback --why "too many findings since noon"
    """
    _, models = _opened(tenant)
    found = models.channels.read("production")
    if found is not None and found[1].previous:
        # What cannot be read is no way back.
        models.load(found[1].previous)
    _moved(models.channels.roll_back(why), tenant, json_)


def _opened(tenant: str) -> tuple[Settings, ModelStore]:
    from onecollector_assets.model_training import models_of
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    if tenant not in settings.tenants:
        raise typer.BadParameter(f"expected one of {', '.join(sorted(settings.tenants))}, found {tenant!r}")
    return settings, models_of(settings, tenant)


def _shadow_of(settings: Settings, models: ModelStore, model_id: str) -> dict[str, Any] | None:
    from ml.model_manifest import ModelRefused
    from onecollector_assets.promotion import gate_of

    try:
        shadow = models.shadows.read(model_id)
    except ModelRefused as error:
        warn(str(error))
        return None
    if shadow is None:
        return None
    gate = gate_of(settings, models, shadow)
    return {**asdict(shadow), "found": gate.found, "passed": gate.passed}


def _channels(models: ModelStore) -> tuple[dict[str, str], list[str]]:
    from ml.model_manifest import ModelRefused

    found: dict[str, str] = dict.fromkeys(CHANNELS, "")
    problems: list[str] = []
    for name in CHANNELS:
        try:
            found[name] = models.channels.current(name)
        except ModelRefused as error:
            problems.append(str(error))
    return found, problems


def _named(models: ModelStore, model: str | None, channel: str = "production") -> str:
    if model is None:
        found = _channels(models)[0][channel]
        if not found:
            typer.echo(f"{models.tenant}: no model is {channel}; look: onecollector models list", err=True)
            raise typer.Exit(1)
        return found
    mine = [one for one in models.ids() if one.startswith(model)]
    return mine[0] if len(mine) == 1 else model


def _where(models: ModelStore, model_id: str) -> str:
    return " ".join(name for name, found in _channels(models)[0].items() if found == model_id)


def _told(row: dict[str, Any]) -> tuple[Any, ...]:
    gates = Text("passed", "green") if row["passed"] else Text("failed", "red")
    size = human_bytes(row["bytes"])
    return gates, f"{row['services']:,}", row["learning"], row["days"], size, row["shadow"]


def _print_gates(evaluation: dict[str, Any]) -> None:
    for gate in evaluation["gates"]:
        mark = (
            Text("✓", "green") if gate["passed"] else Text("✗", "bold red") if gate["blocking"] else Text("!", "yellow")
        )
        console().print(mark, Text(f"{gate['name']:<16} {gate['found']}"))
        if not gate["passed"]:
            console().print(Text(f"    expected: {gate['expected']}\n    fix: {gate['fix']}", "dim"))


def _moved(pointer: Any, tenant: str, json_: bool) -> None:
    if json_:
        print_json({"tenant": tenant, **asdict(pointer)})
        return
    console().print(Text(f"{pointer.model_id} serves now, in the place of {pointer.previous or 'none'}"))


def _figure(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _minutes(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} min"

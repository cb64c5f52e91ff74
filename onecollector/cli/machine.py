"""Commands about this machine: install, up, down, restart, status, doctor, env, logs, demo."""

from __future__ import annotations

import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from onecollector.cli.invocation import as_pasted, command_name
from onecollector.cli.render import console, human_bytes, print_json, table

if TYPE_CHECKING:
    from rich.console import Console

    from onecollector.local.stack import UpResult

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def install(
    parts: Annotated[list[str] | None, typer.Argument(help="Parts to install; none: all.")] = None,
    json_: Json = False,
) -> None:
    """Find or build the real parts: Loki, the collector, an S3 server, a Docker engine.

    Example: onecollector install loki collector
    """
    from onecollector.parts.install import install_command

    raise typer.Exit(install_command(parts, json_output=json_))


def up(
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until SIGTERM or Ctrl-C, then bring it down: for systemd.")
    ] = False,
    json_: Json = False,
) -> None:
    """Start everything on this machine and wait until it is healthy. Twice is harmless.

    Example: onecollector up
    """
    from onecollector.local.stack import stay
    from onecollector.local.stack import up as bring_up
    from onecollector_resources.settings import load_settings

    out = console()
    words: list[str] = []

    def progress(word: str) -> None:
        words.append(word)
        if sys.stderr.isatty() and not json_:
            typer.echo(f"\r{word:<60}", nl=False, err=True)

    stopped = threading.Event()
    if foreground:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.set())
    settings = load_settings()
    result = bring_up(settings, progress)
    if json_:
        print_json(
            {"seconds": result.seconds, "started": result.started, "engine": result.engine, "total_s": result.total_s}
        )
    else:
        _say_up(result, out)
    if foreground and not stay(settings, stopped):
        typer.echo(as_pasted("supervisord has ended; `onecollector up` brings everything back"), err=True)
        raise typer.Exit(1)


def _say_up(result: UpResult, out: Console) -> None:
    if sys.stderr.isatty():
        typer.echo("\r" + " " * 60 + "\r", nl=False, err=True)
    parts = "  ".join(
        f"{part} ✓ {seconds:.1f}s" for part, seconds in sorted(result.seconds.items(), key=lambda x: x[1])
    )
    state = "up" if result.started else "was up already"
    out.print(Text(f"{parts}   {state} in {result.total_s:.1f}s"))
    out.print(Text(f"containers  {result.engine}"))
    out.print(Text(f"Dagster     {result.runtime.dagster_url}"))
    out.print(Text(f"Stop        {command_name()} down"))


def down(json_: Json = False) -> None:
    """Stop exactly what `up` started.

    Example: onecollector down
    """
    from onecollector.local.stack import down as bring_down
    from onecollector_resources.settings import load_settings

    began = time.monotonic()
    result = bring_down(load_settings())
    if json_:
        print_json(result)
        return
    said = "stopped" if result.supervised or result.left_over else "nothing was running"
    extra = f", and {len(result.left_over)} processes that no supervisor had" if result.left_over else ""
    engine = ", our Docker engine too" if result.engine_stopped else ""
    console().print(Text(f"{said}{extra}{engine} in {time.monotonic() - began:.1f}s"))


def restart(
    part: Annotated[str | None, typer.Argument(help="One part; none: all.")] = None, json_: Json = False
) -> None:
    """Restart one part, or all.

    Example: onecollector restart loki
    """
    from onecollector.local.stack import restart as restart_parts
    from onecollector_resources.settings import load_settings

    began = time.monotonic()
    restart_parts(load_settings(), part)
    if json_:
        print_json({"restarted": part or "all", "seconds": time.monotonic() - began})
        return
    console().print(Text(f"{part or 'all parts'} restarted and healthy"))


def status(json_: Json = False) -> None:
    """Each part with its health, and what is collected. Exit code 1 where a part is not healthy.

    Example: onecollector status
    """
    from onecollector.local.status import human_age, proved_line, read_status, sources_line
    from onecollector_resources.runtime import load_runtime
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    found = read_status(settings, load_runtime(settings.layout))
    if json_:
        print_json(
            {
                "ok": found.ok,
                "parts": list(found.parts),
                "sources": found.sources,
                "proved": found.proved,
                "provable": found.provable,
                "proved_at": found.proved_at or None,
                "proved_lines": found.proved_lines,
                "gaps_24h": found.gaps_24h,
            }
        )
        raise typer.Exit(0 if found.ok else 1)
    out, now = console(), time.time()
    rows = [
        (
            part.part,
            Text("ok", style="green") if part.ok else Text("DOWN", style="bold red"),
            part.pid or "-",
            part.port or "-",
            human_bytes(part.memory) if part.memory else "-",
            human_age(now - part.since) if part.since else "-",
            part.note,
            part.log or "-",
        )
        for part in found.parts
    ]
    out.print(table(("PART", "HEALTH", "PID", "PORT", "MEM", "SINCE", "NOTE", "LOG"), rows, ("PID", "PORT", "MEM")))
    out.print(Text(as_pasted(f"SOURCES     {sources_line(found.sources)}")))
    out.print(Text(f"PROVED      {proved_line(found, now)}"))
    gaps = (
        "cannot be read"
        if found.gaps_24h is None
        else "none"
        if found.gaps_24h == 0
        else f"{found.gaps_24h} → onecollector gaps"
    )
    out.print(Text(as_pasted(f"GAPS 24 h   {gaps}")))
    raise typer.Exit(0 if found.ok else 1)


def doctor(
    loki: Annotated[
        str | None,
        typer.Option("--loki", help="Examine this Loki instead: what it would lose, double or hide, tried with lines."),
    ] = None,
    tenant: Annotated[str, typer.Option(help="With --loki: the tenant whose limits are tried.")] = "default",
    read_only: Annotated[bool, typer.Option("--read-only", help="With --loki: push nothing, look only.")] = False,
    bearer_env: Annotated[str | None, typer.Option(help="With --loki: variable with a bearer token.")] = None,
    username: Annotated[str | None, typer.Option(help="With --loki: user for basic authentication.")] = None,
    password_env: Annotated[str | None, typer.Option(help="With --loki: variable with the password.")] = None,
    authority: Annotated[Path | None, typer.Option(help="With --loki: certificates (PEM) to trust.")] = None,
    certificate: Annotated[Path | None, typer.Option(help="With --loki: our certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="With --loki: private key (PEM) of it.")] = None,
    json_: Json = False,
) -> None:
    """What is wrong on this machine, and the command that mends it. Exit code 1 where an error was found.

    Example: onecollector doctor --loki https://loki.example --tenant payments
    """
    from onecollector.local.doctor import diagnose
    from onecollector_resources.settings import load_settings

    if loki:
        from onecollector.cli.preflight import access_of, examine

        options = {
            "bearer_env": bearer_env,
            "username": username,
            "password_env": password_env,
            "authority": authority,
            "certificate": certificate,
            "key": key,
        }
        access = access_of(loki, tenant, options)
        raise typer.Exit(examine(access, read_only=read_only, json_=json_))
    examined = diagnose(load_settings())
    found = [finding for one in examined for finding in one.findings]
    errors = sum(1 for finding in found if finding.level == "error")
    if json_:
        print_json({"examined": [one.name for one in examined], "findings": found, "errors": errors})
        raise typer.Exit(1 if errors else 0)
    out = console()
    for one in examined:
        if not one.findings:
            out.print(Text("✓ ", style="green").append(as_pasted(one.good), style="default"))
    for finding in found:
        mark = Text("✗ ", style="bold red") if finding.level == "error" else Text("! ", style="yellow")
        out.print(mark.append(as_pasted(finding.message), style="default"))
        out.print(Text(f"    {finding.where}"))
        if finding.fix:
            out.print(Text(as_pasted(f"    fix: {finding.fix}")))
    out.print(Text(f"{len(found)} finding{'s' * (len(found) != 1)}, {errors} error{'s' * (errors != 1)}"))
    raise typer.Exit(1 if errors else 0)


def env(
    collector: Annotated[bool, typer.Option("--collector", help="The collector's environment instead.")] = False,
    json_: Json = False,
) -> None:
    """Print variables for a shell: the engine, Loki, Dagster.

    Example: eval "$(onecollector env)" && docker ps
    """
    from onecollector_resources.runtime import collector_environment, load_runtime
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    runtime = load_runtime(settings.layout)
    if collector:
        values = collector_environment(
            settings.layout,
            runtime,
            host=settings.agent.host_name,
            environment=settings.environment,
            loki=settings.loki,
        )
    else:
        values = {
            "LOKI_ADDR": runtime.loki_url,
            "LOKI_ORG_ID": "default",
            "DAGSTER_HOME": str(settings.layout.dagster_home),
            "ONECOLLECTOR_STATE_DIR": str(settings.layout.root),
        }
        if runtime.docker_host:
            values["DOCKER_HOST"] = runtime.docker_host
    if json_:
        print_json(values)
        return
    import shlex

    for key, value in sorted(values.items()):
        typer.echo(f"{'' if collector else 'export '}{key}={shlex.quote(value)}")


def logs(
    part: Annotated[
        str, typer.Argument(help="loki, collector, agent, control, daemon, webserver, docker or supervisord.")
    ],
    lines: Annotated[int, typer.Option("--lines", "-n", help="Lines from the end.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
) -> None:
    """A part's own log.

    Example: onecollector logs agent -f
    """
    from onecollector_resources.settings import load_settings

    folder = load_settings().layout.logs
    path = folder / f"{part}.log"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.log"))) or "none yet; run: onecollector up"
        typer.echo(as_pasted(f"no log of {part!r}; there are: {there}"), err=True)
        raise typer.Exit(2)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - lines * 2000))
        typer.echo(b"\n".join(file.read().splitlines()[-lines:]).decode("utf-8", "replace"))
        while follow:
            more = file.read()
            if more:
                typer.echo(more.decode("utf-8", "replace"), nl=False)
            else:
                time.sleep(0.2)


def demo(
    findings: Annotated[
        bool, typer.Option("--findings", help="A container changes its behaviour and is found; in a stack of its own.")
    ] = False,
) -> None:
    """Start everything, run three containers, and show where their lines and assets are.

    Example: onecollector demo
    """
    from onecollector_resources.settings import load_settings

    if findings:
        from onecollector.local.demo_findings import run_demo
    else:
        from onecollector.local.demo import run_demo
    raise typer.Exit(run_demo(load_settings(), command_name()))

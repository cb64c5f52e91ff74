"""Commands about our own Loki: look whether it is well, stop and start it, delete what it stored (asks first)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from onecollector.cli.invocation import as_pasted
from onecollector.cli.render import console, human_bytes, print_json, table

if TYPE_CHECKING:
    from onecollector.local.supervisor import Supervisor
    from onecollector_resources.runtime import Runtime
    from onecollector_resources.settings import Settings

app = typer.Typer(help="Our own Loki: verify, stop, start, restart, delete its data.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
NAME = "loki"


def _ours() -> tuple[Settings, Runtime, Supervisor]:
    """Settings, runtime and supervisor of a Loki that we run. Exits with 2 for one that is somebody else's."""
    from onecollector.local.supervisor import Supervisor
    from onecollector_resources.runtime import load_runtime
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    if settings.loki.url is not None:
        typer.echo(f"Loki at {settings.loki.url} is not ours to stop or delete: loki.url is set", err=True)
        raise typer.Exit(2)
    runtime = load_runtime(settings.layout)
    supervisor = Supervisor(settings.layout)
    if not supervisor.alive():
        typer.echo(as_pasted("nothing runs; start with: onecollector up"), err=True)
        raise typer.Exit(2)
    return settings, runtime, supervisor


@app.command("verify")
def verify(json_: Json = False) -> None:
    """Check Loki's config with its own binary, and ask distributor, ingester and querier. Exit code 1 where one is not well.

    Example: onecollector loki verify
    """
    from pathlib import Path

    from onecollector_resources.collector.manager import AgentManager
    from onecollector_resources.collector.transports.local_http import LocalHttpTransport
    from onecollector_resources.health.monitor import HealthMonitor
    from onecollector_resources.loki.lifecycle import verify_config
    from onecollector_resources.loki.querier import LokiQuerierClient
    from onecollector_resources.runtime import load_runtime
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    runtime = load_runtime(settings.layout)
    if settings.loki.url is None:
        verify_config(Path(runtime.loki_binary), settings.layout.loki / "config.yaml")

    def reader(tenant: str) -> LokiQuerierClient:
        return LokiQuerierClient(settings.loki.access(runtime.loki_url, tenant))

    manager = AgentManager(LocalHttpTransport.of(settings.layout, runtime), reader)
    monitor = HealthMonitor(settings.loki.access(runtime.loki_url, "default"), manager)
    found = (
        monitor.check_distributor_health(),
        monitor.check_ingester_health(),
        monitor.check_querier_health(),
    )
    well = all(status.state == "ok" for status in found)
    if json_:
        print_json({"ok": well, "components": list(found)})
    else:
        rows = [
            (
                status.component,
                Text(status.state, style="green" if status.state == "ok" else "bold red"),
                status.reason or ", ".join(f"{key} {value}" for key, value in status.facts.items() if value),
            )
            for status in found
        ]
        console().print(table(("PART", "HEALTH", "NOTE"), rows))
    raise typer.Exit(0 if well else 1)


@app.command("stop")
def stop() -> None:
    """Stop Loki and let it flush. Lines wait in the collector's queue meanwhile; nothing is lost.

    Example: onecollector loki stop
    """
    _, _, supervisor = _ours()
    began = time.monotonic()
    supervisor.stop(NAME)
    console().print(Text(f"Loki stopped in {time.monotonic() - began:.1f}s; lines wait in the collector's queue"))


@app.command("start")
def start() -> None:
    """Start Loki and wait until it is ready.

    Example: onecollector loki start
    """
    settings, runtime, supervisor = _ours()
    console().print(Text(f"Loki is ready after {_start(settings, runtime, supervisor):.1f}s"))


@app.command("restart")
def restart() -> None:
    """Stop Loki, let it flush, start it and wait until it is ready.

    Example: onecollector loki restart
    """
    settings, runtime, supervisor = _ours()
    if _runs(supervisor):
        supervisor.stop(NAME)
    console().print(Text(f"Loki is ready after {_start(settings, runtime, supervisor):.1f}s"))


@app.command("delete-data")
def delete_data(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False, json_: Json = False) -> None:
    """Delete every line that our own Loki stored. Asks first; config and limits stay, collection goes on.

    Example: onecollector loki delete-data
    """
    from pathlib import Path

    from onecollector_resources.loki.lifecycle import LokiLifecycle

    settings, runtime, supervisor = _ours()
    layout = settings.layout
    if settings.loki.store == "s3":
        typer.echo("its chunks are in the bucket: delete them there; nothing was deleted", err=True)
        raise typer.Exit(2)
    if not yes:
        typer.confirm(f"Delete every line that was stored in {layout.loki}?", abort=True)
    if _runs(supervisor):
        supervisor.stop(NAME)
    try:
        size = LokiLifecycle(
            Path(runtime.loki_binary),
            layout.loki / "config.yaml",
            layout.loki,
            runtime.loki_port,
            layout.logs / "loki.log",
        ).delete_data(confirmed=True)
    finally:
        seconds = _start(settings, runtime, supervisor)
    if json_:
        print_json({"deleted_bytes": size, "ready_s": seconds})
        return
    console().print(Text(f"{human_bytes(size)} deleted; Loki is ready after {seconds:.1f}s"))


def _runs(supervisor: Supervisor) -> bool:
    return any(info.name == NAME and info.state in ("RUNNING", "STARTING") for info in supervisor.processes())


def _start(settings: Settings, runtime: Runtime, supervisor: Supervisor) -> float:
    from onecollector.local.stack import wait_healthy

    began = time.monotonic()
    supervisor.heal()
    wait_healthy(settings, runtime, supervisor, began, lambda _: None)
    return time.monotonic() - began

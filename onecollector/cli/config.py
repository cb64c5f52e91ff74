"""Commands about collector configs: show, rejected, forgive."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from onecollector.cli.invocation import as_pasted
from onecollector.cli.render import console, print_json, table

app = typer.Typer(help="Collector configs: what is live, what was rejected and why.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("show")
def show(json_: Json = False) -> None:
    """The config that the collector runs.

    Example: onecollector config show
    """
    from onecollector_resources.settings import load_settings

    path = load_settings().layout.active_config
    if not path.exists():
        typer.echo(as_pasted(f"{path} is not there: nothing was started yet; run: onecollector up"), err=True)
        raise typer.Exit(2)
    text = path.read_text(encoding="utf-8")
    if json_:
        print_json({"path": str(path), "text": text})
        return
    typer.echo(text, nl=False)


@app.command("rejected")
def rejected(json_: Json = False) -> None:
    """Configs that were at fault, by hash, with the reason. They are not offered again.

    Example: onecollector config rejected
    """
    from onecollector_resources.registry.store import LogSourceRegistry
    from onecollector_resources.settings import load_settings

    found = LogSourceRegistry(load_settings().registry_url).rejected_configs("default")
    if json_:
        print_json(found)
        return
    console().print(table(("HASH", "REASON"), sorted(found.items())))
    console().print(Text(f"{len(found)} rejected"))


@app.command("forgive")
def forgive(
    hash_: Annotated[str, typer.Argument(metavar="HASH", help="Hash as `config rejected` shows it.")],
    json_: Json = False,
) -> None:
    """Offer a rejected config again: what was wrong lay elsewhere and is mended.

    Example: onecollector config forgive 9be0c4d1a2b3c4d5
    """
    from onecollector_resources.collector.transports.local_http import LocalHttpTransport
    from onecollector_resources.registry.store import LogSourceRegistry
    from onecollector_resources.runtime import load_runtime
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    registry = LogSourceRegistry(settings.registry_url)
    known = registry.rejected_configs("default")
    if hash_ not in known:
        typer.echo(f"{hash_} is not rejected; rejected are: {', '.join(sorted(known)) or 'none'}", err=True)
        raise typer.Exit(2)
    LocalHttpTransport.of(settings.layout, load_runtime(settings.layout)).forgive(hash_)
    registry.forgive_config("default", hash_, actor="cli")
    if json_:
        print_json({"forgiven": hash_})
        return
    console().print(Text(f"{hash_} will be offered again at the next reconcile"))

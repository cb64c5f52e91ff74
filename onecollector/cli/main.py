"""The command line: every command says only what it saw, and exits 0 only when that is true.

Commands import what they need inside, so that ``--help`` and shell completion answer at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from onecollector.cli import archive as archive_commands
from onecollector.cli import asking, machine, reading, tailing
from onecollector.cli import config as config_commands
from onecollector.cli import export as export_commands
from onecollector.cli import findings as finding_commands
from onecollector.cli import loki as loki_commands
from onecollector.cli import models as model_commands
from onecollector.cli import retention as retention_commands
from onecollector.cli import templates as template_commands

app = typer.Typer(
    name="onecollector",
    help="Every container's logs in Grafana Loki, decided, recorded and proved by Dagster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(config_commands.app, name="config")
app.add_typer(loki_commands.app, name="loki")
app.add_typer(retention_commands.app, name="retention")
app.add_typer(archive_commands.storage, name="storage")
app.add_typer(template_commands.app, name="templates")
app.add_typer(model_commands.app, name="models")
app.add_typer(finding_commands.app, name="findings")

app.command("install")(machine.install)
app.command("up")(machine.up)
app.command("down")(machine.down)
app.command("restart")(machine.restart)
app.command("status")(machine.status)
app.command("doctor")(machine.doctor)
app.command("env")(machine.env)
app.command("logs")(machine.logs)
app.command("demo")(machine.demo)
app.command("sources")(reading.sources)
app.command("prove")(reading.prove)
app.command("query")(asking.query)
app.command("tail")(tailing.tail)
app.command("labels")(asking.labels)
app.command("gaps")(reading.gaps)
app.command("export")(export_commands.export)
app.command("archive")(archive_commands.archive)
app.command("restore")(archive_commands.restore)


@app.callback(invoke_without_command=True)
def version_or_help(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Every container's logs in Grafana Loki, decided, recorded and proved by Dagster."""
    if version:
        from importlib.metadata import version as installed

        print(installed("onecollector"))  # noqa: T201
        raise typer.Exit


def run() -> None:
    """Entry point: known errors are one message on stderr and exit code 2; Ctrl-C is 130."""
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as end:
        if export_commands.written and isinstance(end.code, int):
            # All is closed and in its place. Taking half a gigabyte apart takes as long as 300,000 lines more.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        raise
    except Exception as error:
        # Every command ends by an exception that is none of these: what they need is not loaded for that.
        from onecollector.cli.errors import KNOWN, explain

        if not isinstance(error, KNOWN()):
            raise
        print(explain(error), file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    run()

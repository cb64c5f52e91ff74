"""``onecollector tail``: lines as they reach Loki, until Ctrl-C, which says how they came."""

from __future__ import annotations

import math
import time
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, cast

import typer

from onecollector.cli.asking import Tenant, loki_access
from onecollector.cli.lines import Form, LinePrinter
from onecollector.cli.machine import Json
from onecollector.cli.render import warn
from onecollector.cli.spans import seconds_of

if TYPE_CHECKING:
    from onecollector_resources.loki.tail_ledger import TailCounts


def tail(
    logql: Annotated[str, typer.Argument(help="A LogQL log query.")],
    since: Annotated[str | None, typer.Option(help="Begin so far back: 90s, 5m, 1h30m; left out: now.")] = None,
    for_: Annotated[str | None, typer.Option("--for", help="End after so long; left out: at Ctrl-C.")] = None,
    tenant: Tenant = "default",
    output: Annotated[str, typer.Option(help="text, raw or jsonl.")] = "text",
    json_: Json = False,
) -> None:
    """Show lines as they reach Loki, each once. What Loki's tail leaves out is filled in seconds later, marked with +.

    Example: onecollector tail '{service_name="payments"} |= "error"'
    """
    from onecollector_resources.loki.querier import LokiQuerierClient

    if output not in ("text", "raw", "jsonl"):
        raise typer.BadParameter(f"expected text, raw or jsonl, found {output!r}")
    start_ns = None if since is None else time.time_ns() - int(seconds_of(since) * 1e9)
    end = math.inf if for_ is None else time.monotonic() + seconds_of(for_)
    printer = LinePrinter(cast(Form, "jsonl" if json_ else output))
    with LokiQuerierClient(loki_access(tenant)) as client:
        with client.stream_logs_in_realtime(logql, start_ns, told=warn) as lines:
            try:
                while (left := end - time.monotonic()) > 0:
                    found = lines.batch(None if left == math.inf else left)
                    for filled, some in groupby(found, key=lambda line: line.filled):
                        printer.show((line.entry for line in some), filled=filled)
            except (KeyboardInterrupt, TimeoutError):
                # How a tail ends.
                pass
            finally:
                _say(lines.counts, json_=json_)


def _say(counts: TailCounts, *, json_: bool) -> None:
    if json_:
        typer.echo(
            f'{{"live": {counts.live}, "filled": {counts.filled}, "dropped_by_loki": {counts.dropped}, '
            f'"reconnects": {counts.reconnects}}}',
            err=True,
        )
        return
    again = f" · {counts.reconnects} reconnects" if counts.reconnects else ""
    warn(
        f"{counts.live:,} live · {counts.filled:,} filled by query · {counts.dropped:,} that Loki said it dropped{again}"
    )

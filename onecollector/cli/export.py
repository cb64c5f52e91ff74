"""``onecollector export``: a range of lines as Parquet, with what was read, what was left out, and whether that is all."""

from __future__ import annotations

import sys
import time
from typing import Annotated, cast

import typer

from onecollector.cli.machine import Json
from onecollector.cli.render import print_json

written = False
"""Whether an export of this process has come to its end."""


def export(
    query: Annotated[str, typer.Argument(help="A LogQL selector, with line or label filters where wanted.")],
    from_: Annotated[str, typer.Option("--from", help="Start, inclusive: 2026-11-01 or 2026-11-01T12:00, UTC.")],
    to: Annotated[str, typer.Option("--to", help="End, exclusive; the same forms, or now.")] = "now",
    out: Annotated[
        str | None, typer.Option(help="A folder, file:///folder or s3://bucket/prefix; empty: export.out.")
    ] = None,
    tenant: Annotated[str, typer.Option(help="Tenant.")] = "default",
    engine: Annotated[str, typer.Option(help="auto, api (Loki's queries) or chunks (its object store).")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Write anew what is there and up to date.")] = False,
    json_: Json = False,
) -> None:
    """Every line of a range as Parquet, a folder per service and hour. Exit code 0 only when every line is there.

    Given again after an interruption it goes on where it stopped.

    Example: onecollector export '{service_name="payments"}' --from 2026-11-01 --to 2026-11-08 --out s3://exports
    """
    from onecollector.cli.export_report import Meter, Totals, outcome_row
    from onecollector.cli.spans import instant_ns
    from onecollector_resources.exports.exporting import Outcome, export_all
    from onecollector_resources.exports.process import share_heaps, start_lean
    from onecollector_resources.exports.session import ExportSession
    from onecollector_resources.exports.sources import EngineName
    from onecollector_resources.loki.chunk_store import chunk_store
    from onecollector_resources.runtime import load_runtime
    from onecollector_resources.settings import load_settings

    if engine not in ("auto", "api", "chunks"):
        raise typer.BadParameter(f"expected auto, api or chunks, found {engine!r}")
    forced = None if engine == "auto" else cast(EngineName, engine)
    settings, now_ns, began = load_settings(), time.time_ns(), time.monotonic()
    start_ns, end_ns = instant_ns(from_, now_ns), instant_ns(to, now_ns)
    share_heaps()
    start_lean(decoding=forced != "api" and chunk_store(settings) is not None)
    loki_url = settings.loki.url or load_runtime(settings.layout).loki_url
    outcomes: list[Outcome] = []
    with ExportSession.open(settings, tenant, loki_url, out=out) as session:
        tasks = session.plan(query, start_ns, end_ns, now_ns, forced)
        meter = Meter(session.size(query, start_ns, end_ns), shown=sys.stderr.isatty() and not json_)
        if not json_:
            meter.say(
                f"planning   {len(tasks)} partitions, {meter.expected()}          engine: {session.engines(tasks)}"
            )
        with meter:
            exporter = session.exporter(query, meter.add)
            for outcome in export_all(tasks, exporter, workers=session.workers(tasks), force=force):
                outcomes.append(outcome)
                meter.settled(outcome)
        total = Totals.of(outcomes, time.monotonic() - began)
        if json_:
            print_json({"out": session.store.url, **total.plain(), "partitions": [outcome_row(o) for o in outcomes]})
        else:
            meter.say(total.told(session.store.url, session.unchecked))
    global written  # noqa: PLW0603
    written = True
    raise typer.Exit(0 if total.incomplete == 0 else 1)

"""Commands about the archive: closed days into it, a day out of it into a Loki of its own, what a store can do."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from onecollector.cli.invocation import as_pasted
from onecollector.cli.machine import Json
from onecollector.cli.render import console, human_bytes, print_json, table
from onecollector.cli.spans import day_of

if TYPE_CHECKING:
    from onecollector_resources.archive.copy import Archiver, DayResult
    from onecollector_resources.archive.restore import Restored
    from onecollector_resources.settings import Settings
    from onecollector_resources.storage.objects import ObjectStore

storage = typer.Typer(help="Object stores: what one can do.", no_args_is_help=True)

Tenants = Annotated[list[str] | None, typer.Option("--tenant", help="Only this tenant; may be given several times.")]


@storage.command("check")
def check(
    url: Annotated[str, typer.Argument(help="s3://bucket/prefix, file:///folder or a path.")], json_: Json = False
) -> None:
    """Try out a bucket or folder before anything depends on it. Exit code 1 where something is missing.

    Example: onecollector storage check s3://loki-archive
    """
    from onecollector_resources.archive.places import open_any
    from onecollector_resources.settings import load_settings
    from onecollector_resources.storage.preflight import preflight

    rows = preflight(open_any(load_settings(), url))
    failed = [row for row in rows if row.level == "fail"]
    if json_:
        print_json({"url": url, "ok": not failed, "checks": rows})
    else:
        marks = {"ok": Text("✓", "green"), "warn": Text("!", "yellow"), "fail": Text("✗", "bold red")}
        for row in rows:
            console().print(marks[row.level], Text(f"{row.name:<20} {as_pasted(row.found)}"))
            if row.fix:
                console().print(Text(f"    fix: {as_pasted(row.fix)}", "dim"))
    raise typer.Exit(1 if failed else 0)


def archive(
    day: Annotated[
        str | None, typer.Argument(help="A day, UTC: 2026-11-01. Empty: all closed days that are to do.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Archive: s3://bucket/prefix or file:///folder; empty: archive.url.")
    ] = None,
    tenant: Tenants = None,
    force: Annotated[bool, typer.Option("--force", help="Copy a day again that is archived already.")] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace", help="Copy a day again, and remove from the archive what Loki no longer holds of it."
        ),
    ] = False,
    proof: Annotated[bool, typer.Option("--proof/--no-proof", help="Record counts and hashes of all lines.")] = True,
    list_: Annotated[bool, typer.Option("--list", help="Show what the archive holds.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read every object of the archive and compare.")] = False,
    json_: Json = False,
) -> None:
    """Copy closed days of Loki's store into the archive. Exit code 0 only when every one is there and whole.

    What was interrupted goes on where it stopped when the command is given again.

    Example: onecollector archive --to s3://loki-archive
    """
    from onecollector_resources.archive.copy import IndexMissing, SourceMoves
    from onecollector_resources.archive.places import archive_store
    from onecollector_resources.settings import load_settings

    settings = load_settings()
    wanted = day_of(day) if day is not None else None
    if list_ or verify:
        store = archive_store(settings, to)
        raise typer.Exit(_verify(store, wanted, tenant, json_) if verify else _list(store, tenant, json_))
    if (force or replace) and wanted is None:
        raise typer.BadParameter("name the day that is to be archived again")
    archiver = _archiver(settings, archive_store(settings, to, create=True), proof)
    archiver.tidy()
    results, left = [], []
    for one in tenant or list(settings.tenants):
        listing = archiver.listing(one)
        for which in [wanted] if wanted else archiver.days_to_do(one, listing):
            try:
                result = archiver.archive_day(one, which, listing, force=force, replace=replace)
            except (IndexMissing, SourceMoves) as error:
                # It is about this day alone.
                left.append({"day": which, "tenant": one, "why": str(error)})
                if not json_:
                    console().print(Text(f"{which} {one}   not archived: {error}", style="red"))
                continue
            results.append(result)
            if not json_:
                console().print(Text(told(result)))
    damaged = sum(result.damaged for result in results)
    if json_:
        print_json({"archive": archiver.archive.url, "damaged": damaged, "days": results, "left": left})
    elif not results and not left:
        console().print(Text(f"nothing to do: every closed day of Loki's store is in {archiver.archive.url}"))
    raise typer.Exit(1 if damaged or left else 0)


def told(result: DayResult) -> str:
    """A day in one line, and what is not as it should be in more."""
    lines = "lines not counted" if result.lines is None else f"{result.lines:,} lines"
    head = f"{result.day} {result.tenant}   "
    if result.state == "empty":
        return f"{head}no chunks in Loki's store"
    text = (
        f"{head}{result.state} r{result.revision}   {result.objects:,} objects, {human_bytes(result.bytes)}, {lines}   "
        f"{result.copied:,} copied in {result.seconds:.1f}s   {result.manifest}"
    )
    if result.late:
        text += f"\n    {result.late} chunks had come after revision {result.revision - 1}"
    if result.fresh:
        text += f"\n    {result.fresh} chunks are too new to have their index; the next run takes them"
    if result.unindexed:
        text += (
            f"\n    {result.unindexed} chunks are in Loki's index no more, past their date or deleted: "
            "they were copied, and a restored Loki does not show them"
        )
    if result.damaged:
        text += f"\n    {result.damaged} chunks are damaged in Loki's store; they were copied as they are"
    return text


def restore(
    day: Annotated[str | None, typer.Argument(help="A day, UTC: 2026-11-01.")] = None,
    from_: Annotated[str | None, typer.Option("--from", help="Archive; empty: archive.url.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    revision: Annotated[int | None, typer.Option(help="An earlier revision; empty: the newest.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where to; empty: restores/DAY under the state folder.")] = None,
    with_damage: Annotated[bool, typer.Option("--with-damage", help="Go on without objects that are damaged.")] = False,
    drill: Annotated[bool, typer.Option("--drill", help="Restore, prove, stop and remove.")] = False,
    stop: Annotated[Path | None, typer.Option("--stop", help="Stop the Loki of this folder and remove it.")] = None,
    json_: Json = False,
) -> None:
    """Bring a day back into a Loki of its own and prove that it is what was archived. Exit code 0 only when it is.

    Example: onecollector restore 2026-11-01 --from s3://loki-archive
    """
    from onecollector_resources.archive.places import archive_store
    from onecollector_resources.archive.restore import drill_day, restore_day
    from onecollector_resources.archive.scratch import stop_scratch
    from onecollector_resources.archive.shelf import wanted_manifests
    from onecollector_resources.settings import load_settings

    if stop is not None:
        ran = stop_scratch(stop.absolute())
        console().print(Text(f"{'stopped and ' if ran else ''}removed {stop}"))
        return
    if day is None:
        raise typer.BadParameter("name a day, such as 2026-11-01, or give --stop FOLDER")
    settings, which = load_settings(), day_of(day)
    store = archive_store(settings, from_)
    manifests = wanted_manifests(store, which, tenant, revision)
    folder = (folder or settings.layout.restores / which.isoformat()).absolute()
    binary = _loki_binary(settings)
    if drill:
        restored = drill_day(store, manifests, folder, binary, with_damage=with_damage)
    else:
        restored, _ = restore_day(store, manifests, folder, binary, with_damage=with_damage)
    if json_:
        print_json(_plain(restored, running=not drill))
    else:
        _show(restored, which, running=not drill)
    raise typer.Exit(0 if restored.equal else 1)


def _show(restored: Restored, day: date, *, running: bool) -> None:
    out = console()
    for one in restored.tenants:
        if one.expected is None:
            verdict = "no counts were recorded when it was archived"
        elif one.differences:
            verdict = f"{len(one.differences)} streams differ"
        else:
            verdict = f"all {len(one.found.streams):,} streams as archived"
        sizes = f"{one.objects:,} objects, {human_bytes(one.bytes)}   {one.found.lines:,} lines"
        mark = Text("✗", "bold red") if one.differences else Text("✓", "green")
        out.print(mark, Text(f"{day} {one.tenant} r{one.revision}   {sizes}   {verdict}"))
        for row in one.differences[:20]:
            out.print(Text(f"    {row}"))
    for damage in restored.damages:
        out.print(Text(f"    {damage.key}: {damage.what}", "red"))
    # For a small day the seconds are Loki's own, whatever there is.
    pace = f"   ({restored.seconds_per_gb:.0f} s/GB)" if restored.bytes > 10_000_000 else ""
    out.print(
        Text(
            f"laid out in {restored.lay_out_s:.1f}s, started in {restored.start_s:.1f}s, every line read in "
            f"{restored.prove_s:.1f}s{pace}"
        )
    )
    if running:
        tenant = restored.tenants[0].tenant
        query = f"curl -s -G {restored.url}/loki/api/v1/query_range -H 'X-Scope-OrgID: {tenant}'"
        out.print(
            Text(f"\nLook   {restored.url}   (Loki's API; as a Grafana data source, with the header X-Scope-OrgID)")
        )
        out.print(Text(f"Ask    {query} --data-urlencode 'query={{service_name=~\".+\"}}' \\"))
        out.print(Text(f"         -d start={day}T00:00:00Z -d end={day}T23:59:59Z -d limit=10"))
        out.print(Text(as_pasted(f"Stop   onecollector restore --stop {restored.folder}")))


def _archiver(settings: Settings, store: ObjectStore, proof: bool) -> Archiver:
    from onecollector_resources.archive.places import archiver_of
    from onecollector_resources.runtime import RuntimeMissing, load_runtime

    try:
        url = settings.loki.url or load_runtime(settings.layout).loki_url
    except RuntimeMissing:
        # Its store can be archived without it.
        url = ""
    return archiver_of(settings, store, url, prove=proof)


def _loki_binary(settings: Settings) -> Path:
    from onecollector.parts.locate import locate
    from onecollector_resources.runtime import RuntimeMissing, load_runtime

    try:
        named = load_runtime(settings.layout).loki_binary
    except RuntimeMissing:
        named = ""
    found = Path(named) if named else locate("loki")
    if found is None or not found.is_file():
        raise RuntimeMissing(
            f"Loki's program is not there: expected {found or 'it in the cache'}; run: onecollector install loki"
        )
    return found


def _list(store: ObjectStore, tenants: list[str] | None, json_: bool) -> int:
    from onecollector_resources.archive.shelf import archived_days, manifest_of

    days = [one for one in archived_days(store) if not tenants or one.tenant in tenants]
    manifests = [manifest_of(store, one.tenant, one.day, one.revision) for one in days]
    rows = [
        {
            "day": manifest.day.isoformat(),
            "tenant": manifest.tenant,
            "revision": manifest.revision,
            "objects": len(manifest.objects),
            "bytes": manifest.bytes,
            "lines": manifest.lines.lines if manifest.lines else None,
        }
        for manifest in manifests
    ]
    if json_:
        print_json({"archive": store.url, "days": rows})
        return 0
    shown = [
        (row["day"], row["tenant"], row["revision"], row["objects"], human_bytes(row["bytes"]), row["lines"])
        for row in rows
    ]
    console().print(
        table(("DAY", "TENANT", "REV", "OBJECTS", "SIZE", "LINES"), shown, right=("REV", "OBJECTS", "SIZE", "LINES"))
    )
    return 0


def _verify(store: ObjectStore, day: date | None, tenants: list[str] | None, json_: bool) -> int:
    from onecollector_resources.archive.shelf import archived_days, damages, manifest_of

    rows: list[dict[str, Any]] = []
    for one in archived_days(store):
        if (day is not None and one.day != day) or (tenants and one.tenant not in tenants):
            continue
        manifest = manifest_of(store, one.tenant, one.day, one.revision)
        found = damages(store, manifest)
        rows.append(
            {"day": one.day.isoformat(), "tenant": one.tenant, "objects": len(manifest.objects), "damages": found}
        )
        if not json_:
            mark = Text("✗", "bold red") if found else Text("✓", "green")
            whole = f"{len(manifest.objects) - len(found):,} of {len(manifest.objects):,} objects are whole"
            console().print(mark, Text(f"{one.day} {one.tenant} r{one.revision}   {whole}"))
            for damage in found:
                console().print(Text(f"    {damage.key}: {damage.what}", "red"))
    if json_:
        print_json({"archive": store.url, "days": rows})
    elif not rows:
        console().print(Text(f"{store.url} holds no such day"))
    return 1 if not rows or any(row["damages"] for row in rows) else 0


def _plain(restored: Restored, *, running: bool) -> dict[str, Any]:
    return {
        "url": restored.url if running else None,
        "folder": str(restored.folder) if running else None,
        "equal": restored.equal,
        "proved": restored.proved,
        "bytes": restored.bytes,
        "lines": restored.lines,
        "seconds": restored.seconds,
        "seconds_per_gb": restored.seconds_per_gb,
        "damages": restored.damages,
        "tenants": restored.tenants,
    }

"""``archive``: closed days of Loki's store in the archive; ``archive_restores``: one of them brought back and proved.

A partition of the archive is a day, all tenants in one run. The listing that a run needs shows all days, so a run also
does earlier days anew that chunks came for since; their partitions get a materialisation of their own.
"""

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from onecollector_assets.presentation import markdown_table
from onecollector_assets.start_dates import start_date
from onecollector_resources.archive.copy import Archiver, DayOpen, DayResult
from onecollector_resources.archive.manifest import ManifestError
from onecollector_resources.archive.places import archive_store, archiver_of
from onecollector_resources.archive.restore import Restored, RestoreFailed, drill_day
from onecollector_resources.archive.shelf import archived_days, damages, newest_manifest, wanted_manifests
from onecollector_resources.dagster_resources import OneCollectorResource

VERIFIES = "archive_verifies"
EQUAL = "restored_day_is_equal"


DAYS = dg.DailyPartitionsDefinition(start_date=start_date("archive"), timezone="UTC")


@dg.asset(
    partitions_def=DAYS,
    group_name="archive",
    description="A closed day of every tenant: Loki's chunks and index in the archive, with a manifest written last.",
    kinds={"loki", "s3"},
    owners=["team:platform"],
    backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=31),
    check_specs=[
        dg.AssetCheckSpec(
            VERIFIES,
            asset="archive",
            description="Every object of the day was read out of the archive and has the sha256 of its manifest, and no "
            "chunk was damaged in Loki's store.",
        )
    ],
)
def archive(context: dg.AssetExecutionContext, onecollector: OneCollectorResource):
    archiver = _archiver(onecollector)
    archiver.tidy()
    wanted = [date.fromisoformat(key) for key in context.partition_keys]
    results: list[DayResult] = []
    for tenant in onecollector.settings().tenants:
        listing = archiver.listing(tenant)
        late = [day for day in archiver.days_to_do(tenant, listing) if newest_manifest(archiver.archive, tenant, day)]
        for day in sorted({*wanted, *late}):
            try:
                results.append(archiver.archive_day(tenant, day, listing))
            except DayOpen as error:
                raise dg.Failure(str(error), allow_retries=False) from error
            context.log.info("%s %s: %s, %s copied", day, tenant, results[-1].state, results[-1].copied)
    for day in sorted({result.day for result in results}):
        mine = [result for result in results if result.day == day]
        if day in wanted:
            context.add_asset_metadata(day_metadata(mine), partition_key=day.isoformat())
        else:
            context.log_event(
                dg.AssetMaterialization("archive", metadata=day_metadata(mine), partition=day.isoformat())
            )
    wrong = list(_wrong(archiver, results))
    objects = sum(result.objects for result in results)
    yield dg.Output(None)
    yield dg.AssetCheckResult(
        check_name=VERIFIES,
        passed=not wrong,
        description=f"{objects - len(wrong):,} of {objects:,} objects are whole",
        metadata={"damaged": dg.MetadataValue.md(markdown_table(("tenant", "day", "object", "what"), wrong))},
    )


def day_metadata(results: list[DayResult]) -> dict[str, Any]:
    """What people look at: figures over all tenants of a day, and a row for each."""
    seconds = sum(result.seconds for result in results)
    size = sum(result.bytes for result in results)
    return {
        "objects": sum(result.objects for result in results),
        "bytes": size,
        "lines": sum(result.lines or 0 for result in results),
        "copied objects": sum(result.copied for result in results),
        "copied bytes": sum(result.copied_bytes for result in results),
        "left for the next run": sum(result.fresh for result in results),
        "seconds": round(seconds, 3),
        "manifest": dg.MetadataValue.path(next((result.manifest for result in results if result.manifest), "none")),
        "tenants": dg.MetadataValue.md(
            markdown_table(
                ("tenant", "state", "revision", "objects", "bytes", "lines", "late", "manifest"),
                [
                    (r.tenant, r.state, r.revision, r.objects, f"{r.bytes:,}", r.lines, r.late, r.manifest)
                    for r in results
                ],
            )
        ),
        "look": f"onecollector restore {results[0].day}",
    }


def _archiver(onecollector: OneCollectorResource) -> Archiver:
    settings = onecollector.settings()
    if settings.archive.url is None:
        raise dg.Failure("no archive is set: set archive.url in onecollector.yaml", allow_retries=False)
    return archiver_of(settings, archive_store(settings, create=True), onecollector.runtime().loki_url)


def _wrong(archiver: Archiver, results: Iterable[DayResult]) -> Iterable[tuple[object, ...]]:
    for result in results:
        if not result.revision:
            continue
        try:
            manifest = newest_manifest(archiver.archive, result.tenant, result.day)
        except ManifestError as error:
            yield result.tenant, result.day, "manifest", error
            continue
        assert manifest is not None
        for damage in damages(archiver.archive, manifest):
            yield result.tenant, result.day, damage.key, damage.what
        for chunk in manifest.chunks:
            if chunk.damaged:
                yield result.tenant, result.day, chunk.key, "was damaged in Loki's store when it was archived"


@dg.asset(
    deps=[archive],
    group_name="archive",
    description="A drill: one archived day in a Loki of its own, every line read and held against what was archived, and "
    "gone again. Each run takes the next day in turn.",
    kinds={"loki"},
    owners=["team:platform"],
    check_specs=[
        dg.AssetCheckSpec(
            EQUAL,
            asset="archive_restores",
            description="All objects were whole, all streams have the lines that were archived.",
        )
    ],
)
def archive_restores(context: dg.AssetExecutionContext, onecollector: OneCollectorResource):
    settings = onecollector.settings()
    store = archive_store(settings)
    days = sorted({one.day for one in archived_days(store)})
    if not days:
        raise dg.Failure(f"{store.url} holds no day yet: materialise archive first", allow_retries=False)
    day = next_day(days, _last_drilled(context))
    folder = settings.layout.restores / f"drill-{context.run.run_id[:8]}"
    try:
        restored = drill_day(
            store, wanted_manifests(store, day, None), folder, Path(onecollector.runtime().loki_binary)
        )
    except RestoreFailed as error:
        yield dg.Output(None, metadata={"day": day.isoformat(), "result": str(error)})
        yield dg.AssetCheckResult(
            check_name=EQUAL,
            passed=False,
            description=f"{day}: {len(error.damages)} objects are damaged",
            metadata={
                "damaged": dg.MetadataValue.md(
                    markdown_table(("object", "what"), [(d.key, d.what) for d in error.damages])
                )
            },
        )
        return
    differences = [(one.tenant, row) for one in restored.tenants for row in one.differences]
    yield dg.Output(None, metadata=drill_metadata(day, restored))
    yield dg.AssetCheckResult(
        check_name=EQUAL,
        passed=restored.equal and restored.proved,
        description=f"{day}: {restored.lines:,} lines, {len(differences)} streams differ"
        + ("" if restored.proved else "; no counts were recorded for a tenant of it"),
        metadata={"differences": dg.MetadataValue.md(markdown_table(("tenant", "what"), differences))},
    )


def next_day(days: list[date], last: date | None) -> date:
    """The newest day first, then the others in turn: the one before the last that was drilled, from the start again."""
    earlier = [day for day in days if last is not None and day < last]
    return earlier[-1] if earlier else days[-1]


def drill_metadata(day: date, restored: Restored) -> dict[str, Any]:
    """What people look at."""
    return {
        "day": day.isoformat(),
        "lines": restored.lines,
        "bytes": restored.bytes,
        "seconds": round(restored.seconds, 3),
        "seconds per GB": round(restored.seconds_per_gb, 1),
        "laying out seconds": restored.lay_out_s,
        "starting seconds": restored.start_s,
        "reading seconds": restored.prove_s,
        "tenants": dg.MetadataValue.md(
            markdown_table(
                ("tenant", "revision", "objects", "bytes", "streams", "lines", "as archived"),
                [
                    (
                        one.tenant,
                        one.revision,
                        one.objects,
                        f"{one.bytes:,}",
                        len(one.found.streams),
                        f"{one.found.lines:,}",
                        "not recorded" if one.expected is None else "no" if one.differences else "yes",
                    )
                    for one in restored.tenants
                ],
            )
        ),
    }


def _last_drilled(context: dg.AssetExecutionContext) -> date | None:
    event = context.instance.get_latest_materialization_event(dg.AssetKey("archive_restores"))
    found = event.asset_materialization.metadata.get("day") if event and event.asset_materialization else None
    return date.fromisoformat(str(found.value)) if found is not None else None


archive_job = dg.define_asset_job(
    "archive_days",
    selection=dg.AssetSelection.assets("archive"),
    partitions_def=DAYS,
    executor_def=dg.in_process_executor,
    tags={"onecollector/plane": "archive", "dagster/max_runtime": "21600"},
    description="Copies closed days into the archive.",
)

drill_job = dg.define_asset_job(
    "restore_drill",
    selection=dg.AssetSelection.assets("archive_restores"),
    executor_def=dg.in_process_executor,
    tags={"onecollector/plane": "archive", "dagster/max_runtime": "21600"},
    description="Brings one archived day back and proves it.",
)

"""A day's exported lines counted by minute and template, kept, and not counted again while the lines are the same.

An hour that nobody exported is not an hour without lines: it is unknown, and so is an hour whose export lacks lines.
Nothing here knows Dagster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from onecollector_assets.template_counts import count_and_keep, day_start_ns, exported_day
from onecollector_resources.exports.partitions import HOUR_NS, Manifest
from onecollector_resources.settings import Settings
from onecollector_resources.storage.objects import ObjectStore, PutConflict, as_url, open_store

if TYPE_CHECKING:
    import polars as pl

    from ml.tally_store import Coverage, Ranges, TalliedDay
    from ml.template_store import StoredTemplates
    from ml.templates import TemplateMiner
    from onecollector_resources.exports.dataset import ExportDataset

MINUTE_NS = 60 * 10**9
BATCH = 200_000
"""Lines that are mined at a time."""


class NothingToLearn(RuntimeError):
    """No exported lines to learn from; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Tallied:
    """A day that is kept; ``lines`` were counted now, or None where what was kept is still right."""

    day: TalliedDay
    lines: int | None


def keep_tallies(
    settings: Settings, store: ObjectStore, tenant: str, day: date, scratch: Path | None = None
) -> Tallied | None:
    """The day's tallies, counted where they are missing or older than the exported lines. None where none are exported.

    Raises StoreError, PutConflict where another run kept the day of other lines meanwhile, TallyRefused,
    TemplateStoreError, DatasetError.
    """
    from ml.tally_store import DayWriter, TallyStore
    from ml.template_store import TemplateStore

    kept = TallyStore(store, tenant)
    dataset = exported_day(settings, tenant, day)
    if not dataset.manifests:
        return None
    source = source_of(dataset.manifests)
    found = kept.load(day)
    if found is not None and found.source == source:
        return Tallied(found, None)
    templates = TemplateStore(store, tenant)
    if templates.load_day(day) is None:
        count_and_keep(settings, store, tenant, day)
    miner = filled_miner(settings, templates.load())
    with TemporaryDirectory(dir=scratch, prefix="tallies-") as folder:
        writer, lines = DayWriter(Path(folder)), 0
        for service, table in tallies_of(miner, dataset):
            lines += int(table["lines"].sum())
            writer.add(service, table)
        covered = coverage(dataset.manifests, day, settings.export.query)
        try:
            return Tallied(kept.save(day, source, writer, covered), lines)
        except PutConflict:
            # Another run kept the day meanwhile: of the same lines it is the same day.
            found = kept.load(day)
            if found is None or found.source != source:
                raise
            return Tallied(found, None)


def filled_miner(settings: Settings, state: StoredTemplates) -> TemplateMiner:
    """A miner that knows what is known."""
    from ml.templates import tuned_miner

    miner = tuned_miner(settings.models.services)
    state.fill(miner)
    return miner


def tallies_of(miner: TemplateMiner, dataset: ExportDataset) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each service with its tally."""
    import polars as pl

    from ml.features import tally

    read = dataset.tables(["timestamp", "line", "severity"])
    for service, hours in groupby(read, key=lambda pair: pair[0].partition.service):
        parts = [tally(mined_lines(miner, service, table)) for _, table in hours if table.num_rows]
        if parts:
            yield service, pl.concat(parts)


def mined_lines(miner: TemplateMiner, service: str, table: object) -> pl.DataFrame:
    """Exported lines (an Arrow table) as ``ml.features.tally`` wants them."""
    import polars as pl

    from ml.template_days import BAD

    lines = pl.DataFrame(pl.from_arrow(table)).select(  # pyright: ignore[reportArgumentType]
        pl.col("timestamp").cast(pl.Int64),
        pl.col("line").fill_null(""),
        pl.col("severity").cast(pl.String).str.to_lowercase().is_in(BAD).fill_null(False).alias("is_error"),
    )
    return lines.with_columns(mined(miner, service, lines))


def mined(miner: TemplateMiner, service: str, lines: pl.DataFrame) -> pl.Series:
    """The template of each line, as a column ``template``."""
    import polars as pl

    from ml.templates import OVERFLOW

    parts = [pl.Series("template", [], pl.String)]
    for begin in range(0, lines.height, BATCH):
        batch = lines.slice(begin, BATCH)
        first, last = batch["timestamp"].min(), batch["timestamp"].max()
        minutes = (last - first) / MINUTE_NS if isinstance(first, int) and isinstance(last, int) else 0.0
        found = miner.mine(batch["line"], service, minutes=minutes)
        # Behind all others is the name of what has none: -1 counts from the end in neither library, so it is moved.
        names = pl.Series("template", [OVERFLOW, *(template.id for _, template in found.templates)], pl.String)
        parts.append(names.gather(found.index + 1))
    return pl.concat(parts)


def source_of(manifests: Iterable[Manifest]) -> str:
    """Different for other lines."""
    content = hashlib.sha256()
    for manifest in sorted(manifests, key=lambda m: m.partition):
        content.update(manifest.to_json())
    return content.hexdigest()


def coverage(manifests: Sequence[Manifest], day: date, query: str) -> Coverage:
    """What is known of the day. ``query`` exports all services.

    An hour in which others were exported and a service was not had no line of it, if that query exported them: the
    partition of lines without a service, which every export of an hour writes, tells. Of an hour that another query
    exported, the services are known that it did export.
    """
    from ml.tally_store import Coverage, joined

    start = day_start_ns(day)
    hours = [(start + hour * HOUR_NS, start + (hour + 1) * HOUR_NS) for hour in range(24)]
    whole = [m for m in manifests if not m.partition.service and m.query == query]
    unknown = _outside([(m.clip_start_ns, m.clip_end_ns) for m in whole], hours)
    gaps: dict[str, list[tuple[int, int]]] = {}
    known: dict[str, list[tuple[int, int]]] = {}
    for manifest in manifests:
        side = known if manifest.complete else gaps
        side.setdefault(manifest.partition.service, []).append(
            (-(-manifest.clip_start_ns // MINUTE_NS), manifest.clip_end_ns // MINUTE_NS)
            if manifest.complete
            else (manifest.partition.start_ns // MINUTE_NS, manifest.partition.end_ns // MINUTE_NS)
        )
    return Coverage(
        unknown,
        {service: joined(ranges) for service, ranges in gaps.items()},
        {service: joined(ranges) for service, ranges in known.items()} if unknown else {},
    )


def _outside(known_ns: Sequence[tuple[int, int]], hours: Sequence[tuple[int, int]]) -> Ranges:
    """Minutes of the hours that no range covers whole."""
    from ml.tally_store import joined, without

    minutes = joined((first // MINUTE_NS, end // MINUTE_NS) for first, end in hours)
    return without(minutes, joined((-(-first // MINUTE_NS), end // MINUTE_NS) for first, end in known_ns))


def exported_days(settings: Settings, tenant: str) -> list[date]:
    """Days of which anything is exported, in order."""
    from onecollector_resources.exports.partitions import Partition, partition_of

    out = as_url(settings.export.out or str(settings.layout.exports))
    store = open_store(out, settings.export.s3 or settings.loki.s3, create=True)
    prefix = Partition(tenant, "", datetime.fromtimestamp(0, UTC)).prefix.split("/")[0] + "/"
    found = {partition.hour.date() for info in store.list(prefix) if (partition := partition_of(info.key))}
    return sorted(found)

"""Where templates are kept and exported days lie by the settings, and a day counted. Nothing here knows Dagster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from onecollector_resources.settings import Settings
from onecollector_resources.storage.objects import ObjectStore, PutConflict, as_url, open_store

if TYPE_CHECKING:
    import polars as pl

    from ml.template_days import DayCounter
    from ml.template_store import StoredTemplates, TemplateStore
    from onecollector_resources.exports.dataset import ExportDataset

DAY_NS = 86_400 * 10**9

ATTEMPTS = 3
"""How often a day is counted because another run kept what it learned meanwhile."""


def exported_day(settings: Settings, tenant: str, day: date) -> ExportDataset:
    """A tenant's exported lines of a day. Raises StoreError, ManifestError."""
    from onecollector_resources.exports.dataset import ExportDataset

    out = as_url(settings.export.out or str(settings.layout.exports))
    store = open_store(out, settings.export.s3 or settings.loki.s3, create=True)
    start_ns = day_start_ns(day)
    return ExportDataset.find(store, tenant=tenant, start_ns=start_ns, end_ns=start_ns + DAY_NS)


def day_start_ns(day: date) -> int:
    """Midnight UTC, in ns since the epoch."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**9


def count_day(settings: Settings, state: StoredTemplates, dataset: ExportDataset, day: date) -> DayCounter:
    """Count a day's exported lines. Raises StoreError, DatasetError."""
    import polars as pl

    from ml.template_days import DayCounter
    from ml.templates import tuned_miner

    miner = tuned_miner(settings.models.services)
    state.fill(miner)
    counter = DayCounter(miner, day_start_ns(day))
    for manifest, table in dataset.tables(["timestamp", "line", "severity"]):
        counter.add(manifest.partition.service, pl.DataFrame(pl.from_arrow(table)))
    return counter


@dataclass(frozen=True, slots=True)
class CountedDay:
    """A tenant's day as it was counted and kept. ``facts``: lines, overflow, cut, and incomplete partitions."""

    tenant: str
    counts: pl.DataFrame
    state: StoredTemplates
    kept: TemplateStore
    facts: dict[str, int]


def count_and_keep(settings: Settings, store: ObjectStore, tenant: str, day: date) -> CountedDay:
    """Count a tenant's day and keep it, anew where another run kept its own meanwhile.

    Raises StoreError, PutConflict after ATTEMPTS of them, TemplateStoreError, DatasetError.
    """
    from ml.template_store import TemplateStore

    kept = TemplateStore(store, tenant)
    for attempt in range(1, ATTEMPTS + 1):
        state = kept.load()
        dataset = exported_day(settings, tenant, day)
        counter = count_day(settings, state, dataset, day)
        counts = counter.frame()
        state.take(counter.miner)
        counter.note_seen(state)
        facts = {
            "lines": counter.tally.lines,
            "overflow": overflow_of(counts),
            "cut": counter.tally.cut,
            "incomplete": len(dataset.incomplete),
        }
        try:
            kept.save(state)
            kept.save_day(day, counts, facts)
        except PutConflict:
            if attempt == ATTEMPTS:
                raise
            continue
        return CountedDay(tenant, counts, state, kept, facts)
    raise AssertionError("unreachable")


def overflow_of(counts: pl.DataFrame) -> int:
    """Lines of a day's counts that have no template of their own."""
    import polars as pl

    from ml.templates import OVERFLOW

    return int(counts.filter(pl.col("id") == OVERFLOW)["lines"].sum())

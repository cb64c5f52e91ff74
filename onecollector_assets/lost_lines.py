"""Minutes in which lines of a service were lost before they reached Loki: no export can know of those, the registry does.

Such a minute holds fewer lines than the service wrote, and a model that learned from it would take a loss for quiet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

from ml.tally_store import DAY_MINUTES, Ranges, TalliedDay, day_start_minute, joined
from onecollector_resources.records import Gap
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.settings import Settings

MOST_GAPS = 100_000
"""That are looked at, the newest ones."""


def lost_minutes(settings: Settings, tenant: str, since: date) -> dict[str, Ranges]:
    """Minutes since 1970 by service, from the registry; none where no registry was made yet. Raises RegistryError."""
    registry = LogSourceRegistry(settings.registry_url)
    if not registry.made:
        return {}
    try:
        midnight = datetime(since.year, since.month, since.day, tzinfo=UTC)
        gaps = registry.list_gaps(since=midnight, limit=MOST_GAPS)
    finally:
        registry.engine.dispose()
    return minutes_of(gap for gap in gaps if gap.tenant == tenant)


def minutes_of(gaps: Iterable[Gap]) -> dict[str, Ranges]:
    """Every minute that a gap touches, by service."""
    found: dict[str, list[tuple[int, int]]] = {}
    for gap in gaps:
        first, last = (int(moment.timestamp() // 60) for moment in (gap.started, gap.ended))
        found.setdefault(gap.service, []).append((first, max(first, last) + 1))
    return {service: joined(ranges) for service, ranges in found.items()}


def without_lost(days: Sequence[TalliedDay], lost: Mapping[str, Ranges]) -> list[TalliedDay]:
    """The days, with lost minutes among those of which nobody knows what was written."""
    return [_without_lost(day, lost) for day in days]


def _without_lost(day: TalliedDay, lost: Mapping[str, Ranges]) -> TalliedDay:
    start = day_start_minute(day.day)
    gaps = dict(day.coverage.gaps)
    for service, ranges in lost.items():
        inside = [(max(first, start), min(end, start + DAY_MINUTES)) for first, end in ranges]
        gaps[service] = joined([*gaps.get(service, ()), *inside])
    return replace(day, coverage=replace(day.coverage, gaps={s: ranges for s, ranges in gaps.items() if ranges}))

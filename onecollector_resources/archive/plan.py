"""Which days are closed, and what of a day is to be copied: decisions over listings and the newest manifest.

A day is closed when no chunk of it can still be open in an ingester. Lines may come later all the same, and then in
chunks of their own: a day whose store holds chunks that its manifest does not name is done again, and its new revision
holds the old ones, too, even where Loki's retention has removed them since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from onecollector_resources.archive.keys import ChunkKey, index_is_of, parse_chunk_key
from onecollector_resources.archive.manifest import ArchivedObject, Manifest
from onecollector_resources.storage.objects import ObjectInfo


class SchemaUnsupported(ValueError):
    """An index that is not cut by days: its days cannot be archived one by one."""


@dataclass(frozen=True, slots=True)
class SourceObject:
    """An object of Loki's store: ``key`` in the bucket form, ``source_key`` as it is there."""

    key: str
    source_key: str
    size: int
    etag: str
    chunk: ChunkKey | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A tenant's chunks by day. ``fresh`` are too new for their index to be in the store for sure; ``others`` are objects
    that are no chunks."""

    days: Mapping[date, tuple[SourceObject, ...]]
    fresh: Mapping[date, int]
    others: int


@dataclass(frozen=True, slots=True)
class DayPlan:
    """What to do for a day: ``copy`` objects, keep ``carried`` of the manifest before, and write ``revision``.

    ``late`` are chunks that came after the manifest before was written.
    """

    revision: int
    copy: tuple[SourceObject, ...]
    carried: tuple[ArchivedObject, ...]
    late: int

    @property
    def nothing(self) -> bool:
        """Whether the day is as its newest manifest says, or empty."""
        return not self.copy


def closes_at(day: date, after: timedelta) -> datetime:
    """When a day is closed: ``after`` its end in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1) + after


def is_closed(day: date, now: datetime, after: timedelta) -> bool:
    """Whether all lines that came in time have left the ingesters."""
    return now >= closes_at(day, after)


def listed(objects: Iterable[ObjectInfo], tenant: str, settled_before: datetime) -> Listing:
    """A tenant's listing by day. Chunks from ``settled_before`` on are left for the next time."""
    days: dict[date, list[SourceObject]] = {}
    fresh: dict[date, int] = {}
    others = 0
    for info in objects:
        chunk = parse_chunk_key(info.key)
        if chunk is None or chunk.tenant != tenant:
            others += 1
            continue
        for day in chunk.days():
            if info.modified >= settled_before:
                fresh[day] = fresh.get(day, 0) + 1
            else:
                found = SourceObject(chunk.key, info.key, info.size, info.etag, chunk)
                days.setdefault(day, []).append(found)
    return Listing({day: tuple(sorted(days[day], key=_by_key)) for day in sorted(days)}, fresh, others)


def listed_index(objects: Iterable[ObjectInfo], folder: str, tenant: str) -> tuple[SourceObject, ...]:
    """The index objects of a day that may name the tenant's chunks, by key."""
    found = (SourceObject(o.key, o.key, o.size, o.etag) for o in objects if index_is_of(o.key, folder, tenant))
    return tuple(sorted(found, key=_by_key))


def has_late(chunks: Iterable[SourceObject], last: Manifest | None) -> int:
    """Chunks that the manifest does not name; all of them without one."""
    known = {one.key for one in last.chunks} if last else frozenset()
    return sum(1 for chunk in chunks if chunk.key not in known)


def plan_day(
    chunks: tuple[SourceObject, ...],
    index: tuple[SourceObject, ...],
    last: Manifest | None,
    *,
    force: bool = False,
    replace: bool = False,
) -> DayPlan:
    """What is to be done. ``force`` copies again what is archived already, as far as the store still holds it;
    ``replace`` does so too, and keeps nothing else."""
    late = has_late(chunks, last)
    if not chunks or (last is not None and not late and not force and not replace):
        return DayPlan(last.revision if last else 0, (), last.objects if last else (), 0)
    known = {one.key: one for one in last.objects} if last else {}
    present = (*chunks, *index)
    copy = present if force or replace else tuple(one for one in present if one.key not in known)
    again = {one.key for one in copy}
    carried = () if replace else tuple(one for key, one in sorted(known.items()) if key not in again)
    return DayPlan((last.revision if last else 0) + 1, copy, carried, late if last else 0)


def index_prefix(schema_config: Mapping[str, object], day: date) -> str:
    """Name of the index tables that hold a day, without their number. Raises SchemaUnsupported."""
    period = schema_period(schema_config, day)
    index = period.get("index")
    prefix, length = (index.get("prefix"), index.get("period")) if isinstance(index, Mapping) else (None, None)
    if period.get("store") != "tsdb" or str(length) not in ("24h", "24h0m0s", "1d") or not isinstance(prefix, str):
        raise SchemaUnsupported(
            f"Loki's schema for {day}: expected store tsdb with an index period of 24h, found {period.get('store')!r} "
            f"with {length!r}; export these days instead: onecollector export"
        )
    return prefix


def schema_period(schema_config: Mapping[str, object], day: date) -> Mapping[str, object]:
    """The entry of the schema that was in force on a day. Raises SchemaUnsupported where none was."""
    found: Mapping[str, object] | None = None
    for period in sorted(_periods(schema_config), key=lambda one: str(one.get("from"))):
        if str(period.get("from")) <= day.isoformat():
            found = period
    if found is None:
        raise SchemaUnsupported(f"Loki's schema names no period that {day} is in; found {schema_config!r}")
    return found


def _periods(schema_config: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    configs = schema_config.get("configs")
    for one in configs if isinstance(configs, list | tuple) else ():
        if isinstance(one, Mapping):
            yield one


def _by_key(one: SourceObject) -> str:
    return one.key

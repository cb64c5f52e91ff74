"""A closed day's objects into the archive: read, checked, written, read back, and only then the manifest.

Every step can be done again. An object that a killed run had copied is found, compared and left; the manifest comes last
and is put where none is, so of two archivers that do the same day one writes it and the other finds it written.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from onecollector_resources.archive.indexed import unindexed
from onecollector_resources.archive.keys import INDEX, index_folder
from onecollector_resources.archive.manifest import ArchivedObject, Manifest, manifest_prefix, object_key, to_bytes
from onecollector_resources.archive.plan import (
    Listing,
    SourceObject,
    closes_at,
    has_late,
    index_prefix,
    is_closed,
    listed,
    listed_index,
    plan_day,
)
from onecollector_resources.archive.proof import DayProof, DayReader, DayUnreadable, prove
from onecollector_resources.archive.shelf import newest_manifest
from onecollector_resources.archive.transfer import copied, same_bytes
from onecollector_resources.storage.objects import (
    ConditionUnsupported,
    ObjectCorrupt,
    ObjectMissing,
    ObjectStore,
    PutConflict,
    StoreDenied,
    StoreError,
)

CLOSED_AFTER = timedelta(hours=4)
"""Loki cuts a chunk after two hours by default (max_chunk_age); the rest is for a Loki that was slow."""

SETTLED = timedelta(minutes=30)
"""A chunk is in the store before its index is, which follows within a quarter of an hour."""

WORKERS = 8
"""Objects are small: a bucket's answer takes longer than its bytes."""

TRIES = 5
"""Loki's compactor rewrites the index of a day some times; it does not do so all the time."""


class DayOpen(ValueError):
    """A day of which chunks may still be open."""


class IndexMissing(StoreError):
    """Loki's store has chunks of a day and no index of it."""


class SourceMoves(StoreError):
    """Loki's store changed at each try."""


@dataclass(frozen=True, slots=True)
class DayResult:
    """What became of a day. ``late`` chunks came after the manifest before; ``fresh`` ones are left for the next run;
    ``copied`` objects were written, the other ones of ``objects`` were there; ``unindexed`` chunks are in no index."""

    tenant: str
    day: date
    state: Literal["archived", "revised", "unchanged", "empty"]
    revision: int
    objects: int
    bytes: int
    copied: int
    copied_bytes: int
    late: int
    fresh: int
    damaged: int
    unindexed: int
    lines: int | None
    seconds: float
    manifest: str

    @property
    def changed(self) -> bool:
        """Whether a manifest was written."""
        return self.state in ("archived", "revised")


@dataclass
class Archiver:
    """Copies days of ``source`` (Loki's store) into ``archive``.

    ``reader`` proves the lines of each day; None leaves counts and hashes out. ``loki_version`` and ``schema_config`` go
    into the manifest. ``told`` is called with each object that was copied.
    """

    source: ObjectStore
    archive: ObjectStore
    schema_config: Mapping[str, Any]
    loki_version: str = ""
    reader: DayReader | None = None
    closed_after: timedelta = CLOSED_AFTER
    settled: timedelta = SETTLED
    workers: int = WORKERS
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    told: Callable[[ArchivedObject], None] = lambda _: None

    def listing(self, tenant: str) -> Listing:
        """One listing of all chunks of a tenant, by day: names have no date in them, so it cannot be had for less."""
        return listed(self.source.list(f"{tenant}/"), tenant, self.now() - self.settled)

    def tidy(self) -> int:
        """Remove what killed runs left in the archive a day ago and earlier; answers how many. Raises StoreError."""
        try:
            return self.archive.sweep(self.now() - timedelta(days=1))
        except (StoreDenied, ConditionUnsupported):
            # Its keys may write and no more; the remains are shown by no listing and spoil nothing.
            return 0

    def days_to_do(self, tenant: str, listing: Listing) -> list[date]:
        """Closed days without a manifest, and those that late chunks came for."""
        return [
            day
            for day, chunks in listing.days.items()
            if is_closed(day, self.now(), self.closed_after)
            and has_late(chunks, newest_manifest(self.archive, tenant, day))
        ]

    def archive_days(
        self, tenant: str, days: Sequence[date] | None = None, *, force: bool = False
    ) -> Iterator[DayResult]:
        """Archive days, all that are to do by default, with one listing. Raises as ``archive_day``."""
        listing = self.listing(tenant)
        for day in self.days_to_do(tenant, listing) if days is None else days:
            yield self.archive_day(tenant, day, listing, force=force)

    def archive_day(
        self, tenant: str, day: date, listing: Listing, *, force: bool = False, replace: bool = False
    ) -> DayResult:
        """One day. ``force`` copies all of it again; ``replace`` does, too, and then removes what earlier revisions held
        beyond that, which is how lines that were deleted in Loki leave the archive.

        Raises DayOpen, SourceMoves, IndexMissing, StoreError, SchemaUnsupported, and what the reader raises."""
        if not is_closed(day, self.now(), self.closed_after):
            raise DayOpen(
                f"{day} is not closed before {closes_at(day, self.closed_after):%Y-%m-%d %H:%M} UTC: "
                "lines of it may still be in Loki's memory; archive it then"
            )
        began = self.clock()
        folder = index_folder(index_prefix(self.schema_config, day), day)
        chunks, fresh = listing.days.get(day, ()), listing.fresh.get(day, 0)
        for _ in range(TRIES):
            last = newest_manifest(self.archive, tenant, day)
            index = listed_index(self.source.list(folder), folder, tenant)
            plan = plan_day(chunks, index, last, force=force, replace=replace)
            if plan.nothing:
                return self._result(tenant, day, "unchanged" if last else "empty", last, (), 0, fresh, began)
            if not index and not any(one.key.startswith(INDEX) for one in plan.carried):
                raise IndexMissing(
                    f"{self.source.url}: expected the index of {day} under {folder}, found none for {len(chunks)} chunks; "
                    "Loki writes it within 15 minutes; where retention has removed all of the day, its chunks go within two "
                    "hours; else look at Loki's log"
                )
            try:
                objects = self._copy(tenant, day, plan.copy, plan.revision)
            except ObjectMissing:
                # Retention removed a chunk, or the compactor an index that it has replaced.
                chunks = self._still_there(chunks)
                continue
            if listed_index(self.source.list(folder), folder, tenant) != index:
                continue
            manifest = self._manifest(tenant, day, plan.revision, (*objects, *plan.carried), fresh)
            if self._commit(manifest):
                if replace:
                    self._forget_others(manifest)
                state = "revised" if last else "archived"
                return self._result(tenant, day, state, manifest, objects, plan.late, fresh, began)
        raise SourceMoves(f"{self.source.url}: {day} of {tenant} changed at each of {TRIES} tries; run it again later")

    def _copy(
        self, tenant: str, day: date, objects: Sequence[SourceObject], revision: int
    ) -> tuple[ArchivedObject, ...]:
        with tempfile.TemporaryDirectory(prefix="oc-archive-") as folder, ThreadPoolExecutor(self.workers) as pool:

            def one(what: SourceObject) -> ArchivedObject:
                to = object_key(tenant, day, what.key)
                done = copied(self.source, self.archive, what, to, Path(folder), revision)
                self.told(done)
                return done

            waiting = [pool.submit(one, what) for what in objects]
            try:
                return tuple(future.result() for future in waiting)
            finally:
                for future in waiting:
                    future.cancel()

    def _still_there(self, chunks: Sequence[SourceObject]) -> tuple[SourceObject, ...]:
        found = []
        for chunk in chunks:
            try:
                self.source.head(chunk.source_key)
            except ObjectMissing:
                continue
            found.append(chunk)
        return tuple(found)

    def _manifest(
        self, tenant: str, day: date, revision: int, objects: Sequence[ArchivedObject], fresh: int
    ) -> Manifest:
        index = tuple(sorted(one for one in objects if one.key.startswith(INDEX)))
        chunks = self._marked(tenant, day, [one for one in objects if not one.key.startswith(INDEX)], index)
        keys = [one.key for one in chunks if not one.unindexed]
        return Manifest(
            tenant=tenant,
            day=day,
            revision=revision,
            source=self.source.url,
            loki_version=self.loki_version,
            schema_config=self.schema_config,
            chunks=chunks,
            index=index,
            lines=self._proof(tenant, day, keys, fresh),
        )

    def _marked(
        self, tenant: str, day: date, chunks: Sequence[ArchivedObject], index: Sequence[ArchivedObject]
    ) -> tuple[ArchivedObject, ...]:
        """The chunks by key, those marked that the archived index does not name."""
        texts = [self.archive.get(object_key(tenant, day, one.key)) for one in index]
        absent = unindexed([one.key for one in chunks], texts)
        return tuple(sorted(replace(one, unindexed=one.key in absent) for one in chunks))

    def _proof(self, tenant: str, day: date, keys: Sequence[str], fresh: int) -> DayProof | None:
        # Lines of chunks that are left for the next run must not be in the proof of this one.
        if self.reader is None or (fresh and not self.reader.reads_keys):
            return None
        try:
            return prove(self.reader, tenant, day, keys)
        except DayUnreadable:
            # The day is copied all the same: its objects have their checksums, and Loki may read what we cannot.
            return None

    def _commit(self, manifest: Manifest) -> bool:
        """Write the manifest and read it back. False where another archiver was first, with something else."""
        data = to_bytes(manifest)
        try:
            self.archive.put(manifest.key, data, only_if_absent=True)
        except PutConflict:
            return self.archive.get(manifest.key) == data
        if not same_bytes(self.archive, manifest.key, len(data), hashlib.sha256(data).hexdigest()):
            raise ObjectCorrupt(
                f"{self.archive.url}: {manifest.key}: it did not come back as it was written; try another store"
            )
        return True

    def _forget_others(self, manifest: Manifest) -> None:
        """Remove earlier revisions and their objects that are not of this one."""
        kept = {object_key(manifest.tenant, manifest.day, one.key) for one in manifest.objects} | {manifest.key}
        for prefix in (manifest_prefix(manifest.tenant, manifest.day), object_key(manifest.tenant, manifest.day, "")):
            for info in list(self.archive.list(prefix)):
                if info.key not in kept:
                    self.archive.delete(info.key)

    def _result(
        self,
        tenant: str,
        day: date,
        state: Literal["archived", "revised", "unchanged", "empty"],
        manifest: Manifest | None,
        copied: Sequence[ArchivedObject],
        late: int,
        fresh: int,
        began: float,
    ) -> DayResult:
        return DayResult(
            tenant=tenant,
            day=day,
            state=state,
            revision=manifest.revision if manifest else 0,
            objects=len(manifest.objects) if manifest else 0,
            bytes=manifest.bytes if manifest else 0,
            copied=len(copied),
            copied_bytes=sum(one.size for one in copied),
            late=late,
            fresh=fresh,
            damaged=sum(1 for one in manifest.chunks if one.damaged) if manifest else 0,
            unindexed=sum(1 for one in manifest.chunks if one.unindexed) if manifest else 0,
            lines=manifest.lines.lines if manifest and manifest.lines else None,
            seconds=round(self.clock() - began, 3),
            manifest=f"{self.archive.url}/{manifest.key}" if manifest else "",
        )

"""What an archive holds: its days, the newest manifest of each, and whether every object of one is still whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date

from onecollector_resources.archive.manifest import (
    ArchivedObject,
    Manifest,
    from_bytes,
    manifest_key,
    manifest_prefix,
    object_key,
    parse_manifest_key,
)
from onecollector_resources.archive.transfer import WHOLE_BYTES
from onecollector_resources.storage.objects import ObjectCorrupt, ObjectMissing, ObjectStore

READ_BYTES = 8 << 20


class NotArchived(LookupError):
    """The archive does not hold what was asked for; the message says what it holds."""


@dataclass(frozen=True, slots=True)
class ArchivedDay:
    """A day on the shelf, with its newest revision."""

    tenant: str
    day: date
    revision: int


@dataclass(frozen=True, slots=True)
class Damage:
    """An object of the archive that is not as its manifest says."""

    key: str
    what: str


def archived_days(archive: ObjectStore, tenant: str | None = None) -> list[ArchivedDay]:
    """All days by tenant and day; of one tenant where given."""
    newest: dict[tuple[str, date], int] = {}
    for info in archive.list("manifests/" if tenant is None else manifest_prefix(tenant)):
        found = parse_manifest_key(info.key)
        if found is not None:
            newest[found[:2]] = max(found[2], newest.get(found[:2], 0))
    return [ArchivedDay(*which, revision) for which, revision in sorted(newest.items())]


def newest_manifest(archive: ObjectStore, tenant: str, day: date) -> Manifest | None:
    """Raises ManifestError where it is damaged."""
    found = [parse_manifest_key(info.key) for info in archive.list(manifest_prefix(tenant, day))]
    revisions = [one[2] for one in found if one is not None]
    return manifest_of(archive, tenant, day, max(revisions)) if revisions else None


def manifest_of(archive: ObjectStore, tenant: str, day: date, revision: int) -> Manifest:
    """One revision. Raises NotArchived, ManifestError."""
    key = manifest_key(tenant, day, revision)
    try:
        manifest = from_bytes(archive.get(key), f"{archive.url}/{key}")
    except ObjectMissing:
        raise NotArchived(f"{archive.url}: expected revision {revision} of {day} of {tenant}, found none") from None
    return manifest


def wanted_manifests(
    archive: ObjectStore, day: date, tenant: str | None, revision: int | None = None
) -> list[Manifest]:
    """A day's manifests, of every tenant or one. Raises NotArchived, ManifestError."""
    found = [one for one in archived_days(archive, tenant) if one.day == day]
    if not found:
        days = sorted({one.day for one in archived_days(archive, tenant)})
        there = f"days from {days[0]} to {days[-1]} ({len(days)})" if days else "no day at all"
        raise NotArchived(f"{archive.url}: expected {day}{f' of {tenant}' if tenant else ''}, found {there}")
    return [manifest_of(archive, one.tenant, day, revision or one.revision) for one in found]


def damages(
    archive: ObjectStore,
    manifest: Manifest,
    *,
    workers: int = 8,
    told: Callable[[ArchivedObject], None] = lambda _: None,
) -> list[Damage]:
    """Read every object and compare it with the manifest: those that are missing or other bytes, by key."""

    def look(one: ArchivedObject) -> Damage | None:
        key = object_key(manifest.tenant, manifest.day, one.key)
        try:
            digest, size = hashlib.sha256(), 0
            for part in _parts(archive, key, one.size):
                digest.update(part)
                size += len(part)
        except ObjectMissing:
            return Damage(one.key, f"expected {one.size:,} bytes, found no object")
        except ObjectCorrupt as error:
            return Damage(one.key, str(error))
        told(one)
        if size != one.size:
            return Damage(one.key, f"expected {one.size:,} bytes, found {size:,}")
        if digest.hexdigest() != one.sha256:
            return Damage(one.key, f"expected sha256 {one.sha256}, found {digest.hexdigest()}")
        return None

    with ThreadPoolExecutor(workers) as pool:
        return [damage for damage in pool.map(look, manifest.objects) if damage is not None]


def _parts(archive: ObjectStore, key: str, size: int) -> Iterator[bytes]:
    if size <= WHOLE_BYTES:
        yield archive.get(key)
        return
    at = 0
    while part := archive.get_range(key, at, READ_BYTES):
        yield part
        at += len(part)

"""Chunks on any object store, each under a name that says what it is and proves that it is whole.

The name is Loki's own: tenant, stream, span of time, crc32c of the bytes. So a chunk is never another under the same
name, writing one twice is writing it once, and what was read is checked without asking anybody; and the same methods
work on the store of a running Loki and on one that holds nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from crc32c import crc32c

from onecollector_resources.archive.copy import Archiver, DayResult
from onecollector_resources.archive.keys import ChunkKey, parse_chunk_key
from onecollector_resources.archive.shelf import damages, newest_manifest
from onecollector_resources.loki.lines import label_text
from onecollector_resources.storage.objects import (
    ObjectCorrupt,
    ObjectKeyError,
    ObjectStore,
    PutConflict,
)
from onecollector_resources.storage.preflight import Check, preflight


@dataclass(frozen=True, slots=True)
class ChunkMetadata:
    """What a chunk is of: lines of one stream from ``from_ms`` to ``through_ms``, both inclusive, ms since the epoch.

    ``fingerprint`` is the stream's in hexadecimal; empty: made from ``labels``.
    """

    tenant: str
    from_ms: int
    through_ms: int
    labels: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk that is there: ``size`` in bytes; ``chunk_id`` is its key in the store."""

    chunk_id: str
    size: int
    tenant: str
    from_ms: int
    through_ms: int


class ChunkStorageBackend:
    """Chunks in ``store``. Safe to share between threads. Every method may raise StoreError."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    def upload_chunk(self, chunk_data: bytes, metadata: ChunkMetadata) -> str:
        """Write a chunk and answer its id; one that is there already is left as it is.

        Raises ObjectKeyError for metadata that makes no name, ObjectCorrupt where another chunk has the name.
        """
        fingerprint = metadata.fingerprint or _fingerprint(metadata.labels)
        chunk = ChunkKey(metadata.tenant, fingerprint, metadata.from_ms, metadata.through_ms, crc32c(chunk_data))
        if parse_chunk_key(chunk.key) != chunk:
            raise ObjectKeyError(
                f"{chunk.key!r} names no chunk: expected a tenant without a slash, a hexadecimal fingerprint and a span "
                "that does not end before it begins"
            )
        try:
            self.store.put(chunk.key, chunk_data, only_if_absent=True)
        except PutConflict:
            if self.store.get(chunk.key) != chunk_data:
                raise ObjectCorrupt(
                    f"{self.store.url}: {chunk.key}: expected the chunk that is to be written, found other bytes under its "
                    "name: one of the two is damaged; look at both before you remove one"
                ) from None
        return chunk.key

    def download_chunk(self, chunk_id: str) -> bytes:
        """A chunk, checked against the checksum in its id. Raises ObjectMissing, ObjectCorrupt, ObjectKeyError."""
        chunk = parse_chunk_key(chunk_id)
        if chunk is None:
            raise ObjectKeyError(f"{chunk_id!r} names no chunk; expected TENANT/FINGERPRINT/FROM:THROUGH:CRC32C")
        data = self.store.get(chunk_id)
        if crc32c(data) != chunk.checksum:
            raise ObjectCorrupt(
                f"{self.store.url}: {chunk_id}: expected crc32c {chunk.checksum:x}, found {crc32c(data):x} "
                f"({len(data):,} bytes); bring it back from an archive"
            )
        return data

    def list_chunks(self, prefix: str = "") -> Iterator[StoredChunk]:
        """Chunks whose id begins with ``prefix`` (a tenant and a slash, mostly), by id; other objects are left out."""
        for info in self.store.list(prefix):
            chunk = parse_chunk_key(info.key)
            if chunk is not None:
                yield StoredChunk(info.key, info.size, chunk.tenant, chunk.from_ms, chunk.through_ms)

    def verify_storage_health(self) -> list[Check]:
        """What the store does and does not do; see preflight. Never raises StoreError: that is a finding."""
        return preflight(self.store)

    def rotate_or_archive_old_chunks(
        self, archiver: Archiver, tenants: Sequence[str], *, remove: bool = False
    ) -> list[DayResult]:
        """Archive every closed day that is not archived, or that chunks came for since.

        ``remove``: then delete the chunks all of whose days are archived and verified, byte by byte. Not on the store of
        a running Loki: its index would name what is gone, and its retention removes them by itself. Raises as Archiver.
        """
        results = [result for tenant in tenants for result in archiver.archive_days(tenant)]
        if remove:
            for tenant in tenants:
                self._remove_archived(archiver.archive, tenant)
        return results

    def _remove_archived(self, archive: ObjectStore, tenant: str) -> None:
        whole: dict[date, frozenset[str]] = {}
        for stored in self.list_chunks(f"{tenant}/"):
            chunk = parse_chunk_key(stored.chunk_id)
            if chunk is None:
                continue
            for day in chunk.days():
                if day not in whole:
                    whole[day] = _whole_chunks(archive, tenant, day)
            if all(chunk.key in whole[day] for day in chunk.days()):
                self.store.delete(stored.chunk_id)


def _whole_chunks(archive: ObjectStore, tenant: str, day: date) -> frozenset[str]:
    """Chunks of a day that the archive holds with the bytes that its manifest names."""
    manifest = newest_manifest(archive, tenant, day)
    if manifest is None:
        return frozenset()
    damaged = {damage.key for damage in damages(archive, manifest)}
    return frozenset(one.key for one in manifest.chunks if one.key not in damaged and not one.damaged)


def _fingerprint(labels: Mapping[str, str]) -> str:
    return hashlib.sha256(label_text(labels).encode()).hexdigest()[:16]

"""What an archived day consists of: every object with its size and sha256, and what is needed to read it again.

A manifest is the day's commit record: it is written last, once, and never changed; what comes later makes a new revision
that holds everything the one before held. Its bytes depend on what was archived alone, not on when or in how many tries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from onecollector_resources.archive.proof import DayProof, StreamProof
from onecollector_resources.storage.sealed import Unsealed, seal, unseal

FORMAT = 1


class ManifestError(ValueError):
    """A manifest that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, order=True)
class ArchivedObject:
    """One object: its key in the bucket form, ``size`` in bytes, the revision that brought it.

    ``damaged``: a chunk whose bytes did not have the checksum in its name when it was archived; ``unindexed``: one that
    Loki's index did not name any more, so that a restored Loki does not show its lines.
    """

    key: str
    size: int
    sha256: str
    source_etag: str
    revision: int
    damaged: bool = False
    unindexed: bool = False


@dataclass(frozen=True, slots=True)
class Manifest:
    """A day of a tenant. ``chunks`` and ``index`` are by key; ``schema_config`` is Loki's, to read them with."""

    tenant: str
    day: date
    revision: int
    source: str
    loki_version: str
    schema_config: Mapping[str, Any]
    chunks: tuple[ArchivedObject, ...]
    index: tuple[ArchivedObject, ...]
    lines: DayProof | None
    """Counts and hashes of the day's lines; None where nobody could tell."""

    @property
    def objects(self) -> tuple[ArchivedObject, ...]:
        """All of them."""
        return (*self.chunks, *self.index)

    @property
    def bytes(self) -> int:
        """Of all objects."""
        return sum(one.size for one in self.objects)

    @property
    def added(self) -> tuple[str, ...]:
        """Keys of what this revision brought."""
        return tuple(one.key for one in self.objects if one.revision == self.revision)

    @property
    def key(self) -> str:
        """Its key in the archive."""
        return manifest_key(self.tenant, self.day, self.revision)


def manifest_prefix(tenant: str, day: date | None = None) -> str:
    """Where manifests lie in the archive."""
    return f"manifests/{tenant}/" if day is None else f"manifests/{tenant}/{day.isoformat()}/"


def manifest_key(tenant: str, day: date, revision: int) -> str:
    """Keys of one day sort by revision."""
    return f"{manifest_prefix(tenant, day)}{revision:06d}.json"


def object_key(tenant: str, day: date, key: str) -> str:
    """Where an object of Loki lies in the archive."""
    return f"objects/{tenant}/{day.isoformat()}/{key}"


def parse_manifest_key(key: str) -> tuple[str, date, int] | None:
    """Tenant, day and revision, or None for another key."""
    parts = key.split("/")
    if len(parts) != 4 or parts[0] != "manifests" or not parts[3].endswith(".json"):
        return None
    try:
        found = parts[1], date.fromisoformat(parts[2]), int(parts[3].removesuffix(".json"))
    except ValueError:
        return None
    return found if manifest_key(*found) == key else None


def to_bytes(manifest: Manifest) -> bytes:
    """Equal manifests give equal bytes. JSON, whose first line is the checksum of the rest."""
    body = {
        "format": FORMAT,
        **asdict(manifest),
        "day": manifest.day.isoformat(),
        "added": list(manifest.added),
        "totals": {
            "objects": len(manifest.objects),
            "bytes": manifest.bytes,
            "chunks": len(manifest.chunks),
            "index": len(manifest.index),
        },
    }
    return seal(body, "manifest")


def from_bytes(data: bytes, where: str) -> Manifest:
    """Raises ManifestError, naming ``where`` it was read from."""
    try:
        # A day may have any number of objects.
        body = unseal(data, "manifest", largest=None)
    except Unsealed:
        raise ManifestError(
            f"{where}: expected a manifest that has the checksum in its first line, found another: it is damaged; "
            "restore an earlier revision (--revision), or archive the day again (onecollector archive DAY --force)"
        ) from None
    if body.get("format") != FORMAT:
        raise ManifestError(
            f"{where}: expected format {FORMAT}, found {body.get('format')!r}; use the version that wrote it"
        )
    try:
        return Manifest(
            tenant=body["tenant"],
            day=date.fromisoformat(body["day"]),
            revision=body["revision"],
            source=body["source"],
            loki_version=body["loki_version"],
            schema_config=body["schema_config"],
            chunks=tuple(ArchivedObject(**row) for row in body["chunks"]),
            index=tuple(ArchivedObject(**row) for row in body["index"]),
            lines=_proof(body["lines"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{where}: a part of the manifest is missing or of another kind: {error!r}") from error


def _proof(row: Any) -> DayProof | None:
    if row is None:
        return None
    streams = tuple(StreamProof(**stream) for stream in row["streams"])
    return DayProof(row["method"], row["lines"], row["sha256"], streams)


def revised(manifest: Manifest, revision: int) -> Manifest:
    """The same content as another revision: for what it brought, and for itself."""

    def moved(objects: tuple[ArchivedObject, ...]) -> tuple[ArchivedObject, ...]:
        return tuple(replace(o, revision=revision) if o.revision == manifest.revision else o for o in objects)

    return replace(manifest, revision=revision, chunks=moved(manifest.chunks), index=moved(manifest.index))

"""A day out of the archive into a scratch Loki, and the proof that it is the day that was archived.

Every object is checked against the manifest before Loki starts; then Loki is asked for every line, and what it gives is
held against counts and hashes, stream by stream, that were taken when the day was archived.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from onecollector_resources.archive.keys import parse_chunk_key
from onecollector_resources.archive.manifest import ArchivedObject, Manifest, object_key
from onecollector_resources.archive.proof import DayProof, differences, prove
from onecollector_resources.archive.query_reader import QueriedDay
from onecollector_resources.archive.scratch import objects_folder, start_scratch
from onecollector_resources.archive.shelf import Damage
from onecollector_resources.archive.transfer import WHOLE_BYTES, digests
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.storage.objects import ObjectCorrupt, ObjectMissing, ObjectStore

ROOM = 1.3
"""Free space for each byte: Loki unpacks the index beside the objects."""

SHOWN = 20


class RestoreFailed(RuntimeError):
    """The day could not be laid out; the message names the objects. ``damages`` are all of them."""

    def __init__(self, message: str, damages: Sequence[Damage] = ()) -> None:
        super().__init__(message)
        self.damages = tuple(damages)


@dataclass(frozen=True, slots=True)
class TenantProof:
    """What the scratch Loki gave of one tenant against the manifest: ``expected`` None where it holds no proof."""

    tenant: str
    revision: int
    objects: int
    bytes: int
    expected: DayProof | None
    found: DayProof
    differences: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored day. Seconds: for laying out and checking objects, for Loki's start, for reading every line."""

    url: str
    folder: Path
    tenants: tuple[TenantProof, ...]
    damages: tuple[Damage, ...]
    lay_out_s: float
    start_s: float
    prove_s: float

    @property
    def bytes(self) -> int:
        """Of all objects."""
        return sum(one.bytes for one in self.tenants)

    @property
    def lines(self) -> int:
        """That Loki gave."""
        return sum(one.found.lines for one in self.tenants)

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.lay_out_s + self.start_s + self.prove_s

    @property
    def seconds_per_gb(self) -> float:
        """Without Loki's start, which does not grow with the day."""
        return (self.lay_out_s + self.prove_s) / (self.bytes / 1e9) if self.bytes else 0.0

    @property
    def equal(self) -> bool:
        """Whether all objects are whole, and every line is as it was when archived as far as that was recorded."""
        return not self.damages and not any(one.differences for one in self.tenants)

    @property
    def proved(self) -> bool:
        """Whether it was recorded for every tenant."""
        return all(one.expected is not None for one in self.tenants)


def restore_day(
    archive: ObjectStore,
    manifests: Sequence[Manifest],
    folder: Path,
    binary: Path,
    *,
    with_damage: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Restored, LokiLifecycle]:
    """Restore manifests of one day into an empty or new ``folder``; the Loki that is answered runs.

    ``with_damage`` goes on without the objects that are damaged. Raises RestoreFailed, StoreError, LokiConfigError,
    LokiLifecycleError, LokiError, ReadFailed.
    """
    began = clock()
    _expect_empty(folder)
    loki: LokiLifecycle | None = None
    try:
        damages: list[Damage] = []
        for manifest in manifests:
            damages += lay_out(archive, manifest, objects_folder(folder))
        if damages and not with_damage:
            raise RestoreFailed(_damage_text(archive, manifests, damages), damages)
        laid_out = clock()
        days = tuple(sorted({manifest.day.isoformat() for manifest in manifests}))
        names = tuple(manifest.tenant for manifest in manifests)
        loki = start_scratch(binary, folder, manifests[0].schema_config, days, names)
        started = clock()
        tenants = tuple(_proved(loki.url, manifest) for manifest in manifests)
    except BaseException:
        # Also for Ctrl-C: what is half there would stand in the way of the next try.
        if loki is not None:
            loki.kill()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    restored = Restored(
        url=loki.url,
        folder=folder,
        tenants=tenants,
        damages=tuple(damages),
        lay_out_s=round(laid_out - began, 3),
        start_s=round(started - laid_out, 3),
        prove_s=round(clock() - started, 3),
    )
    return restored, loki


def drill_day(
    archive: ObjectStore, manifests: Sequence[Manifest], folder: Path, binary: Path, *, with_damage: bool = False
) -> Restored:
    """``restore_day``, and then nothing of it is left: no process and no folder. Raises as it does."""
    restored, loki = restore_day(archive, manifests, folder, binary, with_damage=with_damage)
    loki.kill()
    shutil.rmtree(folder)
    return restored


def _expect_empty(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise RestoreFailed(
            f"{folder}: expected no folder or an empty one, found files; of a restore: onecollector restore --stop {folder}"
        )


def lay_out(archive: ObjectStore, manifest: Manifest, objects: Path, *, workers: int = 8) -> list[Damage]:
    """Write a manifest's objects as Loki keeps them on disk; answers those that are missing or damaged.

    Raises RestoreFailed where the disk has no room, StoreError.
    """
    objects.mkdir(parents=True, exist_ok=True)
    need, free = int(manifest.bytes * ROOM), shutil.disk_usage(objects).free
    if free < need:
        raise RestoreFailed(
            f"{objects}: expected {need / 1e6:,.0f} MB of room for {manifest.day}, found {free / 1e6:,.0f}"
        )

    def one(what: ArchivedObject) -> Damage | None:
        key = object_key(manifest.tenant, manifest.day, what.key)
        path = objects / file_key(what.key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            found = _fetched(archive, key, what.size, path)
        except ObjectMissing:
            return Damage(what.key, f"expected {what.size:,} bytes, found no object")
        except ObjectCorrupt as error:
            return Damage(what.key, str(error))
        if found != what.sha256:
            path.unlink()
            return Damage(what.key, f"expected sha256 {what.sha256}, found {found}")
        return None

    try:
        with ThreadPoolExecutor(workers) as pool:
            return [damage for damage in pool.map(one, manifest.objects) if damage is not None]
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RestoreFailed(
                f"{objects}: no room left while {manifest.day} was laid out; give another --folder"
            ) from error
        raise


def file_key(key: str) -> str:
    """Where Loki looks for an object on disk."""
    chunk = parse_chunk_key(key)
    return chunk.file_key if chunk else key


def _fetched(archive: ObjectStore, key: str, size: int, path: Path) -> str:
    if size > WHOLE_BYTES:
        archive.get_file(key, path)
        return digests(path)[1]
    data = archive.get(key)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _proved(url: str, manifest: Manifest) -> TenantProof:
    reader = QueriedDay(lambda tenant: LokiAccess(url, tenant, timeout_s=600))
    found = prove(reader, manifest.tenant, manifest.day, [chunk.key for chunk in manifest.chunks])
    expected = manifest.lines
    return TenantProof(
        manifest.tenant,
        manifest.revision,
        len(manifest.objects),
        manifest.bytes,
        expected,
        found,
        tuple(differences(expected, found)) if expected else (),
    )


def _damage_text(archive: ObjectStore, manifests: Sequence[Manifest], damages: Sequence[Damage]) -> str:
    total = sum(len(manifest.objects) for manifest in manifests)
    rows = "".join(f"\n    {one.key}: {one.what}" for one in _first(damages))
    more = f"\n    and {len(damages) - SHOWN} more" if len(damages) > SHOWN else ""
    return (
        f"{archive.url}: {len(damages)} of {total} objects of {manifests[0].day} are not as the manifest says:{rows}{more}\n"
        "archive the day again while Loki still holds it (onecollector archive DAY --force), or go on without them (--with-damage)"
    )


def _first(damages: Iterable[Damage]) -> list[Damage]:
    return list(damages)[:SHOWN]

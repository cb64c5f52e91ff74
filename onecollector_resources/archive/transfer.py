"""One object from Loki's store into the archive, checked on the way in and read back from where it was written."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from crc32c import crc32c

from onecollector_resources.archive.manifest import ArchivedObject
from onecollector_resources.archive.plan import SourceObject
from onecollector_resources.storage.objects import ObjectCorrupt, ObjectMissing, ObjectStore

WHOLE_BYTES = 32 << 20
"""Larger objects go through a file: with some at a time, memory would be full."""

CHUNK = 1 << 20


def copied(
    source: ObjectStore, archive: ObjectStore, what: SourceObject, to: str, folder: Path, revision: int
) -> ArchivedObject:
    """Copy it to the key ``to``, unless it lies there whole already. ``folder`` takes large ones meanwhile.

    A chunk whose bytes do not have the checksum of its name is copied as it is, and marked. Raises ObjectMissing where
    Loki has removed it, ObjectCorrupt where it does not come back as it was written, StoreError, OSError.
    """
    if what.size <= WHOLE_BYTES:
        data = source.get(what.source_key)
        size, sha256, crc = len(data), hashlib.sha256(data).hexdigest(), crc32c(data)
        if not same_bytes(archive, to, size, sha256):
            archive.put(to, data)
            _read_back(archive, to, size, sha256)
    else:
        path = folder / secrets.token_hex(8)
        try:
            source.get_file(what.source_key, path)
            size, sha256, crc = digests(path)
            if not same_bytes(archive, to, size, sha256, path.with_suffix(".back")):
                archive.put_file(to, path)
                _read_back(archive, to, size, sha256, path.with_suffix(".back"))
        finally:
            path.unlink(missing_ok=True)
    damaged = what.chunk is not None and crc != what.chunk.checksum
    return ArchivedObject(what.key, size, sha256, what.etag, revision, damaged)


def digests(path: Path) -> tuple[int, str, int]:
    """Size, sha256 and crc32c of a file. Raises OSError."""
    digest, crc, size = hashlib.sha256(), 0, 0
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
            crc, size = crc32c(data, crc), size + len(data)
    return size, digest.hexdigest(), crc


def same_bytes(store: ObjectStore, key: str, size: int, sha256: str, beside: Path | None = None) -> bool:
    """Whether the object is there and is these bytes; a large one is read into the file ``beside``, which goes."""
    try:
        if store.head(key).size != size:
            return False
        if beside is None:
            return hashlib.sha256(store.get(key)).hexdigest() == sha256
        try:
            store.get_file(key, beside)
            return digests(beside)[1] == sha256
        finally:
            beside.unlink(missing_ok=True)
    except (ObjectMissing, ObjectCorrupt):
        return False


def _read_back(archive: ObjectStore, key: str, size: int, sha256: str, beside: Path | None = None) -> None:
    if not same_bytes(archive, key, size, sha256, beside):
        raise ObjectCorrupt(
            f"{archive.url}: {key}: expected {size:,} bytes with sha256 {sha256}, found others right after they were "
            "written; this store cannot be trusted; look at it with: onecollector storage check"
        )

"""What an object store is to us: bytes under keys, on one machine's disk or in an S3 bucket, by the same few verbs.

The idea: a put is whole or not there, a condition on a put is kept by the store and not by the caller, and every
failure is one of a few errors that say what was expected, what was found and what to do. Stores are safe to share
between threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, unquote, urlsplit


class StoreError(RuntimeError):
    """An object store did not do what was asked."""


class ObjectMissing(StoreError):
    """No object has this key."""


class ObjectKeyError(StoreError):
    """The key cannot be one: it would leave the root, is empty, too long, or is a folder on this store."""


class ObjectCorrupt(StoreError):
    """The bytes that came back are not those that were put."""


class PutConflict(StoreError):
    """A conditional put found another state than its condition names; nothing was written."""


class ConditionUnsupported(StoreError):
    """The store does not do conditional puts; nothing was written."""


class StoreDenied(StoreError):
    """The store refuses: no rights, wrong keys, or a read-only file system."""


class StoreGone(StoreError):
    """The store, its bucket or its folder is not there or does not answer."""


class StoreFull(StoreError):
    """No room is left; nothing was written."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: ``size`` in bytes, ``modified`` in UTC, ``etag`` opaque and different for other bytes."""

    key: str
    size: int
    modified: datetime
    etag: str


class S3Access(Protocol):
    """How a bucket is reached; ``settings.S3Settings`` is one. The two ``_env`` name variables that hold the keys."""

    @property
    def endpoint(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def access_key_env(self) -> str: ...
    @property
    def secret_key_env(self) -> str: ...
    @property
    def insecure(self) -> bool: ...


class ObjectStore(Protocol):
    """Objects by key: ``/`` between the parts, no empty part, no ``.`` or ``..``. Every method may raise StoreError."""

    @property
    def url(self) -> str:
        """Where it is, as ``open_store`` takes it."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with ``prefix``, by key, as they come in."""
        ...

    def head(self, key: str) -> ObjectInfo:
        """Size and version of one object. Raises ObjectMissing."""
        ...

    def get(self, key: str) -> bytes:
        """The whole object, checked where its checksum was kept. Raises ObjectMissing, ObjectCorrupt."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """At most ``length`` bytes from ``start``, fewer at the end, none behind it; not checked. Raises ObjectMissing."""
        ...

    def get_file(self, key: str, path: Path) -> None:
        """The whole object into a file, which is there when it is complete and checked. Raises as ``get``, OSError."""
        ...

    def put(self, key: str, data: bytes, *, only_if_absent: bool = False, only_if_match: str | None = None) -> str:
        """Write an object, whole and safe on disk at return; answers its etag.

        ``only_if_absent``: only where no object has the key; ``only_if_match``: only over the version with this etag.
        Raises PutConflict, ConditionUnsupported, StoreDenied, StoreGone, StoreFull.
        """
        ...

    def put_file(self, key: str, path: Path) -> str:
        """Write an object from a file, in parts where it is large; answers its etag. Raises as ``put``, OSError."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; none there is no error."""
        ...

    def sweep(self, before: datetime) -> int:
        """Remove what writers that were killed before then left behind, which no listing shows; answers how many."""
        ...


def open_store(
    url: str,
    access: S3Access | None = None,
    *,
    create: bool = False,
    environment: Mapping[str, str] | None = None,
) -> ObjectStore:
    """The store at ``file:///folder`` (or a plain absolute path) or ``s3://bucket/prefix``.

    ``access`` says how the bucket is reached; ``create`` makes a folder that is not there (a bucket never).
    Raises StoreError for another kind of URL, StoreDenied where the keys' variables are not set, StoreGone for a folder
    that is not there. A bucket is not asked for until it is used.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        from onecollector_resources.storage.s3_store import S3Store

        if access is None:
            raise StoreError(f"{url}: expected an S3 access (endpoint, region, names of the key variables), found none")
        environ = os.environ if environment is None else environment
        return S3Store(parts.netloc, unquote(parts.path).strip("/"), access, environment=environ)
    if (parts.scheme == "file" and parts.netloc in ("", "localhost")) or (not parts.scheme and url.startswith("/")):
        from onecollector_resources.storage.file_store import FileStore

        path = unquote(parts.path) if parts.scheme else url
        if path.startswith("/"):
            return FileStore(Path(path), create=create)
    raise StoreError(f"{url}: expected file:///folder or s3://bucket/prefix")


def as_url(text: str) -> str:
    """A path as a URL; a URL as it is."""
    return text if "://" in text else Path(text).expanduser().absolute().as_uri()


def key_part(name: str) -> str:
    """Any name as one part of a key, percent-encoded; ``urllib.parse.unquote`` gives it back."""
    # A name of dots alone is a path of its own.
    return quote(name, safe="") if name.strip(".") else name.replace(".", "%2E")


def checked_key(key: str) -> str:
    """The key itself. Raises ObjectKeyError for one that could mean another object on another store."""
    parts = key.split("/")
    if (
        not key
        or any(part in ("", ".", "..") for part in parts)
        or "\0" in key
        or len(key.encode("utf-8", "replace")) > 1024
    ):
        raise ObjectKeyError(
            f"{key[:200]!r} is no key: expected at most 1,024 bytes, parts between single slashes, none of them . or .."
        )
    return key

"""Where things are by the settings: Loki's own store, the archive, and the archiver between the two."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import httpx
import yaml

from onecollector_resources.archive.chunk_reader import ChunkedDay
from onecollector_resources.archive.copy import Archiver
from onecollector_resources.loki.chunk_store import chunk_store
from onecollector_resources.loki.config import loki_config
from onecollector_resources.loki.querier import LokiError, LokiQuerierClient
from onecollector_resources.settings import Settings, SettingsError
from onecollector_resources.storage.objects import ObjectStore, as_url, open_store


def loki_store(settings: Settings) -> ObjectStore:
    """The store that Loki writes to. Raises SettingsError where it is not known, StoreError."""
    store = chunk_store(settings)
    if store is None:
        raise SettingsError(
            f"where the Loki at {settings.loki.url} keeps its chunks is not known; set export.chunk_store to s3://bucket "
            "or file:///folder, and export.s3 for a bucket"
        )
    return store


def archive_store(settings: Settings, url: str | None = None, *, create: bool = False) -> ObjectStore:
    """The archive at ``url``, else the one that is set. Raises SettingsError where none is, StoreError."""
    url = url or settings.archive.url
    if url is None:
        raise SettingsError(
            "no archive is set: set archive.url to s3://bucket/prefix or file:///folder, or give --to URL"
        )
    return open_any(settings, url, create=create)


def open_any(settings: Settings, url: str, *, create: bool = False) -> ObjectStore:
    """Any store, with the settings' way to a bucket. Raises SettingsError, StoreError."""
    access = settings.archive.s3 or settings.loki.s3
    if url.startswith("s3://") and access is None:
        raise SettingsError(f"{url}: how its server is reached is not set: set archive.s3.endpoint (and region, keys)")
    return open_store(as_url(url), access, create=create)


def archiver_of(settings: Settings, archive: ObjectStore, loki_url: str, *, prove: bool = True) -> Archiver:
    """An archiver by the settings; ``loki_url`` is where Loki answers, empty for nowhere: its version is asked for there.

    Raises SettingsError, StoreError, LokiError where a Loki that is not ours does not tell its schema.
    """
    return Archiver(
        loki_store(settings),
        archive,
        schema_config=schema_of(settings, loki_url),
        loki_version=version_of(settings, loki_url),
        reader=ChunkedDay(archive) if prove else None,
        closed_after=timedelta(hours=settings.archive.closed_after_h),
    )


def schema_of(settings: Settings, loki_url: str) -> Mapping[str, Any]:
    """Loki's schema: of our own from the settings, of another by asking it. Raises LokiError."""
    if settings.loki.url is None:
        return loki_config(settings, data_dir=settings.layout.loki, http_port=0, grpc_port=0)["schema_config"]
    try:
        with settings.loki.access(loki_url, "default").client() as http:
            answer = http.get("/config").raise_for_status()
        found = (yaml.safe_load(answer.text) or {}).get("schema_config")
    except (httpx.HTTPError, yaml.YAMLError) as error:
        raise LokiError(f"Loki at {loki_url} does not tell its config, and so not its schema: {error}") from error
    if not isinstance(found, dict):
        raise LokiError(f"Loki at {loki_url}: expected schema_config in /config, found none")
    # Dates come as such: a manifest holds text.
    configs = [{**period, "from": str(period.get("from"))[:10]} for period in found.get("configs") or []]
    return {"configs": configs}


def version_of(settings: Settings, loki_url: str) -> str:
    """Loki's version; empty where it does not answer: it is for people to read, nothing depends on it."""
    if not loki_url:
        return ""
    try:
        with LokiQuerierClient(settings.loki.access(loki_url, "default")) as client:
            return client.build_info().version
    except LokiError:
        return ""

"""Who a container or file is: tenant, service, profile and safe names, decided from labels and settings alone.

A label never makes a tenant, never chooses a path outside the tree and never stops collection by being wrong: a bad
value falls back with a warning, an unknown tenant holds the source until somebody puts it on the list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from onecollector_resources.records import ObservedSource
from onecollector_resources.settings import FileSource, Settings

PREFIX = "onecollector.io/"
MAX_NAME = 100
"""Bytes of a safe name, with the hash that marks a changed one: what settings.SAFE_NAME allows."""

UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
IMAGE_ID = re.compile(r"sha256:.*|[0-9a-f]{12,64}", re.DOTALL)
TRUE = frozenset({"1", "true", "yes", "on"})

SERVICE_LABELS = (
    PREFIX + "service",
    "com.docker.compose.service",
    "com.docker.swarm.service.name",
    "io.kubernetes.container.name",
)
"""The first of these that is not blank names the service; then the image, then the container's own name."""

FILE_DRIVER = "json-file"
READABLE_DRIVERS = frozenset({FILE_DRIVER, "local", "journald"})
"""Drivers whose lines the engine can read back by itself; of the others it keeps a cache of its own (20.10 and later)."""


def safe_name(raw: str) -> str:
    """A name that is one path component and one label value: 1 to 100 of A-Z a-z 0-9 . _ -, with no dot in front.

    A name that had to be changed ends in ``-`` and 8 hex digits of its hash, so two raw names do not become one by
    being cleaned. A safe name is its own safe name.
    """
    if 0 < len(raw) <= MAX_NAME and raw[0] != "." and UNSAFE.search(raw) is None:
        return raw
    clean = UNSAFE.sub("_", raw[:MAX_NAME])[: MAX_NAME - 9]
    if not clean or clean[0] == ".":
        clean = "_" + clean[1:]
    return f"{clean}-{hashlib.sha256(raw.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def image_service(image: str) -> str:
    """``registry:5000/team/web:1.2@sha256:..`` is ``web``; an image that is only an id gives the empty string."""
    if IMAGE_ID.fullmatch(image):
        return ""
    return image.split("@", maxsplit=1)[0].rsplit("/", 1)[-1].split(":", maxsplit=1)[0]


def service_of(labels: Mapping[str, str], image: str, name: str) -> str:
    """The service's raw name: our label, compose, swarm, Kubernetes, image, container name."""
    for key in SERVICE_LABELS:
        if labels.get(key, "").strip():
            return labels[key]
    return image_service(image) or name


def is_excluded(labels: Mapping[str, str]) -> bool:
    """Whether a container asks to be left alone."""
    return labels.get(PREFIX + "exclude", "").strip().lower() in TRUE


def why_unreadable(driver: str, options: Mapping[str, str], *, dual_logging: bool) -> str:
    """Why nothing can be read back from a log driver; empty where something can.

    ``dual_logging``: the engine keeps a readable cache beside drivers that only send away (Docker 20.10 and later).
    """
    if driver == "none":
        return "log driver none: nothing is kept to read"
    if driver in READABLE_DRIVERS:
        return ""
    if not dual_logging:
        return f"log driver {driver}: this engine is older than 20.10 and keeps nothing to read"
    if options.get("cache-disabled", "").lower() in TRUE:
        return f"log driver {driver} with cache-disabled: nothing is kept to read"
    return ""


def parse_time(text: str | None) -> datetime | None:
    """An engine's RFC 3339 time with nanoseconds; None for none, and for the year 1 that means never."""
    if not text or text.startswith("0001-"):
        return None
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        return None
    fraction = (match[2] or "0")[:6].ljust(6, "0")
    zone = "+00:00" if match[3] == "Z" else match[3]
    return datetime.fromisoformat(f"{match[1]}.{fraction}{zone}").astimezone(UTC)


def identify_container(
    container_id: str,
    name: str,
    image: str,
    labels: Mapping[str, str],
    settings: Settings,
    *,
    driver: str,
    log_path: str,
    running: bool,
    created: datetime,
    ended: datetime | None = None,
    unreadable: str = "",
) -> ObservedSource:
    """A container as a source. ``unreadable``: ``why_unreadable`` of its log driver."""
    warnings: list[str] = []
    # A database that takes no NUL must not be kept from taking the host's other rows by one label.
    labels = {key.replace("\0", "\ufffd"): value.replace("\0", "\ufffd") for key, value in labels.items()}
    service_raw = service_of(labels, image, name) or container_id[:12]
    tenant_raw = labels.get(PREFIX + "tenant") or "default"
    profile = labels.get(PREFIX + "profile") or "docker"
    if profile != "docker":
        # The engine writes the framing, not the container: there is nothing to choose.
        warnings.append(f"profile {profile[:60]!r} is not for containers; docker is used")
    multiline = labels.get(PREFIX + "multiline") or None
    if multiline is not None and multiline not in settings.multiline:
        warnings.append(f"unknown multiline rule {multiline[:60]!r}; none is used")
        multiline = None
    return ObservedSource(
        source_id=container_id,
        kind="container",
        name=name,
        safe_name=safe_name(name),
        tenant=safe_name(tenant_raw),
        service=safe_name(service_raw),
        service_raw=service_raw,
        profile="docker",
        multiline=multiline,
        driver=driver,
        log_path=log_path,
        running=running,
        created=created,
        image=image,
        labels=labels,
        ended=ended,
        excluded=is_excluded(labels),
        held="" if tenant_raw in settings.tenants else f"unknown tenant {tenant_raw[:100]!r}",
        uncollectable=unreadable,
        warnings=tuple(warnings),
    )


def summary_facts(summary: Mapping[str, Any]) -> tuple[str, str, Mapping[str, str]]:
    """Name, image and labels out of one row of the engine's listing."""
    names = summary.get("Names") or []
    # Legacy links add names such as /other/alias; the container's own has one slash.
    own = next((n for n in names if n.count("/") == 1), names[0] if names else "")
    return own.lstrip("/"), summary.get("Image") or "", summary.get("Labels") or {}


def identify_file(path: str, declared: FileSource, settings: Settings, *, created: datetime) -> ObservedSource | None:
    """A declared plain file as a source; None where ``service_from`` does not match its path.

    Its id is made of host and path, not of the inode: what a path's rotated files held are segments of one source.
    """
    readable = path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    service_raw = declared.service
    if service_raw is None:
        match = re.search(declared.service_from or "", readable)
        if match is None or not match["service"]:
            return None
        service_raw = match["service"]
    host = settings.agent.host_name
    return ObservedSource(
        source_id=hashlib.sha256(f"{host}\0{path}".encode("utf-8", "surrogateescape")).hexdigest(),
        kind="file",
        name=readable,
        safe_name=safe_name(readable.rsplit("/", 1)[-1]),
        tenant=declared.tenant,
        service=safe_name(service_raw),
        service_raw=service_raw,
        profile=declared.profile,
        multiline=declared.multiline,
        driver="file",
        log_path=readable,
        running=True,
        created=created,
        uncollectable="" if readable == path else "its path is not UTF-8; rename the file",
    )

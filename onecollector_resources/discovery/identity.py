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
"""Bytes of a safe name, without the hash that marks a changed one."""

UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
TRUE = frozenset({"1", "true", "yes", "on"})

FILE_DRIVERS = frozenset({"json-file", ""})
MUTE_DRIVERS = frozenset({"none"})


def safe_name(raw: str) -> str:
    """A name that is one path component and one label value: 1 to 109 of A-Z a-z 0-9 . _ -, with no dot in front.

    A name that had to be changed ends in ``-`` and 8 hex digits of its hash, so two raw names never become one.
    """
    clean = UNSAFE.sub("_", raw)[:MAX_NAME]
    if clean.startswith("."):
        clean = "_" + clean[1:]
    if clean and clean == raw:
        return raw
    digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{clean or '_'}-{digest}"


def image_service(image: str) -> str:
    """``registry:5000/team/web:1.2@sha256:..`` is ``web``; an image without a name gives the empty string."""
    if image.startswith("sha256:") or re.fullmatch(r"[0-9a-f]{12,64}", image):
        return ""
    return image.split("@", maxsplit=1)[0].rsplit("/", 1)[-1].split(":", maxsplit=1)[0]


def service_of(labels: Mapping[str, str], image: str, name: str) -> str:
    """The service's raw name: our label, compose, swarm, Kubernetes, image, container name."""
    for key in (
        PREFIX + "service",
        "com.docker.compose.service",
        "com.docker.swarm.service.name",
        "io.kubernetes.container.name",
    ):
        if labels.get(key):
            return labels[key]
    return image_service(image) or name


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
) -> ObservedSource:
    """A container as a source."""
    warnings: list[str] = []
    service_raw = service_of(labels, image, name)
    tenant_raw = labels.get(PREFIX + "tenant") or "default"
    tenant = safe_name(tenant_raw)
    held = "" if tenant_raw in settings.tenants else f"unknown tenant {tenant_raw[:100]!r}"
    profile = labels.get(PREFIX + "profile") or "docker"
    if profile != "docker":
        warnings.append(f"profile {profile[:60]!r} is not for containers; docker is used")
        profile = "docker"
    multiline = labels.get(PREFIX + "multiline") or None
    if multiline is not None and multiline not in settings.multiline:
        warnings.append(f"unknown multiline rule {multiline[:60]!r}; none is used")
        multiline = None
    return ObservedSource(
        source_id=container_id,
        kind="container",
        name=name,
        safe_name=safe_name(name),
        tenant=tenant,
        service=safe_name(service_raw),
        service_raw=service_raw,
        profile=profile,
        multiline=multiline,
        driver=driver,
        log_path=log_path,
        running=running,
        created=created,
        image=image,
        labels=dict(labels),
        ended=ended,
        excluded=labels.get(PREFIX + "exclude", "").lower() in TRUE,
        held=held,
        uncollectable=f"log driver {driver}: nothing is kept to read" if driver in MUTE_DRIVERS else "",
        warnings=tuple(warnings),
    )


def summary_facts(summary: Mapping[str, Any]) -> tuple[str, str, Mapping[str, str]]:
    """Name, image and labels out of one row of the engine's listing."""
    names = summary.get("Names") or []
    own = next((n for n in names if n.count("/") == 1), names[0] if names else "")
    return own.lstrip("/"), summary.get("Image") or "", summary.get("Labels") or {}


def identify_file(path: str, declared: FileSource, settings: Settings, *, created: datetime) -> ObservedSource | None:
    """A declared plain file as a source; None where ``service_from`` does not match its path."""
    service_raw = declared.service
    if service_raw is None:
        match = re.search(declared.service_from or "", path)
        if match is None or not match["service"]:
            return None
        service_raw = match["service"]
    host = settings.agent.host_name
    return ObservedSource(
        source_id=hashlib.sha256(f"{host}\0{path}".encode("utf-8", "surrogateescape")).hexdigest(),
        kind="file",
        name=path,
        safe_name=safe_name(path.rsplit("/", 1)[-1]),
        tenant=declared.tenant,
        service=safe_name(service_raw),
        service_raw=service_raw,
        profile=declared.profile,
        multiline=declared.multiline,
        driver="file",
        log_path=path,
        running=True,
        created=created,
    )

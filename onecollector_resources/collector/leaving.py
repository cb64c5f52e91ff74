"""Tenants that left the list while lines of theirs still wait in a queue: they keep their pipelines until it is empty.

A queue on disk is emptied by the exporter that owns it and by nobody else, so a config without that exporter would strand
what waits there. A tenant is let go when its queue was seen empty twice, a look apart; that is remembered as a mark in
the registry, which is taken back when the tenant is on the list again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import yaml

MARK = "drained/"
"""Prefix of the registry's marks: 1 where a tenant's queue is empty."""


class Marks(Protocol):
    """The part of the registry that is used here."""

    def get_mark(self, name: str) -> int: ...

    def set_mark(self, name: str, revision: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Leaving:
    """A tenant that is off the list and still in the live config. ``queue_mib``: its queue's size there."""

    tenant: str
    pipelines: tuple[str, ...]
    queue_mib: int


def leaving_tenants(
    live: str, pipelines: Collection[tuple[str, str]], listed: Collection[str], drained: Collection[str] = ()
) -> tuple[Leaving, ...]:
    """Tenants of the live config's text, with its (tenant, pipeline) pairs, that are neither listed nor drained."""
    gone = {tenant for tenant, _ in pipelines} - set(listed) - set(drained)
    if not gone:
        return ()
    sizes = _queue_sizes(live)
    return tuple(
        Leaving(tenant, tuple(sorted(p for t, p in pipelines if t == tenant)), sizes.get(tenant, 0))
        for tenant in sorted(gone)
    )


def _queue_sizes(text: str) -> dict[str, int]:
    """MiB by tenant, from the exporters named ``type/tenant``."""
    exporters = yaml.safe_load(text).get("exporters", {})
    return {
        name.partition("/")[2]: int(body["sending_queue"]["queue_size"]) >> 20
        for name, body in exporters.items()
        if "/" in name and "sending_queue" in (body or {})
    }


def empty_twice(leaving: Collection[str], empty_before: Collection[str], queued: Mapping[str, int]) -> set[str]:
    """Of the leaving tenants those whose queue is empty now and was at the look before. ``queued``: bytes by tenant.

    One look is not enough: between two polls of its files nothing of a tenant may be on its way for a moment.
    """
    return {t for t in leaving if t in empty_before and queued.get(t) == 0}


def drained_tenants(registry: Marks, tenants: Collection[str]) -> set[str]:
    """Those of whom it is remembered that nothing waits. Raises RegistryError."""
    return {tenant for tenant in tenants if registry.get_mark(MARK + tenant)}


def take_back(registry: Marks, listed: Collection[str]) -> None:
    """Forget it for tenants that are on the list: what waits when they leave again is unknown. Raises RegistryError."""
    for tenant in sorted(drained_tenants(registry, listed)):
        registry.set_mark(MARK + tenant, 0)

"""Tenants that left the list while lines of theirs still wait in a queue: they keep their pipelines until it is empty.

A queue on disk is emptied by the exporter that owns it and by nobody else, so a config without that exporter would strand
what waits there. A tenant is let go when its queue was seen empty twice, a look apart; that is remembered as a mark in
the registry, which is taken back when the tenant is on the list again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from onecollector_resources.collector.in_force import live_pipelines, queue_sizes
from onecollector_resources.registry.store import LogSourceRegistry

MARK = "drained/"
"""Prefix of the registry's marks: 1 where a tenant's queue is empty."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A tenant that is off the list and still in the live config. ``queue_mib``: its queue's size there."""

    tenant: str
    pipelines: tuple[str, ...]
    queue_mib: int


def leaving_tenants(registry: LogSourceRegistry, listed: Collection[str], agent_class: str) -> tuple[Leaving, ...]:
    """Tenants that the class's live config collects and that are neither listed nor drained. Raises RegistryError."""
    live = registry.live_config(agent_class)
    text = live.config.text if live is not None else ""
    pairs = live_pipelines(text)
    sizes = queue_sizes(text)
    return tuple(
        Leaving(tenant, tuple(sorted(pipeline for t, pipeline in pairs if t == tenant)), sizes.get(tenant, 0))
        for tenant in sorted({tenant for tenant, _ in pairs} - set(listed))
        if not registry.get_mark(MARK + tenant)
    )


def let_go(registry: LogSourceRegistry, tenant: str) -> None:
    """Remember that nothing of a tenant waits. Raises RegistryError."""
    registry.set_mark(MARK + tenant, 1)


def take_back(registry: LogSourceRegistry, listed: Collection[str]) -> None:
    """Forget it for tenants that are on the list: what waits when they leave again is unknown. Raises RegistryError."""
    for tenant in sorted(listed):
        if registry.get_mark(MARK + tenant):
            registry.set_mark(MARK + tenant, 0)

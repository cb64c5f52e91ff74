"""LogSourceRegistry: what is known of every source on every host, what was decided about it, and what was lost.

One class over one database; its parts stand in ``source_rows`` and ``decision_rows``. Several processes use it at once:
agents write what they observe, Dagster reads it and writes decisions, the command line reads.
"""

from __future__ import annotations

from onecollector_resources.registry.decision_rows import DecisionRows, Rollout, StoredConfig
from onecollector_resources.registry.faults import (
    RegistryError,
    RegistryNotMigrated,
    RegistryTooNew,
    RegistryUnavailable,
)
from onecollector_resources.registry.source_rows import Key, SourceRows, SyncResult

CONCERNS = frozenset({"appeared", "changed", "ended", "gone", "removed", "policy"})
"""Kinds of events that a reconcile has to act on; the others only tell."""

__all__ = [
    "CONCERNS",
    "Key",
    "LogSourceRegistry",
    "RegistryError",
    "RegistryNotMigrated",
    "RegistryTooNew",
    "RegistryUnavailable",
    "Rollout",
    "StoredConfig",
    "SyncResult",
]


class LogSourceRegistry(SourceRows, DecisionRows):
    """The registry at a SQLAlchemy URL. ``migrate()`` once before the first use; every method raises RegistryError."""

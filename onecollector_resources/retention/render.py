"""A policy as Loki's limits. Loki takes them in within seconds, from the file of per-tenant limits that it watches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from onecollector_resources.retention.durations import loki_text
from onecollector_resources.retention.keeps import FOREVER, Keep, Keeps, keeps_of
from onecollector_resources.retention.policies import Policy
from onecollector_resources.retention.selectors import parse_selector
from onecollector_resources.settings import Settings

CENTURY_S = 100 * 31_536_000
"""Seconds: in a rule Loki refuses 0, and for ever is a long time."""


def retention_limits(policy: Policy) -> dict[str, Any]:
    """``retention_period`` and ``retention_stream``, each where the policy says it."""
    limits: dict[str, Any] = {}
    if policy.keep_s is not None:
        limits["retention_period"] = "0s" if policy.keep_s == FOREVER else loki_text(policy.keep_s)
    if policy.rules:
        limits["retention_stream"] = [
            {
                "selector": rule.selector,
                # The larger wins, and the first of a file is to win.
                "priority": len(policy.rules) - number,
                "period": loki_text(rule.keep_s or CENTURY_S),
            }
            for number, rule in enumerate(policy.rules)
        ]
    return limits


def planned_keeps(settings: Settings, tenant: str, policy: Policy | None, in_force: Keeps | None = None) -> Keeps:
    """What will be kept once ``policy`` is in force. ``in_force`` gives the rest for a Loki whose settings are not ours."""
    if settings.loki.url is not None:
        if policy is None:
            return in_force or Keeps(FOREVER)
        default = policy.keep_s if policy.keep_s is not None else in_force.default_s if in_force else FOREVER
        return Keeps(default, _rules(policy) or (in_force.rules if in_force and not policy.rules else ()))
    limits: dict[str, Any] = {"retention_period": settings.loki.retention}
    for over in (settings.loki.overrides.get("limits_config"), settings.loki.tenant_overrides.get(tenant)):
        if isinstance(over, Mapping):
            limits |= {key: over[key] for key in ("retention_period", "retention_stream") if key in over}
    return keeps_of(limits | (retention_limits(policy) if policy else {}))


def _rules(policy: Policy) -> tuple[Keep, ...]:
    return tuple(Keep(r.selector, parse_selector(r.selector), r.keep_s or CENTURY_S) for r in policy.rules)

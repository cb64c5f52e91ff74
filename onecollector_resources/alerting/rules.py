"""Default alert rules: every service gets an error burst and a gone-silent rule, for free.

Pure: services in, groups out, and the difference to what the ruler holds. Only groups of our own namespace are ever
looked at, and one that a user's service name makes impossible is left out alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onecollector_resources.settings import RuleSettings

DURATION = re.compile(r"(\d+)(s|m|h|d)")


@dataclass(frozen=True, slots=True)
class RuleChanges:
    """What has to be done so that the ruler holds what is wanted."""

    create: tuple[str, ...]
    update: tuple[str, ...]
    delete: tuple[str, ...]
    same: tuple[str, ...]


def quoted(value: str) -> str:
    """A LogQL string literal."""
    return json.dumps(value, ensure_ascii=False)


def seconds(duration: str) -> int:
    """``15m`` in seconds. Raises ValueError."""
    match = DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(f"expected a duration such as 15m, found {duration!r}")
    return int(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


class AlertGenerator:
    """Makes rule groups out of services."""

    def __init__(self, settings: RuleSettings) -> None:
        self._settings = settings

    def generate_alert_thresholds(self, services: Iterable[str]) -> dict[str, dict[str, Any]]:
        """A rule group per service, by its name. Deterministic. Raises ValueError for a bad duration in the settings."""
        return {service: self._group(service) for service in sorted(set(services))}

    def _group(self, service: str) -> dict[str, Any]:
        selector = f"{{service_name={quoted(service)}}}"
        errors = f'{selector} | severity_text=~"ERROR|FATAL"'
        silent, rate = self._settings.silent_after, self._settings.error_lines_per_minute
        # Loki's templates would read braces of a query as their own.
        ask = (f"onecollector query '{errors}' --since 15m").replace("{{", "{ {")
        return {
            "name": service,
            "interval": "1m",
            "rules": [
                {
                    "alert": "ErrorBurst",
                    "expr": f"sum(count_over_time({errors} [1m])) > {rate:g}",
                    "for": "1m",
                    "labels": {"severity": "warning", "service": service, "onecollector": "default"},
                    "annotations": {
                        "summary": f"{service}: more than {rate:g} error lines a minute",
                        "query": ask,
                    },
                },
                {
                    "alert": "GoneSilent",
                    # It spoke in the window before and says nothing now; a service that never spoke is not silent.
                    "expr": (
                        f"(sum(count_over_time({selector} [{silent}] offset {silent})) > 0) "
                        f"unless (sum(count_over_time({selector} [{silent}])) > 0)"
                    ),
                    "for": "1m",
                    "labels": {"severity": "warning", "service": service, "onecollector": "default"},
                    "annotations": {
                        "summary": f"{service}: no line for {silent}",
                        "query": f"onecollector sources --service {service}",
                    },
                },
            ],
        }


def _comparable(group: Mapping[str, Any]) -> Any:
    """A group without what the ruler adds or rewrites."""
    return [
        {
            key: str(rule.get(key)) if key in ("expr", "for") else rule.get(key) or {}
            for key in ("alert", "expr", "for", "labels", "annotations")
        }
        for rule in group.get("rules", ())
    ]


def rules_to_change(wanted: Mapping[str, Mapping[str, Any]], present: Mapping[str, Mapping[str, Any]]) -> RuleChanges:
    """The difference between wanted and present groups of our namespace."""
    both = set(wanted) & set(present)
    changed = {name for name in both if _comparable(wanted[name]) != _comparable(present[name])}
    return RuleChanges(
        tuple(sorted(set(wanted) - set(present))),
        tuple(sorted(changed)),
        tuple(sorted(set(present) - set(wanted))),
        tuple(sorted(both - changed)),
    )

"""How long a tenant's streams are kept, as Loki decides it: the first rule that matches, else the tenant's period.

The same record is made from what Loki says is in force and from what would be rendered, so both compare and preview
alike. Loki's own rules are followed: the highest priority wins, among equals the shortest period.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onecollector_resources.retention.durations import seconds_of
from onecollector_resources.retention.selectors import Matcher, matches, parse_selector

FOREVER = 0
"""Seconds: Loki's way to say that nothing is removed."""

AGES = 50 * 31_536_000
"""Seconds: a rule's period from which on it means for ever; Loki has no other way to say it in a rule."""


@dataclass(frozen=True, slots=True)
class Keep:
    """One rule: streams that ``matchers`` match are kept for ``keep_s`` seconds."""

    selector: str
    matchers: tuple[Matcher, ...]
    keep_s: int


@dataclass(frozen=True, slots=True)
class Keeps:
    """A tenant's rules, the winning one first, and the seconds for everything else; 0: for ever."""

    default_s: int
    rules: tuple[Keep, ...] = ()

    def winner(self, labels: Mapping[str, str]) -> int | None:
        """Index of the rule that a stream falls under; None: under no rule."""
        return next((n for n, rule in enumerate(self.rules) if matches(rule.matchers, labels)), None)

    def keep_of(self, winner: int | None) -> int:
        """Seconds, by what ``winner`` answered; 0: for ever."""
        seconds = self.default_s if winner is None else self.rules[winner].keep_s
        return FOREVER if seconds >= AGES else seconds

    def names(self) -> set[str]:
        """Labels that decide."""
        return {matcher.name for rule in self.rules for matcher in rule.matchers}


def keeps_of(limits: Mapping[str, Any]) -> Keeps:
    """From Loki's limits (``retention_period``, ``retention_stream``). Raises DurationError, SelectorError."""
    rules = sorted(
        limits.get("retention_stream") or (), key=lambda r: (-int(r.get("priority", 0)), seconds_of(r["period"]))
    )
    return Keeps(
        seconds_of(limits.get("retention_period", "0s")),
        tuple(Keep(r["selector"], parse_selector(r["selector"]), seconds_of(r["period"])) for r in rules),
    )


def same(one: Keeps, other: Keeps) -> bool:
    """Whether both keep the same, however selectors are spelled."""
    return one.default_s == other.default_s and [(r.matchers, r.keep_s) for r in one.rules] == [
        (r.matchers, r.keep_s) for r in other.rules
    ]

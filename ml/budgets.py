"""How many findings a day a service may have: one number for all, and another for services that somebody gave one.

A service that wakes people up is given fewer, one that must not fail is given more; nothing has to be learned again,
because thresholds for any budget are read off what a model keeps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Budgets:
    """Findings a service and day: ``usual``, or the service's ``own``."""

    usual: float
    own: Mapping[str, float] = field(default_factory=dict)

    def of(self, service: str) -> float:
        """The service's."""
        return self.own.get(service, self.usual)


Budget = float | Budgets
"""A number is every service's."""


class Budgeted(Protocol):
    """A service's budget as settings have it."""

    @property
    def alert_budget(self) -> float | None: ...


def budgets_of(usual: float, services: Mapping[str, Budgeted]) -> Budgets:
    """As settings have them."""
    return Budgets(usual, {name: one.alert_budget for name, one in services.items() if one.alert_budget is not None})


def budget_for(budget: Budget, service: str) -> float:
    """Findings a day of a service."""
    return budget.of(service) if isinstance(budget, Budgets) else budget


def mean_budget(budget: Budget, services: Collection[str]) -> float:
    """Findings a day of an average one of these services."""
    usual = budget.usual if isinstance(budget, Budgets) else budget
    return sum(budget_for(budget, service) for service in services) / len(services) if services else usual

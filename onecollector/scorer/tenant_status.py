"""What a tenant's scorer is set to, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ml.budgets import Budget


@dataclass(frozen=True, slots=True)
class Options:
    """As in the settings."""

    grace_s: float = 20.0
    budget: Budget = 0.5
    findings_per_hour: int = 12
    shadow_minutes: int = 0
    """Minutes that a candidate is watched beside the model that serves; 0: not at all."""


@dataclass(slots=True)
class TenantStatus:
    """What is told of a tenant; minutes since 1970, ``lines`` and ``overflow`` of the last minute that was read."""

    model_id: str = ""
    minute: int = 0
    services: int = 0
    learning: int = 0
    lines: int = 0
    overflow: int = 0
    hidden: int = 0
    raised: int = 0
    """Services whose threshold is raised because they had too many findings in earlier weeks."""
    waits: str = ""
    shadow: str = ""
    problems: dict[str, str] = field(default_factory=dict)
    """By what they are about; the last of each."""

    def note(self, about: str, problem: str) -> None:
        """What is wrong there now; empty: nothing is."""
        if problem:
            self.problems[about] = problem
        else:
            self.problems.pop(about, None)

"""What a tenant's scorer is set to, and what is told of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ml.budgets import Budget

TOLD_S = 3600.0
"""So long what happened once is told of."""


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
    told_since: dict[str, float] = field(default_factory=dict)
    """Of those that happened once: since when, in epoch seconds."""

    def note(self, about: str, problem: str) -> None:
        """What is wrong there now; empty: nothing is."""
        self.told_since.pop(about, None)
        if problem:
            self.problems[about] = problem
        else:
            self.problems.pop(about, None)

    def happened(self, about: str, problem: str) -> None:
        """What went wrong there once, and is over."""
        self.problems[about] = problem
        self.told_since[about] = math.inf

    def at(self, now: float) -> None:
        """It is ``now``, in epoch seconds: what happened long ago is told of no more."""
        for about in list(self.told_since):
            # It has happened since the last look, or the clock went back.
            self.told_since[about] = min(self.told_since[about], now)
            if now - self.told_since[about] > TOLD_S:
                del self.told_since[about], self.problems[about]

"""When a model that was promoted is taken back by itself: it finds far more than it may, and chance does not explain it.

Incidents are counted and not findings, so that one outage that touches fifty services is one. The bound is a Poisson
one: so many incidents in an hour, of a model that found three times its budget, would happen once in a thousand hours.
"""

from __future__ import annotations

import math

TIMES = 3.0
"""The alert budget's multiple."""
CHANCE = 1e-3
LEAST = 5
"""Incidents in an hour below which nothing is concluded."""
TRIAL_MINUTES = 24 * 60
"""A model that served longer than this is not taken back by itself: then it is the service that changed."""
FAILURES = 3
"""Minutes in a row that a model could not score."""
AUTOMATIC = "by itself: "
"""How the reason of such a move begins; a model that such a move put in place is not taken back in turn."""


def too_noisy(incidents: int, services: int, budget: float, hours: float = 1.0) -> bool:
    """Whether so many incidents in ``hours`` are more than three times ``budget`` findings a service and day, beyond chance."""
    allowed = TIMES * budget * services * hours / 24
    return incidents >= LEAST and incidents > allowed and at_least(incidents, allowed) < CHANCE


def at_least(count: int, mean: float) -> float:
    """The probability of ``count`` or more events where ``mean`` are expected (Poisson)."""
    if count <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    below = sum(math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count))
    return max(0.0, 1.0 - below)

"""How many requests at once, how long to wait for one and how long before the next try: as TCP does it.

Additive increase, multiplicative decrease: Loki does not say how much it can take, and sends no Retry-After. What all
requests that were under way together met counts as one trouble, or a single overload would end at one request for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

FIRST_DELAY_S = 0.25
GROWTH = 1.5
LONGEST_DELAY_S = 5.0
"""By these the next try comes at most half as late again as the end of an outage."""

LEAST_TIMEOUT_S = 3.0
"""A page that was given up too early is asked for again with twice the time: cheaper than waiting for one that hangs."""
MOST_TIMEOUT_S = 55.0
"""Loki closes a connection that hangs after 60 s."""
FIRST_TIMEOUT_S = 30.0
RECENT = 40
"""Requests whose duration the next one's time-out is made from."""
ENOUGH = 8
"""Durations from which the next one is foreseen; fewer than that are taken with care."""
UNSURE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Congestion:
    """``allowed`` requests at once (a fraction counts when it is whole), at most ``most``; times in seconds."""

    allowed: float
    most: int
    slowed_at: float = float("-inf")
    recent_s: tuple[float, ...] = ()

    @property
    def at_once(self) -> int:
        """How many requests may be under way now."""
        return max(1, int(self.allowed))

    def after_answer(self, took_s: float) -> Congestion:
        """One more request at once after each round of good answers."""
        grown = min(float(self.most), self.allowed + 1 / self.allowed)
        return replace(self, allowed=grown, recent_s=(*self.recent_s, took_s)[-RECENT:])

    def after_trouble(self, began_at: float, now: float) -> Congestion:
        """Half as many, unless the request began before the last time that this was done."""
        if began_at < self.slowed_at:
            return self
        return replace(self, allowed=max(1.0, self.allowed / 2), slowed_at=now)

    def timeout_s(self, tries: int) -> float:
        """How long the next request may take before it counts as hung: four times what is usual, twice that again for
        each try that failed, for a slow answer is better than none.
        """
        if not self.recent_s:
            usual = FIRST_TIMEOUT_S
        else:
            least = LEAST_TIMEOUT_S if len(self.recent_s) >= ENOUGH else UNSURE_TIMEOUT_S
            usual = max(least, 4 * _percentile(self.recent_s, 0.95))
        return min(MOST_TIMEOUT_S, usual * 2 ** min(tries, 10))


def delay_s(tries: int, chance: float) -> float:
    """Seconds before the next try after ``tries`` that failed; ``chance`` in [0, 1) spreads those that failed together."""
    return min(LONGEST_DELAY_S, FIRST_DELAY_S * GROWTH ** min(tries - 1, 50)) * (0.5 + chance / 2)


def _percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[int(share * (len(values) - 1))]

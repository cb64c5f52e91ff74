"""Which finished links go. Delivered ones at once; undelivered ones only when they must, oldest first, never silently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onecollector_resources.records import GapCause


@dataclass(frozen=True, slots=True)
class Held:
    """A finished link: ``created`` in epoch seconds, sizes in bytes."""

    source_id: str
    segment: int
    created: float
    size: int
    read: int
    delivered: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """When undelivered links may go."""

    max_age_s: float
    max_bytes: int
    free_floor: int


@dataclass(frozen=True, slots=True)
class Drop:
    """A link to remove; ``cause`` is None where nothing can be lost by it."""

    held: Held
    cause: GapCause | None


def links_to_drop(finished: Sequence[Held], limits: Limits, *, now: float, free: int) -> list[Drop]:
    """The links to remove, in this order. ``free``: bytes free on their disk."""
    drops = [Drop(held, None) for held in finished if held.delivered]
    freed = sum(drop.held.size for drop in drops)
    rest = sorted(
        (held for held in finished if not held.delivered), key=lambda held: (held.created, held.source_id, held.segment)
    )
    total = sum(held.size for held in rest)
    for held in rest:
        cause: GapCause | None = None
        if now - held.created > limits.max_age_s:
            cause = "links_over_age"
        elif total > limits.max_bytes:
            cause = "links_over_size"
        elif free + freed < limits.free_floor:
            cause = "free_space_floor"
        if cause is None:
            continue
        drops.append(Drop(held, cause))
        total -= held.size
        freed += held.size
    return drops

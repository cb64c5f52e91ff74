"""Findings that belong together, and how many of them wake somebody: pure decisions about what is opened.

Findings of one tenant that begin within five minutes of each other are one incident where they share a template, where
both services have just been deployed, or where so many services begin at once that it is no coincidence. Beyond the cap of
an hour findings are kept and counted, and nobody is woken.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

NEAR_MINUTES = 5
CROWD = 4
"""Services that begin within five minutes: with half a finding a day each, four of a hundred by chance is once in a decade."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A finding that began: ``first`` minute since 1970, ids of the templates that moved. ``incident`` is empty until it is decided."""

    key: str
    service: str
    first: int
    templates: frozenset[str] = frozenset()
    incident: str = ""


def incident_of(new: Begun, others: Sequence[Begun], deployed: Set[str] = frozenset()) -> str:
    """The incident that a finding belongs to: one of those of ``others``, or a new one by its own key.

    ``deployed`` are services that settle after a deploy. Of several the one that began first takes it.
    """
    near = [one for one in others if one.incident and one.key != new.key and abs(one.first - new.first) <= NEAR_MINUTES]
    crowd = len({one.service for one in near} | {new.service}) >= CROWD
    both = new.service in deployed
    related = [
        one
        for one in near
        if crowd or one.templates & new.templates or (both and one.service in deployed and one.service != new.service)
    ]
    return min(related, key=lambda one: (one.first, one.key)).incident if related else new.key


def announced(sent: int, cap: int, begun: int) -> int:
    """How many of ``begun`` findings are sent when ``sent`` of the hour already were; the weightiest should come first."""
    return max(0, min(begun, cap - sent))

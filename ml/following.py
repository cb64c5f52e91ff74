"""Unusual minutes into findings: which go on, which begin, and which have gone on for so long that they are the new normal.

A minute belongs to a finding of its service that it is at most ten minutes away from. A finding is followed for 48 hours;
what goes on after that, such as a service that was taken away, opens no other until it was usual for ten minutes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ml.calibration import MERGE_MINUTES
from ml.detectors import LONGEST_EPISODE


@dataclass(frozen=True, slots=True)
class Going:
    """A finding that is open: first, last and weightiest minute, and what that one weighs in decades."""

    key: str
    service: str
    first: int
    last: int
    peak: int
    weight: float


@dataclass(frozen=True, slots=True)
class Unusual:
    """A minute of a service at or above its threshold."""

    service: str
    minute: int
    weight: float


@dataclass(frozen=True, slots=True)
class Followed:
    """What is to be done: minutes that open findings, findings as they are now, and services whose findings ran out, with
    their last unusual minute.
    """

    opens: tuple[Unusual, ...]
    extends: tuple[Going, ...]
    ran_out: Mapping[str, int]


def follow(going: Sequence[Going], unusual: Sequence[Unusual], ran_out: Mapping[str, int]) -> Followed:
    """Pure; the order of ``unusual`` does not matter. Minutes that were told before change nothing."""
    known = {one.key: one for one in going}
    opens: list[Unusual] = []
    begun: dict[str, Unusual] = {}
    worn = dict(ran_out)
    for one in sorted(unusual, key=lambda u: (u.minute, u.service)):
        found = _near(known.values(), one)
        if found is not None:
            if one.minute - found.first > LONGEST_EPISODE:
                worn[one.service] = max(one.minute, worn.get(one.service, 0))
            else:
                known[found.key] = _with(found, one)
        elif one.service in worn and one.minute - worn[one.service] <= MERGE_MINUTES:
            worn[one.service] = max(one.minute, worn[one.service])
        elif one.service in begun and one.minute - begun[one.service].minute <= MERGE_MINUTES:
            # Several minutes at once, after late lines: the first opens, the next round extends.
            continue
        else:
            opens.append(one)
            begun[one.service] = one
    changed = tuple(known[one.key] for one in going if known[one.key] != one)
    return Followed(tuple(opens), changed, worn)


def forgotten(ran_out: Mapping[str, int], now: int) -> dict[str, int]:
    """Without services that have been usual for long enough."""
    return {service: last for service, last in ran_out.items() if now - last <= MERGE_MINUTES}


def _near(going: Iterable[Going], one: Unusual) -> Going | None:
    return next(
        (
            found
            for found in going
            if found.service == one.service and found.first - MERGE_MINUTES <= one.minute <= found.last + MERGE_MINUTES
        ),
        None,
    )


def _with(found: Going, one: Unusual) -> Going:
    heavier = one.weight > found.weight
    return replace(
        found,
        last=max(found.last, one.minute),
        peak=one.minute if heavier else found.peak,
        weight=max(found.weight, one.weight),
    )

"""Where to cut a range of time so that each part holds about as many bytes of lines as fit in memory.

What holds lines (a chunk, of which only the size is known, or a block, of which everything is) counts evenly over its
span of time. The cuts are exact instants, so no line is in two parts and those of one instant are never separated.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Weight:
    """``bytes`` spread over the time from ``first_ns`` to ``last_ns``, both inclusive."""

    first_ns: int
    last_ns: int
    bytes: float


def cut(weights: Iterable[Weight], start_ns: int, end_ns: int, target: float) -> Iterator[tuple[int, int]]:
    """[start_ns, end_ns) in parts of about ``target`` bytes, in order and without gaps between them."""
    coming = sorted(
        ((max(w.first_ns, start_ns), w.last_ns, w) for w in weights if w.last_ns >= start_ns and w.first_ns < end_ns),
        key=lambda one: one[:2],
    )
    active: list[tuple[int, float]] = []
    density = held = 0.0
    part, at, place = start_ns, start_ns, 0
    while at < end_ns:
        while place < len(coming) and coming[place][0] <= at:
            _, last, weight = coming[place]
            share = weight.bytes / (last + 1 - weight.first_ns)
            heapq.heappush(active, (last + 1, share))
            density, place = density + share, place + 1
        while active and active[0][0] <= at:
            density -= heapq.heappop(active)[1]
        if not active:
            # What is left of adding and taking away.
            density = 0.0
        then = min(
            end_ns,
            active[0][0] if active else end_ns,
            coming[place][0] if place < len(coming) else end_ns,
        )
        if density > 0 and held + density * (then - at) > target:
            full = min(then, at + int((target - held) / density))
            if full <= at:
                # One instant alone is too much: what is before it is a part of its own, and it cannot be cut.
                full = at if held and at > part else at + 1
            if full < end_ns:
                yield part, full
                part = at = full
                held = 0.0
                continue
        held, at = held + density * (then - at), then
    if part < end_ns:
        yield part, end_ns

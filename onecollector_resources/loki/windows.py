"""Cutting a range into windows of about the same size, by what Loki's index says of bytes and lines.

Only the size of the work depends on it: a window that is larger than was thought takes more pages, and one that seems
empty is read all the same, for the index may not know of lines yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

SECOND_NS = 1_000_000_000
LEAST_NS = SECOND_NS
LONGEST_NS = 24 * 3600 * SECOND_NS
BLIND_NS = 15 * 60 * SECOND_NS
"""Length of windows where the index does not answer."""
FAN = 16
"""Parts at most that a span is cut into before the index is asked again."""
SLACK = 0.1
"""A window may be this much larger than wanted: it is an estimate, and half a window more costs as much as a whole."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much lies in a span, as the index knows it; ``bytes`` are those of lines and structured metadata."""

    bytes: int
    entries: int


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open span [start_ns, end_ns); ``size`` is an estimate, None where there is none."""

    start_ns: int
    end_ns: int
    size: Size | None = None

    def __str__(self) -> str:
        from datetime import UTC, datetime

        def text(time_ns: int) -> str:
            seconds, rest = divmod(time_ns, SECOND_NS)
            return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"

        return f"[{text(self.start_ns)}, {text(self.end_ns)})"


def cut(
    start_ns: int,
    end_ns: int,
    size_of: Callable[[int, int], Size | None],
    budget: Callable[[], Size],
    *,
    longest_ns: int = LONGEST_NS,
) -> Iterator[Window]:
    """Windows of at most about ``budget()`` that cover [start_ns, end_ns) in order, without overlap.

    ``size_of(start_ns, end_ns)`` answers None where it is not known. Lazy: neither is asked before a window is needed.
    """
    open_spans = _even(start_ns, end_ns, max(1, -(-(end_ns - start_ns) // longest_ns)))[::-1]
    while open_spans:
        low, high = open_spans.pop()
        size = size_of(low, high)
        if size is None:
            for part in _even(low, high, max(1, -(-(high - low) // BLIND_NS))):
                yield Window(*part)
            continue
        parts = _parts(size, budget(), high - low)
        if parts == 1:
            yield Window(low, high, size)
            continue
        open_spans += _even(low, high, parts)[::-1]


def _parts(size: Size, budget: Size, length_ns: int) -> int:
    """Into how many parts to cut now. Into equal shares of what it takes in the end: 17 are 5 of 4, not 16 of 2."""
    wanted = math.ceil(max(size.bytes / budget.bytes, size.entries / budget.entries) - SLACK)
    wanted = max(1, min(wanted, length_ns // LEAST_NS))
    rounds = 1
    while FAN**rounds < wanted:
        rounds += 1
    return math.ceil(round(wanted ** (1 / rounds), 6))


def _even(low: int, high: int, parts: int) -> list[tuple[int, int]]:
    return list(pairwise(low + (high - low) * number // parts for number in range(parts + 1)))

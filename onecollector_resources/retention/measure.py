"""How much of some streams Loki holds in a time: bytes and days from its index, lines counted or estimated.

The index is cheap and inexact: a chunk counts in proportion to its part of the range, once for each copy of it, and
once more for a while after a restart. So below ``count_below`` bytes the lines are read and counted, which is exact;
above it the answer says that it is an estimate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from onecollector_resources.loki.calls import API, Call, json_of
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.retention.durations import seconds_of

DAY_NS = 86_400 * 10**9

SLICE_S = 28 * 86_400
"""Seconds of one question: Loki's default allows 30 d 1 h."""

COUNT_BELOW = 256 << 20
"""Bytes of a range that are read to count its lines; about ten seconds of Loki's time."""


@dataclass(frozen=True, slots=True)
class Held:
    """What there is. ``lines`` None: Loki's index does not tell. ``counted``: lines and bytes are exact."""

    lines: int | None = 0
    bytes: int = 0
    oldest: date | None = None
    newest: date | None = None
    counted: bool = True

    def __add__(self, other: Held) -> Held:
        days = [day for day in (self.oldest, self.newest, other.oldest, other.newest) if day is not None]
        return Held(
            None if self.lines is None or other.lines is None else self.lines + other.lines,
            self.bytes + other.bytes,
            min(days, default=None),
            max(days, default=None),
            self.counted and other.counted,
        )


def slice_s(limits: dict[str, Any]) -> int:
    """Seconds that one question may span, by the tenant's limits."""
    most = seconds_of(limits.get("max_query_length") or "0s")
    return min(SLICE_S, most) if most else SLICE_S


def slices(start_ns: int, end_ns: int, length_s: int) -> Iterator[tuple[int, int]]:
    """[start_ns, end_ns) cut from its end; the first may be shorter."""
    while start_ns < end_ns:
        begin = max(start_ns, end_ns - length_s * 10**9)
        yield begin, end_ns
        end_ns = begin


def streams_in(client: LokiQuerierClient, start_ns: int, end_ns: int, length_s: int = SLICE_S) -> list[dict[str, str]]:
    """Label sets of all streams with lines in a time, each once. Raises LokiError."""
    found: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for begin, end in slices(start_ns, end_ns, length_s):
        # Without a selector: a stream may have any labels.
        read = json_of(lambda answer: answer.get("data") or [])
        for stream in client.ask(Call(f"{API}/series", read, {"start": begin, "end": end})):
            found.setdefault(tuple(sorted(stream.items())), stream)
    return list(found.values())


def measure(
    client: LokiQuerierClient,
    selectors: Iterable[str],
    start_ns: int,
    end_ns: int,
    *,
    length_s: int = SLICE_S,
    count_below: int = COUNT_BELOW,
) -> Held:
    """What streams of the selectors hold in [start_ns, end_ns), which are whole seconds. Raises LokiError."""
    held = Held()
    for selector in selectors:
        for begin, end in slices(start_ns, end_ns, length_s):
            days = client.ask(_days(selector, begin, end))
            if days:
                held += _counted(client, selector, begin, end, days, count_below)
    return held


def _days(selector: str, start_ns: int, end_ns: int) -> Call[dict[int, int]]:
    """Bytes by day (days since the epoch, UTC)."""

    def read(answer: Any) -> dict[int, int]:
        out: dict[int, int] = {}
        for series in answer["data"]["result"]:
            for stamp, value in series["values"]:
                if int(value):
                    # A step's stamp is its last millisecond.
                    day = int(float(stamp)) // 86_400
                    out[day] = max(out.get(day, 0), int(value))
        return out

    # By label name: one number a day, whatever the number of streams. Every matched label gives the same one.
    params = {
        "query": selector,
        "start": start_ns,
        "end": end_ns,
        "step": "86400s",
        "limit": 1000,
        "aggregateBy": "labels",
    }
    return Call(f"{API}/index/volume_range", json_of(read), params, selector)


def _counted(
    client: LokiQuerierClient, selector: str, start_ns: int, end_ns: int, days: dict[int, int], count_below: int
) -> Held:
    total = sum(days.values())
    if total <= count_below:
        lines = size = 0
        full = []
        for first, last in _runs(sorted(days)):
            begin, end = max(start_ns, first * DAY_NS), min(end_ns, (last + 1) * DAY_NS)
            # A range [w] at T covers (T - w, T]; LogQL has no unit below the millisecond.
            window, at = f"[{(end - begin) // 10**9}s]", end - 1
            found = sum(int(s.value) for s in client.samples(f"sum(count_over_time({selector} {window}))", at))
            if found:
                lines += found
                size += sum(int(s.value) for s in client.samples(f"sum(bytes_over_time({selector} {window}))", at))
                full += [first, last]
        return Held(lines, size, _date(min(full, default=None)), _date(max(full, default=None)))
    stats = client.stats(selector, start_ns, end_ns)
    lines = round(total * stats.entries / stats.bytes) if stats.bytes else None
    return Held(lines, total, _date(min(days)), _date(max(days)), counted=False)


def _runs(days: list[int]) -> Iterator[tuple[int, int]]:
    first = last = days[0]
    for day in days[1:]:
        if day != last + 1:
            yield first, last
            first = day
        last = day
    yield first, last


def _date(day: int | None) -> date | None:
    return None if day is None else datetime.fromtimestamp(day * 86_400, UTC).date()

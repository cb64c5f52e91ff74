"""A day's lines by queries to a scratch Loki: every stream once, whatever labels streams have, and no line stepped over.

A query needs a matcher that an empty value does not satisfy, and no label is on every stream. So the label names are
taken one after the other: streams that have the first, those that have the second and not the first, and so on; together
they are all streams, each once. And every query begins a little before the lines that are wanted: Loki 3.7.8 does not
look into a chunk that ends in the millisecond that a query begins in, so the last line of a chunk would be missed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING

from onecollector_resources.archive.keys import day_ms
from onecollector_resources.archive.proof import DayUnreadable
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.lines import LineBlock, ordered
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.loki.wire import Trouble, Wire

if TYPE_CHECKING:
    import pyarrow as pa

MS = 1_000_000
FIRST_SPAN_NS = 3600 * 10**9
WANTED_ROWS = 50_000
"""About so many lines are asked for at once: larger answers are hardly faster and take memory on both sides."""

MOST_ROWS = 200_000
TIMEOUT_S = 300.0
TRIES = 3


def selectors(labels: Sequence[str]) -> list[str]:
    """Selectors that match each stream with at least one of the labels exactly once."""
    out, without = [], ""
    for name in labels:
        out.append(f'{{{without}{name}=~".+"}}')
        without += f'{name}="", '
    return out


class QueriedDay:
    """Reads days from a Loki that gives as many lines at once as are asked for. ``access``: how it is reached as a tenant.

    What Loki hides is not read: lines that were deleted, and late ones that are not flushed yet.
    """

    method = "query"
    reads_keys = False

    def __init__(
        self,
        access: Callable[[str], LokiAccess],
        *,
        wanted_rows: int = WANTED_ROWS,
        most_rows: int = MOST_ROWS,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._access, self._wanted_rows, self._most_rows, self._sleep = access, wanted_rows, most_rows, sleep

    def tables(self, tenant: str, day: date, keys: Sequence[str]) -> Iterator[pa.Table]:
        """Raises LokiError, DayUnreadable."""
        first, until = (ms * MS for ms in day_ms(day))
        access = self._access(tenant)
        with LokiQuerierClient(access) as client:
            # Loki's own labels are no part of a line's identity, and no stream has them alone.
            # A second before, for Loki cuts by days and refuses a part that is shorter than a millisecond.
            found = client.labels(first - 1000 * MS, until)
            names = [name for name in sorted(found) if not name.startswith("__")]
        with access.client() as http:
            wire = Wire(http)
            for selector in selectors(names):
                for block in self.blocks(wire, selector, first, until):
                    if len(block):
                        yield ordered(block).table

    def blocks(self, wire: Wire, selector: str, first: int, until: int) -> Iterator[LineBlock]:
        """Lines of the selector's streams in [first, until) ns, in spans one after the other.

        Each span is of about the wanted number of lines by what the one before held. Raises DayUnreadable.
        """
        begin, span, most = first, FIRST_SPAN_NS, self._most_rows
        while begin < until:
            end = min(begin + span, until)
            found = self._page(wire, selector, begin, end, most)
            if found is None:
                span //= 2
                continue
            kept = _from(found, begin)
            if len(found) >= most:
                # More may follow. Where what comes before fills the answer, or one instant, a shorter span is no cure.
                span, most = (span // 2, most) if span > 1 and 2 * len(kept) > most else (span, 2 * most)
                continue
            yield kept
            begin = end
            span = max(1, min(4 * span, FIRST_SPAN_NS, 2 * span * self._wanted_rows // (2 * len(kept) or 1)))

    def _page(self, wire: Wire, selector: str, begin: int, end: int, most: int) -> LineBlock | None:
        """The lines, and some before them; None where there are too many for one answer. Raises DayUnreadable."""
        for left in reversed(range(TRIES)):
            found = wire.page(selector, _before(begin), end, most, TIMEOUT_S)
            if not isinstance(found, Trouble):
                return found.lines.block
            if end - begin > 1 and found.kind in ("too_large", "too_long", "silent", "cut"):
                return None
            if not left or found.kind in ("limit", "refused"):
                raise DayUnreadable(f"{selector} from {begin} to {end} ns: {found.message}")
            self._sleep(1.0)
        raise AssertionError("unreachable")


def _before(time_ns: int) -> int:
    """The begin of the millisecond before."""
    return time_ns // MS * MS - MS


def _from(block: LineBlock, time_ns: int) -> LineBlock:
    """The block's rows from a time on."""
    import pyarrow as pa

    kept = block.time_ns >= time_ns
    if kept.all():
        return block
    mask = pa.array(kept)
    return LineBlock(
        block.streams, block.stream[kept], block.time_ns[kept], block.line.filter(mask), block.metadata.filter(mask)
    )

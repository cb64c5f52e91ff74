"""Every line of a range out of any Loki, over its HTTP API: cut into windows, read side by side, each line once.

What comes out depends on what Loki holds and on nothing else: neither windows, pages, order of answers nor tries show
in it. A read that cannot get every line raises, and names the window that it could not get.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self, TypeVar

import httpx

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.columns import joined
from onecollector_resources.loki.congestion import Congestion, delay_s
from onecollector_resources.loki.effort import Effort, Tally, Traffic
from onecollector_resources.loki.lines import LineBlock, OrderedLines, ordered
from onecollector_resources.loki.logql import parse, refuse_changes
from onecollector_resources.loki.reading import Reading
from onecollector_resources.loki.windows import LONGEST_NS, Size, Window, cut
from onecollector_resources.loki.wire import PASSING, Limits, Trouble, Wire

PAGE_ROWS = 25_000
"""With windows of about a page larger ones take 5 % off the work of Loki, and twice the memory here and there."""

FOREIGN_PAGE_BYTES = 3_000_000
"""For a Loki whose message size we do not know: by default answers over 4 MB hang until the connection breaks."""

WINDOW_BYTES = 8_000_000
"""About a page of usual lines. A few of them wait at a time, so this bounds the memory."""

QUESTIONS_S = (3.0, 6.0)
"""How long the index and the limits may take to answer, at the first try and at the next, which is the last."""


Answer = TypeVar("Answer")


class BatchQueryExecutor:
    """A tenant's lines out of one Loki, many at a time. Close it or use it as a context manager.

    ``page_bytes``: most bytes of an answer; None for a Loki whose gRPC messages may be as large as a page (ours).
    """

    def __init__(
        self,
        access: LokiAccess,
        *,
        at_once: int | None = None,
        page_rows: int = PAGE_ROWS,
        page_bytes: int | None = FOREIGN_PAGE_BYTES,
        window_bytes: int = WINDOW_BYTES,
        patience_s: float = 300,
        transport: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        at_once = at_once or max(2, min(8, 2 * (os.cpu_count() or 1)))
        self.access = access
        self.effort = Effort(at_once, page_rows, page_bytes, window_bytes, patience_s)
        self.tally = Tally()
        """What the last read did, also while it runs."""
        self._http = access.client(transport=transport)
        self._wire = Wire(self._http, clock)
        self._clock, self._sleep, self._chance = clock, sleep, chance
        self._limits: Limits | None = None
        self._traffic = Traffic(Congestion(at_once, at_once), max(page_rows, PAGE_ROWS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def read(self, query: str, start_ns: int, end_ns: int) -> Iterator[LineBlock]:
        """Every line in [start_ns, end_ns) as blocks in order of time: each covers a span that no other touches.

        Rows within a block are in any order; those that Loki itself holds twice (in two shards of a stream) may be
        there twice, which ``ordered`` mends. Raises LogqlError for a query that is none or changes lines, ReadFailed.
        """
        parsed = refuse_changes(query)
        if start_ns > end_ns:
            raise ValueError(f"expected a start before the end, found [{start_ns}, {end_ns})")
        limits = self._tenant_limits()
        reading = Reading(self._wire, query, self.effort, self._traffic, self._clock, self._chance)
        self.tally = reading.tally
        return reading.blocks(self._windows(parsed.selector, start_ns, end_ns, limits, reading.budget))

    def fan_out_time_windows(self, query: str, start_ns: int, end_ns: int) -> Iterator[Window]:
        """Windows of about equal work that cover [start_ns, end_ns) in order. Raises LogqlError."""
        limits = self._tenant_limits()
        size = Size(self.effort.window_bytes, min(self.effort.page_rows, self._traffic.largest))
        return self._windows(parse(query).selector, start_ns, end_ns, limits, lambda: size)

    @staticmethod
    def merge_results(blocks: Iterable[LineBlock]) -> OrderedLines:
        """All lines of the blocks in one order, each once."""
        return ordered(joined(list(blocks)))

    def backoff_on_rate_limit(self, tries: int) -> float:
        """Seconds to wait after ``tries`` refusals in a row; Loki itself does not say."""
        return delay_s(tries, self._chance())

    def _windows(
        self, selector: str, start_ns: int, end_ns: int, limits: Limits, budget: Callable[[], Size]
    ) -> Iterator[Window]:
        longest = min(LONGEST_NS, limits.length_ns or LONGEST_NS)

        def size_of(low: int, high: int) -> Size | None:
            found = self._asked(lambda timeout_s: self._wire.size(selector, low, high, timeout_s))
            # Without an answer windows are cut blindly; what is wrong, if anything is, the pages will show.
            return None if isinstance(found, Trouble) else found

        return cut(start_ns, end_ns, size_of, budget, longest_ns=longest)

    def _tenant_limits(self) -> Limits:
        if self._limits is None:
            found = self._asked(self._wire.limits)
            if isinstance(found, Trouble):
                # Then the first page that is too large will say how large one may be.
                return Limits(0, 0)
            self._limits = found
            self._traffic.largest = found.entries or self._traffic.largest
        return self._limits

    def _asked(self, question: Callable[[float], Answer | Trouble]) -> Answer | Trouble:
        """A small question, asked once more where that may help."""
        first, last = QUESTIONS_S
        found = question(first)
        if isinstance(found, Trouble) and found.kind in PASSING:
            self._sleep(self.backoff_on_rate_limit(1))
            found = question(last)
        return found

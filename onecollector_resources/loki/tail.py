"""Live tail: lines as they reach Loki, each once, none left out.

Loki's tail is fast and loses lines (of 20,000 in a burst it brought 8,000, owned up to 7,200 and kept quiet about the
rest), so it only decides how soon a line is shown. That each is shown comes from queries which fill in what the socket
did not bring; ``tail_ledger.py`` decides which. Where Loki refuses its tail, the queries alone do it, a little later.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import orjson

from onecollector_resources.loki.answers import CATEGORIZE, Entry, read_streams
from onecollector_resources.loki.faults import LokiError, NoLogQuery, with_caret
from onecollector_resources.loki.tail_ledger import Look, TailCounts, TailLedger, TailPace

if TYPE_CHECKING:
    from onecollector_resources.loki.querier import AsyncLokiQuerierClient

WAITS_S = (0.2, 0.5, 1, 2, 5, 10)
"""Seconds before another try, the last for all that follow."""

LARGEST_MESSAGE = 1 << 26
"""Bytes."""

BATCH = 1_000
"""Lines that are handed over at once, at most."""

PAGE = 5_000
"""Lines in a page of a look: what every Loki allows."""

BATCHES_AHEAD = 32
"""Batches that wait for a reader that is slower than Loki."""

BEHIND_S = 5.0
"""A reader that keeps the socket waiting longer makes what is in it stale: it is left, and queries bring the lines."""


NO_LINES = "only log selector is supported"
"""Loki's words for the tail of a metric query; it says them after it took the connection."""

SAME_CLOCK_NS = 2 * 10**9
"""A ``Date`` counts whole seconds and takes its time on the way."""


@dataclass(frozen=True, slots=True)
class TailLine:
    """A line; ``filled`` where a query brought it and not the socket."""

    entry: Entry
    filled: bool


class LiveTail:
    """Lines of one log query from ``start_ns`` on, for ``async for``; use it as an asynchronous context manager.

    ``told`` is called with what a person may want to know: Loki is away, its tail is refused. Lines of one stream come
    in order, but filled ones come late. Raises LokiError while iterating, for a query that Loki refuses.
    """

    def __init__(
        self,
        client: AsyncLokiQuerierClient,
        query: str,
        start_ns: int | None = None,
        pace: TailPace | None = None,
        *,
        told: Callable[[str], None] | None = None,
        owned: bool = False,
        clock: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.counts = TailCounts()
        self._client, self._query, self._start_ns, self._pace = client, query, start_ns, pace or TailPace()
        self._told, self._owned, self._clock, self._sleep = told or (lambda _: None), owned, clock, sleep
        self._ready: asyncio.Queue[list[TailLine]] = asyncio.Queue(BATCHES_AHEAD)
        self._failed: BaseException | None = None
        self._closing = False
        self._ahead_ns = 0
        self._rest: deque[TailLine] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self.ledger = TailLedger(start_ns or 0, self._pace)

    def __aiter__(self) -> LiveTail:
        return self

    async def __aenter__(self) -> LiveTail:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End it; lines that were not taken are gone."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._owned:
            await self._client.close()

    async def __anext__(self) -> TailLine:
        if not self._rest:
            self._rest.extend(await self.batch())
        return self._rest.popleft()

    async def batch(self) -> list[TailLine]:
        """The next lines, at least one. Raises LokiError."""
        if not self._tasks:
            # A bad query and a Loki that is not there are an error at once; later silence is waited out.
            now_ns = self._now()
            await self._client.entries(self._query, now_ns - 10**9, now_ns, 1)
            self._ahead_ns = clock_difference_ns(*self._client.heard)
            self.ledger = TailLedger(self._now() if self._start_ns is None else self._start_ns, self._pace)
            self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._fill())]
            for task in self._tasks:
                task.add_done_callback(self._ended)
        while True:
            if self._failed is not None and self._ready.empty():
                raise self._failed
            found = await self._ready.get()
            if found:
                return found

    def _now(self) -> int:
        """By Loki's clock: what reached it by now is not what our clock says."""
        return self._clock() - self._ahead_ns

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failed = task.exception()
            if self._ready.empty():
                # Somebody may wait for lines.
                self._ready.put_nowait([])

    async def _listen(self) -> None:
        """Keep a socket open and show what it brings."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

        access, tries = self._client.access, 0
        while True:
            await self._until_read()
            params = {"query": self._query, "start": self.ledger.looked_ns, "limit": BATCH}
            began, why = time.monotonic(), "closed"
            try:
                async with connect(
                    access.websocket("/loki/api/v1/tail", params),
                    additional_headers={**access.headers(), **CATEGORIZE},
                    ssl=access.websocket_trust(),
                    open_timeout=access.timeout_s,
                    close_timeout=1,
                    max_size=LARGEST_MESSAGE,
                ) as socket:
                    async for message in socket:
                        if not await self._take(orjson.loads(message)):
                            break
            except InvalidStatus as error:
                status, body = error.response.status_code, error.response.body or b""
                why = with_caret(self._query, body.decode(errors="replace").strip()[:2_000])
                if status == 400:
                    raise LokiError(f"Loki at {self._client.url} refused to tail (400): {why}", 400) from error
                if status < 500 and status != 429:
                    self._told(f"Loki refuses its tail ({status}): lines are asked for by query, some seconds late")
                    return
            except ConnectionClosed as error:
                why = error.rcvd.reason if error.rcvd else "cut off"
                if NO_LINES in why:
                    raise NoLogQuery(
                        f"Loki at {self._client.url} refused to tail: {why}: {self._query[:200]}"
                    ) from error
            except (OSError, WebSocketException, orjson.JSONDecodeError) as error:
                why = f"{type(error).__name__}: {error}"
            # After an hour Loki closes every tail; one that ends at once is another matter.
            tries = 0 if time.monotonic() - began > BEHIND_S else tries + 1
            if tries == 2:
                self._told(f"no tail from Loki ({why[:200]}); trying again, lines are filled in by query")
            self.counts.reconnects += 1
            await self._sleep(WAITS_S[min(tries, len(WAITS_S) - 1)])

    async def _until_read(self) -> None:
        while self._ready.full():
            await self._sleep(self._pace.every_s)

    async def _take(self, message: Any) -> bool:
        """Show a message of the socket; False where the reader was so slow that what follows in the socket is old."""
        self.counts.dropped += len(message.get("dropped_entries") or ())
        lines = [
            TailLine(entry, False) for entry in read_streams(message.get("streams") or ()) if self.ledger.fresh(entry)
        ]
        began = time.monotonic()
        await self._show(lines)
        return time.monotonic() - began < BEHIND_S

    async def _fill(self) -> None:
        """Ask for each stretch of time when it is due, and show what the socket did not bring."""
        tries = 0
        while True:
            look = self.ledger.due(self._now())
            if look is None:
                await self._sleep(self._pace.every_s)
                continue
            try:
                await self._look(look)
            except LokiError as error:
                if not error.passing:
                    raise
                await self._sleep(WAITS_S[min(tries, len(WAITS_S) - 1)])
                tries += 1
                continue
            tries = 0
            self.ledger.done(look, self._now())

    async def _look(self, look: Look) -> None:
        found: list[TailLine] = []
        try:
            async for entry in self._client.all_entries(self._query, look.start_ns, look.end_ns, PAGE):
                if self.ledger.fresh(entry):
                    found.append(TailLine(entry, True))
                    if len(found) == BATCH:
                        await self._show(found)
                        found = []
        finally:
            # They count as shown, also where the look is cut short and done again.
            await self._show(found)

    async def _show(self, lines: list[TailLine]) -> None:
        if not lines or self._closing:
            return
        if lines[0].filled:
            self.counts.filled += len(lines)
        else:
            self.counts.live += len(lines)
        await self._ready.put(lines)


def clock_difference_ns(date: str | None, heard_ns: int) -> int:
    """How far our clock is ahead of the one that wrote an HTTP ``Date``; 0 where that is no more than the way explains."""
    if date is None:
        return 0
    ahead = heard_ns - int(parsedate_to_datetime(date).timestamp() * 1e9)
    return 0 if abs(ahead) <= SAME_CLOCK_NS else ahead


class WaitingTail:
    """``LiveTail`` for ``for``: its socket and queries go on in a thread of their own while a line is worked on."""

    def __init__(self, make: Callable[[], LiveTail]) -> None:
        self._make, self._tail = make, None
        self._coming: Future[list[TailLine]] | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loki-tail", daemon=True)
        self._thread.start()

    def __enter__(self) -> WaitingTail:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def counts(self) -> TailCounts:
        """What came how, so far."""
        return self._tail.counts if self._tail else TailCounts()

    def __iter__(self) -> Iterator[TailLine]:
        while True:
            yield from self.batch()

    def batch(self, timeout_s: float | None = None) -> list[TailLine]:
        """The next lines, at least one. Raises LokiError, and TimeoutError where none came within ``timeout_s``."""
        if self._coming is None:
            self._coming = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        try:
            found = self._coming.result(timeout_s)
        except LokiError:
            self._coming = None
            raise
        # After a time-out it is waited for again: what it brings is not lost.
        self._coming = None
        return found

    async def _next(self) -> list[TailLine]:
        if self._tail is None:
            self._tail = self._make()
        return await self._tail.batch()

    def close(self) -> None:
        """End it."""
        if self._loop.is_closed():
            return
        if self._coming is not None:
            self._coming.cancel()
        if self._tail is not None:
            asyncio.run_coroutine_threadsafe(self._tail.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

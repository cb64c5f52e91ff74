"""Clients of Loki's read API: ``LokiQuerierClient`` waits for its answers, ``AsyncLokiQuerierClient`` is for asyncio.

Both carry out the same calls and procedures, so they have the same methods with the same arguments, results and
errors; what each does is written where the call is (``calls.py``, ``procedures.py``, ``paging.py``).
"""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

import httpx

from onecollector_resources.loki import calls, procedures
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.answers import (
    CATEGORIZE,
    Entry,
    Sample,
    Samples,
    Streams,
    parse_logql_response,
)
from onecollector_resources.loki.calls import Call, Direction
from onecollector_resources.loki.faults import LokiError, reaching, with_caret
from onecollector_resources.loki.paging import PAGE, Pages, pages
from onecollector_resources.loki.procedures import Procedure
from onecollector_resources.loki.tail import LiveTail, TailPace, WaitingTail

__all__ = (
    "AsyncLokiQuerierClient",
    "Entry",
    "LokiError",
    "LokiQuerierClient",
    "Sample",
    "Samples",
    "Streams",
    "parse_logql_response",
    "with_caret",
)

P = ParamSpec("P")
T = TypeVar("T")


def _asking(make: Callable[P, Call[T]]) -> Callable[Concatenate[LokiQuerierClient, P], T]:
    """A method of the waiting client out of a call."""

    @functools.wraps(make)
    def method(self: LokiQuerierClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.ask(make(*args, **kwargs))

    return method


def _doing(make: Callable[P, Procedure[T]]) -> Callable[Concatenate[LokiQuerierClient, P], T]:
    """A method of the waiting client out of a procedure."""

    @functools.wraps(make)
    def method(self: LokiQuerierClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.carry_out(make(*args, **kwargs))

    return method


def _asking_soon(make: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncLokiQuerierClient, P], Awaitable[T]]:
    """A method of the client for asyncio out of a call."""

    @functools.wraps(make)
    def method(self: AsyncLokiQuerierClient, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return self.ask(make(*args, **kwargs))

    return method


def _doing_soon(make: Callable[P, Procedure[T]]) -> Callable[Concatenate[AsyncLokiQuerierClient, P], Awaitable[T]]:
    """A method of the client for asyncio out of a procedure."""

    @functools.wraps(make)
    def method(self: AsyncLokiQuerierClient, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return self.carry_out(make(*args, **kwargs))

    return method


class LokiQuerierClient:
    """A tenant's view of one Loki. Safe to share between threads; close it or use it as a context manager."""

    def __init__(self, access: LokiAccess, *, transport: httpx.BaseTransport | None = None) -> None:
        self.access, self.url, self.tenant = access, access.url.rstrip("/"), access.tenant
        self._http = access.client(transport=transport)
        self._http.headers.update(CATEGORIZE)

    def __enter__(self) -> LokiQuerierClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, call: Call[T]) -> T:
        """Carry out one call. Raises LokiError."""
        with reaching(self.url):
            answer = self._http.request(**call.request())
        return call.result(self.url, answer.status_code, answer.content)

    def carry_out(self, procedure: Procedure[T]) -> T:
        """Carry out a procedure. Raises LokiError."""
        try:
            call = next(procedure)
            while True:
                try:
                    result = self.ask(call)
                except LokiError as error:
                    call = procedure.throw(error)
                else:
                    call = procedure.send(result)
        except StopIteration as end:
            return end.value

    query_range = _asking(calls.query_range)
    query_instant = _asking(calls.query_instant)
    samples = _asking(calls.samples)
    entries = _asking(calls.entries)
    labels = _asking(calls.labels)
    label_values = _asking(calls.label_values)
    series = _asking(calls.series)
    stats = _asking(calls.stats)
    volume = _asking(calls.volume)
    volume_range = _asking(calls.volume_range)
    patterns = _asking(calls.patterns)
    detected_fields = _asking(calls.detected_fields)
    detected_labels = _asking(calls.detected_labels)
    format_query = _asking(calls.format_query)
    build_info = _asking(calls.build_info)
    limits = _doing(procedures.limits)
    count = _doing(procedures.count)
    delete_requests = _asking(procedures.delete_requests)
    delete_lines = _doing(procedures.delete_lines)
    cancel_delete = _asking(procedures.cancel_delete)
    parse_logql_response = staticmethod(parse_logql_response)

    def all_entries(
        self,
        query: str,
        start_ns: int,
        end_ns: int,
        page: int = PAGE,
        direction: Direction = "forward",
        most: int | None = None,
    ) -> Iterator[Entry]:
        """Every line in [start_ns, end_ns), by time, each once; the first ``most`` in ``direction`` where given.

        ``page`` lines are asked for at once, or fewer where Loki allows no more. Raises LokiError; also where more
        lines than a page share one nanosecond and nothing that can be asked for tells them apart.
        """
        yield from self._lines(pages(query, start_ns, end_ns, page=page, direction=direction, most=most))

    def _lines(self, steps: Pages) -> Iterator[Entry]:
        step = next(steps, None)
        try:
            while step is not None:
                if isinstance(step, tuple):
                    yield from step
                    step = next(steps)
                    continue
                try:
                    result = self.ask(step)
                except LokiError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration:
            return

    def stream_logs_in_realtime(
        self,
        query: str,
        start_ns: int | None = None,
        pace: TailPace | None = None,
        told: Callable[[str], None] | None = None,
    ) -> WaitingTail:
        """Lines of a log query as they come, each once, from ``start_ns`` on (None: from now).

        Iterate over it, and close it or use it as a context manager; ``counts`` says what came how. Lines that Loki's
        tail leaves out are filled in by query some seconds later. ``told`` is called with messages for people, from
        another thread. Raises LokiError while iterating.
        """
        return WaitingTail(
            lambda: LiveTail(AsyncLokiQuerierClient(self.access), query, start_ns, pace, told=told, owned=True)
        )


class AsyncLokiQuerierClient:
    """``LokiQuerierClient`` for asyncio; close it or use it as an asynchronous context manager.

    ``heard`` is the ``Date`` of the newest answer, and when it came by our clock.
    """

    def __init__(self, access: LokiAccess, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.access, self.url, self.tenant = access, access.url.rstrip("/"), access.tenant
        self._http = access.async_client(transport=transport)
        self.heard: tuple[str | None, int] = None, 0
        self._http.headers.update(CATEGORIZE)

    async def __aenter__(self) -> AsyncLokiQuerierClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def ask(self, call: Call[T]) -> T:
        """Carry out one call. Raises LokiError."""
        with reaching(self.url):
            answer = await self._http.request(**call.request())
        self.heard = answer.headers.get("Date"), time.time_ns()
        return call.result(self.url, answer.status_code, answer.content)

    async def carry_out(self, procedure: Procedure[T]) -> T:
        """Carry out a procedure. Raises LokiError."""
        try:
            call = next(procedure)
            while True:
                try:
                    result = await self.ask(call)
                except LokiError as error:
                    call = procedure.throw(error)
                else:
                    call = procedure.send(result)
        except StopIteration as end:
            return end.value

    query_range = _asking_soon(calls.query_range)
    query_instant = _asking_soon(calls.query_instant)
    samples = _asking_soon(calls.samples)
    entries = _asking_soon(calls.entries)
    labels = _asking_soon(calls.labels)
    label_values = _asking_soon(calls.label_values)
    series = _asking_soon(calls.series)
    stats = _asking_soon(calls.stats)
    volume = _asking_soon(calls.volume)
    volume_range = _asking_soon(calls.volume_range)
    patterns = _asking_soon(calls.patterns)
    detected_fields = _asking_soon(calls.detected_fields)
    detected_labels = _asking_soon(calls.detected_labels)
    format_query = _asking_soon(calls.format_query)
    build_info = _asking_soon(calls.build_info)
    limits = _doing_soon(procedures.limits)
    count = _doing_soon(procedures.count)
    delete_requests = _asking_soon(procedures.delete_requests)
    delete_lines = _doing_soon(procedures.delete_lines)
    cancel_delete = _asking_soon(procedures.cancel_delete)
    parse_logql_response = staticmethod(parse_logql_response)

    def all_entries(
        self,
        query: str,
        start_ns: int,
        end_ns: int,
        page: int = PAGE,
        direction: Direction = "forward",
        most: int | None = None,
    ) -> AsyncIterator[Entry]:
        """As ``LokiQuerierClient.all_entries``."""
        return self._lines(pages(query, start_ns, end_ns, page=page, direction=direction, most=most))

    async def _lines(self, steps: Pages) -> AsyncIterator[Entry]:
        step = next(steps, None)
        try:
            while step is not None:
                if isinstance(step, tuple):
                    for entry in step:
                        yield entry
                    step = next(steps)
                    continue
                try:
                    result = await self.ask(step)
                except LokiError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
        except StopIteration:
            return

    def stream_logs_in_realtime(
        self,
        query: str,
        start_ns: int | None = None,
        pace: TailPace | None = None,
        told: Callable[[str], None] | None = None,
    ) -> LiveTail:
        """As ``LokiQuerierClient.stream_logs_in_realtime``, for ``async for`` and ``async with``."""
        return LiveTail(self, query, start_ns, pace, told=told)

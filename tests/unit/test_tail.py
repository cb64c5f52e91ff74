"""A live tail against a Loki whose socket loses lines, ends, or is not there: every line is shown once all the same."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import WSMsgType, web

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.loki.querier import AsyncLokiQuerierClient, LokiQuerierClient
from onecollector_resources.loki.tail_ledger import TailPace

PACE = TailPace(settle_s=0.5, again_s=1, every_s=0.05)
QUERY = '{a="b"}'


class Leaky:
    """Answers queries in full, and its tail as it is told: ``loses`` says of which lines, ``refuses`` with what status."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.opened, self.refuses, self.down = 0, 0, False
        self.headers: list[Any] = []

    def loses(self, number: int) -> bool:
        return number % 3 == 0

    async def push(self, lines: list[str]) -> None:
        now = time.time_ns()
        new = [(now + number, line) for number, line in enumerate(lines)]
        self.lines += new
        kept = [[str(at), line, {}] for number, (at, line) in enumerate(new) if not self.loses(number)]
        message = {
            "streams": [{"stream": {"a": "b"}, "values": kept}],
            "dropped_entries": [{"timestamp": "1", "labels": {}}] * (len(new) - len(kept)) or None,
        }
        for socket in self.sockets:
            await socket.send_bytes(orjson.dumps(message))

    async def hang_up(self) -> None:
        for socket in list(self.sockets):
            await socket.close()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        if self.down:
            return web.Response(status=503, text="starting")
        if request.path.endswith("format_query"):
            return web.json_response({"data": QUERY})
        if request.path.endswith("query_range"):
            start, end, limit = (int(request.query[name]) for name in ("start", "end", "limit"))
            values = [[str(at), line, {}] for at, line in sorted(self.lines) if start <= at < end][:limit]
            result = [{"stream": {"a": "b"}, "values": values}] if values else []
            return web.json_response({"data": {"resultType": "streams", "result": result}})
        if self.refuses:
            return web.Response(status=self.refuses, text="no tail here")
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.opened += 1
        self.sockets.append(socket)
        async for message in socket:
            assert message.type != WSMsgType.ERROR
        self.sockets.remove(socket)
        return socket


@asynccontextmanager
async def serving(loki: Leaky) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("GET", "/{tail:.*}", loki.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def take(tail: Any, count: int, deadline_s: float = 60) -> list[str]:
    async with asyncio.timeout(deadline_s):
        return [(await anext(tail)).entry.line for _ in range(count)]


async def until(condition: Any, deadline_s: float = 60) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.01)


async def nothing_more(tail: Any, loki: Leaky) -> None:
    """Until everything was looked at twice; a line that comes meanwhile comes twice."""
    last = max(at for at, _ in loki.lines)
    more = asyncio.ensure_future(anext(tail))
    await until(lambda: tail.ledger.settled_ns > last or more.done())
    assert not more.done(), more.result()
    more.cancel()


async def test_what_the_socket_loses_is_filled_in_and_nothing_comes_twice() -> None:
    loki = Leaky()
    async with serving(loki) as url, AsyncLokiQuerierClient(LokiAccess(url, "team", bearer="t")) as client:
        async with client.stream_logs_in_realtime(QUERY, pace=PACE) as tail:
            first = asyncio.ensure_future(anext(tail))
            await until(lambda: loki.sockets)
            wanted = [f"line {n}" for n in range(3_000)]
            await loki.push(wanted)
            found = [(await first).entry.line, *await take(tail, 2_999)]
            assert sorted(found) == sorted(wanted)
            await nothing_more(tail, loki)
            assert (tail.counts.live, tail.counts.filled, tail.counts.dropped) == (2_000, 1_000, 1_000)
    opening = next(one for one in loki.headers if "Sec-WebSocket-Key" in one)
    assert (opening["X-Scope-OrgID"], opening["Authorization"]) == ("team", "Bearer t")
    assert opening["X-Loki-Response-Encoding-Flags"] == "categorize-labels"


async def test_a_tail_goes_on_where_loki_ends_the_socket_and_is_away_for_a_while() -> None:
    loki = Leaky()
    async with serving(loki) as url, AsyncLokiQuerierClient(LokiAccess(url, "team")) as client:
        async with client.stream_logs_in_realtime(QUERY, pace=PACE) as tail:
            first = asyncio.ensure_future(anext(tail))
            await until(lambda: loki.sockets)
            await loki.push(["a", "b"])
            found = [(await first).entry.line, *await take(tail, 1)]
            loki.down = True
            await loki.hang_up()
            await loki.push([f"meanwhile {n}" for n in range(50)])
            await until(lambda: tail.counts.reconnects >= 2)
            loki.down = False
            await until(lambda: loki.sockets)
            await loki.push(["c", "d"])
            found += await take(tail, 52)
            assert sorted(found) == sorted(["a", "b", "c", "d", *(f"meanwhile {n}" for n in range(50))])
            await nothing_more(tail, loki)


async def test_where_the_tail_is_refused_queries_bring_every_line() -> None:
    loki, told = Leaky(), []
    loki.refuses = 403
    async with serving(loki) as url, AsyncLokiQuerierClient(LokiAccess(url, "team")) as client:
        async with client.stream_logs_in_realtime(QUERY, pace=PACE, told=told.append) as tail:
            first = asyncio.ensure_future(anext(tail))
            await until(lambda: told)
            await loki.push(["a", "b", "c"])
            assert sorted([(await first).entry.line, *await take(tail, 2)]) == ["a", "b", "c"]
            assert (tail.counts.live, tail.counts.filled) == (0, 3)
    assert told == ["Loki refuses its tail (403): lines are asked for by query, some seconds late"]


async def test_a_query_that_cannot_be_tailed_is_an_error_with_lokis_words() -> None:
    loki = Leaky()
    loki.refuses = 400
    async with serving(loki) as url, AsyncLokiQuerierClient(LokiAccess(url, "team")) as client:
        async with client.stream_logs_in_realtime("sum(rate({a='b'}[1m]))", pace=PACE) as tail:
            with pytest.raises(LokiError, match=r"refused to tail \(400\): no tail here"):
                await take(tail, 1)


async def test_a_loki_that_is_not_there_is_said_at_once() -> None:
    async with AsyncLokiQuerierClient(LokiAccess("http://127.0.0.1:9", "team")) as client:
        async with client.stream_logs_in_realtime(QUERY) as tail:
            with pytest.raises(LokiError, match=r"Loki at http://127\.0\.0\.1:9 does not answer"):
                await take(tail, 1)


async def test_a_reader_slower_than_loki_gets_every_line_once_in_bounded_memory() -> None:
    loki = Leaky()
    async with serving(loki) as url, AsyncLokiQuerierClient(LokiAccess(url, "team")) as client:
        async with client.stream_logs_in_realtime(QUERY, pace=PACE) as tail:
            first = asyncio.ensure_future(tail.batch())
            await until(lambda: loki.sockets)
            for number in range(100):
                await loki.push([f"{number}.{n}" for n in range(20)])
            batches = [await first]
            # Nobody reads: what waits is a fixed number of batches.
            await until(tail._ready.full)
            async with asyncio.timeout(60):
                while sum(map(len, batches)) < 2_000:
                    batches.append(await tail.batch())
            lines = [line.entry.line for batch in batches for line in batch]
            assert len(lines) == len(set(lines)) == 2_000
            await nothing_more(tail, loki)


async def test_the_waiting_client_tails_the_same_and_ends_at_once() -> None:
    loki = Leaky()
    async with serving(loki) as url:

        def follow() -> list[str]:
            with (
                LokiQuerierClient(LokiAccess(url, "team")) as client,
                client.stream_logs_in_realtime(QUERY, pace=PACE) as tail,
            ):
                with pytest.raises(TimeoutError):
                    tail.batch(0.3)
                waited.set()
                lines = iter(tail)
                found = [next(lines).entry.line for _ in range(10)]
                assert (tail.counts.live, tail.counts.filled) == (6, 4)
                return found

        waited = threading.Event()
        following = asyncio.create_task(asyncio.to_thread(follow))
        await until(waited.is_set)
        await until(lambda: loki.sockets)
        await loki.push([str(n) for n in range(10)])
        assert sorted(await following) == sorted(str(n) for n in range(10))

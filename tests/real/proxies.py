"""What stands between a reader and a Loki and does not behave: a proxy that answers itself, and toxiproxy, which hangs
and breaks connections.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import httpx
from aiohttp import web

from bench.stack import wait_until
from onecollector.local.ports import any_free_port

Decide = Callable[[int, web.Request], int | None]
"""From the number of a request (the first is 1) and the request: a status to answer with, None to pass it on."""

HANG = 0
"""The status of an answer that never comes."""


@dataclass
class FaultyProxy:
    """``decide`` may be changed while it runs; ``refused`` counts what it answered itself."""

    url: str
    decide: Decide
    asked: int = 0
    refused: int = 0


@contextmanager
def faulty_proxy(upstream: str, decide: Decide) -> Iterator[FaultyProxy]:
    """An HTTP proxy in front of ``upstream``, in a thread of its own."""
    proxy = FaultyProxy("", decide)
    loop = asyncio.new_event_loop()
    started, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with aiohttp.ClientSession(auto_decompress=False) as session:

            async def handle(request: web.Request) -> web.StreamResponse:
                proxy.asked += 1
                status = proxy.decide(proxy.asked, request)
                if status is not None:
                    proxy.refused += 1
                    if status == HANG:
                        await stop.wait()
                    return web.Response(
                        status=status, text="too many outstanding requests" if status == 429 else "oops"
                    )
                headers = {key: value for key, value in request.headers.items() if key != "Host"}
                async with session.request(
                    request.method, upstream + request.path_qs, headers=headers, data=await request.read()
                ) as answer:
                    kept = {
                        key: value
                        for key, value in answer.headers.items()
                        if key in ("Content-Type", "Content-Encoding")
                    }
                    return web.Response(status=answer.status, body=await answer.read(), headers=kept)

            app = web.Application(client_max_size=1 << 28)
            app.router.add_route("*", "/{path:.*}", handle)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            started.set()
            await stop.wait()
            await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert started.wait(60), "the proxy did not start"
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


@dataclass
class Toxiproxy:
    """A running toxiproxy with one way through it, ``url``."""

    url: str
    _api: httpx.Client

    def add(self, kind: str, attributes: dict[str, Any] | None = None, toxicity: float = 1.0) -> None:
        """A toxic in the answers' direction, for connections there are and new ones."""
        toxic = {
            "name": kind,
            "type": kind,
            "stream": "downstream",
            "toxicity": toxicity,
            "attributes": attributes or {},
        }
        self._api.post("/proxies/loki/toxics", json=toxic).raise_for_status()

    def remove(self, kind: str) -> None:
        """Take it away again."""
        self._api.delete(f"/proxies/loki/toxics/{kind}").raise_for_status()

    def enable(self, on: bool) -> None:
        """Off: connections are closed and new ones refused."""
        self._api.post("/proxies/loki", json={"enabled": on}).raise_for_status()


@contextmanager
def toxiproxy(binary: Path, upstream: str, log: Path) -> Iterator[Toxiproxy]:
    """In front of ``upstream`` (a URL)."""
    port = any_free_port(set())
    through = any_free_port({port})
    with log.open("wb") as out:
        server = subprocess.Popen([str(binary), "-host", "127.0.0.1", "-port", str(port)], stdout=out, stderr=out)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as api:

            def answers() -> bool:
                try:
                    return api.get("/version").is_success
                except httpx.TransportError:
                    return False

            wait_until("toxiproxy to answer", answers, 60)
            way = {"name": "loki", "listen": f"127.0.0.1:{through}", "upstream": upstream.removeprefix("http://")}
            api.post("/proxies", json=way).raise_for_status()
            yield Toxiproxy(f"http://127.0.0.1:{through}", api)
    finally:
        server.kill()
        server.wait()

"""A gateway in front of a Loki, as operators run one: TLS, a certificate asked of the client, a password."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from aiohttp import WSMsgType, web

Files = dict[str, Path]
"""``authority``, ``certificate`` and ``key`` that a client needs."""

PASSED = ("Accept", "Content-Encoding", "Content-Type")


@dataclass
class Porter:
    """Whom the gateway lets in, and how often it refused each path."""

    user: str
    password: str
    refused: Counter[str] = field(default_factory=Counter)

    def lets_in(self, request: web.Request) -> bool:
        wanted = "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        if request.headers.get("Authorization") == wanted:
            return True
        self.refused[request.path] += 1
        return False


def make_certificates(folder: Path) -> None:
    """An authority ``ca.pem``, and by it ``server.pem`` for 127.0.0.1 and ``client.pem``, with their ``.key``."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests", "-days", "2")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        openssl(*signed, "-out", f"{name}.pem", "-days", "2", "-extfile", "names")


@asynccontextmanager
async def gateway(upstream: str, folder: Path, porter: Porter) -> AsyncIterator[tuple[str, Files]]:
    """Its URL, and a client's files."""
    make_certificates(folder)

    async def answer(request: web.Request) -> web.StreamResponse:
        if not porter.lets_in(request):
            return web.Response(status=401, text="who are you?")
        kept = {name: value for name, value in request.headers.items() if name.startswith("X-") or name in PASSED}
        async with aiohttp.ClientSession() as session:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await _through(session, request, f"{upstream}{request.path_qs}", kept)
            url, body = f"{upstream}{request.path_qs}", await request.read()
            async with session.request(request.method, url, headers=kept, data=body or None) as got:
                return web.Response(status=got.status, body=await got.read(), content_type=got.content_type)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{tail:.*}", answer)
    # A body goes on as it came.
    runner = web.AppRunner(app, shutdown_timeout=0.1, auto_decompress=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        yield (
            url,
            {
                "authority": folder / "ca.pem",
                "certificate": folder / "client.pem",
                "key": folder / "client.key",
            },
        )
    finally:
        await runner.cleanup()


@contextmanager
def gateway_beside(upstream: str, folder: Path, porter: Porter) -> Iterator[tuple[str, Files]]:
    """The same in a thread of its own."""
    loop, ended = asyncio.new_event_loop(), asyncio.Event()
    made: list[tuple[str, Files]] = []
    ready = threading.Event()

    async def serve() -> None:
        try:
            async with gateway(upstream, folder, porter) as here:
                made.append(here)
                ready.set()
                await ended.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait()
    try:
        yield made[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


async def _through(
    session: aiohttp.ClientSession, request: web.Request, url: str, headers: dict[str, str]
) -> web.WebSocketResponse:
    async with session.ws_connect(url, headers=headers) as behind:
        front = web.WebSocketResponse()
        await front.prepare(request)

        async def forth() -> None:
            async for message in behind:
                if message.type is WSMsgType.TEXT:
                    await front.send_str(message.data)
            await front.close()

        carrying = asyncio.create_task(forth())
        async for _ in front:
            pass
        await behind.close()
        await carrying
        return front

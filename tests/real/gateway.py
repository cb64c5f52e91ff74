"""A gateway in front of a Loki, as operators run one: TLS, a certificate asked of the client, a password."""

from __future__ import annotations

import asyncio
import base64
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import WSMsgType, web


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
async def gateway(
    upstream: str, folder: Path, *, user: str, password: str
) -> AsyncIterator[tuple[str, dict[str, Path]]]:
    """Its URL, and the files of ``authority``, ``certificate`` and ``key`` that a client needs."""
    make_certificates(folder)
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != wanted:
            return web.Response(status=401, text="who are you?")
        kept = {name: value for name, value in request.headers.items() if name.startswith("X-")}
        async with aiohttp.ClientSession() as session:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await _through(session, request, f"{upstream}{request.path_qs}", kept)
            async with session.request(request.method, f"{upstream}{request.path_qs}", headers=kept) as got:
                return web.Response(status=got.status, body=await got.read(), content_type=got.content_type)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.pem"))
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
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

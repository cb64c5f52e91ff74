"""The agent's HTTP API under ``/v1``: loopback only, and every request carries the token of a 0600 file.

Errors are ``{error, expected, found, fix}``. What touches files or waits runs in threads, so that a status is answered
while a push is under way.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from onecollector.agent.collector_control import PushRefused, StartFailed
from onecollector.agent.host import HostAgent

MAX_BODY = 4 << 20
EVENT_WAIT_S = 25.0


def ensure_token(path: Path) -> str:
    """The token; made at the first start, readable by its owner only."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600, exist_ok=False)
        token = secrets.token_urlsafe(32)
        path.write_text(token + "\n", encoding="utf-8")
        return token


def problem(
    status: int, error: str, *, expected: str = "", found: str = "", fix: str = "", **more: Any
) -> web.Response:
    """An error in the API's one shape."""
    return web.json_response({"error": error, "expected": expected, "found": found, "fix": fix, **more}, status=status)


def make_app(agent: HostAgent, token: str) -> web.Application:
    """The application; it owns nothing, the agent does."""

    @web.middleware
    async def guard(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return problem(
                401,
                "not authorised",
                expected="Authorization: Bearer <token>",
                found="another" if given else "none",
                fix=f"send the content of {agent.layout.agent_token}",
            )
        try:
            return await handler(request)
        except PushRefused as error:
            status = 422 if error.verdict == "rejected" else 409
            return problem(
                status,
                str(error),
                fix="see reasons",
                verdict=error.verdict,
                reasons=error.reasons,
            )
        except StartFailed as error:
            return problem(503, str(error), expected="a collector that starts", fix="onecollector logs collector")
        except (ValueError, KeyError, TypeError) as error:
            return problem(
                400, f"{type(error).__name__}: {error}", expected="see docs/agent-api.md", fix="mend the request"
            )

    async def status(_: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(agent.status))

    async def sources(_: web.Request) -> web.Response:
        rows = await asyncio.to_thread(agent.sources)
        return web.json_response({"sources": rows})

    async def links(_: web.Request) -> web.Response:
        rows = await asyncio.to_thread(agent.keeper.statuses)
        return web.json_response({"links": [{**asdict(row), "behind": row.behind} for row in rows]})

    async def records(request: web.Request) -> web.Response:
        wanted = request.query.getall("source_id", []) or None
        rows = await asyncio.to_thread(agent.keeper.segment_records, wanted)
        return web.json_response(
            {"records": [{**asdict(row), "first_seen": row.first_seen.timestamp()} for row in rows]}
        )

    async def delivered(request: web.Request) -> web.Response:
        items = [(str(i["source_id"]), int(i["segment"]), int(i["records"])) for i in (await request.json())["items"]]
        return web.json_response({"done": await asyncio.to_thread(agent.keeper.mark_delivered, items)})

    async def put_config(request: web.Request) -> web.Response:
        body = await request.json()
        text, config_hash = str(body["text"]), str(body["hash"])
        within = float(body.get("confirm_within_s", agent.settings.agent.confirm_within_s))
        answer = await asyncio.to_thread(agent.collector.push, text, config_hash, within)
        agent.look_now()
        answer["probes"] = [asdict(probe) for probe in answer["probes"]]
        return web.json_response(answer)

    async def get_config(_: web.Request) -> web.Response:
        text = agent.collector.effective()
        return web.json_response({**asdict(agent.collector.state), "text": text, "hash": agent.collector.hash_of(text)})

    async def confirm(request: web.Request) -> web.Response:
        config_hash = str((await request.json())["hash"])
        if await asyncio.to_thread(agent.collector.confirm, config_hash):
            agent.look_now()
            return web.json_response({"state": "confirmed", "hash": config_hash})
        return problem(
            409,
            "not confirmed",
            expected=f"the hash that waits ({agent.collector.state.hash})",
            found=config_hash,
            fix="push it again",
            **asdict(agent.collector.state),
        )

    async def rollback(request: web.Request) -> web.Response:
        body = await request.json()
        verdict = body["verdict"]
        if verdict not in ("rejected", "undecided"):
            raise ValueError(f"verdict: expected rejected or undecided, found {verdict!r}")
        done = await asyncio.to_thread(
            agent.collector.roll_back, str(body["hash"]), verdict, str(body.get("reason", ""))
        )
        agent.look_now()
        return web.json_response({"rolled_back": done, **asdict(agent.collector.state)})

    async def reload(_: web.Request) -> web.Response:
        return web.json_response({"pid": await asyncio.to_thread(agent.collector.reload)})

    async def rejected(_: web.Request) -> web.Response:
        return web.json_response({"rejected": agent.journal.rejected()})

    async def forgive(request: web.Request) -> web.Response:
        return web.json_response({"forgiven": agent.journal.forgive(request.match_info["hash"])})

    async def probe(request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        wanted = frozenset((str(t), str(p)) for t, p in body["pipelines"]) if body.get("pipelines") else None
        probes = await asyncio.to_thread(agent.collector.probe, wanted)
        return web.json_response({"probes": [asdict(probe) for probe in probes]})

    async def events(request: web.Request) -> web.Response:
        after = int(request.query.get("after", "0"))
        end = asyncio.get_running_loop().time() + min(EVENT_WAIT_S, float(request.query.get("wait", "0")))
        while True:
            rows = agent.journal.events_after(after)
            if rows or asyncio.get_running_loop().time() >= end:
                return web.json_response({"events": [{"number": number, **asdict(event)} for number, event in rows]})
            await asyncio.sleep(0.1)

    async def gaps(_: web.Request) -> web.Response:
        rows = [
            {**asdict(g), "started": g.started.isoformat(), "ended": g.ended.isoformat()} for g in agent.journal.gaps()
        ]
        return web.json_response({"gaps": rows})

    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY)
    app.add_routes(
        [
            web.get("/v1/status", status),
            web.get("/v1/sources", sources),
            web.get("/v1/links", links),
            web.get("/v1/records", records),
            web.post("/v1/delivered", delivered),
            web.put("/v1/config", put_config),
            web.get("/v1/config", get_config),
            web.post("/v1/config/confirm", confirm),
            web.post("/v1/config/rollback", rollback),
            web.post("/v1/reload", reload),
            web.get("/v1/rejected", rejected),
            web.delete("/v1/rejected/{hash}", forgive),
            web.post("/v1/probe", probe),
            web.get("/v1/events", events),
            web.get("/v1/gaps", gaps),
        ]
    )
    return app

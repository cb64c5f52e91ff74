"""Live tail of a real Loki: a burst that its socket loses most of, and a Loki that dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.stack import wait_until
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.loki.querier import AsyncLokiQuerierClient
from onecollector_resources.loki.tail import LiveTail
from onecollector_resources.loki.tail_ledger import TailPace
from onecollector_resources.settings import Settings
from tests.real.lokis import TENANT, new_loki

pytestmark = [pytest.mark.real]

PACE = TailPace(settle_s=1, again_s=4, every_s=0.2)


async def send(url: str, service: str, lines: list[str]) -> None:
    """Now, a microsecond apart; again and again until Loki takes them, as a collector does."""
    first = time.time_ns()
    values = [[str(first + number * 1_000), line, {"n": line}] for number, line in enumerate(lines)]
    body = {"streams": [{"stream": {"service_name": service}, "values": values}]}
    async with httpx.AsyncClient(timeout=60, headers=TENANT) as http:
        async with asyncio.timeout(200):
            while True:
                try:
                    if (await http.post(f"{url}/loki/api/v1/push", json=body)).status_code == 204:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.2)


async def collect(tail: LiveTail, found: Counter[str]) -> None:
    while True:
        found.update(line.entry.line for line in await tail.batch())


async def until(condition: Any, deadline_s: float) -> None:
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.05)


async def until_live(tail: LiveTail, url: str, service: str) -> None:
    """Until the socket brings lines, of which the first are older than the tail."""
    before = tail.counts.live
    while tail.counts.live == before:
        await send(url, service, [f"live? {time.time_ns()}"])
        await asyncio.sleep(0.2)


def told_apart(found: Counter[str]) -> tuple[set[str], set[str]]:
    """Lines that were shown, without those of ``until_live``; and, of all, those that came twice."""
    return {line for line in found if not line.startswith("live?")}, {line for line, n in found.items() if n > 1}


async def test_every_line_of_a_burst_is_shown_once(loki: LokiLifecycle) -> None:
    wanted = [f"{n:05d} " + "x" * 100 for n in range(20_000)]
    found: Counter[str] = Counter()
    async with AsyncLokiQuerierClient(LokiAccess(loki.url, "default")) as client:
        async with client.stream_logs_in_realtime('{service_name="burst"}', pace=PACE) as tail:
            reading = asyncio.create_task(collect(tail, found))
            await until_live(tail, loki.url, "burst")
            for part in range(0, 20_000, 5_000):
                await send(loki.url, "burst", wanted[part : part + 5_000])
            end = time.time_ns()
            # Everything was looked at twice: what could come, also for a second time, has come.
            await until(lambda: tail.ledger.settled_ns > end, 90)
            reading.cancel()
            assert told_apart(found) == (set(wanted), set())
            assert tail.counts.live + tail.counts.filled == found.total()
            # What this is for: the socket alone loses lines, and more than Loki says.
            assert tail.counts.filled > tail.counts.dropped > 0


async def test_a_tail_outlives_a_loki_that_is_killed(part: Any, tmp_path: Path) -> None:
    loki = new_loki(part("loki"), tmp_path, Settings(state_dir=tmp_path))
    found: Counter[str] = Counter()
    told: list[str] = []
    try:
        await asyncio.to_thread(loki.start)
        async with AsyncLokiQuerierClient(LokiAccess(loki.url, "default", timeout_s=5)) as client:
            async with client.stream_logs_in_realtime('{service_name="life"}', pace=PACE, told=told.append) as tail:
                reading = asyncio.create_task(collect(tail, found))
                await until_live(tail, loki.url, "life")
                await send(loki.url, "life", [f"before {n}" for n in range(500)])
                loki.kill()
                meanwhile = asyncio.create_task(send(loki.url, "life", [f"meanwhile {n}" for n in range(500)]))
                await until(lambda: tail.counts.reconnects >= 3, 90)
                await asyncio.to_thread(loki.start)
                await meanwhile
                await until_live(tail, loki.url, "life")
                await send(loki.url, "life", [f"after {n}" for n in range(500)])
                end = time.time_ns()
                await until(lambda: tail.ledger.settled_ns > end, 120)
                reading.cancel()
                wanted = {f"{when} {n}" for when in ("before", "meanwhile", "after") for n in range(500)}
                assert told_apart(found) == (wanted, set())
                assert any("trying again" in one for one in told)
    finally:
        loki.kill()


@pytest.fixture
def command(loki: LokiLifecycle, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    (tmp_path / "onecollector.yaml").write_text(f"loki: {{url: {loki.url}}}\nstate_dir: {tmp_path}/state\n")
    env = {**os.environ, "ONECOLLECTOR_CONFIG": str(tmp_path / "onecollector.yaml")}
    arguments = [sys.executable, "-m", "onecollector.cli.main", "tail", '{service_name="typed"}', "--output", "jsonl"]

    # Tests that run in the background have Ctrl-C ignored, which a process hands on; a handler it does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    running = subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def test_the_command_shows_lines_and_at_ctrl_c_how_they_came(
    command: subprocess.Popen[str], loki: LokiLifecycle
) -> None:
    assert command.stdout is not None
    os.set_blocking(command.stdout.fileno(), False)
    shown: list[str] = []

    def line_came() -> bool:
        asyncio.run(send(loki.url, "typed", ["hello"]))
        shown.extend(command.stdout or ())
        return bool(shown)

    wait_until("a line", line_came, 120, 0.3)
    record = json.loads(shown[0])
    assert (record["line"], record["labels"], record["metadata"]) == (
        "hello",
        {"service_name": "typed"},
        {"n": "hello"},
    )
    command.send_signal(signal.SIGINT)
    _, errors = command.communicate(timeout=60)
    assert command.returncode == 0
    assert (
        errors.startswith(f"{len(shown)} live · 0 filled by query · 0 that Loki said it dropped")
        or " live · " in errors
    )

"""`demo --findings`: a container changes its behaviour, and a finding about it is on the command line, in Loki and at a webhook.

A model needs days, which a demo does not have: nine days of the container's lines are made up and pushed into Loki up to
the present minute. From there on nothing is made up. They are exported, a model is trained on them, a real container goes
on with the same lines and then with others. It runs beside everything else, in a state folder of its own.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import yaml
from rich.console import Console

from onecollector.local.demo import poll, row
from onecollector.local.engine import connect, import_demo_image
from onecollector.local.stack import down, up
from onecollector.local.supervisor import MARK
from onecollector.local.webhook import webhook
from onecollector_resources.findings.records import FINDINGS_SERVICE
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.querier import LokiError, LokiQuerierClient
from onecollector_resources.runtime import RuntimeMissing, load_runtime
from onecollector_resources.settings import Settings, load_settings

SERVICE = "checkout"
LABEL = f"onecollector.io/service={SERVICE}"
DAYS = 9
MINUTE_S = 60
KINDS = (("GET /cart/{n} 200 in {n} ms", 8.0), ("charge {n} ok", 4.0), ("cart {n} saved", 2.0))
"""Lines a minute of each kind, on average over a day."""
USUAL = (
    'i=0; while [ $i -lt 2000 ]; do echo "GET /cart/$i 200 in 12 ms"; [ $((i % 2)) = 0 ] && echo "charge $i ok"; '
    '[ $((i % 4)) = 0 ] && echo "cart $i saved"; i=$((i+1)); sleep 7; done'
)
FAULTY = (
    'i=0; while [ $i -lt 2000 ]; do echo "GET /cart/$i 200 in 12 ms"; '
    'echo "ERROR charge $i failed: connection to 10.0.3.7:5432 refused"; i=$((i+1)); sleep 4; done'
)
WAIT_SCORED_S, WAIT_FOUND_S = 180.0, 240.0


def run_demo(settings: Settings, command: str) -> int:
    """Run it; 0 only when the finding was seen in all three places."""
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    unset = "env -u ONECOLLECTOR_STATE_DIR " if "ONECOLLECTOR_STATE_DIR" in os.environ else ""
    with webhook() as (url, seen):
        mine = own_settings(settings, url)
        config = os.environ["ONECOLLECTOR_CONFIG"]
        begin_anew(mine)
        result = up(mine)
        row(out, "stack", f"up in {result.total_s:.1f}s, in a state folder of its own: {mine.layout.root}")
        loki_url = result.runtime.loki_url
        access = mine.loki.access(loki_url, "default")
        began = time.time()
        past = Past(access)
        past.push()
        row(out, "history", f"{past.lines:,} lines of {DAYS} days made up and pushed in {time.time() - began:.0f}s")
        # Until the container takes over: a silence would be the first finding.
        past.start()
        if not learned(out, command):
            return 1
        container = start(mine, result.runtime.docker_host, USUAL)
        past.stop()
        row(out, SERVICE, f"{container} writes what it always wrote")
        store = FindingStore(mine.registry_url)
        if poll(lambda: scored(mine), WAIT_SCORED_S, 1.0) is None:
            row(out, "scorer", f"NOT SEEN: look: ONECOLLECTOR_CONFIG={config} {command} logs scorer")
            return 1
        changed = time.time()
        row(out, "change", f"{start(mine, result.runtime.docker_host, FAULTY)} writes errors that were never there")
        since = datetime.fromtimestamp(changed - MINUTE_S, UTC)
        found = poll(lambda: store.find(service=SERVICE, since=since, limit=1), WAIT_FOUND_S, 0.5)
        if not found:
            row(out, "finding", "NOT SEEN")
            return 1
        number = found[0].number
        row(out, "finding", f"number {number}, {time.time() - changed:.0f}s after the first other line")
        at_webhook = poll(lambda: [body for _, body in list(seen) if body.get("number") == number], 30, 0.2)
        row(out, "webhook", f"{at_webhook[0]['sentence']}" if at_webhook else "NOT SEEN")
        in_loki = poll(lambda: line_in_loki(mine, loki_url, number), 30, 0.5)
        row(out, "in Loki", f'{{service_name="{FINDINGS_SERVICE}"}}  {in_loki}' if in_loki else "NOT SEEN")
        out.print()
        row(out, "$", f"{command} findings show {number}")
        shown = cli("findings", "show", str(number))
        out.print(shown.stdout, markup=False, soft_wrap=True)
        prefix = f"{unset}ONECOLLECTOR_CONFIG={config} {command}"
        row(out, "Look", f"{prefix} findings list")
        row(out, "Stop", f"{prefix} down")
    return 0 if at_webhook and in_loki and shown.returncode == 0 else 1


def begin_anew(mine: Settings) -> None:
    """Nothing of an earlier demo stays: its errors would be usual by now, and its finding the first to be seen."""
    with suppress(RuntimeMissing):
        remove_containers(load_runtime(mine.layout).docker_host)
    down(mine)
    shutil.rmtree(mine.layout.root, ignore_errors=True)
    mine.layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)


def own_settings(settings: Settings, webhook_url: str) -> Settings:
    """Settings of the demo's own stack: nothing of it touches what runs already."""
    root = settings.layout.root / "demo-findings"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    config = root / "onecollector.yaml"
    data: dict[str, Any] = {
        "state_dir": str(root / "state"),
        "usual_ports": False,
        "docker": settings.docker.model_dump(mode="json"),
        "models": {
            "enabled": True,
            "webhook_url": webhook_url,
            "start_date": time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400 * (DAYS + 1))),
        },
        "files": [{"glob": f"{root}/lines/*.log", "service": SERVICE}],
    }
    config.write_text(yaml.safe_dump(data), encoding="utf-8")
    # Variables win over the file, and what they say is about the stack that runs already.
    for name in [key for key in os.environ if key.startswith("ONECOLLECTOR_")]:
        if name == "ONECOLLECTOR_STATE_DIR" or "__" in name:
            del os.environ[name]
    os.environ["ONECOLLECTOR_CONFIG"] = str(config)
    return load_settings(config)


def made_up(minute: int) -> list[tuple[int, str]]:
    """The lines of a minute by time in ns: a little more by day than by night, never twice the same minute."""
    chance = random.Random(minute)
    season = 1 + 0.05 * math.sin(2 * math.pi * (minute % 1440) / 1440)
    lines = []
    for text, rate in KINDS:
        count = max(0, round(chance.gauss(rate * season, math.sqrt(rate))))
        number = str(minute % 997)
        lines += [
            (minute * MINUTE_S * 10**9 + chance.randrange(MINUTE_S * 10**9), text.replace("{n}", number))
            for _ in range(count)
        ]
    return sorted(lines)


class Past(threading.Thread):
    """Pushes made-up lines into Loki, up to the present; started, goes on until the container takes over."""

    def __init__(self, access: LokiAccess) -> None:
        super().__init__(daemon=True)
        self.lines = 0
        self._access, self._over = access, threading.Event()
        self._told_ns = (int(time.time()) // MINUTE_S - DAYS * 1440) * MINUTE_S * 10**9

    def run(self) -> None:
        while not self._over.wait(2):
            with suppress(httpx.HTTPError):
                self.push()

    def push(self) -> None:
        """What came since the last time. Raises httpx.HTTPError."""
        now, batch = time.time_ns(), list[list[str]]()
        with self._access.client(timeout_s=60) as http:
            for minute in range(self._told_ns // (MINUTE_S * 10**9), now // (MINUTE_S * 10**9) + 1):
                batch += [[str(at), text] for at, text in made_up(minute) if self._told_ns <= at < now]
                if len(batch) >= 20_000:
                    self._send(http, batch)
                    batch = []
            self._send(http, batch)
        self._told_ns = now

    def _send(self, http: httpx.Client, batch: list[list[str]]) -> None:
        if batch:
            body = orjson.dumps({"streams": [{"stream": {"service_name": SERVICE}, "values": batch}]})
            http.post(
                "/loki/api/v1/push", content=body, headers={"Content-Type": "application/json"}
            ).raise_for_status()
            self.lines += len(batch)

    def stop(self) -> None:
        """And wait for it."""
        self._over.set()
        self.join()


def learned(out: Console, command: str) -> bool:
    """Export the days and train on them, by the commands that a person would give."""
    day = 86_400
    first, last = (time.strftime("%Y-%m-%d", time.gmtime(time.time() - back * day)) for back in (DAYS - 1, 0))
    for args in (
        ("export", '{service_name=~".+"}', "--from", first, "--to", last),
        ("models", "train", "--promote"),
    ):
        began = time.time()
        done = cli(*args)
        if args[0] == "models" and done.returncode == 1:
            # Eight days of one service are a small sample for the gates.
            done = cli("models", "promote", "--force", "--why", "demo")
        if done.returncode:
            row(out, args[0], f"{command} {' '.join(args)}: {done.stdout[-500:]}{done.stderr[-500:]}")
            return False
        row(out, args[0], f"{command} {' '.join(args)}   {time.time() - began:.0f}s")
    return True


def cli(*args: str) -> subprocess.CompletedProcess[str]:
    """One command on the demo's stack."""
    # As its own program where there is one: then the commands that it names work as pasted.
    beside = Path(sys.executable).with_name("onecollector")
    program = (
        [str(Path(os.path.relpath(beside)))] if beside.exists() else [sys.executable, "-m", "onecollector.cli.main"]
    )
    command = [*program, *args]
    return subprocess.run(command, text=True, capture_output=True, timeout=600)


def start(settings: Settings, docker_host: str, script: str) -> str:
    """A container of the service in the place of the one before; without an engine a process that writes a log file."""
    if not docker_host:
        folder = settings.layout.root.parent / "lines"
        folder.mkdir(parents=True, exist_ok=True)
        stop_processes(folder)
        path = folder / f"{SERVICE}-{int(time.time())}.log"
        with path.open("ab") as file:
            environment = {**os.environ, MARK: str(settings.layout.root)}
            process = subprocess.Popen(
                ["/bin/sh", "-c", script], stdout=file, stderr=file, start_new_session=True, env=environment
            )
        (folder / "pid").write_text(str(process.pid))
        return path.name
    import docker

    api = connect(docker_host)
    import_demo_image(api)
    api.close()
    client = docker.DockerClient(base_url=docker_host)
    for old in client.containers.list(filters={"label": LABEL}, ignore_removed=True):
        old.stop(timeout=1)
    name = f"{SERVICE}-{int(time.time()) % 100_000}"
    client.containers.run(
        "onecollector-demo:latest",
        ["/bin/sh", "-c", script],
        detach=True,
        network_mode="none",
        name=name,
        labels={"onecollector.io/service": SERVICE},
    )
    client.close()
    return name


def remove_containers(docker_host: str) -> None:
    """Those of an earlier demo, running or not; an engine that is away has none that anybody could collect."""
    import docker
    from docker.errors import DockerException

    if not docker_host:
        return
    with suppress(DockerException, OSError):
        client = docker.DockerClient(base_url=docker_host)
        for old in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
            old.remove(force=True)
        client.close()


def stop_processes(folder: Path) -> None:
    """The process that a start before this one left."""
    import signal

    pid = folder / "pid"
    if pid.exists():
        with suppress(ProcessLookupError, ValueError):
            os.killpg(int(pid.read_text()), signal.SIGTERM)
        pid.unlink()


def scored(settings: Settings) -> bool:
    """Whether the scorer has come to the present minute."""
    from onecollector.scorer.status_file import read_status

    status = read_status(settings.layout.scorer_status)
    told = status.tenants.get("default") if status else None
    return bool(told and told["model_id"] and told["minute"] >= time.time() // 60 - 2)


def line_in_loki(settings: Settings, loki_url: str, number: int) -> str:
    """The sentence of the finding's line; empty where there is none yet."""
    with LokiQuerierClient(settings.loki.access(loki_url, "default")) as loki:
        try:
            now = time.time_ns()
            found = loki.entries(f'{{service_name="{FINDINGS_SERVICE}"}}', now - 3600 * 10**9, now + 60 * 10**9, 100)
        except (LokiError, httpx.HTTPError):
            return ""
    told = [orjson.loads(entry.line) for entry in found]
    return next((str(one["message"]) for one in told if one["finding"] == number), "")

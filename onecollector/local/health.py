"""Whether each part on this machine is healthy, asked at the part itself: a running process proves little."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import psutil

from onecollector.local.programs import room_to_start_kib
from onecollector.local.supervisor import ProcessInfo, Supervisor
from onecollector.scorer.status_file import health_of, read_status
from onecollector_resources.loki.faults import MEND_LOGIN, LokiError
from onecollector_resources.runtime import Runtime
from onecollector_resources.settings import Settings, SettingsError

ORDER = ("docker", "loki", "linker", "collector", "agent", "control", "ml", "scorer", "daemon", "webserver")
ANSWER_S = 5.0
"""Seconds in which a part must answer: one that is well may take some on a machine that is busy."""


@dataclass(frozen=True, slots=True)
class PartHealth:
    """One row of `status`. ``memory`` in bytes of resident memory, ``since`` as epoch seconds."""

    part: str
    ok: bool
    pid: int
    port: int | None
    memory: int
    since: float
    log: str
    note: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a part said of itself."""

    ok: bool
    note: str


def _get(url: str, client: httpx.Client | None = None, **kwargs: Any) -> httpx.Response | None:
    try:
        return client.get(url, **kwargs) if client else httpx.get(url, timeout=ANSWER_S, **kwargs)
    except httpx.HTTPError:
        return None


def loki_health(settings: Settings, runtime: Runtime) -> Answer:
    """``/ready`` of Loki; of our own also whether it answers queries, which takes it a few seconds longer."""
    try:
        access = settings.loki.access(runtime.loki_url, "default")
        with access.client(timeout_s=ANSWER_S) as http:
            answer = http.get("/ready")
            if settings.loki.url is not None and (refused := access.login_refused(timeout_s=ANSWER_S)):
                return Answer(False, f"{refused}; {MEND_LOGIN}")
            # A gateway in front of a Loki of the user's own may keep this to itself.
            if answer.status_code != 200 and (settings.loki.url is None or answer.status_code not in (401, 403, 404)):
                return Answer(False, answer.text.strip()[:100])
            if settings.loki.url is None:
                asked = _get("/loki/api/v1/labels?since=5m", http)
                if asked is None or asked.status_code != 200:
                    return Answer(False, "it is ready, and does not answer queries yet")
    except httpx.HTTPError as error:
        return Answer(False, f"no answer at {runtime.loki_url}: {error}")
    except (SettingsError, LokiError) as error:
        return Answer(False, str(error))
    return Answer(True, "")


def collector_health(settings: Settings, runtime: Runtime) -> Answer:
    """``health_check`` of the collector, which waits while its disk has no room."""
    answer = _get(runtime.collector_health_url)
    if answer is None:
        free = shutil.disk_usage(settings.layout.collector).free >> 20
        needed = room_to_start_kib(settings.collector.min_free_mib) >> 10
        if free < needed:
            return Answer(False, f"waits for room: {free} MiB free, {needed} are needed; nothing is lost")
        return Answer(False, "health_check does not answer")
    return Answer(
        answer.status_code == 200, "" if answer.status_code == 200 else f"health_check says {answer.status_code}"
    )


def agent_status(settings: Settings, runtime: Runtime) -> dict[str, Any] | None:
    """``/v1/status`` of the agent, or None."""
    try:
        token = settings.layout.agent_token.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    answer = _get(f"{runtime.agent_url}/v1/status", headers={"Authorization": f"Bearer {token}"})
    return answer.json() if answer is not None and answer.status_code == 200 else None


def code_server_health(port: int) -> Answer:
    """Whether the gRPC port takes connections; Dagster opens it once the location is loaded."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S):
            return Answer(True, "")
    except OSError:
        return Answer(False, "the code location is still loading")


def scorer_health(settings: Settings, clock: Callable[[], float] = time.time) -> Answer:
    """What the scorer says of itself; without a model it waits, and that is well."""
    return Answer(*health_of(read_status(settings.layout.scorer_status), clock()))


def webserver_health(runtime: Runtime) -> Answer:
    """``/server_info`` of Dagster's web server."""
    answer = _get(f"{runtime.dagster_url}/server_info")
    return Answer(answer is not None and answer.status_code == 200, "" if answer is not None else "no answer")


DAEMONS = "{instance{daemonHealth{allDaemonStatuses{daemonType required healthy lastHeartbeatTime lastHeartbeatErrors{message}}}}}"


def daemon_health(runtime: Runtime, clock: Callable[[], float] = time.time) -> Answer:
    """Heartbeats of Dagster's daemons; Dagster itself would call a dead one healthy for half an hour."""
    try:
        answer = httpx.post(f"{runtime.dagster_url}/graphql", json={"query": DAEMONS}, timeout=2 * ANSWER_S).json()
        rows = answer["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return Answer(False, "web server does not tell")
    required = [row for row in rows if row["required"]]
    late = [row["daemonType"] for row in required if clock() - (row["lastHeartbeatTime"] or 0) > 120]
    if not required or late:
        return Answer(False, f"no heartbeat yet: {', '.join(late) or 'all'}")
    errors = [error["message"] for row in required for error in row["lastHeartbeatErrors"] or ()]
    return Answer(True, errors[0].splitlines()[0][:100] if errors else "")


def _family_memory(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


def part_health(
    settings: Settings, runtime: Runtime, supervisor: Supervisor, skip: frozenset[str] = frozenset()
) -> list[PartHealth]:
    """A row for every part but those in ``skip``, in the order of ORDER."""
    agent: dict[str, Any] | None = None
    if "agent" not in skip:
        agent = agent_status(settings, runtime)
    asks: dict[str, Callable[[], Answer]] = {
        "loki": lambda: loki_health(settings, runtime),
        "collector": lambda: collector_health(settings, runtime),
        "linker": lambda: Answer(True, ""),
        "agent": lambda: Answer(agent is not None, "" if agent is not None else "its API does not answer"),
        "control": lambda: code_server_health(runtime.code_server_port),
        "ml": lambda: code_server_health(runtime.ml_port),
        "scorer": lambda: scorer_health(settings),
        "daemon": lambda: daemon_health(runtime),
        "webserver": lambda: webserver_health(runtime),
    }
    ports = {
        "loki": runtime.loki_port,
        "collector": runtime.collector_health_port,
        "agent": runtime.agent_port,
        "control": runtime.code_server_port,
        "ml": runtime.ml_port,
        "webserver": runtime.dagster_port,
    }
    rows = []
    known = {info.name: info for info in supervisor.processes()}
    if settings.loki.url is not None:
        known["loki"] = ProcessInfo("loki", "RUNNING", 0, 0, "", "")
    for part in ORDER:
        if part in skip or part not in asks:
            continue
        info = known.get(part)
        if info is None and part == "linker" and not runtime.docker_links:
            continue
        if info is None and part in ("ml", "scorer") and not settings.models.enabled:
            continue
        if info is None:
            rows.append(PartHealth(part, False, 0, ports.get(part), 0, 0, "", "not started"))
            continue
        if info.state != "RUNNING":
            note = f"{info.state.lower()}: {info.message}".strip(": ")
            rows.append(PartHealth(part, False, info.pid, ports.get(part), 0, info.started, info.log, note))
            continue
        answer = asks[part]()
        memory = _family_memory(info.pid) if info.pid else 0
        rows.append(PartHealth(part, answer.ok, info.pid, ports.get(part), memory, info.started, info.log, answer.note))
    return rows

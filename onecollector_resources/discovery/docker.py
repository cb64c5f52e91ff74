"""The Docker engine as discovery needs it: every container by id, one container, its events, its log.

A listing costs the engine and us time, so a container is inspected once, when its id is new, and again only when its
listing row says that it was renamed or changed its state: labels, log driver and path never change. An inspection that
finds the container gone falls back on what its event said of it.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from onecollector_resources.discovery.engine_http import EngineAway, EngineHttp, EngineStream
from onecollector_resources.discovery.events import EVENT_FILTER, parse_event
from onecollector_resources.discovery.identity import (
    FILE_DRIVER,
    identify_container,
    parse_time,
    summary_facts,
    why_unreadable,
)
from onecollector_resources.records import ContainerEvent, ObservedSource
from onecollector_resources.settings import Settings

__all__ = ["DockerEngine", "EngineAway"]

ALIVE = frozenset({"created", "running", "paused", "restarting"})
"""States in which more lines may come. ``removing`` and ``dead`` are ends, whatever ended them."""

DUAL_LOGGING_API = (1, 41)
"""API version of Docker 20.10, which keeps a readable cache beside drivers that only send lines away."""


class DockerEngine:
    """One engine. Nothing is asked before the first call. Thread-safe; every method may raise EngineAway."""

    def __init__(self, address: str, settings: Settings, timeout_s: float = 15) -> None:
        self.address, self._settings = address, settings
        self._http = EngineHttp(address, timeout_s)
        self._rows: dict[str, tuple[str, str]] = {}
        """State and name in the listing that a container was last inspected for."""
        self._known: dict[str, ObservedSource] = {}
        self._facts: Mapping[str, Any] = {}

    # -- the engine

    def info(self) -> Mapping[str, Any]:
        """The engine's description of itself, as it was when it was asked first or after ``forget``."""
        if not self._facts:
            self._facts = self._http.get_json("/info") or {}
        return self._facts

    def use_settings(self, settings: Settings) -> None:
        """Identify every container anew with other settings."""
        self._settings, self._known = settings, {}

    def root(self) -> str:
        """DockerRootDir."""
        return str(self.info().get("DockerRootDir") or "/var/lib/docker")

    def now_ns(self) -> int:
        """The engine's clock: events carry its times, not ours."""
        facts = self._http.get_json("/info") or {}
        self._facts = facts
        told = parse_time(facts.get("SystemTime"))
        return int(told.timestamp() * 1e9) if told is not None else time.time_ns()

    def forget(self) -> None:
        """Ask anew what kind of engine this is: it may have been restarted with other settings."""
        self._facts = {}
        self._http.forget()

    @property
    def local(self) -> bool:
        """Whether it is on this machine, as far as its address says."""
        return self.address.startswith("unix://")

    def started_ns(self) -> int | None:
        """When the engine's process started, on our clock to 10 ms; None where that cannot be known.

        The peer of a unix socket is who made it: dockerd, or init where systemd keeps the socket; then the pid file.
        """
        if not self.local:
            return None
        try:
            with self._http.dial(1.0) as sock:
                pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
            if pid == 1:
                with open("/run/docker.pid", encoding="ascii") as file:
                    pid = int(file.read())
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                ticks = int(file.read().rsplit(") ", 1)[1].split()[19])
        except (OSError, EngineAway, ValueError, IndexError):
            return None
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time_ns() - int(age_s * 1e9)

    # -- containers

    def list_all(self) -> dict[str, ObservedSource]:
        """Every container by id, exited ones too."""
        rows: Sequence[Mapping[str, Any]] = self._http.get_json("/containers/json", {"all": "1"}) or ()
        found: dict[str, ObservedSource] = {}
        for row in rows:
            container_id, name = row["Id"], summary_facts(row)[0]
            known, seen = self._known.get(container_id), (row["State"], name)
            if known is None or self._rows.get(container_id) != seen:
                known = self._look(row)
                if known is None:
                    continue
                self._rows[container_id] = seen
            found[container_id] = known
        self._known = found
        if len(self._rows) > len(found):
            self._rows = {key: self._rows[key] for key in found if key in self._rows}
        return dict(found)

    def inspect(self, container_id: str) -> ObservedSource | None:
        """One container; None where it is gone."""
        facts = self._http.get_json(f"/containers/{container_id}/json")
        return None if facts is None else self._described(facts)

    def _described(self, facts: Mapping[str, Any]) -> ObservedSource:
        container_id = facts["Id"]
        state, config = facts["State"], facts["Config"]
        logging = facts["HostConfig"].get("LogConfig") or {}
        alive = state.get("Status") in ALIVE
        driver = logging.get("Type") or self._default_driver()
        return self._identified(
            container_id,
            facts["Name"].lstrip("/"),
            config.get("Image") or "",
            config.get("Labels") or {},
            driver,
            options=logging.get("Config") or {},
            # Before its start a container has no log path, but where it will be is known.
            log_path=facts.get("LogPath") or "",
            running=alive,
            created=parse_time(facts.get("Created")),
            ended=None if alive else parse_time(state.get("FinishedAt")),
        )

    def from_event(self, event: ContainerEvent) -> ObservedSource:
        """A container that is gone already, described by its event: that has its name, image and labels."""
        facts = dict(event.attributes)
        name, image = facts.pop("name", ""), facts.pop("image", "")
        created = datetime.fromtimestamp(event.time_ns / 1e9, UTC)
        return self._identified(
            event.source_id, name, image, facts, self._default_driver(), running=True, created=created
        )

    def _look(self, row: Mapping[str, Any]) -> ObservedSource | None:
        """Inspect a row's container; one that the engine cannot describe must not hide the others."""
        status, body = self._http.get(f"/containers/{row['Id']}/json")
        if status == 404:
            return None
        if status == 200:
            return self._described(orjson.loads(body))
        name, image, labels = summary_facts(row)
        created = datetime.fromtimestamp(row.get("Created") or 0, UTC)
        alive = row["State"] in ALIVE
        observed = self._identified(
            row["Id"], name, image, labels, self._default_driver(), running=alive, created=created
        )
        return replace(observed, warnings=(*observed.warnings, f"the engine answered {status} when asked about it"))

    def _default_driver(self) -> str:
        return str(self.info().get("LoggingDriver") or FILE_DRIVER)

    def _identified(
        self,
        container_id: str,
        name: str,
        image: str,
        labels: Mapping[str, str],
        driver: str,
        *,
        running: bool,
        created: datetime | None,
        options: Mapping[str, str] | None = None,
        log_path: str = "",
        ended: datetime | None = None,
    ) -> ObservedSource:
        if not log_path and driver == FILE_DRIVER:
            log_path = f"{self.root()}/containers/{container_id}/{container_id}-json.log"
        return identify_container(
            container_id,
            name,
            image,
            labels,
            self._settings,
            driver=driver,
            log_path=log_path,
            running=running,
            created=created or datetime.now(UTC),
            ended=ended,
            unreadable=why_unreadable(driver, options or {}, dual_logging=self._http.api >= DUAL_LOGGING_API),
        )

    # -- events and logs

    def open_events(self, since_ns: int) -> EngineStream:
        """The stream of container events from ``since_ns`` on: first those the engine remembers, then live ones."""
        params = {"since": _stamp(since_ns), "filters": orjson.dumps(EVENT_FILTER).decode()}
        return self._http.open("/events", params)

    def remembered(self, until_ns: int) -> list[tuple[int, ContainerEvent | None]]:
        """(time in ns, event or None) of all that the engine remembers, events of every kind, oldest first."""
        status, body = self._http.get("/events", {"since": "0", "until": _stamp(until_ns)})
        if status != 200:
            raise EngineAway(f"the engine at {self.address} answered {status} to /events")
        rows = [orjson.loads(line) for line in body.splitlines() if line.strip()]
        return [(int(row.get("timeNano") or 0), parse_event(row)) for row in rows]

    def follow_logs(self, container_id: str, since: str) -> Iterator[bytes]:
        """Multiplexed log bytes with timestamps from ``since`` (seconds.nanoseconds) on, until the container ends.

        The engine sends the log of a container with a terminal unframed; it is framed here, a line a frame.
        """
        facts = self._http.get_json(f"/containers/{container_id}/json")
        if facts is None:
            return
        params = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1", "since": since}
        chunks = self._http.open(f"/containers/{container_id}/logs", params).chunks()
        yield from frame_lines(chunks) if facts["Config"].get("Tty") else chunks


def frame_lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A raw stream as frames of stdout, one a line: type 1, three zeros, big-endian length, the line."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield struct.pack(">BxxxI", 1, len(line) + 1) + line + b"\n"
    if rest:
        yield struct.pack(">BxxxI", 1, len(rest)) + rest


def _stamp(time_ns: int) -> str:
    return f"{time_ns // 1_000_000_000}.{time_ns % 1_000_000_000:09d}"

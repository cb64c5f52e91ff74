"""The Docker engine: listing, inspection, events, log following; only what discovery needs, over the ``docker`` library.

A listing costs the engine and us time, so containers are inspected once, when their id is new; what can change later
(running or not, the name) is in the listing's own rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import requests

from onecollector_resources.discovery.identity import identify_container, parse_time, summary_facts
from onecollector_resources.records import ContainerEvent, ObservedSource
from onecollector_resources.settings import Settings


class EngineAway(RuntimeError):
    """The engine did not answer. What was known stays known: a failed listing is not an empty one."""


class DockerEngine:
    """One engine. Every method raises EngineAway when it does not answer."""

    def __init__(self, address: str, settings: Settings, timeout_s: float = 15) -> None:
        import docker

        self.address, self._settings = address, settings
        self._api: Any = docker.APIClient(base_url=address, timeout=timeout_s)  # pyright: ignore[reportArgumentType]
        self._events: Any = docker.APIClient(base_url=address, timeout=timeout_s)  # pyright: ignore[reportArgumentType]
        self._known: dict[str, ObservedSource] = {}
        self._root = ""

    def use_settings(self, settings: Settings) -> None:
        """Identify every container anew with other settings."""
        self._settings, self._known = settings, {}

    def root(self) -> str:
        """DockerRootDir."""
        if not self._root:
            self._root = self._ask(self._api.info)["DockerRootDir"]
        return self._root

    def clock_and_start(self) -> datetime:
        """The engine's own time now."""
        return parse_time(self._ask(self._api.info)["SystemTime"]) or datetime.now(UTC)

    @staticmethod
    def _ask(call: Any, *args: Any, **kwargs: Any) -> Any:
        import docker.errors

        try:
            return call(*args, **kwargs)
        except docker.errors.NotFound:
            return None
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise EngineAway(f"{type(error).__name__}: {error}") from error

    def list_all(self) -> dict[str, ObservedSource]:
        """Every container by id."""
        rows = self._ask(self._api.containers, all=True) or []
        found: dict[str, ObservedSource] = {}
        for row in rows:
            container_id, running = (
                row["Id"],
                row["State"] in ("running", "paused", "restarting", "created", "removing"),
            )
            known = self._known.get(container_id)
            if known is not None and known.driver != "?":
                name = summary_facts(row)[0]
                if name != known.name or running != known.running:
                    ended = None if running else known.ended or datetime.now(UTC)
                    known = self._renamed(replace(known, running=running, ended=ended), name)
                found[container_id] = known
                continue
            observed = self.inspect(container_id)
            if observed is not None:
                found[container_id] = observed
        self._known = found
        return dict(found)

    def _renamed(self, known: ObservedSource, name: str) -> ObservedSource:
        if name == known.name:
            return known
        return identify_container(
            known.source_id,
            name,
            known.image,
            known.labels,
            self._settings,
            driver=known.driver,
            log_path=known.log_path,
            running=known.running,
            created=known.created,
            ended=known.ended,
        )

    def inspect(self, container_id: str) -> ObservedSource | None:
        """One container; None where it is gone."""
        facts = self._ask(self._api.inspect_container, container_id)
        if facts is None:
            return None
        state, config = facts["State"], facts["Config"]
        running = state.get("Running") or state.get("Status") in ("created", "restarting", "paused")
        driver = facts["HostConfig"]["LogConfig"]["Type"]
        log_path = facts.get("LogPath") or (self.predicted_path(container_id) if driver == "json-file" else "")
        observed = identify_container(
            container_id,
            facts["Name"].lstrip("/"),
            config.get("Image") or "",
            config.get("Labels") or {},
            self._settings,
            driver=driver,
            log_path=log_path,
            running=bool(running),
            created=parse_time(facts.get("Created")) or datetime.now(UTC),
            ended=None if running else parse_time(state.get("FinishedAt")),
        )
        self._known[container_id] = observed
        return observed

    def predicted_path(self, container_id: str) -> str:
        """Where the json-file driver will write."""
        return f"{self.root()}/containers/{container_id}/{container_id}-json.log"

    def from_event(self, event: ContainerEvent) -> ObservedSource:
        """A container that is gone already, described by what its event says of it."""
        facts = dict(event.attributes)
        name, image = facts.pop("name", ""), facts.pop("image", "")
        return identify_container(
            event.source_id,
            name,
            image,
            facts,
            self._settings,
            driver="json-file",
            log_path=self.predicted_path(event.source_id),
            running=True,
            created=datetime.fromtimestamp(event.time_ns / 1e9, UTC),
        )

    def events(self, since_ns: int) -> Iterator[ContainerEvent]:
        """Container events from ``since_ns`` on, first those the engine still remembers, then live ones."""
        import docker.errors

        since = f"{since_ns // 1_000_000_000}.{since_ns % 1_000_000_000:09d}"
        url = f"{self._events.base_url}/v{self._events.api_version}/events"
        params = {"since": since, "filters": json.dumps({"type": ["container"]})}
        try:
            answer = self._events.get(url, params=params, stream=True, timeout=None)
            answer.raise_for_status()
            for line in answer.iter_lines(chunk_size=1):
                if line:
                    event = parse_event(json.loads(line))
                    if event is not None:
                        yield event
        except (docker.errors.DockerException, requests.RequestException, OSError, ValueError) as error:
            raise EngineAway(f"{type(error).__name__}: {error}") from error

    def past_events(self, since_ns: int, until_ns: int) -> Iterator[ContainerEvent]:
        """Container events in a range that lies behind us, as far as the engine remembers."""
        import docker.errors

        def stamp(value: int) -> str:
            return f"{value // 1_000_000_000}.{value % 1_000_000_000:09d}"

        url = f"{self._api.base_url}/v{self._api.api_version}/events"
        params = {"since": stamp(since_ns), "until": stamp(until_ns), "filters": json.dumps({"type": ["container"]})}
        try:
            answer = self._api.get(url, params=params, timeout=15)
            answer.raise_for_status()
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise EngineAway(f"{type(error).__name__}: {error}") from error
        for line in answer.text.splitlines():
            event = parse_event(json.loads(line)) if line.strip() else None
            if event is not None:
                yield event

    def follow_logs(self, container_id: str, since: str) -> Iterator[bytes]:
        """Raw multiplexed log bytes from ``since`` on, until the container ends."""
        import docker

        api: Any = docker.APIClient(base_url=self.address)  # pyright: ignore[reportArgumentType]
        url = f"{api.base_url}/v{api.api_version}/containers/{container_id}/logs"
        params = {"follow": "1", "stdout": "1", "stderr": "1", "timestamps": "1", "since": since}
        try:
            answer = api.get(url, params=params, stream=True, timeout=None)
            answer.raise_for_status()
            while chunk := answer.raw.read1(65_536) if hasattr(answer.raw, "read1") else answer.raw.read(1):
                yield chunk
        except requests.RequestException as error:
            raise EngineAway(f"{type(error).__name__}: {error}") from error
        finally:
            api.close()


def parse_event(row: Mapping[str, Any]) -> ContainerEvent | None:
    """One event of the engine; None for what is not about a container's life."""
    action = str(row.get("Action") or row.get("status") or "").split(":")[0]
    actor = row.get("Actor") or {}
    container_id = actor.get("ID") or row.get("id") or ""
    if action not in ("create", "start", "die", "destroy", "rename", "restart") or len(container_id) != 64:
        return None
    time_ns = int(row.get("timeNano") or int(row.get("time") or 0) * 1_000_000_000)
    return ContainerEvent("docker", action, container_id, time_ns, dict(actor.get("Attributes") or {}))

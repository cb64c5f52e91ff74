"""DiscoveryService: which containers and files there are on this host, seen by listing, hastened by events.

The listing every few seconds is the truth; an event only makes something happen earlier. A listing that fails leaves
what was known as it was. Events missed while we were away are replayed by the engine as far as it remembers; where it
does not reach back that far, one gap says so.
"""

from __future__ import annotations

import glob
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from onecollector_resources.discovery.docker import DockerEngine, EngineAway
from onecollector_resources.discovery.identity import identify_file
from onecollector_resources.discovery.watch import FolderWatch
from onecollector_resources.records import ContainerEvent, Gap, ObservedSource
from onecollector_resources.settings import Settings

log = structlog.get_logger()

LAST_EVENT = "discovery.last_event_ns"
RECONNECT_S = (0.2, 5.0)
"""First and longest pause before the event stream is opened again."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All sources; ``complete`` is false where some could not be listed and are as they were known last."""

    sources: Mapping[str, ObservedSource]
    complete: bool


def watch_prefix(pattern: str) -> Path:
    """The deepest folder of a glob that has no magic in it."""
    parts = []
    for part in Path(pattern).parts[:-1]:
        if re.search(r"[*?\[]", part):
            break
        parts.append(part)
    return Path(*parts) if parts else Path("/")


class DiscoveryService:
    """See the module's text. ``observe`` is called at once for a container that was just created."""

    def __init__(
        self,
        settings: Settings,
        engine: DockerEngine | None,
        *,
        emit: Callable[[ContainerEvent], None],
        observe: Callable[[ObservedSource], None],
        report_gap: Callable[[Gap], None],
        load_value: Callable[[str], str | None],
        save_value: Callable[[str, str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._engine, self._clock = settings, engine, clock
        self._emit, self._observe, self._report = emit, observe, report_gap
        self._load, self._save = load_value, save_value
        self._known: dict[str, ObservedSource] = {}
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._watch = FolderWatch(lambda _folder, _name: self._wake.set(), self._wake.set)
        self._threads: list[threading.Thread] = []
        self.docker_error = ""
        self.last_event_ns = int(self._load(LAST_EVENT) or 0)
        self._saved_ns = self.last_event_ns

    def start(self) -> None:
        """Follow events and files in threads."""
        self._watch.start()
        if self._engine is not None:
            thread = threading.Thread(target=self._follow, name="docker-events", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop following."""
        self._stop.set()
        self._wake.set()
        self._watch.stop()

    def use_settings(self, settings: Settings) -> None:
        """Identify everything anew with other settings."""
        with self._lock:
            self._settings, self._known = settings, {}
        if self._engine is not None:
            self._engine.use_settings(settings)
        self._wake.set()

    def wait_changed(self, timeout_s: float) -> bool:
        """Wait for an event, at most ``timeout_s`` seconds; True where there was one."""
        changed = self._wake.wait(timeout_s)
        self._wake.clear()
        return changed

    def emit_discovery_event(self, event: ContainerEvent) -> None:
        """Tell of something that happened, and let everybody look."""
        self._emit(event)
        self._wake.set()

    def detect_container_log_paths(self) -> list[ObservedSource]:
        """A full listing: containers and declared files, with where their lines are."""
        return list(self.snapshot().sources.values())

    def detect_pod_metadata(self, container_id: str) -> Mapping[str, str]:
        """Labels, name and image of one container; empty where it is unknown."""
        observed = self._known.get(container_id)
        if observed is None and self._engine is not None:
            observed = self._engine.inspect(container_id)
        if observed is None:
            return {}
        return {**observed.labels, "container.name": observed.name, "container.image.name": observed.image}

    def snapshot(self) -> Snapshot:
        """List everything now."""
        complete = True
        found: dict[str, ObservedSource] = dict(self.watch_filesystem())
        if self._engine is not None:
            try:
                found.update(self._engine.list_all())
                self.docker_error = ""
            except EngineAway as error:
                complete = False
                self.docker_error = str(error)
                found.update({key: known for key, known in self._known.items() if known.kind == "container"})
        with self._lock:
            self._known = found
        return Snapshot(dict(found), complete)

    def watch_filesystem(self) -> Iterator[tuple[str, ObservedSource]]:
        """Declared files that are there now; their folders are watched from here on."""
        for declared in self._settings.files:
            prefix = watch_prefix(declared.glob)
            if prefix != Path("/"):
                self._watch.add(prefix)
            for path in glob.iglob(declared.glob, recursive=True):
                try:
                    stat = Path(path).stat()
                except OSError:
                    continue
                if stat.st_mode & 0o170000 != 0o100000:
                    continue
                self._watch.add(Path(path).parent)
                known = identify_file(
                    path, declared, self._settings, created=datetime.fromtimestamp(stat.st_ctime, UTC)
                )
                if known is not None:
                    before = self._known.get(known.source_id)
                    yield known.source_id, before if before is not None and before.driver == "file" else known

    def watch_docker_events(self) -> Iterator[ContainerEvent]:
        """Container events from the last one seen on; ends when the engine goes away."""
        if self._engine is None:
            return
        since = self.last_event_ns or int(self._clock() * 1e9)
        yield from self._engine.events(since)

    def _follow(self) -> None:
        pause = RECONNECT_S[0]
        away_since: int | None = self.last_event_ns or None
        while not self._stop.is_set():
            try:
                if away_since is not None:
                    self._tell_of_the_unknown(away_since)
                    away_since = None
                for event in self.watch_docker_events():
                    pause = RECONNECT_S[0]
                    self._on_event(event)
                    if self._stop.is_set():
                        return
                raise EngineAway("the event stream ended")
            except EngineAway as error:
                self.docker_error = str(error)
                away_since = away_since or self.last_event_ns or int(self._clock() * 1e9)
            self._stop.wait(pause)
            pause = min(RECONNECT_S[1], pause * 2)

    def _on_event(self, event: ContainerEvent) -> None:
        if event.time_ns <= self.last_event_ns and event.action != "create":
            return
        if event.action == "create" and self._engine is not None:
            observed = self._engine.inspect(event.source_id) or self._engine.from_event(event)
            with self._lock:
                self._known[event.source_id] = observed
            self._observe(observed)
        self.last_event_ns = max(self.last_event_ns, event.time_ns)
        # Once a second is enough: what is replayed twice does no harm.
        if self.last_event_ns - self._saved_ns > 1_000_000_000:
            self._save(LAST_EVENT, str(self.last_event_ns))
            self._saved_ns = self.last_event_ns
        self.emit_discovery_event(event)

    def _tell_of_the_unknown(self, since_ns: int) -> None:
        """A gap where containers may have come and gone while nobody looked and the engine does not remember."""
        assert self._engine is not None
        now = self._engine.clock_and_start()
        known = set(self._known)
        created, destroyed, oldest = {}, set(), None
        for event in self._replayed(since_ns, now):
            oldest = min(oldest or event.time_ns, event.time_ns)
            if event.action == "create":
                created[event.source_id] = event
            elif event.action == "destroy":
                destroyed.add(event.source_id)
        began = datetime.fromtimestamp(since_ns / 1e9, UTC)
        for container_id in sorted((set(created) & destroyed) - known):
            event = created[container_id]
            name = event.attributes.get("name", container_id[:12])
            self._report(
                Gap(
                    self._settings.agent.host_name,
                    container_id,
                    "",
                    "",
                    "unknown_containers",
                    datetime.fromtimestamp(event.time_ns / 1e9, UTC),
                    now,
                    None,
                    None,
                    f"container {name} came and went while the agent was away",
                    f"away/{container_id}",
                )
            )
        # An engine that was started anew, or that kept fewer events than happened, cannot tell.
        if oldest is None and (now - began).total_seconds() > 10 and self._engine_younger_than(began):
            self._report(
                Gap(
                    self._settings.agent.host_name,
                    "",
                    "",
                    "",
                    "unknown_containers",
                    began,
                    now,
                    None,
                    None,
                    "unknown containers: the engine does not remember what happened",
                    f"away/{since_ns}",
                )
            )

    def _engine_younger_than(self, when: datetime) -> bool:
        """Whether the engine's run folder is newer than ``when``: it has been started since, and forgot."""
        assert self._engine is not None
        path = Path(self._engine.address.removeprefix("unix://"))
        try:
            return path.stat().st_ctime > when.timestamp()
        except OSError:
            return True

    def _replayed(self, since_ns: int, now: datetime) -> Iterator[ContainerEvent]:
        assert self._engine is not None
        until = int(now.timestamp() * 1e9)
        yield from self._engine.past_events(since_ns, until)

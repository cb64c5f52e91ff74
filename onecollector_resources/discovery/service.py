"""DiscoveryService: which containers and files there are on this host, seen by listing, hastened by events.

The listing every few seconds is the truth; an event only makes something happen earlier: the container that it names is
looked at now instead of at the next listing. A listing that fails leaves what was known as it was. Events missed while
we were away are replayed by the engine as far as it remembers; where it does not reach back that far, one gap says so.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import orjson
import structlog

from onecollector_resources.discovery.docker import DockerEngine, EngineAway
from onecollector_resources.discovery.engine_http import EngineStream
from onecollector_resources.discovery.events import (
    MARGIN_NS,
    REMEMBERED,
    Unheard,
    came_and_went,
    forgotten,
    gap_of_container,
    gap_of_unknown,
    parse_event,
)
from onecollector_resources.discovery.filesystem import DeclaredFiles
from onecollector_resources.records import ContainerEvent, Gap, ObservedSource
from onecollector_resources.settings import Settings

log = structlog.get_logger()

LAST_EVENT = "discovery.last_event_ns"
LISTENED_UNTIL = "discovery.listened_until_ns"
"""Journal keys; both are times of the engine's clock."""

RECONNECT_S = (0.2, 5.0)
"""First and longest pause before the event stream is opened again."""

REMEMBER_EVERY_NS = 5_000_000_000

MOST_LOOKS = 50
"""With more containers than this to look at, one listing is cheaper."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All sources by id; ``complete`` is false where some could not be listed and are as they were known last."""

    sources: Mapping[str, ObservedSource]
    complete: bool


class DiscoveryService:
    """See the module's text. Thread-safe.

    ``emit`` gets every event; ``observe`` is called at once, in the event thread, for a container that was just created.
    ``load_value`` and ``save_value`` keep a few values over our own end. ``kept`` says whether the log of a container
    that is gone was kept all the same. ``clock`` gives epoch seconds.
    """

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
        kept: Callable[[str], bool] = lambda _: False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._engine, self._clock = settings, engine, clock
        self._kept = kept
        self._emit, self._observe, self._report = emit, observe, report_gap
        self._load, self._save = load_value, save_value
        self._host = settings.agent.host_name
        self._lock, self._listing = threading.Lock(), threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._containers: dict[str, ObservedSource] = {}
        self._named: set[str] = set()
        """Containers that events named since they were looked at last."""
        self._listed = float("-inf")
        self._file_sources: Mapping[str, ObservedSource] | None = None
        self._file_wake = threading.Event()
        self._files = DeclaredFiles(settings, self._on_files)
        self._stream: EngineStream | None = None
        self._thread: threading.Thread | None = None
        self._listing_error = self._stream_error = ""
        self.last_event_ns = int(self._load(LAST_EVENT) or 0)
        """Time of the last event seen, on the engine's clock."""
        self._listened_ns = max(int(self._load(LISTENED_UNTIL) or 0), self.last_event_ns)
        self._ahead_ns = 0
        self._saved_ns = self._listened_ns
        self._recent: deque[tuple[int, str, str]] = deque(maxlen=REMEMBERED)
        """Events that were handled: the replay after a break begins with some of them."""
        self._lost: set[str] = set()
        """Containers that are recorded as gaps: their events are replayed, but there is nothing to look at."""

    @property
    def docker_error(self) -> str:
        """Why the engine cannot be listed or listened to now; empty where it can."""
        return self._listing_error or self._stream_error

    @property
    def listening(self) -> bool:
        """Whether the engine's stream of events is open."""
        with self._lock:
            return self._stream is not None

    # -- life

    def start(self) -> None:
        """Follow events and files in threads."""
        self._files.start()
        if self._engine is not None:
            self._thread = threading.Thread(target=self._follow, name="docker-events", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop following; returns when nothing is called back any more."""
        self._stop.set()
        self._wake.set()
        self._file_wake.set()
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.close()
        if self._thread is not None:
            self._thread.join(5)
        self._files.stop()
        self._remember(force=bool(self._listened_ns))

    def use_settings(self, settings: Settings) -> None:
        """Identify everything anew with other settings."""
        with self._listing:
            self._files.stop()
            self._files = DeclaredFiles(settings, self._on_files)
            self._files.start()
            with self._lock:
                self._settings, self._listed = settings, float("-inf")
            if self._engine is not None:
                self._engine.use_settings(settings)
        self._wake.set()

    def wait_changed(self, timeout_s: float) -> bool:
        """Wait for an event, at most ``timeout_s`` seconds; True where there was one."""
        changed = self._wake.wait(timeout_s)
        self._wake.clear()
        return changed

    def emit_discovery_event(self, event: ContainerEvent) -> None:
        """Tell of something that happened, and let everybody look: at one container, or, without an id, at all."""
        self._emit(event)
        with self._lock:
            if event.origin == "docker" and event.source_id:
                self._named.add(event.source_id)
            elif event.origin in ("docker", "agent"):
                self._listed = float("-inf")
        self._wake.set()

    # -- looking

    def detect_container_log_paths(self) -> list[ObservedSource]:
        """A full listing, made now: containers and declared files, with where their lines are."""
        return list(self.snapshot(full=True).sources.values())

    def detect_pod_metadata(self, container_id: str) -> Mapping[str, str]:
        """Labels, name and image of one container; empty where it is unknown. Raises EngineAway."""
        with self._lock:
            observed = self._containers.get(container_id)
        if observed is None and self._engine is not None:
            observed = self._engine.inspect(container_id)
        if observed is None:
            return {}
        return {**observed.labels, "container.name": observed.name, "container.image.name": observed.image}

    def snapshot(self, *, full: bool = False) -> Snapshot:
        """What there is now. The engine lists all with ``full`` or when ``listing_interval_s`` is over.

        In between only containers that events named are looked at, because a listing of 1,000 costs an engine 80 ms.
        """
        with self._listing:
            files = self._files.list_now()
            self._tell_of_files(files.sources)
            complete = files.complete
            if self._engine is not None:
                try:
                    self._look_at_containers(self._engine, full=full)
                    self._listing_error = ""
                    self._remember()
                except EngineAway as error:
                    complete = False
                    self._listing_error = str(error)
            with self._lock:
                return Snapshot({**files.sources, **self._containers}, complete)

    def _look_at_containers(self, engine: DockerEngine, *, full: bool) -> None:
        now = time.monotonic()
        with self._lock:
            named, self._named = self._named, set()
            # Only a live stream tells of everything between two listings.
            quick = self._stream is not None and now - self._listed < self._settings.agent.listing_interval_s
        try:
            if quick and not full and len(named) <= MOST_LOOKS:
                looked = {container_id: engine.inspect(container_id) for container_id in named}
                with self._lock:
                    for container_id, observed in looked.items():
                        if observed is not None:
                            self._containers[container_id] = observed
                        elif container_id not in self._named:
                            self._containers.pop(container_id, None)
                return
            found = engine.list_all()
        except EngineAway:
            with self._lock:
                self._named |= named
            raise
        with self._lock:
            # What was created while the engine listed is known from its event only.
            found.update({key: self._containers[key] for key in self._named if key in self._containers})
            self._containers, self._listed = found, now

    # -- files

    def watch_filesystem(self) -> Iterator[ContainerEvent]:
        """Declared files that appear and go, from now on, until ``stop``. What comes in one burst is one listing."""
        with self._listing:
            before = self._files.list_now().sources
        while not self._stop.is_set():
            self._file_wake.wait(self._settings.agent.listing_interval_s)
            self._file_wake.clear()
            with self._listing:
                now = self._files.list_now().sources
            yield from self._file_events(before, now)
            before = now

    def _on_files(self) -> None:
        self._file_wake.set()
        self._wake.set()

    def _tell_of_files(self, now: Mapping[str, ObservedSource]) -> None:
        before, self._file_sources = self._file_sources, now
        # What is there at the first look did not just happen.
        if before is not None and before != now:
            for event in self._file_events(before, now):
                self._emit(event)

    def _file_events(
        self, before: Mapping[str, ObservedSource], now: Mapping[str, ObservedSource]
    ) -> Iterator[ContainerEvent]:
        time_ns = int(self._clock() * 1e9)
        for action, ids, sources in (
            ("file_created", now.keys() - before.keys(), now),
            ("file_removed", before.keys() - now.keys(), before),
        ):
            for source_id in sorted(ids):
                yield ContainerEvent("filesystem", action, source_id, time_ns, {"path": sources[source_id].log_path})

    # -- events

    def watch_docker_events(self) -> Iterator[ContainerEvent]:
        """Container events since the last one seen, first those the engine remembers, then live ones, until ``stop``.

        Raises EngineAway when the stream breaks or cannot be opened.
        """
        if self._engine is None:
            return
        since_ns = (self.last_event_ns or self._engine_now_ns()) - MARGIN_NS
        stream = self._engine.open_events(since_ns)
        with self._lock:
            self._stream = stream
        if self._stop.is_set():
            stream.close()
        try:
            for line in stream.lines():
                event = parse_event(orjson.loads(line)) if line.strip() else None
                if event is not None and (event.time_ns, event.source_id, event.action) not in self._recent:
                    yield event
        finally:
            with self._lock:
                self._stream = None
            stream.close()
        if not self._stop.is_set():
            raise EngineAway(f"the engine at {self._engine.address} ended its stream of events")

    def _follow(self) -> None:
        """The event thread: listen, and after a break find out what was missed."""
        engine = self._engine
        assert engine is not None
        pause = RECONNECT_S[0]
        unheard_ns, ended_by_engine, away = self._listened_ns, False, True
        while not self._stop.is_set():
            heard = False
            try:
                self._ahead_ns = engine.now_ns() - time.time_ns()
                if unheard_ns:
                    self._catch_up(engine, Unheard(unheard_ns, self._engine_now_ns(), ended_by_engine, away))
                heard, pause = True, RECONNECT_S[0]
                self._stream_error = ""
                # Whatever came and went unheard, the listing has what is there.
                self.emit_discovery_event(ContainerEvent("docker", "resync", "", time.time_ns()))
                for event in self.watch_docker_events():
                    self._on_event(engine, event)
            except EngineAway as error:
                self._stream_error = str(error)
                if heard:
                    log.warning("docker.away", error=str(error))
                    unheard_ns, ended_by_engine, away = self._engine_now_ns(), False, False
                    self._listened_ns = unheard_ns
                else:
                    # An engine that refuses right after the stream's end took it along.
                    ended_by_engine = not away
                    engine.forget()
            except Exception:
                # The outermost edge of this thread: one event that cannot be handled must not end listening.
                log.exception("docker.event_failed")
                unheard_ns, ended_by_engine, away = self._engine_now_ns(), False, False
            self._stop.wait(pause)
            pause = min(RECONNECT_S[1], pause * 2)

    def _on_event(self, engine: DockerEngine, event: ContainerEvent) -> None:
        observed = None
        if event.action in ("create", "start") and event.source_id not in self._lost:
            with self._lock:
                known = event.source_id in self._containers
            if not known:
                observed = engine.inspect(event.source_id) or engine.from_event(event)
        # From here on it counts as seen: should what follows fail, it would fail again.
        self._recent.append((event.time_ns, event.source_id, event.action))
        self.last_event_ns = max(self.last_event_ns, event.time_ns)
        if observed is not None:
            with self._lock:
                self._containers[event.source_id] = observed
                self._named.add(event.source_id)
            self._observe(observed)
        self.emit_discovery_event(event)

    def _catch_up(self, engine: DockerEngine, unheard: Unheard) -> None:
        """Report what may have been missed while nobody listened."""
        remembered, started_ns = engine.remembered(unheard.until_ns), engine.started_ns()
        if started_ns is not None and started_ns > unheard.since_ns and not unheard.away:
            # An engine on this machine that was started since then took the stream along when it ended.
            unheard = replace(unheard, ended_by_engine=True)
        span = forgotten(unheard, [time_ns for time_ns, _ in remembered], started_ns)
        if span is not None:
            self._report(gap_of_unknown(span, self._host))
        if not unheard.away and engine.local:
            # Our process was there, and inotify on the engine's folder saw their files.
            return
        for created, destroyed_ns in came_and_went((e for _, e in remembered if e is not None), unheard.since_ns):
            self._lost.add(created.source_id)
            observed = engine.from_event(created) if self._kept(created.source_id) else None
            if observed is not None:
                ended = datetime.fromtimestamp(destroyed_ns / 1e9, UTC)
                self._observe(replace(observed, running=False, ended=ended))
                continue
            self._report(gap_of_container(created, destroyed_ns, self._host))

    def _engine_now_ns(self) -> int:
        return time.time_ns() + self._ahead_ns

    def _remember(self, *, force: bool = False) -> None:
        """Keep until when we listened: every few seconds is enough, what is replayed twice does no harm."""
        listening = self.listening
        if listening:
            self._listened_ns = self._engine_now_ns()
        if force or (listening and self._listened_ns - self._saved_ns > REMEMBER_EVERY_NS):
            self._save(LAST_EVENT, str(self.last_event_ns))
            self._save(LISTENED_UNTIL, str(self._listened_ns))
            self._saved_ns = self._listened_ns

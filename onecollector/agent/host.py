"""HostAgent: discovery, links, collector and registry of one host, wired together and turned round and round.

One loop looks at everything every few seconds and after every event; each turn makes the links fit what was found, the
registry fit the links, and cleans up. Whatever is away (engine, registry, collector) is tried again in the next turn.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from onecollector.agent.collector_control import CollectorControl
from onecollector.agent.disk_watch import DiskWatch, one_of_each_disk
from onecollector.agent.journal import AgentJournal
from onecollector.agent.reporting import ACTOR, HostReports, source_row
from onecollector_resources.collector.probe import remove_old_probes
from onecollector_resources.discovery.api_spool import ApiSpool
from onecollector_resources.discovery.docker import DockerEngine
from onecollector_resources.discovery.log_links import LinkKeeper
from onecollector_resources.discovery.progress import read_positions
from onecollector_resources.discovery.service import DiscoveryService
from onecollector_resources.records import ContainerEvent, Gap, LogSource, ObservedSource
from onecollector_resources.registry.store import LogSourceRegistry, RegistryError
from onecollector_resources.runtime import Runtime, collector_environment
from onecollector_resources.settings import Settings, SettingsError, config_file, load_settings

log = structlog.get_logger()

QUIET_S = 0.05
"""After an event the loop waits this long for more of them: a burst is one turn."""

PUMP_S = 0.1
GARBAGE_S = 5.0
DISK_S = 0.25
"""A disk that fills at 200 MB/s takes this long for the room that the collector is left."""


class HostAgent:
    """See the module's text."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self.settings, self.runtime, self.layout = settings, runtime, settings.layout
        self.started = time.time()
        self.journal = AgentJournal(self.layout.agent_journal)
        self.collector = CollectorControl(
            layout=self.layout,
            binary=Path(runtime.collector_binary),
            environment=collector_environment(
                self.layout,
                runtime,
                host=settings.agent.host_name,
                environment=settings.environment,
                loki=settings.loki,
            ),
            health_url=runtime.collector_health_url,
            metrics_url=runtime.collector_metrics_url,
            journal=self.journal,
            log_path=self.layout.logs / "collector.log",
            min_free_bytes=settings.collector.min_free_mib << 20,
        )
        self.registry = LogSourceRegistry(settings.registry_url)
        self.reports = HostReports(self.registry, self.journal)
        self.engine = (
            DockerEngine(runtime.docker_host, settings) if settings.docker.enabled and runtime.docker_host else None
        )
        self.keeper = LinkKeeper(
            host=settings.agent.host_name,
            docker_links=Path(runtime.docker_links) if runtime.docker_links else None,
            file_links=self.layout.file_links,
            journal=self.journal,
            read_positions=self._positions,
            report_gap=self._gap,
            settings=settings.agent,
            docker_containers=Path(runtime.docker_containers) if runtime.docker_containers else None,
            own_linker=False,
            backfill_from_ns=runtime.backfill_from_ns,
        )
        self.discovery = DiscoveryService(
            settings,
            self.engine,
            emit=self._emitted,
            observe=self._observed,
            report_gap=self._gap,
            load_value=self.journal.load_value,
            save_value=self.journal.save_value,
            kept=self.keeper.keeps,
        )
        self.disks = DiskWatch(settings.agent.host_name, self._disks(), self._gap)
        self._sources: dict[str, ObservedSource] = {}
        self._ended: dict[str, datetime] = {}
        self._complete = False
        self._spools: dict[str, ApiSpool] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        path = config_file()
        self._settings_stamp = path.stat().st_mtime_ns if path is not None and path.exists() else 0
        self.settings_problem = ""

    # -- life

    def start(self) -> None:
        """Start all threads."""
        self.collector.recover()
        self.keeper.set_live_pipelines(self.collector.pipelines())
        self.keeper.start()
        self.discovery.start()
        for name, target in (("turns", self._turns), ("pump", self._pump), ("disks", self._watch_disks)):
            thread = threading.Thread(target=target, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop; files and journal stay, the collector goes on."""
        self._stop.set()
        self.discovery.stop()
        for thread in self._threads:
            thread.join(5)
        self.keeper.stop()
        self.journal.close()

    def look_now(self) -> None:
        """Let the loop turn at once."""
        self.discovery.emit_discovery_event(ContainerEvent("agent", "resync", "", time.time_ns()))

    def _disks(self) -> dict[Path, str]:
        waited = "queue, registry and journal waited; what was not read yet lay in the containers' logs"
        folders = {self.layout.root: waited, self.layout.collector: waited, self.layout.agent: waited}
        if self.runtime.docker_containers:
            dropped = "the engine may have dropped what containers wrote meanwhile"
            # First: of two folders on one disk the graver one is told.
            folders = {Path(self.runtime.docker_containers): dropped, **folders}
        return one_of_each_disk(folders)

    def _watch_disks(self) -> None:
        while not self._stop.wait(DISK_S):
            try:
                self.collector.pause_where_full()
                self.disks.look(datetime.now(UTC))
            except Exception:
                # The outermost edge of this thread.
                log.exception("disks.failed")

    # -- callbacks

    def _positions(self) -> Mapping[tuple[int, int], int]:
        pid = self.collector.pid()
        return read_positions(pid) if pid is not None else {}

    def _gap(self, gap: Gap) -> None:
        self.journal.add_gap(
            gap if gap.key else replace(gap, key=f"{gap.host}/{gap.source_id}/{gap.cause}/{time.time_ns()}")
        )

    def _emitted(self, event: ContainerEvent) -> None:
        self.journal.add_event(event)

    def _observed(self, observed: ObservedSource) -> None:
        if not observed.excluded and not observed.uncollectable and observed.driver in ("json-file", ""):
            self.keeper.place_now(observed)
        self._sources[observed.source_id] = observed

    # -- turns

    def _turns(self) -> None:
        listed = 0.0
        while not self._stop.is_set():
            changed = self.discovery.wait_changed(
                max(0.0, min(1.0, listed + self.settings.agent.listing_interval_s - time.monotonic()))
            )
            if self._stop.is_set():
                return
            due = time.monotonic() - listed >= self.settings.agent.listing_interval_s
            if changed:
                self._stop.wait(QUIET_S)
            try:
                if changed or due:
                    self._turn()
                    listed = time.monotonic()
                if self.collector.expire():
                    self.keeper.set_live_pipelines(self.collector.pipelines())
            except Exception:
                # The outermost edge of this thread: collection must go on, and the next turn looks at everything anew.
                log.exception("turn.failed")

    def _take_in_settings(self) -> None:
        """A changed settings file: tenants, rules and declared files from now on. A bad one changes nothing and is told."""
        path = config_file()
        try:
            stamp = path.stat().st_mtime_ns if path is not None else 0
        except OSError:
            return
        if stamp == self._settings_stamp:
            return
        self._settings_stamp = stamp
        try:
            fresh = load_settings(path)
        except SettingsError as error:
            self.settings_problem = str(error)
            log.error("settings.refused", error=str(error))
            return
        self.settings_problem = ""
        if fresh == self.settings:
            return
        log.info("settings.changed", path=str(path))
        self.settings = fresh
        self.discovery.use_settings(fresh)
        self.keeper.use_settings(fresh.agent)
        try:
            self.registry.record_event("policy", {"settings": str(path)}, actor=ACTOR, host=fresh.agent.host_name)
        except RegistryError as error:
            # The next look tries again: without the event Dagster would learn of it only at the next full reconcile.
            self._settings_stamp = -1
            log.warning("registry.away", error=str(error))

    def _turn(self) -> None:
        self._take_in_settings()
        snapshot = self.discovery.snapshot()
        self.keeper.set_live_pipelines(self.collector.pipelines())
        self._sources = dict(snapshot.sources)
        self._complete = snapshot.complete
        self.keeper.reconcile(snapshot.sources, complete=snapshot.complete)
        self._follow_logs()
        self._report()

    def _follow_logs(self) -> None:
        for source_id, spool in list(self._spools.items()):
            if not spool.alive():
                if spool.problem:
                    log.warning("spool.broke", source=source_id[:12], problem=spool.problem)
                del self._spools[source_id]
                if spool.ended.is_set():
                    self._ended.setdefault(source_id, datetime.now(UTC))
        if self.engine is None:
            return
        for observed in self.keeper.wants_api():
            source_id = observed.source_id
            if source_id in self._spools:
                continue
            if source_id in self._ended and not observed.running:
                self.keeper.api_ended(source_id)
                continue
            self._ended.pop(source_id, None)
            path = self.keeper.api_spool_file(observed)
            spool = ApiSpool(
                source_id,
                self.engine,
                path,
                lambda s=source_id: self.keeper.next_api_segment(s),
                self.runtime.backfill_from_ns,
                self.keeper.followed(source_id),
            )
            spool.start()
            self._spools[source_id] = spool

    def _rows(self) -> list[LogSource]:
        host, observed_now = self.settings.agent.host_name, dict(self._sources)
        return [
            source_row(host, observed, *self.keeper.phase_of(observed))
            for observed in (*observed_now.values(), *self.keeper.leftovers(observed_now))
        ]

    def _report(self) -> None:
        collector = self.collector
        self.reports.report(
            self.settings.agent.host_name,
            self._rows(),
            complete=self._complete,
            health=lambda: "ok" if collector.healthy() else "degraded",
            config_hash=lambda: collector.hash_of(collector.effective()),
        )

    def _pump(self) -> None:
        cleaned = 0.0
        while not self._stop.wait(PUMP_S):
            try:
                self.keeper.pump_spools()
                if time.monotonic() - cleaned > GARBAGE_S:
                    cleaned = time.monotonic()
                    self._clean()
            except Exception:
                # The outermost edge of this thread.
                log.exception("pump.failed")

    def _clean(self) -> None:
        self.keeper.collect_garbage(time.time())
        remove_old_probes(self.layout.file_links, time.time())
        if self.journal.problem:
            # What could not be written is kept in memory; that the disk was full is the disk watch's gap.
            self.journal.retry()

    # -- what the API shows

    def status(self) -> dict[str, Any]:
        """The host at a glance."""
        text = self.collector.effective()
        links = self.keeper.statuses()
        rows = self._rows()
        modes = Counter(row.mode for row in rows if row.phase in ("collecting", "finished"))
        phases = Counter(row.phase for row in rows)
        queue = self.layout.collector / "queue"
        return {
            "host": self.settings.agent.host_name,
            "pid": os.getpid(),
            "rss_bytes": _rss(),
            "since": self.started,
            "collector": {
                "pid": self.collector.pid(),
                "healthy": self.collector.healthy(),
                "config_hash": self.collector.hash_of(text),
                "since": self.collector.since,
                "state": self.collector.state.state,
                "deadline": self.collector.state.deadline,
                "last_verdict": self.collector.state.last_verdict,
                "last_reason": self.collector.state.last_reason,
                "queue_bytes": _disk_bytes(queue),
                "queued": self.collector.queued(),
            },
            "counts": {
                "containers": sum(1 for row in rows if row.kind == "container"),
                "files": sum(1 for row in rows if row.kind == "file"),
                "linked": modes["link"],
                "spooled": modes["spool"],
                "waiting": phases["waiting"],
                "uncollectable": phases["uncollectable"],
                "links": len(links),
            },
            "behind_bytes": sum(link.behind for link in links if link.placed),
            "docker_error": self.discovery.docker_error,
            "registry_problem": self.reports.problem,
            "journal_problem": self.journal.problem,
            "full_disks": [f"{folder} since {since:%H:%M:%S} UTC" for folder, since in self.disks.full().items()],
            "settings_problem": self.settings_problem,
        }

    def sources(self) -> list[dict[str, Any]]:
        """Every source with the bytes that the collector is behind."""
        behind: Counter[str] = Counter()
        for link in self.keeper.statuses():
            if link.placed:
                behind[link.source_id] += link.behind
        return [
            {
                "source_id": row.source_id,
                "kind": row.kind,
                "name": row.name,
                "tenant": row.tenant,
                "service": row.service,
                "pipeline": row.pipeline,
                "phase": row.phase,
                "mode": row.mode,
                "reason": row.reason,
                "path": row.path,
                "behind": behind[row.source_id],
            }
            for row in self._rows()
        ]


def _disk_bytes(folder: Path) -> int:
    """What its files take on disk. The collector removes some of them meanwhile."""
    total = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def _rss() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0

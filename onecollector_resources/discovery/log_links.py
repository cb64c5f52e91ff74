"""LinkKeeper: keeps a tree of hard links whose names say who wrote a file, one link for every file a source ever had.

A new file is *claimed* under ``.pending`` by the linker the moment it appears, before anybody knows whose it is, because
its container may be gone in a tenth of a second. It is *placed* by a rename when its tenant has a live pipeline and its head
tells it from all others; a head that ties is spooled. ``reconcile`` makes all of this true again from a full listing, so
a lost event costs a few seconds.

A link of a container that ended goes when Loki has shown its last record. Should the container be started again, its
file is linked again under the same segment number; what the collector then reads twice is equal in every part to what
Loki has, and Loki keeps one.

What it does is in ``links``, one module a step; here are the lock, the threads and the order of the steps.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from onecollector_resources.discovery.claims import Claims, Inode
from onecollector_resources.discovery.linker import PENDING, Linker
from onecollector_resources.discovery.links.adopting import Adoption
from onecollector_resources.discovery.links.border import Border
from onecollector_resources.discovery.links.counting import count_new, records_of_link, records_of_row
from onecollector_resources.discovery.links.ending import Ending
from onecollector_resources.discovery.links.gaps import LinkGaps
from onecollector_resources.discovery.links.link import Source
from onecollector_resources.discovery.links.looking import Looking
from onecollector_resources.discovery.links.phase import phase_of
from onecollector_resources.discovery.links.placed_heads import PlacedHeads
from onecollector_resources.discovery.links.placing import Placing
from onecollector_resources.discovery.links.reading import take_positions
from onecollector_resources.discovery.links.spooling import Spools, pump
from onecollector_resources.discovery.links.table import LinkTable
from onecollector_resources.discovery.links_model import LinkJournal, LinkStatus
from onecollector_resources.discovery.retention import Limits
from onecollector_resources.discovery.watch import FolderWatch
from onecollector_resources.records import CollectMode, Gap, ObservedSource, Phase, SegmentRecords
from onecollector_resources.settings import AgentSettings

log = structlog.get_logger()


class LinkKeeper:
    """See the module's text. Thread-safe."""

    def __init__(
        self,
        *,
        host: str,
        docker_links: Path | None,
        file_links: Path,
        journal: LinkJournal,
        read_positions: Callable[[], Mapping[Inode, int]],
        report_gap: Callable[[Gap], None],
        settings: AgentSettings,
        docker_containers: Path | None = None,
        own_linker: bool = True,
        backfill_from_ns: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lock, self._positions = threading.RLock(), read_positions
        self._watch = FolderWatch(self._on_name, self._on_lost)
        for tree in (docker_links, file_links):
            if tree is not None:
                (tree / PENDING).mkdir(parents=True, exist_ok=True, mode=0o700)
        self.claims: Claims | None = None
        self._linker: Linker | None = None
        if docker_containers is not None and docker_links is not None:
            self.claims = Claims(docker_containers, docker_links)
            # A host has a linker process; where this is all there is, a thread does its work.
            self._linker = Linker(docker_containers, docker_links) if own_linker else None
        table = self._table = LinkTable(docker_links, file_links, journal, self.claims, clock)
        gaps = self._gaps = LinkGaps(host, report_gap, clock)
        border, heads = Border(backfill_from_ns, gaps), PlacedHeads(table)
        self._spools = Spools(table, border)
        self._placing = Placing(table, heads, self._spools, border)
        self._adoption = Adoption(table, self._placing, heads, self._spools, gaps)
        self._looking = Looking(table, self._adoption, self._spools, docker_containers, self._watch.add)
        self._ending = Ending(table, heads, self._spools, gaps, limits_of(settings))
        table.load()
        self._adoption.find_left()

    # -- life

    def start(self) -> None:
        """Watch for new files."""
        if self.claims is not None:
            self._watch.add(self.claims.pending)
            self.claims.list_all()
        self._watch.start()
        if self._linker is not None:
            threading.Thread(target=self._linker.run, name="linker", daemon=True).start()

    def stop(self) -> None:
        """Stop watching; files stay where they are."""
        if self._linker is not None:
            self._linker.stop()
        self._watch.stop()
        with self._lock:
            for link in self._spools.copying():
                self._spools.close(link)

    # -- events

    def _on_name(self, folder: Path, name: str) -> None:
        if self.claims is not None and folder == self.claims.pending:
            container_id = self.claims.arrived(name)
            if container_id is not None:
                with self._lock:
                    source = self._table.sources.get(container_id)
                    if source is not None:
                        self._adoption.adopt_claims(source)
            return
        with self._lock:
            for source in self._table.sources.values():
                if source.observed.kind == "file" and Path(source.observed.log_path).parent == folder:
                    self._looking.look(source, force=True)

    def _on_lost(self) -> None:
        log.warning("inotify.overflow", fix="raise fs.inotify.max_queued_events")
        if self.claims is not None:
            self.claims.list_all()
        with self._lock:
            for source in self._table.sources.values():
                self._looking.look(source, force=True)

    # -- what is there

    def place_now(self, observed: ObservedSource) -> None:
        """The fast path for a container that was just created."""
        with self._lock:
            source = self._take_in(observed)
            if observed.kind == "container" and self.claims is not None:
                self.claims.sweep(observed.source_id)
                self._adoption.adopt_claims(source)

    def reconcile(self, observed: Mapping[str, ObservedSource], *, complete: bool = True) -> None:
        """Make the tree fit a full set of sources. With ``complete`` false nothing is taken for gone."""
        if self.claims is not None:
            self.claims.list_all()
        for one in observed.values():
            # Held for one source at a time: a container that was just created must not wait for a thousand others.
            with self._lock:
                try:
                    self._looking.look(self._take_in(one))
                except OSError as error:
                    # One source's trouble is not that of the others; the next turn tries again.
                    log.warning("source.failed", source=one.source_id[:12], error=str(error))
        with self._lock:
            if complete:
                self._adoption.adopt_gone(observed.keys())
                for source_id, source in self._table.sources.items():
                    if source_id not in observed:
                        self._ending.end_source(source)
                self._adoption.drop_stale_claims(observed.keys())
            self._placing.place_all()
            self._track()

    def _take_in(self, observed: ObservedSource) -> Source:
        source = self._table.sources.get(observed.source_id)
        if source is None:
            source = self._table.sources[observed.source_id] = Source(observed)
            self._adoption.adopt_left(source)
        else:
            source.describe(observed)
        if observed.excluded or observed.uncollectable:
            if self.claims is not None:
                self.claims.release(observed.source_id)
            return source
        if self.claims is not None:
            self.claims.accept(observed.source_id)
        self._adoption.adopt_claims(source)
        return source

    def set_live_pipelines(self, live: frozenset[tuple[str, str]]) -> None:
        """The (tenant, pipeline) pairs that the running config collects."""
        with self._lock:
            if live != self._placing.live:
                self._placing.live = live
                self._placing.place_all()

    # -- spools

    def pump_spools(self) -> int:
        """Copy what is new into all file spools; answers the number of records. Called every 100 ms or so."""
        with self._lock:
            links = self._spools.copying()
        return pump(links, datetime.now(UTC))

    def api_spool_file(self, observed: ObservedSource, segment: int | None = None) -> Path:
        """The file that a container's log API is followed into; a new segment closes the one before."""
        with self._lock:
            return self._spools.api_file(self._take_in(observed), segment)

    def next_api_segment(self, source_id: str) -> Path:
        """Begin the next spool file of a container."""
        with self._lock:
            source = self._table.sources[source_id]
            return self.api_spool_file(source.observed, source.next_segment)

    def followed(self, source_id: str) -> tuple[str, int]:
        """How far a container's log API was followed in files that were ended: time of a record, records of that time."""
        with self._lock:
            return self._spools.followed(source_id)

    def api_ended(self, source_id: str) -> None:
        """The log API of a container that ended was followed to its end: its spools grow no more."""
        with self._lock:
            source = self._table.sources.get(source_id)
            if source is not None and not source.observed.running:
                for link in source.links.values():
                    self._table.set_finished(link)

    def wants_api(self) -> list[ObservedSource]:
        """Containers whose log API has to be followed."""
        with self._lock:
            return [
                source.observed
                for source in self._table.sources.values()
                if self._spools.wants_api(source)
                and (source.observed.tenant, source.observed.pipeline) in self._placing.live
            ]

    # -- the end

    def mark_delivered(self, items: Iterable[tuple[str, int, int]]) -> int:
        """Loki has shown ``records`` of (source_id, segment); answers how many files are thereby done."""
        with self._lock:
            return self._ending.mark_delivered(items)

    def use_settings(self, settings: AgentSettings) -> None:
        """Other limits, from now on."""
        with self._lock:
            self._ending.limits = limits_of(settings)

    def collect_garbage(self, now: float) -> int:
        """Remove finished links that were delivered, and undelivered ones that must go (gaps); answers how many."""
        with self._lock:
            self._track()
            return self._ending.collect_garbage(now)

    # -- what others see

    def _track(self) -> None:
        take_positions(self._table.links(), self._positions(), self._gaps)

    def segment_records(self, source_ids: Iterable[str] | None = None) -> list[SegmentRecords]:
        """What was written, per file: of all sources, or of these."""
        wanted = None if source_ids is None else set(source_ids)
        out = []
        with self._lock:
            self._track()
            for source_id, source in self._table.sources.items():
                if wanted is not None and source_id not in wanted:
                    continue
                for link in source.links.values():
                    if link.placed:
                        count_new(link)
                        out.append(records_of_link(link))
                for segment, row in self._table.rows_of(source_id).items():
                    if segment not in source.links and row.delivered:
                        out.append(records_of_row(row, source.observed))
        return out

    def statuses(self) -> list[LinkStatus]:
        """Every link."""
        with self._lock:
            return [link.status() for link in self._table.links()]

    def phase_of(self, observed: ObservedSource) -> tuple[Phase, CollectMode, str]:
        """What the registry shows of a source."""
        with self._lock:
            return phase_of(observed, self._table.sources.get(observed.source_id))

    def keeps(self, container_id: str) -> bool:
        """Whether a file of this container waits for somebody to say whose it is."""
        with self._lock:
            left = self._adoption.keeps(container_id)
        return left or (self.claims is not None and container_id in self.claims.waiting())

    def leftovers(self, known: Iterable[str]) -> list[ObservedSource]:
        """Sources that are gone from the host while files of theirs are still in the tree."""
        here = set(known)
        with self._lock:
            return [s.observed for source_id, s in self._table.sources.items() if source_id not in here and s.links]


def limits_of(settings: AgentSettings) -> Limits:
    """When undelivered links may go."""
    return Limits(settings.finished_max_age_s, settings.links_max_bytes, settings.free_space_floor_bytes)

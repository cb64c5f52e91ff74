"""LinkKeeper: keeps a tree of hard links whose names say who wrote a file, one link for every file a source ever had.

A new file is *claimed* under ``.pending`` by the linker the moment it appears, before anybody knows whose it is, because
its container may be gone in a tenth of a second. It is *placed* by a rename when its tenant has a live pipeline and its head
tells it from all others; a head that ties is spooled. ``reconcile`` makes all of this true again from a full listing, so
a lost event costs a few seconds.

A link of a container that ended goes when Loki has shown its last record. Should the container be started again, its
file is linked again under the same segment number; what the collector then reads twice is equal in every part to what
Loki has, and Loki keeps one.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog

from onecollector_resources.discovery.backfill import left_out
from onecollector_resources.discovery.claims import Claims, Done, Inode, inode_of, mark_of
from onecollector_resources.discovery.heads import FINGERPRINT, judge_plain, judge_timed
from onecollector_resources.discovery.linker import CLAIM, PENDING, Linker
from onecollector_resources.discovery.links_model import (
    PROBES,
    LinkJournal,
    LinkRow,
    LinkStatus,
    link_name,
    parse_path,
)
from onecollector_resources.discovery.retention import Held, Limits, links_to_drop
from onecollector_resources.discovery.spool import FileSpool
from onecollector_resources.discovery.watch import FolderWatch
from onecollector_resources.records import (
    CollectMode,
    Gap,
    GapCause,
    ObservedSource,
    Phase,
    SegmentRecords,
    pipeline_name,
)
from onecollector_resources.settings import AgentSettings

log = structlog.get_logger()

COUNT_BLOCK = 1 << 20
REST_S = 30.0
"""A container that has ended is looked at this seldom: it changes only with an event, or with one that was missed."""

COMPLETE = rb'\n","stream"'
"""Ends the text of a whole line in Docker's JSON; a part of a long line has no ``\n`` there."""


@dataclass(slots=True)
class Link:
    """A link in memory. ``path`` is where it lies now, ``reason`` why it is not placed."""

    observed: ObservedSource
    segment: int
    path: Path
    inode: Inode
    mode: Literal["link", "spool"] = "link"
    placed: bool = False
    finished: bool = False
    delivered: bool = False
    reason: str = ""
    created: float = 0.0
    records: int = 0
    joined: int = 0
    counted: int = 0
    read: int = 0
    left_out: int = 0
    """Records 1 to this are older than the backfill's border."""
    truncated: bool = False
    spool: FileSpool | None = None
    source: Path | None = None
    """What a spool copies: a pending link, or a file on another file system."""
    head: bytes = b""

    @property
    def key(self) -> tuple[str, int]:
        return (self.observed.source_id, self.segment)

    def row(self) -> LinkRow:
        return LinkRow(
            self.observed.source_id,
            self.segment,
            *self.inode,
            self.mode,
            self.finished,
            self.delivered,
            self.records,
            self.joined,
            self.counted,
            self.read,
            self.created,
            self.truncated,
            left_out=self.left_out,
        )


@dataclass(slots=True)
class _Source:
    observed: ObservedSource
    links: dict[int, Link] = field(default_factory=dict)
    folder_mtime: int = -1
    next_segment: int = 0
    done: dict[Inode, Done] = field(default_factory=dict)
    """Delivered files whose links went while the files may still be there."""
    spool_reason: str = ""
    rested: datetime | None = None
    """When it had ended, as of the last look at its folder; None while it runs."""
    look_again: float = 0.0
    """A folder of one that rests is looked at again then, should an event have been missed."""


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
        clock: Callable[[], float] | None = None,
    ) -> None:
        import time

        self.host, self.docker_links, self.file_links = host, docker_links, file_links
        self.containers, self._backfill_from_ns = docker_containers, backfill_from_ns
        self._journal, self._positions, self._report = journal, read_positions, report_gap
        self._settings, self._clock = settings, clock or time.time
        self._lock = threading.RLock()
        self._sources: dict[str, _Source] = {}
        self._live: frozenset[tuple[str, str]] = frozenset()
        self._long_heads: dict[bytes, Inode] = {}
        self._rows: dict[tuple[str, int], LinkRow] = {(row.source_id, row.segment): row for row in journal.load_links()}
        self._watch = FolderWatch(self._on_name, self._on_lost)
        self._orphans: dict[str, list[Path]] = {}
        for tree in self._trees():
            (tree / PENDING).mkdir(parents=True, exist_ok=True, mode=0o700)
        self.claims = (
            Claims(docker_containers, docker_links)
            if docker_containers is not None and docker_links is not None
            else None
        )
        # A host has a linker process; where this is all there is, a thread does its work.
        self._linker = (
            Linker(docker_containers, docker_links)
            if own_linker and docker_containers is not None and docker_links is not None
            else None
        )
        self._recover()

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
            for source in self._sources.values():
                for link in source.links.values():
                    if link.spool is not None:
                        link.spool.close()

    def _trees(self) -> list[Path]:
        return [tree for tree in (self.docker_links, self.file_links) if tree is not None]

    def _recover(self) -> None:
        """Find what an earlier process left: claims, and placed or pending links by their names."""
        for tree in self._trees():
            for path in sorted((tree / PENDING).iterdir()):
                if CLAIM.fullmatch(path.name) is None:
                    self._orphans.setdefault(_id_of(path.name), []).append(path)
            for path in sorted(tree.glob("*/*/*/*.log")):
                named = parse_path(path, tree)
                if named is not None and named.service != PROBES:
                    self._orphans.setdefault(named.source_id, []).append(path)

    # -- events

    def _on_name(self, folder: Path, name: str) -> None:
        if self.claims is not None and folder == self.claims.pending:
            container_id = self.claims.arrived(name)
            if container_id is not None:
                with self._lock:
                    source = self._sources.get(container_id)
                    if source is not None:
                        self._adopt(source)
            return
        with self._lock:
            files = [
                s
                for s in self._sources.values()
                if s.observed.kind == "file" and Path(s.observed.log_path).parent == folder
            ]
            for source in files:
                self._look(source, force=True)

    def _on_lost(self) -> None:
        log.warning("inotify.overflow", fix="raise fs.inotify.max_queued_events")
        if self.claims is not None:
            self.claims.list_all()
        with self._lock:
            for source in self._sources.values():
                self._look(source, force=True)

    def _cannot_link(self, source: _Source, error: OSError) -> None:
        if not source.spool_reason:
            source.spool_reason = f"cannot be linked ({error.strerror}); its log is followed"
            log.warning("link.impossible", source=source.observed.source_id[:12], error=str(error))

    # -- what is there

    def place_now(self, observed: ObservedSource) -> None:
        """The fast path for a container that was just created."""
        with self._lock:
            source = self._take_in(observed)
            if observed.kind == "container" and self.claims is not None:
                self.claims.sweep(observed.source_id)
                self._adopt(source)

    def reconcile(self, observed: Mapping[str, ObservedSource], *, complete: bool = True) -> None:
        """Make the tree fit a full set of sources. With ``complete`` false nothing is taken for gone."""
        if self.claims is not None:
            self.claims.list_all()
        for one in observed.values():
            with self._lock:
                source = self._take_in(one)
                self._look(source)
        with self._lock:
            if complete:
                for source_id, source in self._sources.items():
                    if source_id not in observed:
                        self._ended(source)
                for source_id, claims in (self.claims.waiting() if self.claims is not None else {}).items():
                    if source_id not in observed and source_id not in self._sources:
                        self._drop_stale_claims(source_id, claims)
            self._place_all()
            self._track()

    def _take_in(self, observed: ObservedSource) -> _Source:
        source = self._sources.get(observed.source_id)
        if source is None:
            source = _Source(observed)
            self._sources[observed.source_id] = source
            self._adopt_orphans(source)
        else:
            source.observed = observed
            for link in source.links.values():
                link.observed = _kept_identity(link, observed)
        if observed.excluded or observed.uncollectable:
            if self.claims is not None:
                self.claims.release(observed.source_id)
        else:
            if self.claims is not None:
                self.claims.accept(observed.source_id)
            self._adopt(source)
        return source

    def _look(self, source: _Source, *, force: bool = False) -> None:
        """List a source's folder where it changed, and link what is new."""
        observed = source.observed
        if observed.excluded or observed.uncollectable or not observed.log_path:
            return
        if observed.kind == "file":
            self._look_at_file(source)
        elif (
            self.containers is not None
            and self.claims is not None
            and not source.spool_reason
            and (force or not self._rests(source))
        ):
            self._look_at_folder(source, self.claims, self.containers / observed.source_id, force=force)
        newest = max(source.links, default=-1)
        for segment, link in source.links.items():
            finished = segment < newest or not observed.running
            if finished != link.finished:
                link.finished = finished
                self._journal.save_link(link.row())

    def _rests(self, source: _Source) -> bool:
        """Whether a container ended before the last look, which is not long ago: its folder stays as it is."""
        observed, now = source.observed, self._clock()
        if (
            not observed.running
            and source.rested == observed.ended is not None
            and 0 <= source.look_again - now <= REST_S
        ):
            return True
        source.rested, source.look_again = (None if observed.running else observed.ended), now + REST_S
        return False

    def _look_at_folder(self, source: _Source, claims: Claims, folder: Path, *, force: bool) -> None:
        source_id = source.observed.source_id
        try:
            mtime = folder.stat().st_mtime_ns
        except OSError:
            mtime = -1
        if force or mtime != source.folder_mtime:
            source.folder_mtime = mtime
            claims.sweep(source_id)
            self._adopt(source)
            refused = claims.refused(source_id)
            if refused is not None:
                self._cannot_link(source, refused)
        self._reopen_grown(source)

    def _reopen_grown(self, source: _Source) -> None:
        """A container that was started again goes on in a file whose link had gone."""
        path = Path(source.observed.log_path)
        try:
            stat = path.stat()
        except OSError:
            return
        inode = (stat.st_dev, stat.st_ino)
        was = source.done.get(inode)
        if was is None or stat.st_size <= was.size or self.docker_links is None or self.claims is None:
            return
        if not was.is_at(path):
            # Another file under the number of one that is gone: a claim's business.
            del source.done[inode]
            return
        del source.done[inode]
        self.claims.reopen(source.observed.source_id, inode)
        target = (
            self.docker_links / PENDING / link_name(source.observed.safe_name, source.observed.source_id, was.segment)
        )
        try:
            target.unlink(missing_ok=True)
            os.link(path, target, follow_symlinks=False)
        except OSError as error:
            self._cannot_link(source, error)
            return
        self._add(source, was.segment, target, inode)

    def _look_at_file(self, source: _Source) -> None:
        path = Path(source.observed.log_path)
        self._watch.add(path.parent)
        try:
            stat = path.stat()
        except OSError:
            return
        inode = (stat.st_dev, stat.st_ino)
        current = next((link for link in source.links.values() if link.inode == inode), None)
        if current is not None:
            return
        done = source.done.pop(inode, None)
        same = done is not None and done.is_at(path)
        if done is not None and same and stat.st_size == done.size:
            source.done[inode] = done
            return
        segment = done.segment if done is not None and same else source.next_segment
        target = self.file_links / PENDING / link_name(source.observed.safe_name, source.observed.source_id, segment)
        try:
            target.unlink(missing_ok=True)
            os.link(path, target, follow_symlinks=True)
        except OSError as error:
            source.spool_reason = f"cannot be linked ({error.strerror}); it is copied"
            self._spool(source, segment, path, inode, "plain")
            return
        self._add(source, segment, target, inode)

    # -- adopting

    def _adopt(self, source: _Source) -> None:
        """Turn a source's claims into links, in the order in which their files were made."""
        claims = self.claims.take(source.observed.source_id) if self.claims is not None else []
        if not claims:
            return
        for path, inode in claims:
            # A number of a file that is gone may be another file's by now.
            source.done.pop(inode, None)
            segment = source.next_segment
            target = path.parent / link_name(source.observed.safe_name, source.observed.source_id, segment)
            try:
                path.rename(target)
            except FileNotFoundError:
                continue
            self._add(source, segment, target, inode)
        newest = max(source.links, default=-1)
        for segment, link in source.links.items():
            if segment < newest and not link.finished:
                link.finished = True
                self._journal.save_link(link.row())
        self._place_source(source)

    def _add(self, source: _Source, segment: int, path: Path, inode: Inode) -> Link:
        link = Link(source.observed, segment, path, inode, created=self._clock())
        row = self._rows.get((source.observed.source_id, segment))
        if row is not None and (row.dev, row.ino) == inode:
            link.records, link.joined, link.counted, link.read = row.records, row.joined, row.counted, row.read
            link.created, link.truncated, link.left_out = row.created, row.truncated, row.left_out
        source.links[segment] = link
        source.done.pop(inode, None)
        if self.claims is not None and source.observed.kind == "container":
            self.claims.know(source.observed.source_id, inode)
        source.next_segment = max(source.next_segment, segment + 1)
        self._journal.save_link(link.row())
        return link

    def _adopt_orphans(self, source: _Source) -> None:
        """Links and numbers that an earlier process left."""
        source_id = source.observed.source_id
        for (known_id, segment), row in self._rows.items():
            if known_id == source_id:
                source.next_segment = max(source.next_segment, segment + 1)
                if row.delivered and row.mark:
                    done = Done(segment, row.counted, row.mark)
                    source.done[(row.dev, row.ino)] = done
                    if self.claims is not None:
                        self.claims.let_go(source_id, (row.dev, row.ino), done)
        for path in self._orphans.pop(source_id, ()):
            tree = next(tree for tree in self._trees() if tree in path.parents)
            named = parse_path(path, tree)
            segment = (
                named.segment
                if named
                else int(path.name.rsplit(".", 2)[-2])
                if path.name.count(".") > 1 and path.name.rsplit(".", 2)[-2].isdigit()
                else 0
            )
            row = self._rows.get((source_id, segment))
            inode = inode_of(path)
            if row is not None and row.mode == "spool":
                origin = self._spool_origin(source, segment)
                if named is None:
                    continue
                self._resume_spool(source, segment, path, origin, (row.dev, row.ino))
                continue
            link = self._add(source, segment, path, inode)
            if named is not None:
                link.placed = True
                link.observed = replace(
                    source.observed,
                    tenant=named.tenant,
                    service=named.service,
                    safe_name=named.safe_name,
                )
                self._remember_head(link)

    def _drop_stale_claims(self, source_id: str, claims: list[tuple[Path, Inode]]) -> None:
        """Files of a container nobody ever described: kept a minute for its description, then a recorded gap."""
        assert self.claims is not None
        age = self._clock() - min(path.lstat().st_ctime for path, _ in claims)
        if age < 60:
            return
        size = sum(path.stat().st_size for path, _ in claims)
        detail = f"container {source_id[:12]} was gone before it could be described"
        self._gap(None, "unknown_containers", size, detail, source_id)
        self.claims.release(source_id)
        self.claims.forget(source_id)

    # -- placing

    def set_live_pipelines(self, live: frozenset[tuple[str, str]]) -> None:
        """The (tenant, pipeline) pairs that the running config collects."""
        with self._lock:
            if live != self._live:
                self._live = live
                self._place_all()

    def _place_all(self) -> None:
        for source in self._sources.values():
            self._place_source(source)

    def _place_source(self, source: _Source) -> None:
        for link in list(source.links.values()):
            if not link.placed:
                self._place(source, link)

    def _place(self, source: _Source, link: Link) -> None:
        observed = source.observed
        if observed.held:
            link.reason = observed.held
            return
        if (observed.tenant, observed.pipeline) not in self._live:
            link.reason = f"no live pipeline for {observed.tenant}/{observed.pipeline} yet"
            return
        try:
            with link.path.open("rb") as file:
                link.head = file.read(FINGERPRINT)
        except FileNotFoundError:
            source.links.pop(link.segment, None)
            return
        if observed.profile == "plain":
            verdict = judge_plain(link.head, self._plain_heads())
        else:
            verdict = judge_timed(link.head, self._long_heads, finished=link.finished)
        if verdict == "wait":
            link.reason = "empty so far" if not link.head else "its first line is not whole yet"
            return
        if verdict == "tie":
            self._spool_tie(source, link)
            return
        tree = next(tree for tree in self._trees() if tree in link.path.parents)
        target = tree / observed.tenant / observed.pipeline / observed.service / link.path.name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        link.path.rename(target)
        link.path, link.placed, link.reason, link.observed = target, True, "", observed
        self._remember_head(link)
        self._leave_out(link, target)
        self._journal.save_link(link.row())

    def _leave_out(self, link: Link, path: Path) -> None:
        """Tell what the collector drops of a file that began long before us; counting goes on behind it."""
        if link.counted or link.left_out:
            return
        try:
            records, size = left_out(path, link.observed.profile, self._backfill_from_ns)
        except OSError as error:
            link.reason = f"cannot be counted: {error.strerror}"
            return
        if not records:
            return
        link.left_out = link.records = records
        link.counted = size
        border = datetime.fromtimestamp(self._backfill_from_ns / 1e9, UTC)
        detail = f"written before {border:%Y-%m-%d %H:%M:%S} UTC, where agent.backfill_horizon_s begins"
        self._gap(link, "backfill_horizon", size, detail, lines=records)

    def _remember_head(self, link: Link) -> None:
        if not link.head:
            try:
                with link.path.open("rb") as file:
                    link.head = file.read(FINGERPRINT)
            except OSError:
                return
        if len(link.head) >= FINGERPRINT and b"\n" not in link.head:
            self._long_heads[link.head] = link.inode

    def _plain_heads(self) -> list[bytes]:
        heads = []
        for source in self._sources.values():
            if source.observed.profile != "plain":
                continue
            for link in source.links.values():
                if link.placed and link.mode == "link":
                    if len(link.head) < FINGERPRINT:
                        try:
                            with link.path.open("rb") as file:
                                link.head = file.read(FINGERPRINT)
                        except OSError:
                            continue
                    heads.append(link.head)
        return heads

    # -- spools

    def _spool_tie(self, source: _Source, link: Link) -> None:
        framing: Literal["docker", "plain"] = "docker" if source.observed.profile == "docker" else "plain"
        # The source of the copy is the pending link: it keeps the file whatever becomes of its name.
        del source.links[link.segment]
        self._spool(source, link.segment, link.path, link.inode, framing)

    def _spool_path(self, source: _Source, segment: int) -> Path:
        observed = source.observed
        folder = self.file_links / observed.tenant / pipeline_name("docker", observed.multiline) / observed.service
        return folder / link_name(observed.safe_name, observed.source_id, segment)

    def _spool_origin(self, source: _Source, segment: int) -> Path | None:
        name = link_name(source.observed.safe_name, source.observed.source_id, segment)
        options = [tree / PENDING / name for tree in self._trees()]
        if source.observed.kind == "file":
            options.append(Path(source.observed.log_path))
        return next((path for path in options if path.exists()), None)

    def _spool(
        self, source: _Source, segment: int, origin: Path, inode: Inode, framing: Literal["docker", "plain"]
    ) -> None:
        path = self._spool_path(source, segment)
        spool = FileSpool(origin, path, framing)
        path.touch(mode=0o600)
        link = self._add(source, segment, path, inode)
        link.mode, link.placed, link.spool, link.source = "spool", True, spool, origin
        link.reason = (
            "spooled: starts like another file" if not source.spool_reason else f"spooled: {source.spool_reason}"
        )
        if framing == "docker":
            self._leave_out(link, origin)
        self._journal.save_link(link.row())

    def _resume_spool(self, source: _Source, segment: int, path: Path, origin: Path | None, inode: Inode) -> None:
        link = self._add(source, segment, path, inode)
        link.mode, link.placed, link.source, link.reason = "spool", True, origin, "spooled"
        if origin is not None and inode_of(origin) == inode:
            link.spool = FileSpool(origin, path, "docker" if source.observed.profile == "docker" else "plain")
        self._journal.save_link(link.row())

    def pump_spools(self) -> int:
        """Copy what is new into all file spools; answers the number of records. Called every 100 ms or so."""
        copied = 0
        with self._lock:
            links = [
                link for source in self._sources.values() for link in source.links.values() if link.spool is not None
            ]
        now = datetime.now(UTC)
        for link in links:
            spool = link.spool
            if spool is None:
                continue
            try:
                copied += spool.pump(now, final=link.finished)
            except OSError as error:
                link.reason = f"spool: {error.strerror}"
        return copied

    def api_spool_file(self, observed: ObservedSource, segment: int | None = None) -> Path:
        """The file that a container's log API is followed into; a new segment closes the one before."""
        with self._lock:
            source = self._take_in(observed)
            source.spool_reason = source.spool_reason or f"log driver {observed.driver} keeps no file"
            if segment is None and source.links:
                return source.links[max(source.links)].path
            number = source.next_segment if segment is None else segment
            for link in source.links.values():
                link.finished = True
            path = self._spool_path(source, number)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.touch(mode=0o600)
            link = self._add(source, number, path, inode_of(path))
            link.mode, link.placed, link.reason = "spool", True, f"spooled: {source.spool_reason}"
            self._journal.save_link(link.row())
            return path

    def next_api_segment(self, source_id: str) -> Path:
        """Begin the next spool file of a container."""
        with self._lock:
            source = self._sources[source_id]
            return self.api_spool_file(source.observed, source.next_segment)

    def wants_api(self) -> list[ObservedSource]:
        """Containers whose log API has to be followed."""
        with self._lock:
            out = []
            for source in self._sources.values():
                observed = source.observed
                if observed.kind != "container" or observed.excluded or observed.uncollectable or observed.held:
                    continue
                if (observed.tenant, observed.pipeline) not in self._live:
                    continue
                no_file = (
                    observed.driver not in ("json-file", "") or self.docker_links is None or bool(source.spool_reason)
                )
                if (no_file and not all(link.finished for link in source.links.values())) or (
                    no_file and not source.links
                ):
                    out.append(observed)
            return out

    # -- the end

    def _ended(self, source: _Source) -> None:
        for link in source.links.values():
            if not link.finished:
                link.finished = True
                self._journal.save_link(link.row())
        if source.observed.running:
            source.observed = replace(source.observed, running=False, ended=source.observed.ended or datetime.now(UTC))

    def mark_delivered(self, items: Iterable[tuple[str, int, int]]) -> int:
        """Loki has shown ``records`` of (source_id, segment); answers how many files are thereby done."""
        done = 0
        with self._lock:
            for source_id, segment, records in items:
                source = self._sources.get(source_id)
                link = source.links.get(segment) if source else None
                if link is None or not link.finished:
                    continue
                self._count(link)
                if records >= link.records and not link.delivered:
                    link.delivered = True
                    done += 1
                    self._journal.save_link(link.row())
        return done

    def collect_garbage(self, now: float) -> int:
        """Remove finished links that were delivered, and undelivered ones that must go (gaps); answers how many."""
        with self._lock:
            self._track()
            finished = {link.key: link for s in self._sources.values() for link in s.links.values() if link.finished}
            held = [
                Held(*key, link.created, _size(link.path), link.read, link.delivered) for key, link in finished.items()
            ]
            free = shutil.disk_usage(self.docker_links or self.file_links).free
            limits = Limits(
                self._settings.finished_max_age_s, self._settings.links_max_bytes, self._settings.free_space_floor_bytes
            )
            drops = links_to_drop(held, limits, now=now, free=free)
            for drop in drops:
                link = finished[(drop.held.source_id, drop.held.segment)]
                if drop.cause is not None and drop.held.size > drop.held.read:
                    self._gap(
                        link, drop.cause, drop.held.size - drop.held.read, "dropped before the collector had read it"
                    )
                elif drop.cause is not None:
                    self._gap(link, drop.cause, None, "dropped before Loki had shown its last line", lines=None)
                self._remove(link)
            for source_id in [
                i
                for i, s in self._sources.items()
                if not s.links and not s.observed.running and s.observed.ended is not None
            ]:
                source = self._sources[source_id]
                if not Path(source.observed.log_path or "/nonexistent").exists() and not (
                    self.claims is not None and source_id in self.claims.waiting()
                ):
                    for key in [k for k in self._rows if k[0] == source_id]:
                        self._journal.forget_link(*key)
                        del self._rows[key]
                    del self._sources[source_id]
                    if self.claims is not None:
                        self.claims.forget(source_id)
            return len(drops)

    def _remove(self, link: Link) -> None:
        source = self._sources[link.observed.source_id]
        if link.spool is not None:
            link.spool.close()
        held = link.source or link.path
        ours = any(tree in held.parents for tree in self._trees())
        size, mark = _size(held), ""
        with contextlib.suppress(OSError):
            # Without another name it is gone with ours, and its number is free for another file at once.
            if not ours or held.stat().st_nlink > 1:
                mark = mark_of(held)
        link.counted = max(link.counted, _size(link.path))
        link.delivered = True
        source.links.pop(link.segment, None)
        if mark:
            source.done[link.inode] = Done(link.segment, size, mark)
        if self.claims is not None and link.observed.kind == "container":
            # Before the link goes: a new file may get the number, and must not be taken for this one.
            self.claims.let_go(link.observed.source_id, link.inode, source.done.get(link.inode))
        if len(link.head) >= FINGERPRINT and b"\n" not in link.head and len(self._long_heads) > 10_000:
            self._long_heads.pop(link.head, None)
        # Written down before it is done: a file that went unrecorded would be collected a second time.
        self._rows[link.key] = replace(link.row(), size=size, mark=mark)
        self._journal.save_link(self._rows[link.key])
        if ours:
            held.unlink(missing_ok=True)
        link.path.unlink(missing_ok=True)

    # -- looking

    def _track(self) -> None:
        positions = self._positions()
        for source in self._sources.values():
            for link in source.links.values():
                inode = link.inode if link.mode == "link" else None
                if inode is None:
                    try:
                        inode = inode_of(link.path)
                    except OSError:
                        continue
                position = positions.get(inode)
                size = _size(link.path)
                if link.mode == "link" and size < link.read:
                    if size < link.counted or not link.truncated:
                        self._gap(
                            link, "truncated", None, "its log was truncated in place; what was not read by then is lost"
                        )
                    link.truncated, link.read, link.counted, link.records, link.joined = True, 0, 0, 0, 0
                    link.left_out = 0
                if position is not None:
                    link.read = max(link.read, min(position, size))

    def _count(self, link: Link) -> None:
        """Count the records that were added since the last count."""
        try:
            with link.path.open("rb") as file:
                file.seek(link.counted)
                while block := file.read(COUNT_BLOCK):
                    end = block.rfind(b"\n") + 1
                    if end == 0:
                        if len(block) < COUNT_BLOCK:
                            break
                        block += file.readline()
                        end = len(block) if block.endswith(b"\n") else 0
                        if end == 0:
                            break
                    whole = block[:end]
                    lines = whole.count(b"\n")
                    link.records += lines
                    framed = link.mode == "spool" or link.observed.profile == "docker"
                    if framed:
                        link.joined += lines - whole.count(COMPLETE)
                    link.counted += end
                    file.seek(link.counted)
        except OSError as error:
            link.reason = f"cannot be counted: {error.strerror}"

    def segment_records(self, source_ids: Iterable[str] | None = None) -> list[SegmentRecords]:
        """What was written, per file: of all sources, or of these."""
        wanted = None if source_ids is None else set(source_ids)
        out = []
        with self._lock:
            self._track()
            for source_id, source in self._sources.items():
                if wanted is not None and source_id not in wanted:
                    continue
                for link in list(source.links.values()):
                    if not link.placed:
                        continue
                    self._count(link)
                    out.append(self._as_records(link.observed, link))
                for (row_id, segment), row in self._rows.items():
                    if row_id == source_id and segment not in source.links and row.delivered:
                        out.append(
                            SegmentRecords(
                                row_id,
                                segment,
                                row.records,
                                row.counted,
                                row.counted,
                                True,
                                source.observed.tenant,
                                source.observed.service,
                                datetime.fromtimestamp(row.created, UTC),
                                -1 if row.truncated else row.joined,
                                row.left_out,
                            )
                        )
        return out

    @staticmethod
    def _as_records(observed: ObservedSource, link: Link) -> SegmentRecords:
        joined = -1 if observed.multiline or link.truncated or observed.profile == "cri" else link.joined
        return SegmentRecords(
            observed.source_id,
            link.segment,
            link.records,
            _size(link.path),
            link.read,
            link.finished,
            observed.tenant,
            observed.service,
            datetime.fromtimestamp(link.created, UTC),
            joined,
            link.left_out,
        )

    def keeps(self, container_id: str) -> bool:
        """Whether a file of this container waits for somebody to say whose it is."""
        return self.claims is not None and container_id in self.claims.waiting()

    def leftovers(self, known: Iterable[str]) -> list[ObservedSource]:
        """Sources that are gone from the host while files of theirs are still in the tree."""
        here = set(known)
        with self._lock:
            return [s.observed for source_id, s in self._sources.items() if source_id not in here and s.links]

    def statuses(self) -> list[LinkStatus]:
        """Every link."""
        with self._lock:
            return [
                LinkStatus(
                    link.observed.source_id,
                    link.observed.tenant,
                    link.observed.service,
                    link.segment,
                    str(link.path),
                    link.mode,
                    link.placed,
                    link.finished,
                    _size(link.path),
                    link.read,
                    link.reason,
                )
                for source in self._sources.values()
                for link in source.links.values()
            ]

    def phase_of(self, observed: ObservedSource) -> tuple[Phase, CollectMode, str]:
        """What the registry shows of a source."""
        with self._lock:
            source = self._sources.get(observed.source_id)
            warnings = "; ".join(observed.warnings)
            if observed.excluded:
                return "uncollectable", "none", "excluded by its label"
            if observed.uncollectable:
                return "uncollectable", "none", observed.uncollectable
            if observed.held:
                return "waiting", "none", observed.held
            if source is None or not source.links:
                if source is not None and source.done and not observed.running:
                    return "gone", "none", "ended; every line was delivered"
                if not observed.running and observed.ended is not None:
                    return "gone", "none", "ended without a line"
                return "waiting", "none", warnings or "no line yet"
            newest = source.links[max(source.links)]
            placed = [link for link in source.links.values() if link.placed]
            if not placed:
                waiting_for_lines = newest.reason in ("empty so far", "its first line is not whole yet")
                return ("collecting" if waiting_for_lines else "waiting"), "link", warnings or newest.reason
            mode: CollectMode = "spool" if any(link.mode == "spool" for link in placed) else "link"
            reason = newest.reason if newest.mode == "spool" else warnings
            return (
                ("finished" if all(link.finished for link in placed) and not observed.running else "collecting"),
                mode,
                reason,
            )

    def _gap(
        self,
        link: Link | None,
        cause: GapCause,
        size: int | None,
        detail: str,
        source_id: str = "",
        lines: int | None = None,
    ) -> None:
        now = datetime.fromtimestamp(self._clock(), UTC)
        observed = link.observed if link else None
        began = datetime.fromtimestamp(link.created, UTC) if link else now
        key = f"{self.host}/{observed.source_id if observed else source_id}/{link.segment if link else 0}/{cause}/{int(now.timestamp())}"
        self._report(
            Gap(
                self.host,
                observed.source_id if observed else source_id,
                observed.service if observed else "",
                observed.tenant if observed else "",
                cause,
                began,
                now,
                size,
                lines,
                detail,
                key,
            )
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _id_of(name: str) -> str:
    match = re.search(r"--([0-9a-f]{64})", name)
    return match[1] if match else ""


def _kept_identity(link: Link, observed: ObservedSource) -> ObservedSource:
    """A placed link keeps the names it was placed under: renaming it would make it another file in Loki's eyes."""
    if not link.placed:
        return observed
    return replace(
        observed, tenant=link.observed.tenant, service=link.observed.service, safe_name=link.observed.safe_name
    )

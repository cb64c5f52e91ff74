"""The end of links: delivered ones go at once, undelivered ones when they must, and a source when its last file went.

A link goes in an order that a kill may cut anywhere: first it is written down as delivered, then the file is removed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from onecollector_resources.discovery.claims import Done, mark_of
from onecollector_resources.discovery.links.counting import count_new
from onecollector_resources.discovery.links.gaps import LinkGaps
from onecollector_resources.discovery.links.link import Link, Source, size_of
from onecollector_resources.discovery.links.placed_heads import PlacedHeads
from onecollector_resources.discovery.links.spooling import Spools, uncopied
from onecollector_resources.discovery.links.table import LinkTable
from onecollector_resources.discovery.links_model import ended_now
from onecollector_resources.discovery.retention import Drop, Held, Limits, links_to_drop


@dataclass(slots=True)
class Ending:
    """Lets links and sources go."""

    table: LinkTable
    heads: PlacedHeads
    spools: Spools
    gaps: LinkGaps
    limits: Limits

    def end_source(self, source: Source) -> None:
        """A source is no longer on the host: none of its files grows any more."""
        for link in source.links.values():
            self.table.set_finished(link)
        source.gone = True
        if source.observed.running:
            source.observed = ended_now(source.observed, datetime.now(UTC))

    def mark_delivered(self, items: Iterable[tuple[str, int, int]]) -> int:
        """Loki has shown ``records`` of (source_id, segment); answers how many files are thereby done."""
        done = 0
        for source_id, segment, records in items:
            source = self.table.sources.get(source_id)
            link = source.links.get(segment) if source else None
            if link is None or not link.finished or uncopied(link):
                continue
            count_new(link)
            if records >= link.records and not link.delivered:
                link.delivered = True
                done += 1
                self.table.save(link)
        return done

    def collect_garbage(self, now: float) -> int:
        """Remove the links that may or must go (gaps); answers how many. ``now`` in epoch seconds."""
        finished = {link.key: link for link in self.table.links() if link.finished}
        held = [
            Held(*key, link.created, size_of(link.path) + uncopied(link), link.read, link.delivered)
            for key, link in finished.items()
        ]
        free = shutil.disk_usage(self.table.docker_links or self.table.file_links).free
        drops = links_to_drop(held, self.limits, now=now, free=free)
        for drop in drops:
            link = finished[drop.held.source_id, drop.held.segment]
            self._tell(link, drop)
            self._remove(link)
        self._forget_sources()
        return len(drops)

    def _tell(self, link: Link, drop: Drop) -> None:
        if drop.cause is None:
            return
        unread = drop.held.size - drop.held.read
        if unread > 0:
            self.gaps.of_link(link, drop.cause, unread, "dropped before the collector had read it")
        else:
            self.gaps.of_link(link, drop.cause, None, "dropped before Loki had shown its last line")

    def _remove(self, link: Link) -> None:
        table = self.table
        source = table.sources[link.observed.source_id]
        self.spools.close(link)
        self.spools.remember_followed(link)
        held = link.source or link.path
        ours = any(tree in held.parents for tree in table.trees)
        size, mark = size_of(held), ""
        with contextlib.suppress(OSError):
            # Without another name it is gone with ours, and its number is free for another file at once.
            if not ours or held.stat().st_nlink > 1:
                mark = mark_of(held)
        link.counted = max(link.counted, size_of(link.path))
        link.delivered = True
        source.links.pop(link.segment, None)
        if mark:
            source.done[link.inode] = Done(link.segment, size, mark)
        if table.claims is not None and link.observed.kind == "container":
            # Before the link goes: a new file may get the number, and must not be taken for this one.
            table.claims.let_go(link.observed.source_id, link.inode, source.done.get(link.inode))
        self.heads.let_go(link)
        # Written down before it is done: a file that went unrecorded would be collected a second time.
        row = replace(link.row(), size=size, mark=mark)
        table.keep_row(row)
        table.journal.save_link(row)
        if ours:
            held.unlink(missing_ok=True)
        link.path.unlink(missing_ok=True)

    def _forget_sources(self) -> None:
        gone = [
            source_id
            for source_id, source in self.table.sources.items()
            if not source.links and not source.observed.running and source.observed.ended is not None
        ]
        claims = self.table.claims
        for source_id in gone:
            source = self.table.sources[source_id]
            path = source.observed.log_path
            # A container without a file may be started again as long as it is there.
            there = Path(path).exists() if path else not source.gone
            if not there and not (claims is not None and source_id in claims.waiting()):
                self.table.forget(source_id)

"""Adopting what is in the trees and nobody's yet: the linker's claims, and links that an earlier process left.

Neither waits for its source: a claim is there before anybody described its container, a link stays while no agent runs.
Both are taken over when their source is described.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from onecollector_resources.discovery.claims import Done, Inode, inode_of
from onecollector_resources.discovery.linker import PENDING
from onecollector_resources.discovery.links.gaps import LinkGaps
from onecollector_resources.discovery.links.link import Source, size_of
from onecollector_resources.discovery.links.placed_heads import PlacedHeads
from onecollector_resources.discovery.links.placing import Placing
from onecollector_resources.discovery.links.spooling import Spools
from onecollector_resources.discovery.links.table import LinkTable
from onecollector_resources.discovery.links_model import (
    LINK_NAME,
    PROBES,
    PlacedName,
    ended_now,
    link_name,
    parse_path,
    source_from_name,
)
from onecollector_resources.records import ObservedSource

UNDESCRIBED_S = 60.0
"""A container's description may come so much later than its files."""


@dataclass(frozen=True, slots=True)
class Left:
    """A link that an earlier process left; ``placed`` is None for a pending one."""

    path: Path
    segment: int
    placed: PlacedName | None


@dataclass(slots=True)
class Adoption:
    """Gives files in the trees to their sources."""

    table: LinkTable
    placing: Placing
    heads: PlacedHeads
    spools: Spools
    gaps: LinkGaps
    _left: dict[str, list[Left]] = field(default_factory=dict)
    _found: float = 0.0

    def keeps(self, source_id: str) -> bool:
        """Whether an earlier process left a file of this source."""
        return source_id in self._left

    def find_left(self) -> None:
        """List what an earlier process left, by the names."""
        self._found = self.table.clock()
        for tree in self.table.trees:
            for path in sorted((tree / PENDING).iterdir()):
                match = LINK_NAME.fullmatch(path.name)
                if match is not None:
                    self._left.setdefault(match["id"], []).append(Left(path, int(match["segment"] or 0), None))
            for path in sorted(tree.glob("*/*/*/*.log")):
                named = parse_path(path, tree)
                if named is not None and named.service != PROBES:
                    self._left.setdefault(named.source_id, []).append(Left(path, named.segment, named))

    def adopt_left(self, source: Source) -> None:
        """Take over the links and numbers that an earlier process left of a source."""
        source_id = source.observed.source_id
        rows = self.table.rows_of(source_id)
        for segment, row in rows.items():
            source.next_segment = max(source.next_segment, segment + 1)
            if row.delivered and row.mark:
                inode, done = (row.dev, row.ino), Done(segment, row.counted, row.mark)
                source.done[inode] = done
                if self.table.claims is not None:
                    self.table.claims.let_go(source_id, inode, done)
        for left in self._left.pop(source_id, ()):
            row, named = rows.get(left.segment), left.placed
            try:
                inode = inode_of(left.path)
            except FileNotFoundError:
                continue
            if row is not None and row.mode == "spool":
                # A pending link of a spool is what it copies.
                if named is not None:
                    self.spools.resume(source, left.segment, left.path, (row.dev, row.ino))
                continue
            link = self.table.add(source, left.segment, left.path, inode)
            if named is not None:
                link.placed = True
                link.observed = replace(
                    source.observed, tenant=named.tenant, service=named.service, safe_name=named.safe_name
                )
                self.heads.remember(link)

    def adopt_gone(self, observed: Collection[str]) -> None:
        """Take over what was left of sources that are no longer on the host: it is collected, counted and ended like all."""
        table, now = self.table, datetime.fromtimestamp(self.table.clock(), UTC)
        for source_id in [i for i in self._left if i not in observed and i not in table.sources]:
            known = table.described(source_id) or self._by_name(source_id)
            if known is not None:
                source = table.sources[source_id] = Source(ended_now(known, now), written=True)
                self.adopt_left(source)
            elif table.clock() - self._found >= UNDESCRIBED_S:
                self._give_up(source_id)
        for source_id in [i for i in table.rows if i not in observed and i not in table.sources]:
            if source_id not in self._left:
                table.forget(source_id)

    def _by_name(self, source_id: str) -> ObservedSource | None:
        placed = ((left.placed, left.path) for left in self._left[source_id])
        return next((source_from_name(named, path) for named, path in placed if named is not None), None)

    def _give_up(self, source_id: str) -> None:
        lefts = self._left.pop(source_id)
        size = sum(size_of(left.path) for left in lefts)
        self.gaps.of_unknown(source_id, size, f"nobody can tell whose the log of {source_id[:12]} was")
        for left in lefts:
            left.path.unlink(missing_ok=True)

    def adopt_claims(self, source: Source) -> None:
        """Turn a source's claims into links, in the order in which their files were made."""
        observed = source.observed
        claims = self.table.claims.take(observed.source_id) if self.table.claims is not None else []
        if not claims:
            return
        for path, inode in claims:
            # A number of a file that is gone may be another file's by now.
            source.done.pop(inode, None)
            segment = source.next_segment
            target = path.parent / link_name(observed.safe_name, observed.source_id, segment)
            try:
                path.rename(target)
            except FileNotFoundError:
                continue
            self.table.add(source, segment, target, inode)
        newest = max(source.links, default=-1)
        for segment, link in source.links.items():
            if segment < newest:
                self.table.set_finished(link)
        self.placing.place_source(source)

    def drop_stale_claims(self, observed: Collection[str]) -> None:
        """Files of containers that nobody ever described: kept a minute for their description, then a recorded gap."""
        claims = self.table.claims
        if claims is None:
            return
        for source_id, waiting in claims.waiting().items():
            if source_id not in observed and source_id not in self.table.sources and self._is_stale(waiting):
                size = sum(path.stat().st_size for path, _ in waiting)
                detail = f"container {source_id[:12]} was gone before it could be described"
                self.gaps.of_unknown(source_id, size, detail)
                claims.release(source_id)
                claims.forget(source_id)

    def _is_stale(self, waiting: list[tuple[Path, Inode]]) -> bool:
        return self.table.clock() - min(path.lstat().st_ctime for path, _ in waiting) >= UNDESCRIBED_S

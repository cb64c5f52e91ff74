"""Placing: a pending link is renamed to where the collector looks, once its pipeline is live and its head is its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from onecollector_resources.discovery.links.border import Border
from onecollector_resources.discovery.links.link import Link, Source
from onecollector_resources.discovery.links.placed_heads import PlacedHeads, read_head
from onecollector_resources.discovery.links.spooling import Spools
from onecollector_resources.discovery.links.table import LinkTable

EMPTY = "empty so far"
NOT_WHOLE = "its first line is not whole yet"
WAITS_FOR_LINES = (EMPTY, NOT_WHOLE)
"""Reasons of a link that is not placed because its source has written next to nothing."""


@dataclass(slots=True)
class Placing:
    """``live`` are the (tenant, pipeline) pairs that the running config collects."""

    table: LinkTable
    heads: PlacedHeads
    spools: Spools
    border: Border
    live: frozenset[tuple[str, str]] = field(default_factory=frozenset)

    def place_all(self) -> None:
        """Place what can be placed now, of all sources."""
        for source in self.table.sources.values():
            self.place_source(source)

    def place_source(self, source: Source) -> None:
        """The same of one source."""
        for link in list(source.links.values()):
            if not link.placed:
                try:
                    self._place(source, link)
                except OSError as error:
                    # One file's trouble is not that of the thousand others; the next turn tries again.
                    link.reason = f"cannot be placed: {error.strerror}"

    def _place(self, source: Source, link: Link) -> None:
        observed = source.observed
        if observed.held:
            link.reason = observed.held
            return
        if (observed.tenant, observed.pipeline) not in self.live:
            link.reason = f"no live pipeline for {observed.tenant}/{observed.pipeline} yet"
            return
        try:
            link.head = read_head(link)
        except FileNotFoundError:
            source.links.pop(link.segment, None)
            return
        verdict = self.heads.judge(link, observed.profile)
        if verdict == "wait":
            link.reason = NOT_WHOLE if link.head else EMPTY
            return
        if verdict == "tie":
            self.spools.spool_tie(source, link)
            return
        tree = self.table.tree_of(link.path)
        target = tree / observed.tenant / observed.pipeline / observed.service / link.path.name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        link.path.rename(target)
        link.path, link.placed, link.reason, link.observed = target, True, "", observed
        self.heads.remember(link)
        self.border.leave_out(link, target)
        self.table.save(link)

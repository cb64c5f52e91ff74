"""The table of all sources and links of a host, in memory and in the journal: the one thing that all who work on links share.

Who holds the table holds the keeper's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from onecollector_resources.discovery.claims import Claims, Inode
from onecollector_resources.discovery.links.link import Link, Source
from onecollector_resources.discovery.links_model import LinkJournal, LinkRow, source_from_text, source_to_text
from onecollector_resources.records import ObservedSource

DESCRIBED, FOLLOWED = "source/", "followed/"
"""Keys of the journal, before a source's id: its description; how far its log API was followed."""


@dataclass(slots=True)
class LinkTable:
    """``docker_links`` is None on a host without an engine of its own; ``clock`` gives epoch seconds."""

    docker_links: Path | None
    file_links: Path
    journal: LinkJournal
    claims: Claims | None
    clock: Callable[[], float]
    sources: dict[str, Source] = field(default_factory=dict)
    rows: dict[str, dict[int, LinkRow]] = field(default_factory=dict)
    """By source and segment: what an earlier process wrote down, and links that went."""

    @property
    def trees(self) -> list[Path]:
        """Where links lie."""
        return [tree for tree in (self.docker_links, self.file_links) if tree is not None]

    def tree_of(self, path: Path) -> Path:
        """The tree in which a link of ours lies."""
        return next(tree for tree in self.trees if tree in path.parents)

    def load(self) -> None:
        """Read the journal."""
        for row in self.journal.load_links():
            self.keep_row(row)

    def keep_row(self, row: LinkRow) -> None:
        """Have a row at hand."""
        self.rows.setdefault(row.source_id, {})[row.segment] = row

    def rows_of(self, source_id: str) -> dict[int, LinkRow]:
        """A source's rows by segment."""
        return self.rows.get(source_id, {})

    def links(self) -> Iterator[Link]:
        """Every link."""
        return (link for source in self.sources.values() for link in source.links.values())

    def save(self, link: Link) -> None:
        """Write a link down."""
        self.journal.save_link(link.row())

    def add(self, source: Source, segment: int, path: Path, inode: Inode) -> Link:
        """A new link of a source, with what an earlier one of the same file and number knew."""
        source_id = source.observed.source_id
        link = Link(source.observed, segment, path, inode, created=self.clock())
        row = self.rows_of(source_id).get(segment)
        if row is not None and (row.dev, row.ino) == inode:
            link.remember(row)
        source.links[segment] = link
        source.done.pop(inode, None)
        if self.claims is not None and source.observed.kind == "container":
            self.claims.know(source_id, inode)
        source.next_segment = max(source.next_segment, segment + 1)
        if not source.written:
            self.journal.save_value(DESCRIBED + source_id, source_to_text(source.observed))
            source.written = True
        self.save(link)
        return link

    def described(self, source_id: str) -> ObservedSource | None:
        """How an earlier process described a source."""
        text = self.journal.load_value(DESCRIBED + source_id)
        return source_from_text(text) if text else None

    def set_finished(self, link: Link, finished: bool = True) -> None:
        """Whether its file grows no more."""
        if link.finished != finished:
            link.finished = finished
            self.save(link)

    def forget(self, source_id: str) -> None:
        """A source is gone and all its files with it."""
        for segment in self.rows.pop(source_id, {}):
            self.journal.forget_link(source_id, segment)
        for key in (DESCRIBED, FOLLOWED):
            self.journal.forget_value(key + source_id)
        self.sources.pop(source_id, None)
        if self.claims is not None:
            self.claims.forget(source_id)

"""A link in memory: one file that a source ever had, where it lies now, and what is known of it.

A source may have many: each rotation begins the next segment, and the number of a segment is its name for good.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from onecollector_resources.discovery.claims import Done, Inode
from onecollector_resources.discovery.links_model import LinkRow, LinkStatus
from onecollector_resources.discovery.spool import FileSpool
from onecollector_resources.records import ObservedSource


@dataclass(slots=True)
class Link:
    """``path`` is where it lies now, ``reason`` why it is not placed."""

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
    largest: int = 0
    """The largest size that was seen: a file that is shorter was truncated in place."""
    changed: int = 0
    """Time of its last change that was looked at, in ns."""
    spool: FileSpool | None = None
    source: Path | None = None
    """What a spool copies: a pending link, or a file on another file system."""
    head: bytes = b""

    @property
    def key(self) -> tuple[str, int]:
        """Its name for good."""
        return (self.observed.source_id, self.segment)

    def remember(self, row: LinkRow) -> None:
        """Take over what the journal knows of it."""
        self.records, self.joined, self.counted, self.read = row.records, row.joined, row.counted, row.read
        self.created, self.truncated, self.left_out = row.created, row.truncated, row.left_out

    def describe(self, observed: ObservedSource) -> None:
        """Its source is described anew.

        A placed link keeps the names it was placed under: renaming it would make it another file in Loki's eyes.
        """
        was = self.observed
        names = (was.tenant, was.service, was.safe_name)
        if self.placed and names != (observed.tenant, observed.service, observed.safe_name):
            observed = replace(observed, tenant=was.tenant, service=was.service, safe_name=was.safe_name)
        self.observed = observed

    def row(self) -> LinkRow:
        """What the journal keeps of it."""
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

    def status(self) -> LinkStatus:
        """What people and other parts see of it."""
        return LinkStatus(
            self.observed.source_id,
            self.observed.tenant,
            self.observed.service,
            self.segment,
            str(self.path),
            self.mode,
            self.placed,
            self.finished,
            size_of(self.path),
            self.read,
            self.reason,
        )


@dataclass(slots=True)
class Source:
    """A source and its links by segment."""

    observed: ObservedSource
    links: dict[int, Link] = field(default_factory=dict)
    folder_mtime: int = -1
    next_segment: int = 0
    written: bool = False
    """Whether the journal has its description."""
    done: dict[Inode, Done] = field(default_factory=dict)
    """Delivered files whose links went while the files may still be there."""
    spool_reason: str = ""
    gone: bool = False
    """Whether it is no longer on the host."""
    rested: datetime | None = None
    """When it had ended, as of the last look at its folder; None while it runs."""
    look_again: float = 0.0
    """A folder of one that rests is looked at again then, should an event have been missed."""

    def describe(self, observed: ObservedSource) -> None:
        """It is described anew."""
        self.gone = False
        # Nearly always it is the very record that it was: a thousand sources are described in every turn.
        if observed is not self.observed:
            self.observed = observed
            for link in self.links.values():
                link.describe(observed)


def size_of(path: Path) -> int:
    """Bytes; 0 where there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return 0

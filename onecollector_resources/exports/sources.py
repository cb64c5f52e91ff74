"""Two ways to read a partition's lines, behind one protocol, and the choice between them with its reason.

The chunk engine reads the object store and leaves Loki alone; the query API knows what the store does not show: lines
that are not flushed, lines that a delete request or the retention hides, filters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from onecollector_resources.exports.partitions import Partition
from onecollector_resources.loki.lines import LineBlock

EngineName = Literal["api", "chunks"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The lines of one partition: the query without the partition's service, and the part [start_ns, end_ns) of its hour."""

    partition: Partition
    query: str
    start_ns: int
    end_ns: int


class Reading(Protocol):
    """One pass over a selection. ``problems`` are known when the blocks are exhausted."""

    def blocks(self) -> Iterator[LineBlock]:
        """Blocks in time order, none overlapping another in time."""
        ...

    def problems(self) -> tuple[str, ...]:
        """What could not be read: why the partition is not complete."""
        ...


class LineSource(Protocol):
    """A way to read lines out of Loki."""

    @property
    def name(self) -> EngineName: ...

    def read(self, selection: Selection) -> Reading:
        """Start a pass."""
        ...

    def fingerprint(self, selection: Selection) -> str:
        """Names what a pass would read; another one tells that there is new data."""
        ...


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, [start_ns, end_ns)."""

    start_ns: int
    end_ns: int

    def touches(self, start_ns: int, end_ns: int) -> bool:
        """Whether the two share an instant."""
        return self.start_ns < end_ns and start_ns < self.end_ns


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decides between the engines, the same for a whole export.

    ``in_store_until_ns``: every line that Loki took before this instant lies in the store (a flush, or long ago).
    ``deleted``: spans of delete requests. ``retained_from_ns``: older lines may be hidden by retention.
    """

    forced: EngineName | None
    chunk_store: bool
    bare_selector: bool
    in_store_until_ns: int
    deleted: Sequence[Span]
    retained_from_ns: int


def choose_engine(circumstances: Circumstances, start_ns: int, end_ns: int) -> tuple[EngineName, str]:
    """The engine for a part of time, and why in a few words."""
    c = circumstances
    if c.forced == "api":
        return "api", "asked for"
    if not c.chunk_store:
        return "api", "no chunk store is known"
    if not c.bare_selector:
        return "api", "the query filters lines"
    if end_ns > c.in_store_until_ns:
        return "api", "not all of it is in the store yet"
    if any(span.touches(start_ns, end_ns) for span in c.deleted):
        return "api", "a delete request touches it"
    if start_ns < c.retained_from_ns:
        return "api", "retention may hide part of it"
    return "chunks", "asked for" if c.forced == "chunks" else "all of it is in the store"


def digest(parts: Sequence[str]) -> str:
    """A short name for a set of texts."""
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()[:24]

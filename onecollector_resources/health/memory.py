"""What was proved before, so that the next proof asks only for what came since.

A proof reads every line of its time range, so asking for whole files twice a minute would cost more than collecting
them. What is remembered of a file: how many of its records were found in Loki, and at which looks it had how many
records. A record that a look did not count yet was written after that look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from onecollector_resources.health.tallies import File
from onecollector_resources.records import SegmentRecords

PROVED_AT, PROVED_LINES = "proved/at", "proved/lines"
"""Marks of the registry: when the last proof was, in epoch seconds, and how many lines it found."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a file had at a moment: records, and how many of them were parts of other lines."""

    time: datetime
    records: int
    joined: int


@dataclass
class _Known:
    through: int
    joined: int
    records: int
    looks: list[Look]
    grew: datetime


@dataclass
class ProofMemory:
    """For one resident process; empty after a restart, which costs one full proof."""

    _files: dict[File, _Known] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing was looked at yet."""
        return not self._files

    def _of(self, record: SegmentRecords) -> _Known | None:
        known = self._files.get((record.source_id, record.segment))
        # Fewer records than before, or another way of joining: the file was truncated, nothing is known of it.
        if known is None or record.records < known.records or (known.joined == -1) != (record.joined == -1):
            return None
        return known

    def through(self, record: SegmentRecords) -> int:
        """Records 1 to this are known to be in Loki."""
        known = self._of(record)
        return max(known.through if known else 0, record.left_out)

    def joined(self, record: SegmentRecords) -> int:
        """How many of them were parts of other lines."""
        known = self._of(record)
        return known.joined if known else 0

    def looks(self, record: SegmentRecords) -> list[Look]:
        """Looks at which the file had more than ``through`` records, newest first; this one is not among them."""
        known = self._of(record)
        return [look for look in reversed(known.looks) if look.records > known.through] if known else []

    def since(self, record: SegmentRecords) -> datetime:
        """No record after ``through`` was written before this."""
        known = self._of(record)
        times = [look.time for look in known.looks if look.records <= known.through] if known else []
        return times[-1] if times else record.first_seen

    def remember(self, seen: Iterable[tuple[SegmentRecords, int]], now: datetime) -> None:
        """Take in a look: every record with what is known of it now. ``now`` must not be later than the counting."""
        files: dict[File, _Known] = {}
        for record, through in seen:
            known = self._of(record)
            looks = [*(known.looks if known else []), Look(now, record.records, record.joined)]
            # Of the looks that ``through`` covers only the last one says anything.
            covered = [look for look in looks if look.records <= through][-1:]
            # A file that is behind for hours must not gather a look for each half minute.
            waiting = [look for look in looks if look.records > through][:100]
            grew = known.grew if known and known.records == record.records else now
            joined = record.joined if record.joined < 1 else 0
            if record.joined > 0 and covered and covered[0].records == through:
                joined = covered[0].joined
            elif record.joined > 0 and known and known.through == through:
                joined = known.joined
            files[(record.source_id, record.segment)] = _Known(through, joined, record.records, covered + waiting, grew)
        self._files = files

    def seed(self, last_lines: Mapping[str, datetime], otherwise: datetime) -> None:
        """After a start: when sources spoke last, as Loki says; those it does not name spoke before ``otherwise``."""
        for (source_id, _), known in self._files.items():
            known.grew = min(known.grew, last_lines.get(source_id, otherwise))

    def last_lines(self) -> dict[str, datetime]:
        """Source id to the look at which it was last seen to have grown; sources without a line are left out."""
        out: dict[str, datetime] = {}
        for (source_id, _), known in self._files.items():
            if known.records:
                out[source_id] = max(out.get(source_id, known.grew), known.grew)
        return out

"""Proof in rounds, for one resident process: what came since the last round, and what is lost for good.

A file that has just ended may still be on its way, so it is asked for again in the next round, and only then does a
probe say whether anything waits ahead of Loki. A loss that was confirmed is not looked for twice a minute for days: it
is, now and then, because a queue that somebody brought back from a broken disk may still fill the hole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from onecollector_resources.health.delivery import ProofRow, confirm_lost, may_be_lost, prove_records
from onecollector_resources.health.memory import ProofMemory
from onecollector_resources.health.tallies import File, Reader
from onecollector_resources.records import SegmentRecords

LOST_AGAIN = timedelta(minutes=10)
"""How often a file that lacks records for good is looked at again."""


@dataclass
class ProofRounds:
    """Hold one per process and state folder; a new one costs one full proof."""

    memory: ProofMemory = field(default_factory=ProofMemory)
    _missing: set[File] = field(default_factory=set)
    _lost: dict[File, tuple[ProofRow, datetime]] = field(default_factory=dict)

    def look(
        self,
        records: Sequence[SegmentRecords],
        reader_for: Callable[[str], Reader],
        now: datetime,
        clock: Callable[[], datetime],
        tenants_probed: Callable[[], Collection[str]],
    ) -> tuple[list[ProofRow], list[ProofRow]]:
        """(what stands in Loki of every file, the files whose loss this round confirmed).

        ``now`` is a moment before the records were counted. Raises LokiError, and what ``tenants_probed`` raises.
        """
        lost_before = {(row.source_id, row.segment): row for row, at in self._lost.values() if now - at < LOST_AGAIN}
        asked, rows = [], []
        for record in records:
            row = lost_before.get((record.source_id, record.segment))
            if row is not None and row.records == record.records:
                rows.append(row)
            else:
                asked.append(record)
        looked = prove_records(asked, reader_for, now, self.memory)
        missing = {(row.source_id, row.segment) for row in looked if may_be_lost(row)}
        twice = [row for row in looked if (row.source_id, row.segment) in missing & self._missing]
        lost = confirm_lost(twice, asked, reader_for, clock, tenants_probed)
        here = {(record.source_id, record.segment) for record in records}
        confirmed = {(row.source_id, row.segment): (row, now) for row in lost}
        self._lost = {file: kept for file, kept in self._lost.items() if file in here and file in lost_before}
        self._lost |= confirmed
        self._missing = missing
        return [*rows, *looked], lost

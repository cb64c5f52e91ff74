"""Proof of collection: record numbers written against record numbers in Loki, per container and file.

Most files are settled by a tally over hundreds of them (``tallies``), first in the short time range in which their
lines should be, then, for those that do not add up, in a wide one; only where that fails, too, rows are fetched and the
missing numbers named. ``count_over_time`` alone is no witness: it counts a line that was sent twice and not yet
merged as two.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from onecollector_resources.health.memory import ProofMemory
from onecollector_resources.health.tallies import (
    ROWS_AT_ONCE,
    Ranges,
    Reader,
    Span,
    Tally,
    missing_numbers,
    numbers_in_loki,
    ranges,
    take_tallies,
)
from onecollector_resources.loki.querier import LokiError
from onecollector_resources.records import Gap, SegmentRecords

__all__ = ["ProofRow", "Reader", "confirm_lost", "delivered", "gaps_of", "may_be_lost", "prove_records", "ranges"]

IDS_PER_QUERY = 250
"""64 hex digits each: some 16 kB of query, and under the 500 series that a Loki allows by default."""

NEAR = timedelta(minutes=10)
"""Before the moment at which the agent saw a file its first lines may have been written."""

FAR = timedelta(hours=25)
"""The same for what was there when the agent came: the backfill horizon of a day, and an hour for clocks."""

AHEAD = timedelta(hours=2)
"""Lines may be stamped so far ahead: our Loki refuses what is further."""

FARTHEST = timedelta(days=30)
"""Loki refuses log queries over more than 30 days and an hour by default."""


@dataclass(frozen=True, slots=True)
class ProofRow:
    """One file of one source. ``missing`` are inclusive ranges of record numbers; ``behind`` bytes are not read yet.

    ``exact`` is false where lines were joined by a rule, so that only the last number can be compared; where parts of
    long lines were joined, ``missing`` may name such parts beside what is lost. Records 1 to ``through`` are known to
    be in Loki.
    """

    source_id: str
    segment: int
    tenant: str
    service: str
    expected: int
    found: int
    records: int
    complete: bool
    exact: bool
    final: bool
    behind: int
    missing: Ranges = ()
    problem: str = ""
    through: int = 0

    def missing_text(self) -> str:
        """``12-14, 20``; at most ten ranges."""
        if self.problem:
            return self.problem
        words = [str(a) if a == b else f"{a}-{b}" for a, b in self.missing[:10]]
        return ", ".join(words) + (f" and {len(self.missing) - 10} more ranges" if len(self.missing) > 10 else "")


def prove_records(
    records: Sequence[SegmentRecords],
    reader_for: Callable[[str], Reader],
    now: datetime,
    memory: ProofMemory | None = None,
) -> list[ProofRow]:
    """Compare what was written with what Loki holds. Raises LokiError where Loki does not answer.

    With a ``memory`` only what was written since the last proof is asked for; ``now`` must then be a moment before the
    records were counted.
    """
    known = memory if memory is not None else ProofMemory()
    rows: list[ProofRow] = []
    by_tenant: dict[str, list[SegmentRecords]] = {}
    for record in records:
        if known.through(record) >= record.records:
            rows.append(_complete(record))
        else:
            by_tenant.setdefault(record.tenant, []).append(record)
    for tenant, mine in sorted(by_tenant.items()):
        rows += _prove_tenant(mine, reader_for(tenant), now, known)
    if memory is not None:
        through = {(row.source_id, row.segment): row.through for row in rows}
        memory.remember([(record, through[record.source_id, record.segment]) for record in records], now)
    return rows


def _prove_tenant(
    records: Sequence[SegmentRecords], reader: Reader, now: datetime, memory: ProofMemory
) -> Iterator[ProofRow]:
    unsettled: list[SegmentRecords] = []
    for part in _parts(records, memory.since):
        span = _span(min(map(memory.since, part)) - NEAR, now)
        tallies = take_tallies(reader, sorted({record.source_id for record in part}), span)
        for record in part:
            through, tally = memory.through(record), tallies.get((record.source_id, record.segment))
            row = _judge(record, tally, through)
            if row is None and record.joined > 0 and tally is not None:
                row = _joined(record, reader, span, memory)
            if row is None:
                unsettled.append(record)
            else:
                yield row
    for part in _parts(unsettled, lambda record: record.first_seen):
        began = min(record.first_seen for record in part) - FAR
        tallies = take_tallies(reader, sorted({record.source_id for record in part}), _span(began, now))
        for record in part:
            row = _judge(record, tallies.get((record.source_id, record.segment)), record.left_out)
            yield row or _by_rows(record, reader, _span(max(began, now + AHEAD - FARTHEST), now))


def _span(began: datetime, now: datetime) -> Span:
    return Span(int(began.timestamp() * 1e9), int((now + AHEAD).timestamp() * 1e9))


def _parts(
    records: Iterable[SegmentRecords], began: Callable[[SegmentRecords], datetime]
) -> Iterator[list[SegmentRecords]]:
    """Records in groups of few sources that began at about the same time: a query costs by its time range."""
    part: list[SegmentRecords] = []
    ids: set[str] = set()
    for record in sorted(records, key=lambda record: (began(record), record.source_id, record.segment)):
        if len(ids) == IDS_PER_QUERY and record.source_id not in ids:
            yield part
            part, ids = [], set()
        part.append(record)
        ids.add(record.source_id)
    if part:
        yield part


def _judge(record: SegmentRecords, tally: Tally | None, through: int) -> ProofRow | None:
    """What a tally settles, knowing that records 1 to ``through`` are there; None where it settles nothing."""
    if tally is None or record.joined > 0:
        return None
    n = record.records
    if record.joined == -1:
        # Which records a rule joined is not known; the joined line carries the last one's number.
        if tally.top >= n:
            return _complete(record)
        return None if record.final else _row(record, tally.top, missing=((tally.top + 1, n),), through=through)
    run = tally.run()
    if run is None or run[0] > through + 1:
        return None
    if run[1] >= n:
        return _complete(record)
    # The rest of a file that is still written to is on its way. Of a finished one it is looked for.
    return None if record.final else _row(record, run[1], missing=((run[1] + 1, n),), through=run[1])


def _joined(record: SegmentRecords, reader: Reader, span: Span, memory: ProofMemory) -> ProofRow | None:
    """A file with long lines, whose parts carry no number of their own; None where lines seem to be missing."""
    n, through, joined = record.records, memory.through(record), memory.joined(record)
    if n - through > ROWS_AT_ONCE:
        return None
    file = (record.source_id, record.segment)
    numbers = {number for number in numbers_in_loki(reader, file, span) if through < number <= n}
    top = max(numbers, default=through)
    if top == n and n - through - len(numbers) <= record.joined - joined:
        return _complete(record)
    if record.final or top - through - len(numbers) > record.joined - joined:
        return None
    # Which records are parts is not known, but how many there were at each look: so what that look counted is settled.
    for look in memory.looks(record):
        there = sum(1 for number in numbers if number <= look.records)
        if look.records <= top and look.records - through - there <= look.joined - joined:
            through = look.records
            break
    return _row(record, top - record.joined, missing=((top + 1, n),), through=through)


def _by_rows(record: SegmentRecords, reader: Reader, span: Span) -> ProofRow:
    """Name what is missing."""
    file, n = (record.source_id, record.segment), record.records
    try:
        if record.joined == -1:
            tally = take_tallies(reader, [record.source_id], span).get(file)
            top = max(record.left_out, min(n, tally.top) if tally else 0)
            missing: Ranges = ((top + 1, n),) if top < n else ()
        else:
            found = missing_numbers(reader, file, n, span)
            missing = tuple((max(a, record.left_out + 1), b) for a, b in found if b > record.left_out)
    except LokiError as error:
        return _row(record, 0, problem=str(error)[:200])
    if missing and record.joined > 0:
        lines = sum(high - low + 1 for low, high in missing)
        if lines <= record.joined:
            # As many as there are parts. Only the last record is never one: it is a line, or the end of one.
            missing = ((n, n),) if missing[-1][1] == n else ()
            return _row(record, n - record.joined - 1, missing=missing) if missing else _complete(record)
    lines = sum(high - low + 1 for low, high in missing)
    return _row(record, n - lines, missing=missing) if missing else _complete(record)


def _complete(record: SegmentRecords) -> ProofRow:
    return _row(record, record.records - max(0, record.joined), complete=True, through=record.records)


def _row(
    record: SegmentRecords,
    found: int,
    *,
    complete: bool = False,
    missing: Ranges = (),
    problem: str = "",
    through: int = 0,
) -> ProofRow:
    return ProofRow(
        record.source_id,
        record.segment,
        record.tenant,
        record.service,
        record.records - max(0, record.joined) - record.left_out,
        max(0, found - record.left_out),
        record.records,
        complete,
        record.joined != -1,
        record.final,
        max(0, record.size - record.read),
        missing,
        problem,
        through,
    )


def delivered(rows: Iterable[ProofRow]) -> list[tuple[str, int, int]]:
    """(source id, segment, records) of finished files that Loki has whole: what the agent is told, so links go."""
    return [(row.source_id, row.segment, row.records) for row in rows if row.complete and row.final]


def may_be_lost(row: ProofRow) -> bool:
    """Whether the file ended, was read to its end, and Loki lacks records of it."""
    return bool(row.missing) and not row.complete and not row.problem and row.final and not row.behind


def confirm_lost(
    rows: Iterable[ProofRow],
    records: Iterable[SegmentRecords],
    reader_for: Callable[[str], Reader],
    clock: Callable[[], datetime],
    tenants_probed: Callable[[], Collection[str]],
) -> list[ProofRow]:
    """Which finished files lack records for good, as rows of a second look.

    Read to its end is not delivered: lines may wait in the collector's queue, for minutes when Loki was away. So a
    probe is sent behind them (``tenants_probed`` answers for whom one came out of Loki), and what is missing after that
    is lost. Without anything missing no probe is sent. Raises LokiError, and what ``tenants_probed`` raises.
    """
    suspects = {(row.source_id, row.segment) for row in rows if may_be_lost(row)}
    if not suspects:
        return []
    through = set(tenants_probed())
    again = [r for r in records if (r.source_id, r.segment) in suspects and r.tenant in through]
    return [row for row in prove_records(again, reader_for, clock()) if may_be_lost(row)]


def gaps_of(
    rows: Iterable[ProofRow], host: str, now: datetime, first_seen: Mapping[str, datetime] | None = None
) -> list[Gap]:
    """Gaps for what is missing of finished files that were read to their end; hand in what ``confirm_lost`` answers."""
    out = []
    for row in filter(may_be_lost, rows):
        out.append(
            Gap(
                host,
                row.source_id,
                row.service,
                row.tenant,
                "missing_in_loki",
                (first_seen or {}).get(row.source_id, now).astimezone(UTC),
                now.astimezone(UTC),
                None,
                row.expected - row.found,
                f"records {row.missing_text()} of file {row.segment}",
                f"{host}/{row.source_id}/{row.segment}/missing/{row.missing[0][0]}",
            )
        )
    return out

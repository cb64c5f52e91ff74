"""Proof of collection: record numbers written against record numbers in Loki, per container and file.

Every line carries the number of its record in its file. Three numbers per file settle most of it in few queries: how many
lines Loki has, their highest number and the sum of their numbers. Where these are not those of 1 to n, the rows
themselves are fetched and the missing numbers named. ``count_over_time`` alone is no witness: it counts a line that was
sent twice and not yet merged as two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from onecollector_resources.loki.querier import Entry, LokiError, Sample
from onecollector_resources.records import Gap, SegmentRecords

IDS_PER_QUERY = 250
"""64 hex digits each: some 16 kB of query, and well under the series limit."""

GRACE = timedelta(seconds=30)
"""A line may take this long from the file into Loki before it counts as missing."""

FULL_IDS = 64


class Reader(Protocol):
    """What is needed of a tenant's Loki client."""

    def samples(self, query: str, time_ns: int | None = None) -> tuple[Sample, ...]: ...
    def all_entries(self, query: str, start_ns: int, end_ns: int) -> Iterable[Entry]: ...


@dataclass(frozen=True, slots=True)
class ProofRow:
    """One file of one source. ``missing`` are inclusive ranges of record numbers; ``behind`` bytes are not read yet.

    ``exact`` is false where lines were joined by a rule, so that only the last number can be compared.
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
    missing: tuple[tuple[int, int], ...] = ()
    problem: str = ""

    def missing_text(self) -> str:
        """``12-14, 20``; at most ten ranges."""
        if self.problem:
            return self.problem
        words = [str(a) if a == b else f"{a}-{b}" for a, b in self.missing[:10]]
        return ", ".join(words) + (f" and {len(self.missing) - 10} more ranges" if len(self.missing) > 10 else "")


def ranges(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Sorted numbers as inclusive ranges."""
    out: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if out and number == out[-1][1] + 1:
            out[-1] = (out[-1][0], number)
        else:
            out.append((number, number))
    return tuple(out)


def _query(metric: str, ids: Sequence[str], window_s: int) -> str:
    selector = f'{{service_name=~".+"}} | container_id=~"{"|".join(ids)}"'
    if metric == "count":
        return f"sum by (container_id, log_segment) (count_over_time({selector} [{window_s}s]))"
    over = {"max": ("max", "max_over_time"), "sum": ("sum", "sum_over_time")}[metric]
    return f"{over[0]} by (container_id, log_segment) ({over[1]}({selector} | unwrap log_file_record_number [{window_s}s]))"


def _by_file(samples: Iterable[Sample]) -> dict[tuple[str, int], float]:
    return {(s.labels.get("container_id", ""), int(s.labels.get("log_segment") or 0)): s.value for s in samples}


def prove_records(
    records: Sequence[SegmentRecords], reader_for: Callable[[str], Reader], now: datetime
) -> list[ProofRow]:
    """Compare what was written with what Loki holds. Raises LokiError where Loki does not answer."""
    rows: list[ProofRow] = []
    by_tenant: dict[str, list[SegmentRecords]] = {}
    for record in records:
        if record.records:
            by_tenant.setdefault(record.tenant, []).append(record)
        else:
            rows.append(_row(record, 0, complete=True, expected=0))
    for tenant, mine in sorted(by_tenant.items()):
        reader = reader_for(tenant)
        mine.sort(key=lambda record: record.source_id)
        ids = sorted({record.source_id for record in mine})
        for start in range(0, len(ids), IDS_PER_QUERY):
            part = set(ids[start : start + IDS_PER_QUERY])
            rows += _prove_part([record for record in mine if record.source_id in part], sorted(part), reader, now)
    return rows


def _prove_part(records: Sequence[SegmentRecords], ids: Sequence[str], reader: Reader, now: datetime) -> list[ProofRow]:
    # Containers' own clocks stamp the lines: an hour's room on both sides of what the agent saw.
    began = min(record.first_seen for record in records) - timedelta(hours=25)
    end = now + timedelta(hours=2)
    window, at = int((end - began).total_seconds()) + 1, int(end.timestamp() * 1e9)
    counts, tops, sums = (
        _by_file(reader.samples(_query(metric, ids, window), at)) for metric in ("count", "max", "sum")
    )
    out = []
    for record in records:
        key = (record.source_id, record.segment)
        count, top, total = int(counts.get(key, 0)), int(tops.get(key, 0)), int(sums.get(key, 0))
        n = record.records
        if record.joined == -1:
            out.append(_row(record, count, complete=top >= n, expected=n, exact=False))
        elif record.joined == 0 and count == n and top == n and total == n * (n + 1) // 2:
            out.append(_row(record, n, complete=True, expected=n))
        else:
            out.append(_by_rows(record, reader, began, end))
    return out


def _by_rows(record: SegmentRecords, reader: Reader, began: datetime, end: datetime) -> ProofRow:
    segment = f' | log_segment="{record.segment}"' if record.segment else ' | log_segment=""'
    query = f'{{service_name=~".+"}} | container_id="{record.source_id}"{segment} | line_format ""'
    start_ns, end_ns = int(began.timestamp() * 1e9), int(end.timestamp() * 1e9)
    try:
        numbers = {
            int(e.metadata.get("log_file_record_number", 0)) for e in reader.all_entries(query, start_ns, end_ns)
        }
    except LokiError as error:
        return _row(record, 0, complete=False, expected=record.records, problem=str(error)[:200])
    numbers.discard(0)
    missing = set(range(1, record.records + 1)) - numbers
    if record.joined and len(missing) <= record.joined:
        # Parts of a long line carry no number of their own; their line carries the last part's.
        missing = {n for n in missing if n == record.records and record.records not in numbers}
    expected = record.records - max(0, record.joined)
    return _row(
        record,
        min(len(numbers), expected) - (len(missing) if record.joined else 0),
        complete=not missing,
        expected=expected,
        missing=ranges(missing),
    )


def _row(
    record: SegmentRecords,
    found: int,
    *,
    complete: bool,
    expected: int,
    exact: bool = True,
    missing: tuple[tuple[int, int], ...] = (),
    problem: str = "",
) -> ProofRow:
    return ProofRow(
        record.source_id,
        record.segment,
        record.tenant,
        record.service,
        expected,
        found,
        record.records,
        complete,
        exact,
        record.final,
        max(0, record.size - record.read),
        missing,
        problem,
    )


def gaps_of(
    rows: Iterable[ProofRow], host: str, now: datetime, first_seen: dict[str, datetime] | None = None
) -> list[Gap]:
    """Gaps for what is missing for good: of finished files that were read to their end."""
    out = []
    for row in rows:
        if row.complete or row.problem or not row.final or row.behind or not row.missing:
            continue
        lines = sum(b - a + 1 for a, b in row.missing)
        out.append(
            Gap(
                host,
                row.source_id,
                row.service,
                row.tenant,
                "missing_in_loki",
                (first_seen or {}).get(row.source_id, now.astimezone(UTC)),
                now.astimezone(UTC),
                None,
                lines,
                f"records {row.missing_text()} of file {row.segment}",
                f"{host}/{row.source_id}/{row.segment}/missing/{row.missing[0][0]}",
            )
        )
    return out

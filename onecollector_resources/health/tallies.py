"""What Loki holds of a file, in four numbers or by name.

Every line carries the number of its record in its file. How many lines there are, their highest number, the sum and
the variance of their numbers tell together whether they are an unbroken run: four queries for hundreds of files. Where
they are no run, the rows themselves are fetched, of a large file only those of the parts that do not add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from onecollector_resources.loki.querier import Entry, LokiError, Sample

File = tuple[str, int]
"""(source id, segment)."""

Ranges = tuple[tuple[int, int], ...]
"""Inclusive ranges of record numbers, ascending."""

BY = "by (container_id, log_segment)"
NUMBER = "log_file_record_number"

ROWS_AT_ONCE = 50_000
"""Files with more records are looked at in parts first: a live file of millions would else be fetched whole."""

MOST_PARTS = 400
"""Under the 500 series that a Loki allows by default."""


class Reader(Protocol):
    """What is needed of a tenant's Loki client."""

    def samples(self, query: str, time_ns: int | None = None) -> tuple[Sample, ...]: ...
    def all_entries(self, query: str, start_ns: int, end_ns: int) -> Iterable[Entry]: ...


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, [start_ns, end_ns)."""

    start_ns: int
    end_ns: int

    @property
    def window(self) -> str:
        """As a LogQL range that ends with the span."""
        return f"{max(1, -(-(self.end_ns - self.start_ns) // 10**9))}s"


@dataclass(frozen=True, slots=True)
class Tally:
    """Lines of one file in Loki: how many, their highest number, the sum and the variance of their numbers."""

    count: int
    top: int
    total: int
    variance: float

    def run(self) -> tuple[int, int] | None:
        """First and last number where the lines are an unbroken run without repeats, else None.

        The sum alone would not do: of 1 to 4 it is also that of 1, 1, 4, 4. Variance of k consecutive numbers: (k²-1)/12.
        """
        first = self.top - self.count + 1
        if self.count < 1 or first < 1 or 2 * self.total != (first + self.top) * self.count:
            return None
        expected = (self.count**2 - 1) / 12
        return (first, self.top) if abs(self.variance - expected) <= max(1e-6, 1e-9 * expected) else None


def ranges(numbers: Iterable[int]) -> Ranges:
    """Numbers as inclusive ranges."""
    return merged((number, number) for number in sorted(numbers))


def merged(parts: Iterable[tuple[int, int]]) -> Ranges:
    """Ascending ranges with neighbours joined."""
    out: list[tuple[int, int]] = []
    for low, high in parts:
        if out and low == out[-1][1] + 1:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return tuple(out)


def too_many_series(error: LokiError) -> bool:
    """Whether Loki refused a query because its answer has too many series (500 by default)."""
    return error.status == 400 and "maximum" in str(error) and "series" in str(error)


def take_tallies(reader: Reader, ids: Sequence[str], span: Span) -> dict[File, Tally]:
    """Tallies of all files of some sources. Raises LokiError."""
    selector = f'{{service_name=~".+"}} | container_id=~"{"|".join(ids)}"'
    numbers = f"{selector} | unwrap {NUMBER} [{span.window}]"
    queries = (
        f"sum {BY} (count_over_time({selector} [{span.window}]))",
        f"max {BY} (max_over_time({numbers}) {BY})",
        f"sum {BY} (sum_over_time({numbers}))",
        f"stdvar_over_time({numbers}) {BY}",
    )
    try:
        counts, tops, totals, variances = (_by_file(reader.samples(query, span.end_ns)) for query in queries)
    except LokiError as error:
        if not too_many_series(error) or len(ids) == 1:
            raise
        half = len(ids) // 2
        return take_tallies(reader, ids[:half], span) | take_tallies(reader, ids[half:], span)
    return {
        file: Tally(int(count), int(tops.get(file, 0)), int(totals.get(file, 0)), variances.get(file, -1.0))
        for file, count in counts.items()
    }


def _by_file(samples: Iterable[Sample]) -> dict[File, float]:
    return {(s.labels.get("container_id", ""), int(s.labels.get("log_segment") or 0)): s.value for s in samples}


def _selector(file: File) -> str:
    # An absent label and an empty one are the same to Loki.
    return f'{{service_name=~".+"}} | container_id="{file[0]}" | log_segment="{file[1] or ""}"'


def numbers_in_loki(reader: Reader, file: File, span: Span, low: int = 0, high: int | None = None) -> set[int]:
    """The record numbers that are there, optionally only those from ``low`` to ``high``. Raises LokiError."""
    query = _selector(file)
    if high is not None:
        query += f" | {NUMBER} >= {low} | {NUMBER} <= {high}"
    # The text is not needed, and would be most of the answer.
    rows = reader.all_entries(f'{query} | line_format ""', span.start_ns, span.end_ns)
    return {int(row.metadata.get(NUMBER, 0)) for row in rows} - {0}


def missing_numbers(reader: Reader, file: File, records: int, span: Span) -> Ranges:
    """Which of 1 to ``records`` are not in Loki. Raises LokiError."""
    if records <= ROWS_AT_ONCE:
        return ranges(set(range(1, records + 1)) - numbers_in_loki(reader, file, span))
    size = max(10_000, -(-(records + 1) // MOST_PARTS))
    part = f"{_selector(file)} | label_format part=`{{{{ div (int .{NUMBER}) {size} }}}}`"
    counts, totals = (
        {int(s.labels["part"]): int(s.value) for s in reader.samples(query, span.end_ns) if s.labels.get("part")}
        for query in (
            f"sum by (part) (count_over_time({part} [{span.window}]))",
            f"sum by (part) (sum_over_time({part} | unwrap {NUMBER} [{span.window}]))",
        )
    )
    missing: list[tuple[int, int]] = []
    for index in range(records // size + 1):
        low, high = max(1, index * size), min(records, (index + 1) * size - 1)
        if low > high:
            continue
        count, total = counts.get(index, 0), totals.get(index, 0)
        if count == 0:
            missing.append((low, high))
        elif count != high - low + 1 or 2 * total != (low + high) * count:
            missing += ranges(set(range(low, high + 1)) - numbers_in_loki(reader, file, span, low, high))
    return merged(missing)

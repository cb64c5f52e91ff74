"""Why record numbers are missing from an hour: the next hour has them, a rule joined them, a gap is on record, or nobody
knows, and then the partition is not complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from onecollector_resources.exports.partitions import Hole
from onecollector_resources.exports.record_numbers import CONTAINER, NUMBER, SEGMENT
from onecollector_resources.exports.sources import Selection
from onecollector_resources.loki.querier import Entry
from onecollector_resources.records import Gap

BORDER_NS = 600 * 10**9
"""So far outside a range its file's other lines are looked for: writers stamp lines out of order, but not by more."""

MOST_ASKED = 20
"""Holes of one partition that Loki is asked about; with more of them something larger is wrong."""


class Lines(Protocol):
    """What is asked of Loki."""

    def all_entries(self, query: str, start_ns: int, end_ns: int) -> Iterable[Entry]: ...


@dataclass(frozen=True, slots=True)
class HoleExplainer:
    """``gaps`` answers what the registry has on a source, ``pipeline`` its pipeline's name (``profile+rule``) or ""."""

    loki: Lines
    selector: str
    gaps: Callable[[str], Sequence[Gap]]
    pipeline: Callable[[str], str]

    def __call__(self, selection: Selection, holes: Sequence[Hole]) -> list[Hole]:
        """The holes that are left, with what is known of them. Raises LokiError, RegistryError."""
        left: list[Hole] = []
        asked = 0
        for hole in holes:
            rule = self.pipeline(hole.source_id).partition("+")[2]
            if rule:
                left.append(replace(hole, known=f"lines joined by rule {rule}"))
                continue
            parts = [hole]
            if asked < MOST_ASKED:
                asked += 1
                parts = without(hole, self._outside(selection, hole))
            left += [replace(part, known=self._gap(selection, part)) for part in parts]
        return left

    def _outside(self, selection: Selection, hole: Hole) -> set[int]:
        query = (
            f'{self.selector} | {CONTAINER}="{hole.source_id}" | {SEGMENT}="{hole.segment}"'
            f" | {NUMBER} >= {hole.first} | {NUMBER} <= {hole.last}"
        )
        found: set[int] = set()
        for start, end in (
            (selection.start_ns - BORDER_NS, selection.start_ns),
            (selection.end_ns, selection.end_ns + BORDER_NS),
        ):
            found.update(int(entry.metadata[NUMBER]) for entry in self.loki.all_entries(query, start, end))
        return found

    def _gap(self, selection: Selection, hole: Hole) -> str:
        for gap in self.gaps(hole.source_id):
            began, ended = gap.started.timestamp() * 1e9, gap.ended.timestamp() * 1e9
            if began - BORDER_NS < selection.end_ns and ended + BORDER_NS > selection.start_ns:
                return f"gap on record: {gap.cause}"
        return ""


def without(hole: Hole, found: Iterable[int]) -> list[Hole]:
    """The hole less the numbers that were found after all."""
    parts: list[Hole] = []
    begin = hole.first
    for number in sorted({n for n in found if hole.first <= n <= hole.last}):
        if number > begin:
            parts.append(replace(hole, first=begin, last=number - 1))
        begin = number + 1
    if begin <= hole.last:
        parts.append(replace(hole, first=begin))
    return parts

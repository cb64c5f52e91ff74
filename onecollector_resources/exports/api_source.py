"""The query API as a source of exported lines: what Loki answers is what there is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from onecollector_resources.exports.plan import SERVICE_LABEL
from onecollector_resources.exports.sources import EngineName, Selection
from onecollector_resources.loki.batch import BatchQueryExecutor
from onecollector_resources.loki.catalogue import IndexStats
from onecollector_resources.loki.lines import LineBlock
from onecollector_resources.loki.logql import parse, with_matcher


class Statistics(Protocol):
    """What is asked of Loki's index."""

    def stats(self, selector: str, start_ns: int, end_ns: int) -> IndexStats: ...


def query_of(selection: Selection) -> str:
    """The selection's query for its service alone."""
    return with_matcher(selection.query, SERVICE_LABEL, selection.partition.service)


@dataclass(frozen=True, slots=True)
class ApiReading:
    """One pass through the query API."""

    executor: BatchQueryExecutor
    selection: Selection

    def blocks(self) -> Iterator[LineBlock]:
        """Raises ReadFailed where a window cannot be read whole."""
        return self.executor.read(query_of(self.selection), self.selection.start_ns, self.selection.end_ns)

    def problems(self) -> tuple[str, ...]:
        """None: what cannot be read raises."""
        return ()


@dataclass(frozen=True, slots=True)
class ApiSource:
    """Any Loki, through its query API."""

    executor: BatchQueryExecutor
    statistics: Statistics

    @property
    def name(self) -> EngineName:
        """``api``."""
        return "api"

    def read(self, selection: Selection) -> ApiReading:
        """Start a pass."""
        return ApiReading(self.executor, selection)

    def fingerprint(self, selection: Selection) -> str:
        """Entries and bytes that the index knows of. Chunks are not counted: a flush changes their number alone."""
        selector = parse(query_of(selection)).selector
        found = self.statistics.stats(selector, selection.start_ns, selection.end_ns)
        return f"stats:{found.entries}:{found.bytes}"

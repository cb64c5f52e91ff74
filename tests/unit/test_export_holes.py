"""Missing record numbers are explained by what is known, and only by that."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.exports.holes import HoleExplainer, without
from onecollector_resources.exports.partitions import Hole, Partition
from onecollector_resources.exports.sources import Selection
from onecollector_resources.loki.querier import Entry
from onecollector_resources.records import Gap

HOUR = datetime(2026, 11, 3, 14, tzinfo=UTC)
PARTITION = Partition("default", "web", HOUR)
SELECTION = Selection(PARTITION, '{service_name="web"}', PARTITION.start_ns, PARTITION.end_ns)
HOLE = Hole("c1", 0, 5, 9)


class Loki:
    """Has these record numbers in the minutes before and after the hour."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def all_entries(self, query: str, start_ns: int, end_ns: int) -> Iterable[Entry]:
        assert end_ns <= PARTITION.start_ns or start_ns >= PARTITION.end_ns
        return [Entry(start_ns, "", {}, {"log_file_record_number": str(number)}) for number in self.numbers]


def explained(loki: Loki, gaps: list[Gap], pipeline: str = "docker") -> list[Hole]:
    return HoleExplainer(loki, '{service_name="web"}', lambda _: gaps, lambda _: pipeline)(SELECTION, [HOLE])


def gap(started: datetime) -> Gap:
    return Gap("h", "c1", "web", "default", "log_removed", started, started + timedelta(minutes=1))


def test_what_the_neighbouring_hour_has_is_no_hole() -> None:
    assert explained(Loki(5, 6, 7, 8, 9), []) == []
    assert explained(Loki(6), []) == [Hole("c1", 0, 5, 5), Hole("c1", 0, 7, 9)]


def test_a_gap_of_that_time_explains_it_and_one_of_another_time_does_not() -> None:
    (hole,) = explained(Loki(), [gap(HOUR + timedelta(minutes=5))])
    assert hole.known == "gap on record: log_removed"
    (hole,) = explained(Loki(), [gap(HOUR + timedelta(hours=5))])
    assert hole.known == ""


def test_a_rule_that_joins_lines_explains_it() -> None:
    (hole,) = explained(Loki(), [], "docker+java")
    assert "java" in hole.known


@given(st.integers(1, 30), st.integers(0, 30), st.sets(st.integers(0, 70)))
def test_what_is_left_of_a_hole(first: int, more: int, found: set[int]) -> None:
    left = without(Hole("c", 0, first, first + more), found)
    numbers = [n for part in left for n in range(part.first, part.last + 1)]
    assert numbers == [n for n in range(first, first + more + 1) if n not in found]

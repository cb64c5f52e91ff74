"""Holes in record numbers are found whatever blocks the lines came in, and joined lines are none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.exports.partitions import Hole
from onecollector_resources.exports.record_numbers import RecordNumbers
from onecollector_resources.loki.lines import label_text, ordered
from tests.unit.lines_model import Line, block_of

LABELS = label_text({"service_name": "web"})


def line(number: int, container: str = "c1", segment: str = "0", text: str = "x") -> Line:
    pairs = (("container_id", container), ("log_file_record_number", str(number)), ("log_segment", segment))
    return (number, LABELS, f"{text}", pairs)


def holes_of(*blocks: list[Line]) -> tuple[Hole, ...]:
    numbers = RecordNumbers()
    for block in blocks:
        numbers.add(ordered(block_of(block)).table)
    return numbers.holes()


@given(st.sets(st.integers(1, 60), min_size=1), st.integers(0, 60))
def test_holes_are_the_numbers_between_that_are_missing(there: set[int], cut: int) -> None:
    lines = [line(number) for number in sorted(there)]
    found = holes_of(lines[:cut], lines[cut:])
    missing = {number for hole in found for number in range(hole.first, hole.last + 1)}
    assert missing == set(range(min(there), max(there))) - there


def test_files_of_a_container_and_containers_are_counted_alone() -> None:
    lines = [line(1), line(2), line(9, segment="1"), line(10, segment="1"), line(5, container="c2")]
    assert holes_of(lines) == ()
    assert holes_of([*lines, line(4)]) == (Hole("c1", 0, 3, 3),)


def test_the_parts_of_a_long_line_are_no_hole() -> None:
    assert holes_of([line(1), line(2, text="x" * 40_000), line(5)]) == ()
    assert holes_of([line(1), line(2, text="x" * 20_000), line(5)]) == (Hole("c1", 0, 3, 4),)


def test_lines_of_others_have_no_numbers() -> None:
    assert holes_of([(1, LABELS, "x", ()), (2, LABELS, "y", (("trace_id", "1"),))]) == ()

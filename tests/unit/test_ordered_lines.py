"""Lines in one order, each once: whatever order, pages, chunks and replicas they came in."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.loki.lines import LineBlock, empty_metadata, label_text, ordered
from tests.unit.lines_model import Line, block_of, rows_of

PAIRS = st.dictionaries(
    st.sampled_from(["a", "b", "severity_text"]), st.sampled_from(["", "x", "\x1f", "\\", "x\x1fb\x1fy"])
)
LINES = st.tuples(
    st.sampled_from([0, 1, 2, 1_800_000_000_000_000_000]),
    st.sampled_from([label_text({"service_name": name}) for name in "abc"]),
    st.sampled_from(["", "one", "two", "ü\x1f"]),
    PAIRS.map(lambda pairs: tuple(sorted(pairs.items()))),
)


@given(st.lists(LINES, max_size=40))
def test_every_line_once_in_order(lines: list[Line]) -> None:
    result = ordered(block_of(lines))
    rows = rows_of(result.table)
    assert sorted(rows) == sorted(set(lines))
    assert [row[:3] for row in rows] == sorted(row[:3] for row in rows)
    assert result.duplicates == len(lines) - len(set(lines))


@given(st.lists(LINES, min_size=1, max_size=20), st.randoms())
def test_the_order_that_lines_came_in_does_not_show(lines: list[Line], chance: random.Random) -> None:
    shuffled = chance.sample(lines, len(lines))
    assert ordered(block_of(lines)).table.equals(ordered(block_of(shuffled)).table)


def test_no_lines_are_a_table_too() -> None:
    block = LineBlock([], np.zeros(0, np.int32), np.zeros(0, np.int64), pa.array([], pa.string()), empty_metadata(0))
    assert ordered(block).table.num_rows == 0


def test_labels_that_loki_adds_for_itself_are_not_told_apart() -> None:
    assert label_text({"b": "2", "__time_shard__": "1_2", "a": "1"}) == label_text({"a": "1", "b": "2"})


def test_severity_is_what_the_line_says_of_itself_before_what_loki_guessed() -> None:
    lines: list[Line] = [
        (1, label_text({"level": "Warn"}), "x", (("detected_level", "info"), ("severity_text", "ERROR"))),
        (2, label_text({"level": "Warn"}), "x", (("detected_level", "info"),)),
        (3, label_text({"level": "Warn"}), "x", ()),
        (4, label_text({}), "x", (("other", "y"),)),
        (5, label_text({}), "x", (("severity_text", "error"),)),
    ]
    severities = ordered(block_of(lines)).table.column("severity").to_pylist()
    assert severities == ["error", "info", "warn", None, "error"]

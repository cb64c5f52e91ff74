"""Hashes of a day's lines: the same however the lines were read and cut, another for any other line; and when it happens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.archive.keys import day_ms
from onecollector_resources.archive.proof import DayProof, DayUnreadable, StreamProof, differences, proof_of
from onecollector_resources.archive.query_reader import MS, QueriedDay, selectors
from onecollector_resources.archive.scratch import scratch_config
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.config import leaves
from onecollector_resources.loki.lines import LineBlock, label_text, ordered
from sensors.archive import last_closed
from tests.unit.archive_worlds import DAY, SCHEMA
from tests.unit.fake_loki import LokiOfChunks, row

TEXTS = st.text(st.sampled_from("aé\x1f\\ \n"), max_size=4)
LINES = st.tuples(st.integers(0, 6), st.sampled_from(["a", "b", "c"]), TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=2))
Line = tuple[int, str, str, dict[str, str]]


def table_of(lines: Sequence[Line]) -> pa.Table:
    names = sorted({line[1] for line in lines})
    block = LineBlock(
        [label_text({"app": name}) for name in names],
        _int([names.index(line[1]) for line in lines], "int32"),
        _int([line[0] for line in lines], "int64"),
        pa.array([line[2] for line in lines], pa.string()),
        pa.array([sorted(line[3].items()) for line in lines], pa.map_(pa.string(), pa.string())),
    )
    return ordered(block).table


def _int(values: list[int], kind: str) -> Any:
    import numpy as np

    return np.array(values, kind)


def in_parts(lines: Sequence[Line], cuts: set[int]) -> DayProof:
    """Read in closed spans of time, as readers do."""
    borders = sorted({0, 7, *cuts})
    spans = [[line for line in lines if a <= line[0] < b] for a, b in itertools.pairwise(borders)]
    return proof_of("test", [table_of(span) for span in spans if span])


@settings(deadline=None)
@given(st.lists(LINES, min_size=1, max_size=20), st.randoms(), st.sets(st.integers(1, 6)))
def test_neither_order_nor_cuts_nor_repeats_change_a_proof(lines: list[Line], chance: Any, cuts: set[int]) -> None:
    shuffled = [*lines, *lines[:3]]
    chance.shuffle(shuffled)
    assert in_parts(shuffled, cuts) == in_parts(lines, set())


@settings(deadline=None)
@given(st.lists(LINES, min_size=1, max_size=12), LINES, st.integers(0, 11))
def test_any_other_line_changes_it(lines: list[Line], other: Line, place: int) -> None:
    changed = list(lines)
    changed[place % len(lines)] = other

    def identities(of: list[Line]) -> set[tuple[Any, ...]]:
        return {(at, app, text, tuple(sorted(metadata.items()))) for at, app, text, metadata in of}

    same = identities(changed) == identities(lines)
    a, b = in_parts(lines, set()), in_parts(changed, set())
    assert (a == b) == same
    assert bool(differences(a, b)) != same


def test_differences_are_told_by_stream() -> None:
    expected = DayProof("x", 6, "", (StreamProof("a", 1, "1"), StreamProof("b", 2, "2"), StreamProof("c", 3, "3")))
    found = DayProof("y", 8, "", (StreamProof("b", 3, "9"), StreamProof("c", 3, "4"), StreamProof("d", 2, "5")))
    assert differences(expected, found) == [
        "a: expected 1 lines, found none",
        "b: expected 2 lines, found 3",
        "c: 3 lines as expected, but not the same: sha256 3 against 4",
        "d: expected none, found 2 lines",
    ]


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.just("v"), min_size=1), max_size=8))
def test_selectors_match_each_stream_once(streams: list[dict[str, str]]) -> None:
    def matches(selector: str, labels: dict[str, str]) -> bool:
        parts = selector.strip("{}").split(", ")
        return all(
            bool(labels.get(part[0])) if part.endswith('=~".+"') else not labels.get(part.split("=")[0])
            for part in parts
        )

    names = sorted({name for labels in streams for name in labels})
    for labels in streams:
        assert sum(matches(selector, labels) for selector in selectors(names)) == 1


def test_a_scratch_loki_removes_nothing_and_reads_the_archived_schema_from_disk(tmp_path: Any) -> None:
    import yaml

    config = yaml.safe_load(scratch_config(SCHEMA, data_dir=tmp_path, http_port=1, grpc_port=2))
    [period] = config["schema_config"]["configs"]
    assert (period["object_store"], period["schema"], period["from"]) == ("filesystem", "v13", "2024-01-01")
    assert config["storage_config"]["object_store"] == {"filesystem": {"dir": f"{tmp_path}/objects"}}
    assert "retention_enabled" not in config["compactor"]
    assert config["limits_config"]["retention_period"] == "0s"
    assert config["ingester"]["wal"] == {"enabled": False}
    listens = {value for path, value in leaves(config) if path.endswith("listen_address")}
    assert listens == {"127.0.0.1"}


def test_the_newest_closed_day() -> None:
    morning = datetime(2026, 11, 3, 5, 23, tzinfo=UTC)
    assert last_closed(morning, 4) == "2026-11-02"
    assert last_closed(morning, 6) == "2026-11-01"


MORNING = day_ms(DAY)[0] * MS
CHUNK_LINES = st.lists(
    st.tuples(st.integers(0, 5 * MS), st.sampled_from("ab"), st.sampled_from(["x", "y", "z"])), min_size=1, max_size=40
)


class Labelled(LokiOfChunks):
    """It has one label."""

    def _answer(self, path: str, params: dict[str, str]) -> httpx.Response:
        if path.endswith("/labels"):
            return httpx.Response(200, json={"data": ["app"]})
        return super()._answer(path, params)


@settings(deadline=None)
@given(CHUNK_LINES, st.integers(1, 7), st.integers(1, 10))
def test_a_day_is_its_lines_wherever_chunks_and_pages_end(
    rows: list[tuple[int, str, str]], size: int, most: int
) -> None:
    lines = [(MORNING + at - MS, row({"app": app}, line)) for at, app, line in rows]
    loki = Labelled(lines, size, most + 1)
    reader = QueriedDay(lambda _: LokiAccess("http://loki", "t"), transport=loki, sleep=lambda _: None)
    tables = list(reader.tables("t", DAY, []))
    found = [
        pair
        for one in tables
        for pair in zip(one["timestamp"].cast("int64").to_pylist(), one["line"].to_pylist(), strict=True)
    ]
    expected = {(at, app, one.line) for at, one in lines for app in [one.labels["app"]] if at >= MORNING}
    assert sorted(found) == sorted((at, line) for at, _, line in expected)


def test_a_loki_that_refuses_is_said_with_the_span() -> None:
    loki = Labelled([], 1)
    loki.fault = lambda request, params: (
        httpx.Response(400, text="no such thing") if request.url.path.endswith("query_range") else None
    )
    reader = QueriedDay(lambda _: LokiAccess("http://loki", "t"), transport=loki, sleep=lambda _: None)
    with pytest.raises(DayUnreadable, match=r'\{app=~".\+"\} in \[2026-11-02.*: 400: no such thing'):
        list(reader.tables("t", DAY, []))

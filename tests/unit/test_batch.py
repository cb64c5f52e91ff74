"""The executor against a model of Loki: the same lines whatever pages, windows, refusals and breaks there are on the way."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.batch import BatchQueryExecutor
from onecollector_resources.loki.effort import ReadFailed
from onecollector_resources.loki.lines import label_text
from onecollector_resources.loki.logql import LogqlError
from onecollector_resources.loki.splits import Row
from onecollector_resources.loki.windows import SECOND_NS
from tests.unit import lines_model
from tests.unit.fake_loki import FakeLoki, Fault, Line, LokiOfChunks, identity, row

ALL = '{app="a"}'


def executor(loki: FakeLoki, **options: Any) -> BatchQueryExecutor:
    """One that hardly waits between tries."""
    access = LokiAccess("http://loki", "t")
    options = {"at_once": 3, "chance": lambda: -1 + 1e-2, **options}
    return BatchQueryExecutor(access, transport=loki, sleep=lambda _: None, **options)


def expected(lines: Sequence[Line], start: int, end: int) -> list[lines_model.Line]:
    rows = {(t, label_text(r.labels), r.line, tuple(sorted(r.metadata.items()))) for t, r in lines if start <= t < end}
    return sorted(rows)


def some_lines(count: int, span_s: int = 600) -> list[Line]:
    chance = random.Random(1)
    return [
        (
            chance.randrange(span_s * SECOND_NS),
            row({"pod": str(n % 3)}, f"line {n}", {"b": "2", "a": str(n)} if n % 2 else None),
        )
        for n in range(count)
    ]


def read(reader: BatchQueryExecutor, start: int, end: int, query: str = ALL) -> list[lines_model.Line]:
    """All rows in the order of the blocks; checks what blocks promise."""
    blocks = list(reader.read(query, start, end))
    assert all(before.time_ns.max() < after.time_ns.min() for before, after in pairwise(blocks))
    return lines_model.rows_of(reader.merge_results(blocks).table)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, 1, 2, SECOND_NS - 1, SECOND_NS, SECOND_NS + 1, 5 * SECOND_NS]),
            st.builds(
                row,
                st.dictionaries(st.sampled_from(["pod", "__stream_shard__"]), st.sampled_from(["1", "2"])),
                st.sampled_from(["", "x", "ü", "x\ny"]),
                st.dictionaries(st.sampled_from(["m", "n"]), st.sampled_from(["1", "2"])),
            ),
        ),
        max_size=80,
    ),
    st.integers(2, 7),
    st.integers(2, 7),
    st.integers(1, 40),
    st.integers(0, SECOND_NS + 2),
    st.integers(0, 6 * SECOND_NS),
)
def test_every_line_of_the_range_whatever_the_pages(
    lines: list[Line], most: int, page_rows: int, window_bytes: int, start: int, length: int
) -> None:
    with executor(FakeLoki(lines, most), page_rows=page_rows, window_bytes=window_bytes) as reader:
        assert read(reader, start, start + length) == expected(lines, start, start + length)


def test_a_page_full_of_lines_before_a_short_window_is_no_dead_end() -> None:
    lines = [(10 * SECOND_NS + n % 3, row({"pod": str(n)}, "x")) for n in range(40)]
    with executor(FakeLoki(lines, 5), page_rows=4) as reader:
        assert read(reader, 10 * SECOND_NS + 12_123, 10 * SECOND_NS + 16_171) == []
        assert len(read(reader, 10 * SECOND_NS + 1, 10 * SECOND_NS + 16_171)) == 26


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3 * SECOND_NS // 1000), st.sampled_from("xyz")), max_size=60),
    st.integers(1, 9),
    st.integers(2, 9),
    st.integers(20, 60),
    st.integers(0, SECOND_NS // 1000),
)
def test_no_line_is_missed_where_a_chunk_ends(
    rows: list[tuple[int, str]], size: int, most: int, window_bytes: int, start: int
) -> None:
    begin = 10 * SECOND_NS
    lines = [(begin + at, row({"pod": text}, text)) for at, text in rows]
    with executor(LokiOfChunks(lines, size, most), window_bytes=window_bytes) as reader:
        found = read(reader, begin + start, begin + SECOND_NS)
    assert found == expected(lines, begin + start, begin + SECOND_NS)


def test_windows_cover_the_range_and_are_about_as_large_as_was_wanted() -> None:
    lines, span = some_lines(4_000), 600 * SECOND_NS
    with executor(FakeLoki(lines), page_rows=200) as reader:
        windows = list(reader.fan_out_time_windows(ALL, 0, span))
        assert [w.end_ns for w in windows[:-1]] == [w.start_ns for w in windows[1:]]
        assert (windows[0].start_ns, windows[-1].end_ns) == (0, span)
        assert 20 <= len(windows) < 50
        assert windows == list(reader.fan_out_time_windows(ALL, 0, span))


def faulty(kinds: dict[int, Any], path: str = "query_range") -> Fault:
    """The n-th question to a path goes as ``kinds`` says: an error to raise, or an answer."""
    lock, asked = threading.Lock(), [0]

    def fault(request: httpx.Request, params: dict[str, str]) -> httpx.Response | None:
        if not request.url.path.endswith(path):
            return None
        with lock:
            asked[0] += 1
            kind = kinds.get(asked[0])
        if isinstance(kind, Exception):
            raise kind
        return kind

    return fault


@pytest.mark.parametrize("path", ["query_range", "index/stats", "drilldown-limits"])
def test_troubles_on_the_way_do_not_show(path: str) -> None:
    kinds = {
        1: httpx.Response(429, text="too many outstanding requests"),
        2: httpx.Response(500, text="oops"),
        3: httpx.ReadTimeout("slow"),
        4: httpx.RemoteProtocolError("peer closed connection"),
        5: httpx.ConnectError("refused"),
        6: httpx.Response(504, text="context deadline exceeded"),
        7: httpx.Response(200, text="<html>a proxy's page</html>"),
        9: httpx.Response(500, text="grpc: received message larger than max (5242880 vs. 4194304)"),
        10: httpx.Response(400, text="the query time range exceeds the limit (query length: 10m, limit: 1m)"),
    }
    lines = some_lines(3_000)
    with executor(FakeLoki(lines, fault=faulty(kinds, path)), page_rows=150) as reader:
        assert read(reader, 0, 600 * SECOND_NS) == expected(lines, 0, 600 * SECOND_NS)
        if path == "query_range":
            assert dict(reader.tally.troubles) == {
                "busy": 1, "failed": 2, "silent": 1, "cut": 1, "away": 1, "garbled": 1, "too_large": 1, "too_long": 1
            }  # fmt: skip
            assert reader.tally.rows == len(expected(lines, 0, 600 * SECOND_NS))


def test_a_limit_that_is_not_told_is_learned_once() -> None:
    fault = faulty(dict.fromkeys(range(1, 9), httpx.Response(404, text="not found")), "drilldown-limits")
    lines = some_lines(3_000)
    loki = FakeLoki(lines, most=70, fault=fault)
    with executor(loki, at_once=1) as reader:
        assert len(read(reader, 0, 600 * SECOND_NS)) == 3_000
        assert reader.tally.troubles["limit"] <= 4  # the windows that were planned already


def test_answers_that_are_too_large_for_lokis_messages_are_asked_for_in_smaller_ones() -> None:
    """As with stock limits: a page of more bytes than that is silence until the connection breaks."""
    lines = [(n * SECOND_NS // 10, row({}, "x" * 3_000 + f"{n:05d}")) for n in range(2_000)]
    loki = FakeLoki(lines, most=5_000)

    def fault(request: httpx.Request, params: dict[str, str]) -> httpx.Response | None:
        if request.url.path.endswith("query_range") and int(params["limit"]) > 150:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.")
        return None

    loki.fault = fault
    with executor(loki, page_bytes=None) as reader:
        assert len(read(reader, 0, 200 * SECOND_NS)) == 2_000
    loki.fault, loki.asked = None, []
    with executor(loki, page_bytes=300_000) as reader:
        assert len(read(reader, 0, 200 * SECOND_NS)) == 2_000
    assert all(int(one["limit"]) <= 100 for one in loki.asked if "limit" in one)


def test_a_refusal_is_final_and_shows_the_spot() -> None:
    text = "parse error at line 1, col 9: syntax error: unexpected IDENTIFIER"
    loki = FakeLoki([], fault=faulty(dict.fromkeys(range(1, 99), httpx.Response(400, text=text))))
    with executor(loki) as reader:
        with pytest.raises(
            ReadFailed, match=r"could not read .*1970-01-01T00:00:00\.000000000Z.*400: parse error"
        ) as error:
            read(reader, 0, 1_000)
    assert str(error.value).endswith(f"\n    {ALL}\n            ^")
    assert error.value.window.end_ns == 1_000


def test_what_fails_for_too_long_names_its_window_and_what_was_tried() -> None:
    away = dict.fromkeys(range(1, 9_999), httpx.Response(503, text="no backend"))
    with executor(FakeLoki(some_lines(10), fault=faulty(away)), patience_s=0.2) as reader:
        with pytest.raises(
            ReadFailed, match=r"in \[1970.*\(\d+ tries in 0 s, pages down to .* lines\): 503: no backend"
        ):
            read(reader, 0, 600 * SECOND_NS)


def test_a_query_that_changes_lines_is_refused_before_anything_is_asked() -> None:
    loki = FakeLoki([])
    with executor(loki) as reader:
        with pytest.raises(LogqlError, match="json takes labels out of the line"):
            reader.read('{app="a"} | json', 0, 1)
        with pytest.raises(ValueError, match="a start before the end"):
            reader.read(ALL, 2, 1)
    assert loki.asked == []


def test_a_slow_reader_holds_the_readers_up() -> None:
    lines = some_lines(5_000)
    loki = FakeLoki(lines)
    with executor(loki, page_rows=50) as reader:
        blocks = reader.read(ALL, 0, 600 * SECOND_NS)
        first = next(blocks)
        assert len(first)
        loki_asked = [one for one in loki.asked if one["path"].endswith("query_range")]
        assert len(loki_asked) < 30
        rest = sum(len(block) for block in blocks)
    assert len(first) + rest == 5_000


def test_filters_are_given_larger_windows() -> None:
    lines = [
        (t, Row(r.labels, r.line + (" error" if n % 500 == 0 else ""), r.metadata))
        for n, (t, r) in enumerate(some_lines(20_000))
    ]
    loki = FakeLoki(lines)
    with executor(loki, page_rows=100) as reader:
        found = read(reader, 0, 600 * SECOND_NS, ALL + ' |= "error"')
    assert len(found) == 40
    asked = [one for one in loki.asked if one["path"].endswith("query_range")]
    assert len(asked) < 100  # of 250 for all the lines


def test_no_lines_at_all() -> None:
    with executor(FakeLoki([])) as reader:
        assert list(reader.read(ALL, 0, 10)) == []
        assert list(reader.read(ALL, 5, 5)) == []
        table = reader.merge_results([]).table
    assert table.num_rows == 0


def test_a_bug_is_not_mistaken_for_the_end() -> None:
    def fault(request: httpx.Request, params: dict[str, str]) -> httpx.Response | None:
        if request.url.path.endswith("query_range"):
            raise ZeroDivisionError("a bug")
        return None

    with executor(FakeLoki(some_lines(10), fault=fault)) as reader:
        with pytest.raises(ZeroDivisionError, match="a bug"):
            read(reader, 0, 600 * SECOND_NS)


def test_rows_are_columns_of_the_right_kinds() -> None:
    lines = [(5, row({"__time_shard__": "1_2"}, "x", {"z": "1", "a": "2"})), (6, row({}, "y"))]
    with executor(FakeLoki(lines)) as reader:
        (block,) = reader.read(ALL, 0, 10)
    assert block.time_ns.dtype == np.int64
    assert block.stream.dtype == np.int32
    assert {block.streams[n] for n in block.stream} == {label_text({"app": "a"})}
    assert sorted(map(str, block.metadata.to_pylist())) == ["[('a', '2'), ('z', '1')]", "[]"]
    assert len({identity(line) for line in lines}) == 2


def test_what_the_index_does_not_know_of_is_read_side_by_side_too() -> None:
    """Lines that are not flushed."""
    lines = some_lines(5_000)
    nothing = httpx.Response(200, json={"bytes": 0, "entries": 0})
    loki = FakeLoki(lines, fault=faulty(dict.fromkeys(range(1, 99), nothing), "index/stats"))
    with executor(loki, page_rows=200, at_once=4) as reader:
        assert read(reader, 0, 600 * SECOND_NS) == expected(lines, 0, 600 * SECOND_NS)
        assert reader.tally.windows > 10


def test_the_first_page_of_lines_that_nothing_is_known_of_is_small() -> None:
    """Lines in memory, which the index does not know, in a Loki whose messages may be small."""
    lines = [(n * SECOND_NS // 10, row({}, "x" * 3_000 + f"{n:05d}")) for n in range(2_000)]
    nothing = httpx.Response(200, json={"bytes": 0, "entries": 0})
    loki = FakeLoki(lines, fault=faulty(dict.fromkeys(range(1, 99), nothing), "index/stats"))
    with executor(loki, at_once=1) as reader:
        assert len(read(reader, 0, 200 * SECOND_NS)) == 2_000
    limits = [int(one["limit"]) for one in loki.asked if "limit" in one]
    assert limits[0] == 150
    assert all(900 < limit < 1_000 for limit in limits[1:])


def test_pages_grow_again_when_what_broke_them_is_over() -> None:
    lines = some_lines(6_000)
    nothing = httpx.Response(200, json={"bytes": 0, "entries": 0})
    broken = [httpx.RemoteProtocolError("cut")] * 4
    loki = FakeLoki(lines, fault=faulty(dict(enumerate(broken, 1))))
    no_sizes = faulty(dict.fromkeys(range(1, 99), nothing), "index/stats")
    breaks = loki.fault
    assert breaks is not None
    loki.fault = lambda request, params: no_sizes(request, params) or breaks(request, params)
    with executor(loki, at_once=1, page_rows=1_000, page_bytes=None) as reader:
        assert read(reader, 0, 600 * SECOND_NS) == expected(lines, 0, 600 * SECOND_NS)
    limits = [int(one["limit"]) for one in loki.asked if "limit" in one]
    assert min(limits) < 200
    assert limits[-1] == 1_000


def test_a_reader_that_stops_early_leaves_nothing_running() -> None:
    before = threading.active_count()
    with executor(FakeLoki(some_lines(5_000)), page_rows=50) as reader:
        blocks = reader.read(ALL, 0, 600 * SECOND_NS)
        next(blocks)
        blocks.close()  # pyright: ignore[reportAttributeAccessIssue]
        deadline = time.monotonic() + 60
        while threading.active_count() > before:
            assert time.monotonic() < deadline, threading.enumerate()
            time.sleep(0.01)

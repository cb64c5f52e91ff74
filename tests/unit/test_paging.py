"""Every line of a range comes out of Loki once, whatever shares a nanosecond, whatever a page holds, in both directions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.loki.pager import MS
from onecollector_resources.loki.querier import AsyncLokiQuerierClient, LokiQuerierClient
from tests.unit.fake_loki import FakeLoki, Line, LokiOfChunks, identity, row

ACCESS = LokiAccess("http://loki", "default")
QUERY = '{app="a"}'

# Few of each, so that many lines differ in one part alone: stream, text or metadata.
texts = st.sampled_from(["", "a", "b", "ab", "aa", "a\nb", "ä", "x" * 300, "x" * 300 + "y"])
rows = st.builds(
    row,
    st.sampled_from([{}, {"pod": "1"}, {"pod": "2"}]),
    texts,
    st.sampled_from([{}, {"trace": "1"}, {"trace": "2"}, {"trace": "1", "span": "1"}]),
)
lines = st.lists(st.tuples(st.sampled_from([5, 6, 6, 6, 9]), rows), max_size=60)


class Async(httpx.AsyncBaseTransport):
    """The same Loki for asyncio."""

    def __init__(self, loki: FakeLoki) -> None:
        self.loki = loki

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.loki.handle_request(request)


def read(loki: FakeLoki, start: int = 0, end: int = 100, **how: Any) -> list[Entry]:
    with LokiQuerierClient(ACCESS, transport=loki) as client:
        return list(client.all_entries(QUERY, start, end, **how))


def keys(entries: Sequence[Entry]) -> list[Any]:
    return [(e.time_ns, tuple(sorted(e.labels.items())), e.line, tuple(sorted(e.metadata.items()))) for e in entries]


@given(lines, st.integers(2, 12), st.integers(2, 12), st.sampled_from(["forward", "backward"]))
@settings(max_examples=150, deadline=None)
def test_every_line_comes_once_and_in_order_of_time(held: list[Line], page: int, most: int, direction: Any) -> None:
    found = read(FakeLoki(held, most), page=page, direction=direction)
    assert sorted(keys(found)) == sorted(set(map(identity, held)))
    times = [entry.time_ns for entry in found]
    assert times == sorted(times, reverse=direction == "backward")


spread = st.lists(st.tuples(st.integers(MS, 4 * MS), rows), max_size=40)


@given(
    spread,
    st.integers(1, 6),
    st.integers(2, 9),
    st.integers(MS, 4 * MS),
    st.one_of(st.none(), st.integers(1, 40)),
    st.sampled_from(["forward", "backward"]),
)
@settings(max_examples=100, deadline=None)
def test_no_line_is_missed_where_a_chunk_ends(
    held: list[Line], size: int, most: int, start: int, first: int | None, direction: Any
) -> None:
    found = read(LokiOfChunks(held, size, most), start, 4 * MS, page=20, direction=direction, most=first)
    every = sorted({identity(one) for one in held if start <= one[0] < 4 * MS}, reverse=direction == "backward")
    assert [entry.time_ns for entry in found] == [one[0] for one in every][:first]
    assert len(set(keys(found))) == len(found)


@given(lines, st.integers(5, 9), st.integers(5, 10))
@settings(max_examples=30, deadline=None)
def test_the_start_is_in_and_the_end_is_not(held: list[Line], start: int, end: int) -> None:
    found = read(FakeLoki(held, 4), start, end, page=4)
    assert sorted(keys(found)) == sorted({identity(one) for one in held if start <= one[0] < end})


@given(lines, st.integers(1, 70), st.sampled_from(["forward", "backward"]))
@settings(max_examples=80, deadline=None)
def test_the_first_so_many_are_the_first(held: list[Line], most: int, direction: Any) -> None:
    found = read(FakeLoki(held, 5), page=5, direction=direction, most=most)
    every = sorted({identity(one) for one in held})
    assert len(found) == len(set(keys(found))) == min(most, len(every))
    times = sorted((one[0] for one in every), reverse=direction == "backward")
    assert [entry.time_ns for entry in found] == times[:most]


@given(lines, st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_the_client_for_asyncio_reads_the_same(held: list[Line], page: int) -> None:
    async def everything() -> list[Entry]:
        async with AsyncLokiQuerierClient(ACCESS, transport=Async(FakeLoki(held, 6))) as client:
            return [entry async for entry in client.all_entries(QUERY, 0, 100, page)]

    assert asyncio.run(everything()) == read(FakeLoki(held, 6), page=page)


@pytest.mark.parametrize("differ", ["all", "metadata"])
def test_a_nanosecond_of_thousands_of_lines_is_read_in_parts(differ: str) -> None:
    if differ == "all":
        held = [(7, row({"pod": str(n % 3)}, f"{n // 2}", {"n": str(n)})) for n in range(3_000)]
    else:
        held = [(7, row({}, "same", {"n": str(n)})) for n in range(3_000)]
    loki = FakeLoki(held, 100)
    assert len(set(keys(read(loki)))) == 3_000
    # Each query halves what is left: not one per line.
    assert len(loki.asked) < 250


def test_lines_that_nothing_tells_apart_are_an_error_and_not_a_loss() -> None:
    # A stage that empties lines leaves nothing to ask for; what differs here is a name that no query can spell.
    held = [(7, row({}, "same", {"a-b": str(n)})) for n in range(20)]
    with pytest.raises(LokiError, match=r"10 lines at 7 ns fill a page of 10, .* raise max_entries_limit"):
        read(FakeLoki(held, 10))


def test_a_tenant_with_a_smaller_page_is_read_in_its_pages() -> None:
    held = [(n * MS, row({}, str(n))) for n in range(100)]
    loki = FakeLoki(held, 30)
    assert len(read(loki, 0, 100 * MS, page=20_000)) == 100
    assert [one["limit"] for one in loki.asked] == ["20000", "30", "30", "30", "30"]


def test_an_answer_too_large_for_lokis_parts_is_asked_for_in_smaller_pages() -> None:
    held = [(n, row({}, str(n))) for n in range(1_000)]

    def hangs(request: httpx.Request, params: dict[str, str]) -> httpx.Response | None:
        if int(params.get("limit", 0)) > 300:
            raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        return None

    loki = FakeLoki(held, 5_000, hangs)
    assert len(read(loki, 0, 2_000, page=1_000)) == 1_000
    assert [one["limit"] for one in loki.asked[:3]] == ["1000", "500", "250"]


def test_a_loki_that_is_away_is_not_asked_for_less() -> None:
    def away(request: httpx.Request, params: dict[str, str]) -> httpx.Response | None:
        raise httpx.ConnectError("Connection refused", request=request)

    loki = FakeLoki([], 10, away)
    with pytest.raises(
        LokiError, match=r"Loki at http://loki does not answer: ConnectError: Connection refused"
    ) as error:
        read(loki)
    assert error.value.away
    assert len(loki.asked) == 1

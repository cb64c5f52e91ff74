"""The clients against a real Loki: each method, exact paging through a crowded nanosecond, and the ways in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.stack import wait_until
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.answers import Samples, Streams
from onecollector_resources.loki.faults import LokiError, NoLogQuery
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.loki.querier import AsyncLokiQuerierClient, LokiQuerierClient
from onecollector_resources.settings import LokiSettings, Settings
from tests.real.gateway import Porter, gateway
from tests.real.lokis import new_loki

pytestmark = [pytest.mark.real]

S = 10**9
LIMIT = 1_000
"""Lines in one answer, of the tenant ``small``."""

Rows = list[tuple[int, str, dict[str, str]]]


def push(url: str, streams: dict[tuple[tuple[str, str], ...], Rows], tenant: str = "default") -> None:
    body = [
        {"stream": dict(k), "values": [[str(t), line, meta] for t, line, meta in rows]} for k, rows in streams.items()
    ]
    headers = {"X-Scope-OrgID": tenant}
    answer = httpx.post(f"{url}/loki/api/v1/push", json={"streams": body}, headers=headers, timeout=60)
    assert answer.status_code == 204, answer.text


@pytest.fixture(scope="module")
def server(part: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LokiLifecycle]:
    folder = tmp_path_factory.mktemp("queried")
    loki = LokiSettings(
        overrides={"pattern_ingester": {"enabled": True, "lifecycler": {"min_ready_duration": "0s"}}},
        tenant_overrides={"small": {"max_entries_limit_per_query": LIMIT}},
    )
    server = new_loki(part("loki"), folder, Settings(state_dir=folder, loki=loki))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def start_ns(server: LokiLifecycle) -> int:
    """20 JSON lines a second apart from here on, of the service ``shop``, and one of ``other`` a nanosecond later."""
    first = (time.time_ns() // S - 60) * S
    rows: Rows = [
        (first + n * S, json.dumps({"level": "error" if n % 2 else "info", "n": n}), {"trace_id": f"t{n}"})
        for n in range(20)
    ]
    push(server.url, {(("service_name", "shop"),): rows, (("service_name", "other"),): [(first + 1, "x", {})]})
    return first


@pytest.fixture
def loki(server: LokiLifecycle) -> Iterator[LokiQuerierClient]:
    with LokiQuerierClient(LokiAccess(server.url, "default")) as client:
        yield client


SHOP = '{service_name="shop"}'


def test_lines_and_numbers(loki: LokiQuerierClient, start_ns: int) -> None:
    end_ns = start_ns + 10 * S
    found = loki.query_range(f"{SHOP} | json", start_ns, end_ns, 3, "forward")
    assert isinstance(found, Streams)
    entry = found.entries[1]
    assert (entry.time_ns, entry.labels, entry.metadata) == (start_ns + S, {"service_name": "shop"}, {"trace_id": "t1"})
    assert entry.parsed == {"level": "error", "n": "1"}
    # The start is in, the end is not.
    assert [one.time_ns for one in loki.entries(SHOP, start_ns, end_ns)][-1] == start_ns
    assert len(loki.entries(SHOP, start_ns, end_ns)) == 10

    counting = f"sum by (service_name) (count_over_time({SHOP} [10s]))"
    (sample,) = loki.samples(counting, end_ns - 1)
    assert (sample.labels, sample.value) == ({"service_name": "shop"}, 10)
    matrix = loki.query_range(counting, start_ns, end_ns, step_s=5)
    assert isinstance(matrix, Samples)
    assert matrix.kind == "matrix"
    assert matrix.series[0].points[0][0] == pytest.approx(start_ns / S, abs=5)
    scalar = loki.query_instant("1 + 1")
    assert isinstance(scalar, Samples)
    assert (scalar.kind, scalar.series[0].value) == ("scalar", 2)
    assert scalar.series[0].points[0][0] == pytest.approx(time.time(), abs=60)

    with pytest.raises(NoLogQuery):
        loki.entries(counting, start_ns, end_ns)
    with pytest.raises(LokiError) as error:
        loki.entries(f"{SHOP} |= error", start_ns, end_ns)
    assert str(error.value).splitlines()[1:] == ['    {service_name="shop"} |= error', "                             ^"]


def test_what_loki_knows_of_its_lines(loki: LokiQuerierClient, server: LokiLifecycle, start_ns: int) -> None:
    end_ns = start_ns + 60 * S
    assert loki.labels(start_ns, end_ns) == ["service_name"]
    assert loki.label_values("service_name", None, start_ns, end_ns) == ["other", "shop"]
    assert loki.label_values("service_name", SHOP, start_ns, end_ns) == ["shop"]
    assert loki.label_values("nothing", None, start_ns, end_ns) == []
    assert loki.series(SHOP, start_ns, end_ns) == [{"service_name": "shop"}]
    assert [
        (v.labels["service_name"], v.bytes > 100) for v in loki.volume('{service_name=~".+"}', start_ns, end_ns)
    ] == [
        ("shop", True),
        ("other", False),
    ]
    (volume,) = loki.volume_range(SHOP, start_ns, end_ns, 10, target_labels=["service_name"])
    # Both share a chunk's bytes out over its time.
    assert len(volume.points) > 1
    assert 0 < volume.bytes <= loki.volume(SHOP, start_ns, end_ns)[0].bytes
    fields = {one.name: one for one in loki.detected_fields(SHOP, start_ns, end_ns)}
    assert (fields["n"].kind, fields["n"].parsers, fields["n"].cardinality) == ("int", ("json",), 20)
    assert fields["trace_id"].parsers == ()
    assert {one.name: one.cardinality for one in loki.detected_labels(None, start_ns, end_ns)} == {"service_name": 2}
    assert loki.format_query('{a="b"}|="x"') == '{a="b"} |= "x"'
    assert loki.build_info().version.startswith("3.")
    limits = loki.limits()
    assert (limits.max_entries, limits.retention_s) == (50_000, 744 * 3600)

    # Lines that are not flushed yet are counted, and in the index once they are.
    assert loki.count(f'{SHOP} |= "error"', start_ns, end_ns).lines == 10
    assert loki.stats(SHOP, start_ns, end_ns).entries == 0
    server.flush()
    wait_until("the index", lambda: loki.stats(SHOP, start_ns, end_ns).entries == 20, 60, 0.2)


def test_lines_that_look_alike_are_one_pattern(server: LokiLifecycle) -> None:
    end_ns = time.time_ns()
    rows: Rows = [(end_ns - n * 10**7, f"charge of user {n} went well in {n % 7} ms", {}) for n in range(2_000)]
    push(server.url, {(("service_name", "charges"),): rows[::-1]}, "patterned")
    with LokiQuerierClient(LokiAccess(server.url, "patterned")) as client:
        ask = lambda: client.patterns('{service_name="charges"}', end_ns - 60 * S, end_ns + S)  # noqa: E731
        found = wait_until("patterns", ask, 60, 0.2)
    assert found[0].text == "charge of user <_> went well in <_> ms"
    assert 0 < found[0].lines <= 2_000


def test_delete_requests_are_made_found_and_taken_back(loki: LokiQuerierClient, start_ns: int) -> None:
    made = loki.delete_lines(f'{SHOP} |= "secret"', start_ns, start_ns + 5 * S + 500 * 10**6)
    assert (made.start_ns, made.end_ns, made.status) == (start_ns, start_ns + 5_500 * 10**6, "received")
    assert loki.delete_lines(f'{SHOP} |= "secret"', start_ns, start_ns + 5 * S + 500 * 10**6) == made
    assert loki.delete_requests() == [made]
    with pytest.raises(LokiError, match="parse error"):
        loki.delete_lines('{service_name="shop"} |= "a" |= b', start_ns, start_ns + S)
    loki.cancel_delete(made.id)
    assert loki.delete_requests() == []
    with pytest.raises(LokiError, match=r"\(404\): could not find delete request"):
        loki.cancel_delete(made.id)


def test_a_nanosecond_that_no_page_holds_is_read_whole_in_both_directions(server: LokiLifecycle) -> None:
    """Of several streams Loki gives the same ones first in both directions: its two halves are not all of it."""
    at = (time.time_ns() // S - 120) * S
    streams = {
        (("service_name", "burst"), ("pod", pod)): [
            *((at, f"line {n // 2}", {"trace_id": f"{n % 2}"}) for n in range(1_500)),
            *((at + n * 1_000, f"later {n}", {}) for n in range(1, 1_200)),
            (at - 1, "before", {}),
        ]
        for pod in ("x", "y", "z")
    }
    push(server.url, streams, "small")
    expected = {(t, line, labels, tuple(meta.items())) for labels, rows in streams.items() for t, line, meta in rows}
    with LokiQuerierClient(LokiAccess(server.url, "small")) as client:
        assert client.limits().max_entries == LIMIT
        for direction in ("forward", "backward"):
            found = list(client.all_entries('{service_name="burst"}', at - S, at + S, direction=direction))
            keys = [(e.time_ns, e.line, tuple(e.labels.items()), tuple(e.metadata.items())) for e in found]
            ordered = {(t, line, tuple(sorted(labels)), meta) for t, line, labels, meta in expected}
            assert len(keys) == len(expected) == 8_100
            assert {(t, line, tuple(sorted(labels)), meta) for t, line, labels, meta in keys} == ordered
        newest = list(client.all_entries('{service_name="burst"}', at - S, at + S, direction="backward", most=2_500))
        assert len(newest) == 2_500
        assert newest[0].line == "later 1199"


async def test_the_client_for_asyncio_does_the_same(server: LokiLifecycle, start_ns: int) -> None:
    async with AsyncLokiQuerierClient(LokiAccess(server.url, "default")) as client:
        labels, limits, count = await asyncio.gather(
            client.labels(start_ns, start_ns + S), client.limits(), client.count(SHOP, start_ns, start_ns + 20 * S)
        )
        assert (labels, limits.max_entries, count.lines) == (["service_name"], 50_000, 20)
        entries = [entry async for entry in client.all_entries(SHOP, start_ns, start_ns + 20 * S, 7)]
        assert [json.loads(entry.line)["n"] for entry in entries] == list(range(20))


async def test_a_gateway_that_wants_a_password_and_a_certificate_lets_us_in(
    server: LokiLifecycle, start_ns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOKI_PASSWORD", "s3cret")
    async with gateway(server.url, tmp_path, Porter("reader", "s3cret")) as (url, files):
        settings = LokiSettings(username="reader", password_env="LOKI_PASSWORD", **files)
        access = settings.access(url, "default", timeout_s=60)
        async with AsyncLokiQuerierClient(access) as client:
            assert len(await client.entries(SHOP, start_ns, start_ns + 20 * S)) == 20
            async with client.stream_logs_in_realtime('{service_name="tls"}') as tail:
                first = asyncio.ensure_future(anext(tail))
                wanted = {"by way of the gateway"}
                while not first.done():
                    push(server.url, {(("service_name", "tls"),): [(time.time_ns(), *wanted, {})]})
                    await asyncio.wait([first], timeout=0.5)
                line = first.result()
                assert ({line.entry.line}, line.filled) == (wanted, False)
        # And each of the three is needed.
        monkeypatch.setenv("LOKI_PASSWORD", "wrong")
        async with AsyncLokiQuerierClient(settings.access(url, "default")) as client:
            with pytest.raises(LokiError, match=r"refused GET /loki/api/v1/labels \(401\)"):
                await client.labels()
        for missing in ({"authority": files["authority"]}, {}):
            async with AsyncLokiQuerierClient(LokiAccess(url, "default", **missing)) as client:
                with pytest.raises(LokiError, match=f"Loki at {url} does not answer"):
                    await client.labels()

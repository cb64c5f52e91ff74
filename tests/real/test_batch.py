"""Reading whole ranges out of real Lokis: exactly what is in them, whatever was pushed and whatever stands in the way."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bench.stack import wait_until
from onecollector.local.ports import any_free_port
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.batch import BatchQueryExecutor
from onecollector_resources.loki.chunks.catalogue import ChunkCatalogue
from onecollector_resources.loki.chunks.engine import ChunkEngine
from onecollector_resources.loki.config import OVERRIDES, loki_config, render_overrides
from onecollector_resources.loki.effort import ReadFailed
from onecollector_resources.loki.flush import flush
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.loki.logql import plain_matchers
from onecollector_resources.loki.pager import MS
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.settings import LokiSettings, Settings
from onecollector_resources.storage.objects import open_store
from tests.real.hard_set import QUERY, Pushed, expected_rows, push_hard_set, span
from tests.real.lokis import new_loki
from tests.real.proxies import HANG, Toxiproxy, faulty_proxy, toxiproxy
from tests.unit.lines_model import Line, rows_of

pytestmark = [pytest.mark.real]

TENANTS = {"wide": 50_000, "tight": 700}
"""Tenants and the most lines that they may ask for at once: fewer than share one instant in the hard set."""

PLAIN_LINES = 40_000


@dataclass(frozen=True)
class Filled:
    """A Loki with the hard set in both tenants, and plain lines in the first: enough for faults to happen meanwhile."""

    loki: LokiLifecycle
    now_ns: int
    hard: dict[str, list[Pushed]]

    @property
    def plain(self) -> tuple[str, int, int]:
        """Query and range of the plain lines."""
        return '{service_name="plain"}', self.now_ns - 40 * 60 * 10**9, self.now_ns


def push_plain(url: str, now_ns: int) -> None:
    """Lines of one stream over the last half hour, one each 30 ms."""
    first = now_ns - PLAIN_LINES * 30_000_000
    for start in range(0, PLAIN_LINES, 10_000):
        values = [[str(first + n * 30_000_000), f"plain {n} " + "x" * 100] for n in range(start, start + 10_000)]
        body = {"streams": [{"stream": {"service_name": "plain"}, "values": values}]}
        httpx.post(
            f"{url}/loki/api/v1/push", json=body, headers={"X-Scope-OrgID": "wide"}, timeout=60
        ).raise_for_status()


@pytest.fixture(scope="module")
def filled(part: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    """Not flushed at first."""
    folder = tmp_path_factory.mktemp("batch")
    limits = {tenant: {"max_entries_limit_per_query": most} for tenant, most in TENANTS.items()}
    loki = new_loki(part("loki"), folder, Settings(state_dir=folder, loki=LokiSettings(tenant_overrides=limits)))
    try:
        loki.start()
        now_ns = time.time_ns()
        push_plain(loki.url, now_ns)
        yield Filled(loki, now_ns, {tenant: push_hard_set(loki.url, tenant, now_ns) for tenant in TENANTS})
    finally:
        loki.kill()


def read(
    executor: BatchQueryExecutor, query: str, start_ns: int, end_ns: int, at_first: Callable[[], None] | None = None
) -> list[Line]:
    """All rows, and that blocks come in order and do not touch. ``at_first`` is called at the first one."""
    last, blocks = -1, []
    for block in executor.read(query, start_ns, end_ns):
        if at_first is not None and not blocks:
            at_first()
        assert block.time_ns.min() > last
        last = block.time_ns.max()
        blocks.append(block)
    return rows_of(executor.merge_results(blocks).table)


@pytest.mark.parametrize("flushed", [False, True], ids=["in memory", "flushed"])
@pytest.mark.parametrize("tenant", TENANTS)
def test_exactly_the_lines_that_were_pushed(filled: Filled, tenant: str, flushed: bool) -> None:
    access = LokiAccess(filled.loki.url, tenant)
    if flushed:
        flush(access, clock=time.monotonic, sleep=time.sleep)
    start, end = span(filled.now_ns)
    pushed = filled.hard[tenant]
    with BatchQueryExecutor(access) as executor:
        assert read(executor, QUERY, start, end) == expected_rows(pushed)
        assert executor.tally.troubles == {}
        # Borders in the middle of the data: an instant with 4,000 lines, and the ones beside it.
        instant = filled.now_ns - 10 * 60 * 10**9
        for low, high in (
            (instant, instant + 1),
            (instant + 1, end),
            (start, instant),
            (instant - 10**12, instant + 5),
        ):
            assert read(executor, QUERY, low, high) == expected_rows(pushed, low, high)
        filtered = [row for row in expected_rows(pushed) if "9" in row[2] and "trace" not in dict(row[3])]
        assert read(executor, QUERY + ' |= "9" | trace="" # late and all', start, end) == filtered


def test_a_refusal_is_lokis_own_with_the_spot_marked(filled: Filled) -> None:
    with BatchQueryExecutor(LokiAccess(filled.loki.url, "wide")) as executor:
        with pytest.raises(ReadFailed, match="400: parse error") as error:
            read(executor, '{service_name="plain"} |= error', *filled.plain[1:])
    assert str(error.value).split("\n")[-2:] == ['    {service_name="plain"} |= error', " " * 30 + "^"]


def statuses(*answers: int) -> Any:
    """Each third page is refused, with these statuses in turn, and each third question to the index."""

    def decide(number: int, request: Any) -> int | None:
        return answers[number // 3 % len(answers)] if number % 3 == 0 else None

    return decide


def test_overload_and_errors_on_the_way_do_not_show(filled: Filled) -> None:
    with faulty_proxy(filled.loki.url, statuses(429, 500, 502, 503, 504)) as proxy:
        with BatchQueryExecutor(LokiAccess(proxy.url, "wide"), page_rows=2_000) as executor:
            assert_plain(executor, filled)
            assert executor.tally.troubles["busy"] > 0
            assert executor.tally.troubles["failed"] > 0
        assert proxy.refused > 10


def assert_plain(executor: BatchQueryExecutor, filled: Filled, at_first: Callable[[], None] | None = None) -> float:
    """That all plain lines come; answers the seconds that it took."""
    began = time.monotonic()
    rows = read(executor, *filled.plain, at_first)
    took = time.monotonic() - began
    assert [row[2].split()[1] for row in rows] == [str(n) for n in range(PLAIN_LINES)]
    return took


def test_a_loki_that_is_away_for_good_is_named_with_what_was_tried(filled: Filled) -> None:
    with faulty_proxy(filled.loki.url, lambda number, request: 503 if "query_range" in request.path else None) as proxy:
        with BatchQueryExecutor(LokiAccess(proxy.url, "wide"), patience_s=1) as executor:
            with pytest.raises(ReadFailed, match=r"could not read .* in \[20.*Z\).*\(\d+ tries in \d+ s.*503: oops"):
                read(executor, *filled.plain)


@pytest.fixture
def broken_way(part: Any, filled: Filled, tmp_path: Path) -> Iterator[Toxiproxy]:
    with toxiproxy(part("toxiproxy"), filled.loki.url, tmp_path / "toxiproxy.log") as proxy:
        yield proxy


OUTAGES = {
    # What was on its way comes after it.
    "data held up": ("timeout", {"timeout": 0}),
    "connections reset": ("reset_peer", {"timeout": 0}),
    "answers cut off": ("limit_data", {"bytes": 50_000}),
    "refused": None,
}
LASTS_S = 4.0


def assert_short(
    executor: BatchQueryExecutor, filled: Filled, begin: Callable[[], None], end: Callable[[], None]
) -> None:
    """That an outage costs hardly more than it lasts."""
    # The machine may be busy with something else once, but not three times.
    for _ in range(3):
        usual_s = assert_plain(executor, filled)
        # Its length is what is tested.
        mend = threading.Timer(LASTS_S, end)

        def break_(mend: threading.Timer = mend) -> None:
            begin()
            mend.start()

        try:
            took_s = assert_plain(executor, filled, break_)
        finally:
            mend.join()
        print(f"usually {usual_s:.1f} s, with an outage of {LASTS_S:.0f} s {took_s:.1f} s: {executor.tally.troubles}")
        if took_s <= 2 * (usual_s + LASTS_S):
            return
    pytest.fail(f"{took_s:.1f} s with an outage of {LASTS_S:.0f} s, {usual_s:.1f} s without")


@pytest.mark.parametrize(
    "outage",
    [
        "data held up",
        pytest.param("connections reset", marks=pytest.mark.soak),
        pytest.param("answers cut off", marks=pytest.mark.soak),
        "refused",
    ],
)
def test_an_outage_costs_little_more_than_it_lasts(filled: Filled, broken_way: Toxiproxy, outage: str) -> None:
    toxic = OUTAGES[outage]
    with BatchQueryExecutor(LokiAccess(broken_way.url, "wide"), page_rows=2_000) as executor:
        assert_short(
            executor,
            filled,
            lambda: broken_way.add(*toxic) if toxic else broken_way.enable(False),
            lambda: broken_way.remove(toxic[0]) if toxic else broken_way.enable(True),
        )


def test_requests_that_are_never_answered_cost_little_more_than_the_outage(filled: Filled) -> None:
    with faulty_proxy(filled.loki.url, lambda number, request: None) as proxy:
        with BatchQueryExecutor(LokiAccess(proxy.url, "wide"), page_rows=2_000) as executor:

            def decide(answer: int | None) -> None:
                proxy.decide = lambda number, request: answer

            assert_short(executor, filled, lambda: decide(HANG), lambda: decide(None))
            assert executor.tally.troubles["silent"] > 0


@contextmanager
def other_loki(binary: Path, folder: Path, **sections: Any) -> Iterator[LokiLifecycle]:
    """A Loki with our config but for some sections."""
    data = folder / "data"
    data.mkdir(parents=True)
    http_port = any_free_port(set())
    grpc_port = any_free_port({http_port})
    settings = Settings(state_dir=folder, loki=LokiSettings(overrides=sections))
    config = loki_config(settings, data_dir=data, http_port=http_port, grpc_port=grpc_port)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (data / OVERRIDES).write_text(render_overrides(settings))
    loki = LokiLifecycle(binary, folder / "config.yaml", data, http_port, folder / "loki.log")
    try:
        loki.start()
        yield loki
    finally:
        loki.kill()


def test_a_loki_that_is_really_overloaded_is_read_at_its_pace(part: Any, tmp_path: Path) -> None:
    """One query at a time, and a queue of one: the rest gets 429 of Loki's own."""
    few = {"query_scheduler": {"max_outstanding_requests_per_tenant": 1}, "querier": {"max_concurrent": 1}}
    with other_loki(part("loki"), tmp_path, **few) as loki:
        now_ns = time.time_ns()
        push_plain(loki.url, now_ns)
        with BatchQueryExecutor(LokiAccess(loki.url, "wide"), page_rows=2_000, at_once=8) as executor:
            print(f"{assert_plain(executor, Filled(loki, now_ns, {})):.1f} s: {executor.tally}")
            assert executor.tally.troubles["busy"] > 0


STOCK = {
    "server": {"grpc_server_max_recv_msg_size": 4_194_304, "grpc_server_max_send_msg_size": 4_194_304},
    "limits_config": {"max_entries_limit_per_query": 5_000},
}


def test_large_lines_in_a_loki_with_stock_limits(part: Any, tmp_path: Path) -> None:
    """A page of 5,000 of them is more than Loki's parts can send each other: it would hang until the connection breaks."""
    with other_loki(part("loki"), tmp_path, **STOCK) as loki:
        now_ns = time.time_ns()
        first = now_ns - 6_000 * 100_000_000
        for start in range(0, 6_000, 1_000):
            values = [[str(first + n * 100_000_000), f"{n} ".ljust(3_000, "x")] for n in range(start, start + 1_000)]
            body = {"streams": [{"stream": {"service_name": "large"}, "values": values}]}
            answer = httpx.post(
                f"{loki.url}/loki/api/v1/push", json=body, headers={"X-Scope-OrgID": "wide"}, timeout=60
            )
            answer.raise_for_status()
        access = LokiAccess(loki.url, "wide")
        for _ in range(2):
            with BatchQueryExecutor(access) as executor:
                began = time.monotonic()
                rows = read(executor, '{service_name="large"}', first, now_ns)
                assert [row[2].split()[0] for row in rows] == [str(n) for n in range(6_000)]
                assert time.monotonic() - began < 150
            flush(access, clock=time.monotonic, sleep=time.sleep)


def test_the_last_line_of_a_chunk_is_read_wherever_a_question_begins(part: Any, tmp_path: Path) -> None:
    """Lines in the store alone, each chunk's last one on a whole millisecond: there Loki 3.7.8 does not look into it."""
    loki = new_loki(part("loki"), tmp_path, Settings(state_dir=tmp_path))
    access = LokiAccess(loki.url, "wide")
    first = (time.time_ns() - 1800 * 10**9) // MS * MS
    ends = [first + number * 7 * MS for number in range(200)]
    try:
        loki.start()
        streams = [
            {
                "stream": {"service_name": "ends", "number": str(number)},
                "values": [[str(end - back), f"{number} {back}"] for back in (10**9, 10, 0)],
            }
            for number, end in enumerate(ends)
        ]
        body = {"streams": streams}
        httpx.post(
            f"{loki.url}/loki/api/v1/push", json=body, headers={"X-Scope-OrgID": "wide"}, timeout=60
        ).raise_for_status()
        loki.stop()
        # What an old Loki holds in its store, and its ingesters do not any more.
        for folder in ("wal", "tsdb-active", "tsdb-cache"):
            shutil.rmtree(loki.data_dir / folder, ignore_errors=True)
        loki.start()
        expected = sorted(end - back for end in ends for back in (10**9, 10, 0))
        query = '{service_name="ends"}'
        with BatchQueryExecutor(access, page_rows=20) as executor, LokiQuerierClient(access) as client:
            for start in (first - 2 * 10**9, *ends[::20], ends[7] - 1, ends[9] + 1):
                wanted = [at for at in expected if start <= at < ends[-1] + 1]
                rows = read(executor, query, start, ends[-1] + 1)
                assert [row[0] for row in rows] == wanted
                for direction in ("forward", "backward"):
                    entries = list(client.all_entries(query, start, ends[-1] + 1, 20, direction=direction))
                    assert sorted(entry.time_ns for entry in entries) == wanted
    finally:
        loki.kill()


def batched_by_three(values: list[int]) -> Iterator[tuple[int, int, int]]:
    return zip(values[::3], values[1::3], values[2::3], strict=True)


@contextmanager
def three_lokis(binary: Path, folder: Path) -> Iterator[list[LokiLifecycle]]:
    """Three processes that keep every line three times."""
    free: list[int] = []
    for _ in range(9):
        free.append(any_free_port(set(free)))
    ports = list(batched_by_three(free))
    lokis: list[LokiLifecycle] = []
    try:
        for number, (http_port, grpc_port, gossip_port) in enumerate(ports):
            data = folder / f"data{number}"
            data.mkdir(parents=True)
            config = loki_config(Settings(state_dir=folder), data_dir=data, http_port=http_port, grpc_port=grpc_port)
            config["common"]["replication_factor"] = 3
            config["common"]["ring"] = {
                "instance_addr": "127.0.0.1",
                "instance_id": f"loki-{number}",
                "kvstore": {"store": "memberlist"},
            }
            config["memberlist"] = {
                "node_name": f"loki-{number}",
                "bind_addr": ["127.0.0.1"],
                "bind_port": gossip_port,
                "advertise_addr": "127.0.0.1",
                "advertise_port": gossip_port,
                "join_members": [f"127.0.0.1:{one[2]}" for one in ports],
            }
            config["storage_config"]["object_store"] = {"filesystem": {"dir": str(folder / "objects")}}
            path = folder / f"config{number}.yaml"
            path.write_text(yaml.safe_dump(config))
            (data / OVERRIDES).write_text(render_overrides(Settings(state_dir=folder)))
            lokis.append(LokiLifecycle(binary, path, data, http_port, folder / f"loki{number}.log"))
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(LokiLifecycle.start, lokis))
        yield lokis
    finally:
        for loki in lokis:
            loki.kill()


def flushed(loki: LokiLifecycle) -> None:
    flush(LokiAccess(loki.url, "wide"), clock=time.monotonic, sleep=time.sleep)


def test_lines_that_are_kept_three_times_come_once(part: Any, tmp_path: Path) -> None:
    with three_lokis(part("loki"), tmp_path) as lokis:

        def all_know_all() -> bool:
            rings = [
                httpx.get(f"{loki.url}/ring", headers={"Accept": "application/json"}).json()["shards"] for loki in lokis
            ]
            return all(sum(one["state"] == "ACTIVE" for one in ring) == 3 for ring in rings)

        wait_until("three ingesters in the ring of each", all_know_all, 90, 0.1)
        now_ns = time.time_ns()
        pushed = push_hard_set(lokis[0].url, "wide", now_ns)
        with BatchQueryExecutor(LokiAccess(lokis[1].url, "wide"), page_rows=3_000) as executor:
            assert read(executor, QUERY, *span(now_ns)) == expected_rows(pushed)
        # One of them writes its chunks before the others and is sent the lines again: its replicas are not the others'.
        flushed(lokis[0])
        push_hard_set(lokis[0].url, "wide", now_ns)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(flushed, lokis))
        with BatchQueryExecutor(LokiAccess(lokis[2].url, "wide"), page_rows=3_000) as executor:
            assert read(executor, QUERY, *span(now_ns)) == expected_rows(pushed)
        for loki in lokis:
            loki.stop()
        # Chunks of all three, straight from the store.
        store = open_store(str(tmp_path / "objects"))
        with contextlib.closing(ChunkCatalogue(tmp_path / "catalogue.db", store, time.time)) as catalogue:
            catalogue.refresh("wide")
            reading = ChunkEngine(store, catalogue, "wide").read(plain_matchers(QUERY) or (), *span(now_ns))
            blocks = list(reading.blocks())
        found = BatchQueryExecutor.merge_results(blocks)
        assert rows_of(found.table) == expected_rows(pushed)
        assert found.duplicates > 0
        assert reading.problems() == ()

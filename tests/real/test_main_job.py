"""What a user relies on, end to end on a whole private stack: start a container, find its lines, see its assets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from bench.stack import Stack, private_stack, unique, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stack(parts: Any) -> Iterator[Stack]:
    settings = {
        "tenants": ["default", "acme"],
        "multiline": {"java": {"first_line": r"^\d{4}-"}},
    }
    with private_stack(settings) as running:
        yield running


def lines_of(stack: Stack, service: str, count: int, tenant: str = "default", deadline_s: float = 90) -> list[str]:
    """The service's lines once there are ``count`` of them, or what there is at the deadline."""
    rows: list[tuple[int, str, str]] = []

    def enough() -> bool:
        rows[:] = stack.rows(f'{{service_name="{service}"}}', 900, tenant)
        return len(rows) >= count

    with contextlib.suppress(TimeoutError):
        # Many lines are not read over and over while they arrive.
        wait_until("lines", enough, deadline_s, max(0.2, count / 50_000))
    return [line for _, line, _ in rows]


def test_a_started_container_is_queryable_registered_and_materialised(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = unique("web")
    container = stack.run("echo hello; sleep 60", service=service)
    assert lines_of(stack, service, 1) == ["hello"]
    row = wait_until(
        "a registry row", lambda: stack.registry("select * from sources where source_id = :id", id=container.id), 60
    )[0]
    assert (row["service"], row["tenant"], row["phase"]) == (service, "default", "collecting")
    monkeypatch.setenv("DAGSTER_HOME", str(stack.layout.dagster_home))
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        wait_until(
            "its partition of log_sources",
            lambda: service in instance.get_materialized_partitions(dg.AssetKey("log_sources")),
            180,
            0.5,
        )
        for asset in ("collector_config", "collector_rollout", "loki_rules"):
            wait_until(asset, lambda key=asset: instance.get_latest_materialization_event(dg.AssetKey(key)), 180, 0.5)


def test_containers_that_live_a_moment_are_captured_once(stack: Stack) -> None:
    service = unique("blink")
    for index in range(20):
        with contextlib.suppress(Exception):  # gone before the client looks at it
            stack.run(f"echo moment {index}", service=service, remove=True)
    found = Counter(lines_of(stack, service, 20))
    assert found == Counter(f"moment {index}" for index in range(20))


def test_a_new_container_of_a_known_tenant_restarts_nothing(stack: Stack) -> None:
    before = stack.agent("/v1/status")["collector"]["pid"]
    service = unique("known")
    stack.run("echo one", service=service, labels={"onecollector.io/tenant": "acme"})
    assert lines_of(stack, service, 1, "acme") == ["one"]
    assert lines_of(stack, service, 1, "default", 0.5) == []
    assert stack.agent("/v1/status")["collector"]["pid"] == before


def test_two_containers_of_one_name_in_sequence_are_two_sources(stack: Stack) -> None:
    service, name = unique("twice"), unique("same-name")
    first = stack.run("echo first", service=service, name=name)
    first.wait()
    first.remove(force=True)
    stack.run("echo second", service=service, name=name)
    assert sorted(lines_of(stack, service, 2)) == ["first", "second"]


def test_a_label_that_changes_on_recreation_moves_the_lines_and_not_those_before(stack: Stack) -> None:
    before, after, name = unique("before"), unique("after"), unique("moved")
    first = stack.run("echo one", service=before, name=name)
    first.wait()
    first.remove(force=True)
    stack.run("echo two", service=after, name=name, labels={"onecollector.io/tenant": "acme"})
    assert lines_of(stack, after, 1, "acme") == ["two"]
    assert lines_of(stack, before, 1) == ["one"]

    def registered() -> list[tuple[str, str]]:
        rows = stack.registry("select service, tenant from sources where name = :name order by first_seen", name=name)
        return [(row["service"], row["tenant"]) for row in rows]

    wait_until("two sources", lambda: len(registered()) >= 2, 60)
    assert registered() == [(before, "default"), (after, "acme")]


@pytest.mark.parametrize(
    "service",
    ["with space", 'quo"te', "new\nline", "../../etc/passwd", "ünïcode", "x" * 10_000, "-rf", ".hidden"],
    ids=["space", "quote", "newline", "dots", "unicode", "10kB", "dash", "hidden"],
)
def test_hostile_service_labels_are_collected_under_a_safe_name(stack: Stack, service: str) -> None:
    container = stack.run("echo hostile", service=service)
    row = wait_until(
        "a registry row", lambda: stack.registry("select * from sources where source_id = :id", id=container.id), 60
    )[0]
    assert row["service_raw"] == service
    assert lines_of(stack, row["service"], 1)[0] == "hostile"
    assert "/" not in row["service"]
    assert len(row["service"]) <= 110


def test_lines_of_every_kind_arrive(stack: Stack) -> None:
    service = unique("kinds")
    script = (
        "echo plain; echo; printf 'bin\\001\\002\\n'; printf 'bad\\377utf\\n'; "
        "head -c 40000 /dev/zero | tr '\\0' a; echo; head -c 1000000 /dev/zero | tr '\\0' b; echo; echo last"
    )
    stack.run(script, service=service)
    found = lines_of(stack, service, 7, deadline_s=120)
    assert "plain" in found
    assert "last" in found
    assert any(line.startswith("bin") for line in found)
    assert any(line.startswith("bad") for line in found)
    assert "a" * 40_000 in found, [len(line) for line in found]
    assert any(line.startswith("b" * 900_000) for line in found), [len(line) for line in found]


def test_containers_that_start_with_the_same_3_kb_line_all_arrive(stack: Stack) -> None:
    service = unique("alike")
    script = "h=$(head -c 3000 /dev/zero | tr '\\0' x); echo $h; for i in $(seq 1 99); do echo line $i; done"
    for _ in range(4):
        stack.run(script, service=service)
    assert len(lines_of(stack, service, 400)) == 400


def test_fast_rotation_loses_nothing(stack: Stack) -> None:
    service, count = unique("rotate"), 200_000
    options = {"type": "json-file", "config": {"max-size": "1m", "max-file": "3"}}
    stack.run(f"seq 1 {count}", service=service, log_config=options).wait()
    found = Counter(lines_of(stack, service, count, deadline_s=400))
    assert len(found) == count
    assert sum(found.values()) == count


def test_driver_local_is_spooled_and_driver_none_is_named_uncollectable(stack: Stack) -> None:
    local, none = unique("local"), unique("none")
    stack.run("seq 1 50; sleep 30", service=local, log_config={"type": "local", "config": {}})
    silent = stack.run("seq 1 50; sleep 30", service=none, log_config={"type": "none", "config": {}})
    assert sorted(lines_of(stack, local, 50), key=int) == [str(n) for n in range(1, 51)]
    row = wait_until(
        "a registry row", lambda: stack.registry("select * from sources where source_id = :id", id=silent.id), 60
    )[0]
    assert row["phase"] == "uncollectable"
    assert "none" in row["reason"]


def test_a_container_of_an_unknown_tenant_waits_and_says_so(stack: Stack) -> None:
    service = unique("stranger")
    container = stack.run("echo held; sleep 60", service=service, labels={"onecollector.io/tenant": "nobody"})
    row = wait_until(
        "a registry row", lambda: stack.registry("select * from sources where source_id = :id", id=container.id), 60
    )[0]
    assert row["phase"] == "waiting"
    assert "unknown tenant" in row["reason"]


def test_a_tenant_that_is_put_on_the_list_ships_from_its_first_line_on(stack: Stack) -> None:
    service = unique("late")
    stack.run("seq 1 20; sleep 120", service=service, labels={"onecollector.io/tenant": "newcomer"})
    wait_until("the source", lambda: stack.registry("select 1 from sources where service = :s", s=service), 60)
    path = Path(stack.env["ONECOLLECTOR_CONFIG"])
    settings = yaml.safe_load(path.read_text())
    settings["tenants"].append("newcomer")
    path.write_text(yaml.safe_dump(settings))
    assert sorted(lines_of(stack, service, 20, "newcomer", 240), key=int) == [str(n) for n in range(1, 21)]


def test_prove_says_complete_and_counts(stack: Stack) -> None:
    service = unique("proved")
    stack.run("seq 1 1000", service=service).wait()
    assert len(lines_of(stack, service, 1000)) == 1000
    said = []

    def proved() -> bool:
        done = stack.cli("prove", "--service", service, check=False)
        said[:] = [done.stdout]
        return done.returncode == 0

    wait_until("a proof", proved, 120, 1)
    assert "1,000 of 1,000" in said[0]


@pytest.mark.parametrize("killed", ["collector", "agent", "loki"])
def test_a_killed_part_comes_back_and_nothing_is_lost(stack: Stack, killed: str) -> None:
    service, count = unique(f"kill-{killed}"), 6_000
    stack.run(f"i=1; while [ $i -le {count} ]; do seq $i $((i+99)); i=$((i+100)); usleep 100000; done", service=service)
    lines_of(stack, service, 500)
    for _ in range(2):
        pid = stack.pid(killed)
        os.kill(pid, signal.SIGKILL)
        wait_until("another pid", lambda old=pid: _pid_or_none(stack, killed) not in (None, old), 120, 0.5)
    found = Counter(lines_of(stack, service, count, deadline_s=180))
    assert len(found) == count
    assert sum(found.values()) == count


def _pid_or_none(stack: Stack, part: str) -> int | None:
    with contextlib.suppress(Exception):
        return stack.pid(part)
    return None


def test_everything_listens_on_loopback_only_and_the_agent_wants_its_token(stack: Stack) -> None:
    assert httpx.get(f"{stack.runtime.agent_url}/v1/status").status_code == 401
    assert stat.S_IMODE(stack.layout.agent_token.stat().st_mode) == 0o600
    parts = json.loads(stack.cli("status", "--json", check=False).stdout)["parts"]
    heard = {row["part"]: _listening(psutil.Process(row["pid"])) for row in parts if row.get("pid")}
    assert heard["agent"] and heard["loki"], heard
    assert set().union(*heard.values()) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, heard


def _listening(process: psutil.Process) -> list[str]:
    """The addresses that a part and its children listen on; a run's process may end while it is looked at."""
    found = [one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    for child in process.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += [one.laddr.ip for one in child.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    return found


def test_up_again_changes_nothing(stack: Stack) -> None:
    def pids() -> dict[str, int]:
        """Of all parts, once each is well: others were killed a moment ago."""
        done = wait_until(
            "all parts", lambda: (one := stack.cli("status", "--json", check=False)).returncode == 0 and one, 180, 0.5
        )
        return {row["part"]: row["pid"] for row in json.loads(done.stdout)["parts"]}

    before = pids()
    stack.cli("up")
    assert pids() == before

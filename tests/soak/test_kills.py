"""Nothing is lost and nothing doubled, whatever is killed with -9."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from bench.stack import Stack, private_stack, unique, wait_until
from tests.soak.faults import (
    SPREAD_S,
    endless_writer,
    expect_exactly,
    healthy_again,
    kill_hard,
    kill_in_turn,
    loki_away,
    queue_fill,
    reload_collector,
    stop_writing,
    supervisorctl,
    writer,
)

pytestmark = [pytest.mark.real, pytest.mark.soak, pytest.mark.timeout(1500)]

PARTS = ("collector", "agent", "loki")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with private_stack() as running:
        yield running


def test_ten_kills_of_each_part_and_ten_reloads_lose_and_double_nothing(stack: Stack) -> None:
    service = unique("killed")
    container = stack.run(endless_writer(), service=service)
    for _ in range(10):
        for part in PARTS:
            wait_until(f"{part} to be there", lambda p=part: kill_hard(stack, p), 60, 0.1)
            time.sleep(SPREAD_S)
        reload_collector(stack)
    lines = stop_writing(container)
    assert lines > 50_000, f"only {lines} lines were written under all these faults"
    expect_exactly(stack, service, lines, deadline_s=600)
    healthy_again(stack)
    # The product says the same of it.
    proof = json.loads(stack.cli("prove", "--service", service, "--json").stdout)
    assert proof["complete"]


def test_kills_during_a_backlog_lose_and_double_nothing(stack: Stack) -> None:
    service, lines = unique("backlog"), 200_000
    with loki_away(stack):
        stack.run(f"seq 1 {lines}", service=service).wait()
    hit = kill_in_turn(stack, PARTS, 10)
    assert set(hit.values()) == {10}
    for _ in range(10):
        reload_collector(stack)
    expect_exactly(stack, service, lines)
    healthy_again(stack)


def test_spools_lose_and_double_nothing_when_the_agent_is_killed(stack: Stack) -> None:
    """Followed over the engine's API (driver local), and copied because two files start alike."""
    lines = 20_000
    followed, first, copied = unique("followed"), unique("first"), unique("copied")
    head = "head -c 3000 /dev/zero | tr '\\0' h; echo; "
    stack.run(writer(lines, 100, 100_000), service=followed, log_config={"type": "local"})
    stack.run(head + writer(lines, 100, 100_000), service=first)
    stack.run(head + writer(lines, 100, 100_000), service=copied)
    wait_until("a spool", lambda: stack.registry("select 1 from sources where mode = 'spool'"), 30, 0.2)
    assert kill_in_turn(stack, ("agent", "collector"), 6) == {"agent": 6, "collector": 6}
    for service in (followed, first, copied):
        expect_exactly(stack, service, lines)
    healthy_again(stack)


def test_five_reloads_with_loki_down_and_the_queue_full_lose_and_double_nothing() -> None:
    service, lines = unique("full"), 300_000
    with private_stack({"tenants": {"default": {"queue_mib": 16}}}) as small:
        with loki_away(small):
            small.run(f"seq 1 {lines}", service=service).wait()
            wait_until("a full queue", lambda: queue_fill(small) > 0.9, 120, 0.5)
            for _ in range(5):
                reload_collector(small)
                wait_until("a full queue again", lambda: queue_fill(small) > 0.9, 60, 0.5)
        expect_exactly(small, service, lines)


def test_kills_of_a_collector_that_is_just_starting_lose_and_double_nothing(stack: Stack) -> None:
    """What was under way at a kill is put back into the queue at the start: a kill in the middle of that is one, too."""
    service, lines = unique("starting"), 200_000
    with loki_away(stack):
        stack.run(f"seq 1 {lines}", service=service).wait()
        wait_until("all lines in the queue", lambda: stack.agent("/v1/status")["behind_bytes"] == 0, 60, 0.2)
        time.sleep(3)  # a reader writes its offsets down some polls later; before that a kill lets it read all again
        # Run here and not by the supervisor, so that its words come without delay.
        supervisorctl(stack, "stop", "collector")
        for turn in range(100):
            command = ["/bin/sh", str(stack.layout.collector / "run.sh")]
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as collector:
                assert collector.stderr is not None
                told = next((line for line in collector.stderr if b"items left for dispatch" in line), b"")
                assert told, "nothing was under way: the kill hits nothing"
                time.sleep(turn % 25 * 0.0016)  # what it says it does next takes some 30 ms
                collector.kill()
        supervisorctl(stack, "start", "collector")
    expect_exactly(stack, service, lines)
    healthy_again(stack)

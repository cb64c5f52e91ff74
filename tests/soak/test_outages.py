"""What is away comes back, and nothing is missing: Loki, one tenant of Loki, the engine, hours of time."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from bench.stack import Stack, private_stack, unique, wait_until
from tests.soak.faults import expect_exactly, loki_away, writer

pytestmark = [pytest.mark.real, pytest.mark.soak, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with private_stack() as running:
        yield running


def test_loki_down_for_five_minutes_loses_nothing(stack: Stack) -> None:
    service, lines = unique("down"), 160_000
    with loki_away(stack):
        stack.run(writer(lines, 100, 200_000), service=service)
        time.sleep(300)  # the outage itself
    expect_exactly(stack, service, lines)


def test_a_restarted_engine_loses_no_source_and_no_line(stack: Stack) -> None:
    services = [unique(f"engine{i}") for i in range(5)]
    containers = {service: stack.run(writer(50_000, 50, 100_000), service=service) for service in services}
    wait_until("lines of all", lambda: all(stack.first_line(f'{{service_name="{s}"}}', 60) for s in services), 30, 0.2)
    pid = int((stack.layout.docker / "pid").read_text())
    command = psutil.Process(pid).cmdline()
    os.kill(pid, signal.SIGTERM)
    wait_until("the engine to end", lambda: _ended(pid), 60, 0.2)
    engine = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until("the engine to answer", lambda: engine.poll() is None and _answers(stack), 60, 0.5)
    after = unique("after-restart")
    stack.run("seq 1 100", service=after)
    expect_exactly(stack, after, 100, deadline_s=60)
    rows = stack.registry("select service from sources")
    assert {*services, after} <= {row["service"] for row in rows}
    for service, container in containers.items():
        # What the engine itself kept of it is what has to be there.
        written = Counter(int(line) for line in container.logs().split() if line.isdigit())
        expect_exactly(stack, service, max(written))


def _ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _answers(stack: Stack) -> bool:
    import docker.errors
    import requests

    try:
        return bool(stack.docker.ping())
    except (docker.errors.DockerException, requests.RequestException):
        return False


def test_six_hours_of_backlog_in_six_files_arrive_whole(tmp_path: Path) -> None:
    folder = tmp_path / "hours"
    folder.mkdir()
    settings = {"files": [{"glob": f"{folder}/*.log", "service": "backlog", "profile": "cri"}]}
    now = time.time()
    with private_stack(settings) as stack:
        for hour in range(6):
            out = []
            for n in range(20_000):
                stamp = now - (6 - hour) * 3600 + n * 0.18
                text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(stamp)) + f".{int(stamp % 1 * 1e9):09d}Z"
                out.append(f"{text} stdout F {hour * 20_000 + n + 1}\n")
            (folder / f"h{hour}.log.new").write_text("".join(out))
        for hour in range(6):
            (folder / f"h{hour}.log.new").rename(folder / f"h{hour}.log")
        found: Counter[str] = Counter()

        def complete() -> bool:
            # Lines older than three hours are invisible in Loki until they are flushed.
            httpx.post(f"{stack.runtime.loki_url}/flush", timeout=60)
            found.clear()
            found.update(line for _, line, _ in stack.rows('{service_name="backlog"}', 8 * 3600))
            return len(found) >= 120_000

        with contextlib.suppress(TimeoutError):
            wait_until("120,000 lines", complete, 180, 3)
        assert (len(found), sum(found.values())) == (120_000, 120_000)


def test_a_tenant_that_loki_refuses_for_ten_minutes_leaves_the_others_their_latency() -> None:
    """acme's lines are refused with 429 by its own rate limit; default's stay quick."""
    limits = {"acme": {"ingestion_rate_mb": 0.001, "ingestion_burst_size_mb": 0.001}}
    with private_stack({"tenants": ["default", "acme"], "loki": {"tenant_overrides": limits}}) as stack:

        def quiet() -> float:
            service = unique("quiet")
            began = time.monotonic()
            stack.run("echo hello", service=service)
            wait_until("the quiet tenant's line", lambda: stack.first_line(f'{{service_name="{service}"}}', 60), 20)
            return time.monotonic() - began

        before = statistics.median(quiet() for _ in range(15))
        stack.run(
            "while :; do head -c 2000 /dev/zero | tr '\\0' z; echo; usleep 2000; done",
            service=unique("noisy"),
            labels={"onecollector.io/tenant": "acme"},
        )

        def refused() -> bool:
            text = httpx.get(f"{stack.runtime.loki_url}/metrics", timeout=10).text
            return any(
                line.startswith("loki_discarded_samples_total{") and 'tenant="acme"' in line
                for line in text.splitlines()
            )

        wait_until("acme to be refused", refused, 60, 0.5)
        end, during = time.monotonic() + 600, []
        while time.monotonic() < end:
            during.append(quiet())
            time.sleep(15)  # one sample every 15 s over the ten minutes
        print(f"median before {before:.2f} s, during {statistics.median(during):.2f} s of {len(during)}")
        assert statistics.median(during) < before + 0.5
        assert max(during) < before + 3

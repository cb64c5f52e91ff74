"""Nothing is lost and nothing doubled, whatever is killed. Long runs: `make soak`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from bench.stack import Stack, private_stack, unique, wait_until

pytestmark = [pytest.mark.real, pytest.mark.soak, pytest.mark.timeout(3000)]

BATCH, PAUSE_US = 200, 100_000
"""200 lines every 0.1 s: 2,000 lines/s."""


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with private_stack({"tenants": ["default", "acme"]}) as running:
        yield running


def writer(lines: int, batch: int = BATCH, pause_us: int = PAUSE_US) -> str:
    """A shell script that writes the numbers 1 to ``lines`` in batches."""
    return f"i=1; while [ $i -le {lines} ]; do seq $i $((i+{batch - 1})); i=$((i+{batch})); usleep {pause_us}; done"


def supervisorctl(stack: Stack, *args: str) -> None:
    conf = stack.layout.supervisor / "supervisord.conf"
    subprocess.run(
        [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(conf), *args], check=True, env=stack.env
    )


def expect_exactly(stack: Stack, service: str, lines: int, deadline_s: float = 300, tenant: str = "default") -> None:
    """All numbers 1 to ``lines``, once each, or an assertion that says what is missing and what is doubled."""
    selector = f'{{service_name="{service}"}}'
    found: Counter[str] = Counter()

    def complete() -> bool:
        found.clear()
        with contextlib.suppress(httpx.HTTPError):
            found.update(line for _, line, _ in stack.rows(selector, 3600, tenant))
        return len(found) >= lines

    with contextlib.suppress(TimeoutError):
        wait_until(f"{lines} lines of {service}", complete, deadline_s, 2)
    missing = sorted({str(n) for n in range(1, lines + 1)} - set(found), key=int)
    doubled = {line: count for line, count in found.items() if count > 1}
    assert not missing, f"{len(missing)} of {lines} missing, first {missing[:5]}, last {missing[-5:]}"
    assert not doubled, f"{len(doubled)} doubled, such as {list(doubled.items())[:5]}"


def kill_hard(stack: Stack, part: str) -> None:
    os.kill(stack.pid(part), signal.SIGKILL)


def healthy_again(stack: Stack) -> None:
    wait_until(
        "all parts healthy",
        lambda: stack.cli("status", check=False, timeout=60).returncode == 0,
        60,
        1,
    )


def test_ten_kills_of_each_part_and_ten_reloads_lose_and_double_nothing(stack: Stack) -> None:
    service, lines = unique("killed"), 200_000
    stack.run(writer(lines), service=service)
    agent = httpx.Client(base_url=stack.runtime.agent_url, timeout=30)
    token = {"Authorization": "Bearer " + stack.layout.agent_token.read_text().strip()}
    for round_ in range(10):
        for part in ("collector", "agent", "loki"):
            with contextlib.suppress(StopIteration, ValueError, ProcessLookupError):
                kill_hard(stack, part)
            time.sleep(1.5)  # the faults are spread over the run; nothing is waited for here
        with contextlib.suppress(httpx.HTTPError):
            agent.post("/v1/reload", headers=token)
        print("round", round_, flush=True)
    expect_exactly(stack, service, lines)
    healthy_again(stack)


def test_kills_during_a_backlog_lose_and_double_nothing(stack: Stack) -> None:
    service, lines = unique("backlog"), 200_000
    supervisorctl(stack, "stop", "loki")
    container = stack.run(f"seq 1 {lines}", service=service)
    container.wait()
    supervisorctl(stack, "start", "loki")
    for _ in range(5):
        for part in ("collector", "agent"):
            with contextlib.suppress(StopIteration, ValueError, ProcessLookupError):
                kill_hard(stack, part)
            time.sleep(1)
    expect_exactly(stack, service, lines)


def test_reloads_while_loki_is_down_lose_and_double_nothing(stack: Stack) -> None:
    service, lines = unique("downreload"), 100_000
    supervisorctl(stack, "stop", "loki")
    token = {"Authorization": "Bearer " + stack.layout.agent_token.read_text().strip()}
    try:
        stack.run(writer(lines, 2000, 50_000), service=service)
        for _ in range(5):
            time.sleep(2)
            httpx.post(f"{stack.runtime.agent_url}/v1/reload", headers=token, timeout=30).raise_for_status()
    finally:
        supervisorctl(stack, "start", "loki")
    expect_exactly(stack, service, lines)


def test_loki_down_for_five_minutes_loses_nothing(stack: Stack) -> None:
    service, lines = unique("down"), 100_000
    supervisorctl(stack, "stop", "loki")
    try:
        stack.run(writer(lines, 100, 250_000), service=service)
        time.sleep(300)
    finally:
        supervisorctl(stack, "start", "loki")
    expect_exactly(stack, service, lines)


def test_a_restarted_engine_loses_no_source(stack: Stack) -> None:
    services = [unique(f"engine{i}") for i in range(5)]
    for service in services:
        stack.run(writer(5_000, 50, 100_000), service=service)
    pidfile = stack.layout.docker / "pid"
    pid = int(pidfile.read_text())
    command = psutil.Process(pid).cmdline()
    os.kill(pid, signal.SIGTERM)
    wait_until(
        "the engine to end", lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", 60, 0.2
    )
    engine = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until("the engine to answer", lambda: engine.poll() is None and _ping(stack), 60, 0.5)
    after = unique("after-restart")
    stack.run("seq 1 100", service=after)
    expect_exactly(stack, after, 100, 60)
    rows = stack.registry("select service, phase from sources")
    assert set(services) <= {row["service"] for row in rows}


def _ping(stack: Stack) -> bool:
    with contextlib.suppress(Exception):
        return bool(stack.docker.ping())
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
        selector = '{service_name="backlog"}'
        found: set[str] = set()

        def complete() -> bool:
            httpx.post(f"{stack.runtime.loki_url}/flush", timeout=60)
            found.update(line for _, line, _ in stack.rows(selector, 8 * 3600))
            return len(found) >= 120_000

        with contextlib.suppress(TimeoutError):
            wait_until("120,000 lines", complete, 180, 3)
        assert len(found) == 120_000


def test_a_tenant_that_is_refused_leaves_the_others_their_latency(tmp_path: Path) -> None:
    """acme's lines are refused with 429 by its own rate limit; default's stay quick."""
    overrides = {"overrides": {"acme": {"ingestion_rate_mb": 0.001, "ingestion_burst_size_mb": 0.001}}}
    with private_stack({"tenants": ["default", "acme"], "loki": {"tenant_overrides": overrides["overrides"]}}) as stack:
        noisy = unique("noisy")
        stack.run(
            "while :; do head -c 2000 /dev/zero | tr '\\0' z; echo; usleep 2000; done",
            service=noisy,
            labels={"onecollector.io/tenant": "acme"},
        )
        end, slow = time.monotonic() + 600, []
        while time.monotonic() < end:
            service = unique("quiet")
            began = time.monotonic()
            stack.run("echo hello", service=service)
            wait_until("the quiet tenant's line", lambda s=service: stack.first_line(f'{{service_name="{s}"}}', 60), 20)
            slow.append(time.monotonic() - began)
            time.sleep(15)
        slow.sort()
        assert slow[len(slow) // 2] < 1.5, f"median {slow[len(slow) // 2]:.2f} s"


def test_a_full_disk_is_survived_and_recorded() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small tmpfs")
    import tempfile

    mount = Path(tempfile.mkdtemp(prefix="ocf-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900m", "tmpfs", str(mount)], check=True)
    before = os.environ.get("ONECOLLECTOR_BENCH_DIR")
    os.environ["ONECOLLECTOR_BENCH_DIR"] = str(mount)
    stop = threading.Event()
    try:
        with private_stack({"agent": {"free_space_floor_bytes": 0}}) as stack:
            service, lines = unique("full"), 40_000
            stack.run(writer(lines, 200, 200_000), service=service)
            wait_until("lines flowing", lambda: stack.first_line(f'{{service_name="{service}"}}', 60), 30)
            filler = mount / "filler"
            with filler.open("wb") as out, contextlib.suppress(OSError):
                while not stop.is_set():
                    out.write(b"\0" * (1 << 20))
            time.sleep(10)
            filler.unlink()
            after = unique("after-full")
            wait_until("collection to resume", lambda: _writes_and_reads(stack, after), 90, 1)
            gaps = stack.registry("select * from gaps")
            found = {line for _, line, _ in stack.rows(f'{{service_name="{service}"}}', 900)}
            print("found", len(found), "of", lines, "gaps", gaps)
    finally:
        stop.set()
        if before is None:
            os.environ.pop("ONECOLLECTOR_BENCH_DIR", None)
        else:
            os.environ["ONECOLLECTOR_BENCH_DIR"] = before
        subprocess.run(["umount", "-l", str(mount)], check=False)
        mount.rmdir()


def _writes_and_reads(stack: Stack, service: str) -> bool:
    with contextlib.suppress(Exception):
        stack.run("echo hello", service=service)
    return stack.first_line(f'{{service_name="{service}"}}', 120)

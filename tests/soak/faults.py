"""Faults on purpose: a writer of known lines, ways to hurt a stack, and the look at Loki that says what it cost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx

from bench.stack import Stack, wait_until
from onecollector_resources.collector.metrics import queued_bytes

BATCH, PAUSE_US = 200, 100_000
"""200 lines every 0.1 s: 2,000 lines/s."""

SPREAD_S = 1.5
"""Between two faults: nothing is waited for, they are spread over the run."""


def writer(lines: int, batch: int = BATCH, pause_us: int = PAUSE_US) -> str:
    """A shell script that writes the numbers 1 to ``lines`` in batches."""
    return f"i=1; while [ $i -le {lines} ]; do seq $i $((i+{batch - 1})); i=$((i+{batch})); usleep {pause_us}; done"


def endless_writer(batch: int = BATCH, pause_us: int = PAUSE_US) -> str:
    """The same without an end: until ``stop_writing``."""
    return f"i=1; while [ ! -e /stop ]; do seq $i $((i+{batch - 1})); i=$((i+{batch})); usleep {pause_us}; done"


def stop_writing(container: Any) -> int:
    """End an endless writer between two batches; answers the last number that the engine kept of it."""
    container.exec_run(["/bin/sh", "-c", ": > /stop"])
    container.wait()
    return max(int(line) for line in container.logs(tail=10).split())


def kill_hard(stack: Stack, part: str) -> bool:
    """kill -9; False where the part is just being started again."""
    try:
        pid = stack.pid(part)
        if pid > 1:
            os.kill(pid, signal.SIGKILL)
            return True
    except (StopIteration, ValueError, ProcessLookupError):
        pass
    return False


def kill_in_turn(stack: Stack, parts: Iterable[str], times: int) -> Counter[str]:
    """kill -9 each part in turn, ``times`` times; answers how often each was hit."""
    hit: Counter[str] = Counter()
    for _ in range(times):
        for part in parts:
            if wait_until(f"{part} to be there", lambda p=part: kill_hard(stack, p), 60, 0.1):
                hit[part] += 1
            time.sleep(SPREAD_S)
    return hit


def reload_collector(stack: Stack) -> None:
    """Kill and start the collector over the agent's API; waits for an agent that is just coming back."""
    token = {"Authorization": "Bearer " + stack.layout.agent_token.read_text(encoding="utf-8").strip()}

    def done() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.post(f"{stack.runtime.agent_url}/v1/reload", headers=token, timeout=30)
            return answer.status_code == 200
        return False

    wait_until("a reload", done, 60, 0.2)


def supervisorctl(stack: Stack, *args: str) -> None:
    """Stop or start a part without ending the others."""
    conf = stack.layout.supervisor / "supervisord.conf"
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(conf), *args]
    subprocess.run(command, check=True, env=stack.env, stdout=subprocess.DEVNULL)


@contextlib.contextmanager
def loki_away(stack: Stack) -> Iterator[None]:
    """Loki is down inside, and up again afterwards."""
    supervisorctl(stack, "stop", "loki")
    try:
        yield
    finally:
        supervisorctl(stack, "start", "loki")


def queue_fill(stack: Stack) -> float:
    """How full the fullest queue is, 0 to 1; 0 where the collector does not tell."""
    with contextlib.suppress(httpx.HTTPError):
        lines = httpx.get(stack.runtime.collector_metrics_url, timeout=5).text.splitlines()
        held = queued_bytes("\n".join(line for line in lines if "queue_capacity" not in line))
        room = queued_bytes(
            "\n".join(line.replace("_capacity{", "_size{") for line in lines if "queue_capacity" in line)
        )
        return max((held[name] / room[name] for name in held if room.get(name)), default=0.0)
    return 0.0


def expect_exactly(
    stack: Stack,
    service: str,
    lines: int,
    *,
    deadline_s: float = 300,
    tenant: str = "default",
    number: Callable[[str], int | None] = lambda line: int(line) if line.isdigit() else None,
) -> None:
    """All numbers 1 to ``lines``, once each, or an assertion that says what is missing and what is doubled."""
    selector = f'{{service_name="{service}"}}'
    found: Counter[int] = Counter()

    def complete() -> bool:
        found.clear()
        with contextlib.suppress(httpx.HTTPError):
            numbers = (number(line) for _, line, _ in stack.rows(selector, 7200, tenant))
            found.update(n for n in numbers if n is not None)
        return len(found) >= lines

    with contextlib.suppress(TimeoutError):
        wait_until(f"{lines} lines of {service}", complete, deadline_s, 2)
    missing = sorted(set(range(1, lines + 1)) - set(found))
    doubled = {n: count for n, count in found.items() if count > 1}
    assert not missing, f"{len(missing)} of {lines} missing, first {missing[:5]}, last {missing[-5:]}"
    assert not doubled, f"{len(doubled)} doubled, such as {list(doubled.items())[:5]}"


def healthy_again(stack: Stack) -> None:
    """Wait until every part is healthy."""
    wait_until("all parts healthy", lambda: stack.cli("status", check=False, timeout=60).returncode == 0, 60, 1)

"""What the agent costs on a host with 200 running and 800 exited containers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from bench.report import report
from bench.stack import private_stack, unique, wait_until

RUNNING, EXITED, IDLE_S = 200, 800, 60


def main() -> None:
    with private_stack() as stack:
        service = unique("crowd")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda i: stack.run("echo gone", service=f"{service}-{i % 20}"), range(EXITED)))
            list(
                pool.map(lambda i: stack.run("echo here; sleep 100000", service=f"{service}-{i % 20}"), range(RUNNING))
            )
        wanted = RUNNING + EXITED
        wait_until(
            "all containers seen",
            lambda: len(stack.registry("select 1 from sources where kind = 'container'")) >= wanted,
            180,
            1,
        )

        def lines() -> bool:
            data = stack.loki("/loki/api/v1/query", query=f'sum(count_over_time({{service_name=~"{service}.*"}}[1h]))')
            return bool(data["result"]) and int(float(data["result"][0]["value"][1])) >= wanted

        wait_until("a line of each", lines, 120, 1)
        # What settles afterwards: proofs by the health sensor, and links of exited containers going.
        time.sleep(60)
        agent, collector = psutil.Process(stack.pid("agent")), psutil.Process(stack.pid("collector"))
        before, collector_before, began = agent.cpu_times(), collector.cpu_times(), time.monotonic()
        time.sleep(IDLE_S)
        after, collector_after, took = agent.cpu_times(), collector.cpu_times(), time.monotonic() - began
        cpu = (after.user + after.system - before.user - before.system) / took * 100
        collector_cpu = (
            (collector_after.user + collector_after.system - collector_before.user - collector_before.system)
            / took
            * 100
        )
        rss = agent.memory_info().rss / 1e6
    report(
        "agent",
        [
            {
                "what": f"agent RSS, {RUNNING} running and {EXITED} exited containers",
                "value": round(rss),
                "unit": "MB",
                "reach": 100,
                "better": "lower",
            },
            {"what": "agent CPU, idle", "value": round(cpu, 2), "unit": "% of a core", "reach": 2, "better": "lower"},
            {
                "what": "collector CPU, idle",
                "value": round(collector_cpu, 2),
                "unit": "% of a core",
                "reach": None,
                "better": "lower",
            },
        ],
    )


if __name__ == "__main__":
    main()

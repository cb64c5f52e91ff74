"""The main job: from `docker run` to a queryable line, a registry row and four materialised assets."""

from __future__ import annotations

import os
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.report import report
from bench.stack import Stack, private_stack, unique, wait_until

STARTS = int(os.environ.get("ONECOLLECTOR_BENCH_STARTS", "50"))
ASSETS = ("log_sources", "collector_config", "collector_rollout", "loki_rules")


def percentile(values: list[float], q: float) -> float:
    """The q-th percentile by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(q / 100 * len(ordered) + 0.5) - 1))]


def assets_done_at(instance: Any, service: str) -> float | None:
    """When the last of the four assets of the run that took the service in was materialised, as epoch seconds."""
    import dagster as dg

    first = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("log_sources"), asset_partitions=[service]), limit=1
    ).records
    if not first:
        return None
    run_id, stamps = first[0].run_id, [first[0].timestamp]
    for name in ASSETS[1:]:
        records = instance.fetch_materializations(dg.AssetKey(name), limit=20).records
        mine = [record.timestamp for record in records if record.run_id == run_id]
        if not mine:
            return None
        stamps.append(mine[0])
    return max(stamps)


def one_start(stack: Stack, instance: Any, index: int) -> dict[str, float]:
    """Start one container and measure; seconds since just before `docker run`."""
    service = unique(f"svc{index}")
    began = time.time()
    container = stack.run("echo hello; sleep 30", service=service)
    started = time.time()

    def row_seen() -> float:
        wait_until(
            "a registry row",
            lambda: stack.registry("select 1 from sources where source_id = :id", id=container.id),
            30,
            0.02,
        )
        return time.time() - began

    with ThreadPoolExecutor(1) as pool:
        row = pool.submit(row_seen)
        wait_until("a line in Loki", lambda: stack.first_line(f'{{service_name="{service}"}}', 60), 30)
        queryable = time.time() - began
        registered = row.result()
    done = wait_until("four assets", lambda: assets_done_at(instance, service), 60, 0.2)
    container.remove(force=True)
    return {
        "run": started - began,
        "queryable": queryable,
        "registry": registered,
        "assets": done - began,
    }


def main() -> None:
    rng = random.Random(1)
    with private_stack() as stack:
        os.environ["DAGSTER_HOME"] = str(stack.layout.dagster_home)
        from dagster import DagsterInstance

        before = stack.agent("/v1/status")["collector"]["pid"]
        results: list[dict[str, float]] = []
        with DagsterInstance.get() as instance:
            for index in range(STARTS):
                time.sleep(rng.uniform(2, 20))
                results.append(one_start(stack, instance, index))
                print(f"{index + 1:3d}", {key: round(value, 2) for key, value in results[-1].items()}, flush=True)
        restarts = 0 if stack.agent("/v1/status")["collector"]["pid"] == before else 1
    rows = []
    for key, what, p50, p95 in (
        ("queryable", "container start to first line queryable", 0.8, 1.5),
        ("registry", "container start to registry row", None, 1.0),
        ("assets", "container start to four assets materialised", 4.0, 8.0),
    ):
        values = [result[key] for result in results]
        rows.append(
            {
                "what": f"{what}, p50 of {STARTS}",
                "value": round(statistics.median(values), 3),
                "unit": "s",
                "reach": p50,
                "better": "lower",
            }
        )
        rows.append(
            {
                "what": f"{what}, p95 of {STARTS}",
                "value": round(percentile(values, 95), 3),
                "unit": "s",
                "reach": p95,
                "better": "lower",
            }
        )
    rows.append(
        {"what": "restarts of the collector meanwhile", "value": restarts, "unit": "", "reach": 0, "better": "lower"}
    )
    report("main_job", rows)


if __name__ == "__main__":
    main()

"""Proof of collection over 1,000 containers: how long, and whether a line that was left out is named."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import httpx

from bench.loki import private_loki
from bench.report import report
from onecollector_resources.health.delivery import prove_records
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.records import SegmentRecords

CONTAINERS, LINES = 1_000, 200
LEFT_OUT = (7, 123)
"""Container 7 lacks its record 123."""


def push(url: str, first: int, count: int, now_ns: int) -> None:
    """Lines of some containers, ten hours back and evenly spread."""
    values = []
    for container in range(first, first + count):
        for number in range(1, LINES + 1):
            if (container, number) == LEFT_OUT:
                continue
            stamp = now_ns - (10 * 3600 - number * 60) * 10**9 + container
            metadata = {"container_id": f"{container:064x}", "log_file_record_number": str(number)}
            values.append([str(stamp), f"line {number}", metadata])
    body = {"streams": [{"stream": {"service_name": f"s{first}"}, "values": values}]}
    httpx.post(
        f"{url}/loki/api/v1/push", json=body, headers={"X-Scope-OrgID": "default"}, timeout=60
    ).raise_for_status()


def main() -> None:
    with private_loki() as loki:
        now = datetime.now(UTC)
        for first in range(0, CONTAINERS, 20):
            push(loki.url, first, 20, int(now.timestamp() * 1e9))
        records = [
            SegmentRecords(f"{n:064x}", 0, LINES, 1, 1, True, "default", f"s{n // 20 * 20}", now - timedelta(hours=11))
            for n in range(CONTAINERS)
        ]
        began = time.perf_counter()
        rows = prove_records(records, lambda tenant: LokiQuerierClient(LokiAccess(loki.url, tenant, timeout_s=60)), now)
        took = time.perf_counter() - began
    incomplete = [row for row in rows if not row.complete]
    named = [(int(row.source_id, 16), a) for row in incomplete for a, b in row.missing if a == b]
    report(
        "prove",
        [
            {
                "what": f"proof over {CONTAINERS:,} containers of {LINES} lines",
                "value": round(took, 2),
                "unit": "s",
                "reach": 10,
                "better": "lower",
            },
            {
                "what": "containers found incomplete, of the one that lacks a line",
                "value": len(incomplete),
                "unit": "",
                "reach": 1,
                "better": "lower",
            },
            {
                "what": "its missing record named",
                "value": int(named == [LEFT_OUT]),
                "unit": "",
                "reach": 1,
                "better": "higher",
            },
        ],
    )


if __name__ == "__main__":
    main()

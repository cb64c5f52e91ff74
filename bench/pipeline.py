"""Throughput: one container writing a million lines of 120 bytes, live, until the last is queryable in Loki."""

from __future__ import annotations

import re
import time

from bench.report import report
from bench.stack import private_stack, unique, wait_until

LINES = 1_000_000
SENT = re.compile(r"^otelcol_exporter_sent_log_records\S* (\S+)$", re.MULTILINE)


def main() -> None:
    with private_stack() as stack:
        service = unique("bulk")
        # 120 bytes a line; Docker's own time stamps keep equal lines apart.
        began = time.monotonic()
        stack.run(f"yes {'x' * 119} | head -n {LINES}", service=service)
        selector = f'{{service_name="{service}"}}'

        def taken() -> bool:
            # Counting in Loki reads every line, and would take from what is measured.
            metrics = stack.http.get(f"http://127.0.0.1:{stack.runtime.collector_metrics_port}/metrics").text
            return sum(map(float, SENT.findall(metrics))) >= LINES

        def counted() -> bool:
            data = stack.loki(
                "/loki/api/v1/query", query=f"sum(count_over_time({selector}[1h]))", time=time.time_ns() + 10**10
            )
            return bool(data["result"]) and int(float(data["result"][0]["value"][1])) >= LINES

        wait_until("a million lines taken", taken, 180, 0.2)
        wait_until("a million lines counted", counted, 180, 0.5)
        took = time.monotonic() - began
        rss = stack.agent("/v1/status").get("rss_bytes", 0)
    report(
        "pipeline",
        [
            {
                "what": f"{LINES:,} lines of 120 bytes, container to queryable",
                "value": round(LINES / took),
                "unit": "lines/s",
                "reach": 40_000,
                "better": "higher",
            },
            {"what": "agent RSS after it", "value": round(rss / 1e6), "unit": "MB", "reach": 100, "better": "lower"},
        ],
    )


if __name__ == "__main__":
    main()

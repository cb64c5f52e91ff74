"""Rotation at full speed: a million lines with `max-size=1m max-file=3`, ours beside `file_log` over Docker's folder."""

from __future__ import annotations

import contextlib
import subprocess
import time

from bench.report import report
from bench.stack import Stack, private_stack, unique, wait_until

LINES = 1_000_000
SCRIPT = f"seq 1 {LINES}"
OPTIONS = {"type": "json-file", "config": {"max-size": "1m", "max-file": "3"}}

OPPONENT = """
receivers:
  file_log:
    include: ["{root}/containers/*/*-json.log"]
    start_at: beginning
    storage: file_storage
    include_file_path: true
    poll_interval: 200ms
    retry_on_failure: {{enabled: true, max_elapsed_time: 0s}}
    operators:
      - {{type: json_parser, parse_from: body, parse_to: attributes.docker, timestamp: {{parse_from: attributes.docker.time, layout_type: gotime, layout: "2006-01-02T15:04:05.999999999Z07:00"}}}}
      - {{type: move, from: attributes.docker.log, to: body}}
      - {{type: remove, field: attributes.docker}}
extensions:
  file_storage: {{directory: "{state}/offsets", create_directory: true}}
exporters:
  otlp_http:
    endpoint: {loki}/otlp
    headers: {{X-Scope-OrgID: opponent}}
    sending_queue: {{sizer: bytes, queue_size: 268435456, block_on_overflow: true, batch: {{flush_timeout: 200ms, min_size: 524288, max_size: 1500000}}}}
processors:
  resource: {{attributes: [{{key: service.name, value: opponent, action: upsert}}]}}
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{logs: {{receivers: [file_log], processors: [resource], exporters: [otlp_http]}}}}
"""


def settled(count: object, quiet_s: float = 8, deadline_s: float = 240) -> int:
    """The value of ``count()`` once it has not changed for ``quiet_s``, or at the deadline."""
    assert callable(count)
    end, last, since = time.monotonic() + deadline_s, -1, time.monotonic()
    while time.monotonic() < end:
        value = count()
        if value != last:
            last, since = value, time.monotonic()
        elif last > 0 and time.monotonic() - since > quiet_s:
            break
        time.sleep(1)
    return last


def counted(stack: Stack, selector: str, tenant: str = "default") -> int:
    """Lines by count_over_time: cheap, used only to see whether it still moves."""
    data = stack.loki(
        "/loki/api/v1/query", tenant, query=f"sum(count_over_time({selector}[1h]))", time=time.time_ns() + 10**10
    )
    return int(float(data["result"][0]["value"][1])) if data["result"] else 0


def main() -> None:
    rows: list[dict[str, object]] = []
    with private_stack() as stack:
        service = unique("rotator")
        root = stack.docker.info()["DockerRootDir"]
        state = stack.state / "opponent"
        state.mkdir()
        config = state / "c.yaml"
        config.write_text(OPPONENT.format(root=root, state=state, loki=stack.runtime.loki_url), encoding="utf-8")
        with (state / "log").open("w") as log:
            opponent = subprocess.Popen(
                [stack.runtime.collector_binary, "--config", str(config)], stdout=log, stderr=log
            )
            try:
                began = time.monotonic()
                container = stack.run(SCRIPT, service=service, log_config=OPTIONS)
                container.wait()
                wrote = time.monotonic() - began
                ours = settled(lambda: counted(stack, f'{{service_name="{service}"}}'))
                theirs = settled(lambda: counted(stack, '{service_name="opponent"}', "opponent"), 4, 60)
            finally:
                opponent.kill()
                opponent.wait()
        lines = [line for _, line, _ in stack.rows(f'{{service_name="{service}"}}', 3600)]
        distinct = len(set(lines))
        rows += [
            {
                "what": f"lines of {LINES:,} through rotation (max-size=1m max-file=3), ours",
                "value": distinct,
                "unit": "lines",
                "reach": LINES,
                "better": "higher",
            },
            {"what": "of them doubled", "value": len(lines) - distinct, "unit": "lines", "reach": 0, "better": "lower"},
            {
                "what": "same run, file_log over Docker's folder (count_over_time)",
                "value": theirs,
                "unit": "lines",
                "reach": None,
                "better": "higher",
            },
            {"what": "count_over_time of ours", "value": ours, "unit": "lines", "reach": None, "better": "higher"},
            {
                "what": "the container wrote for",
                "value": round(wrote, 1),
                "unit": "s",
                "reach": None,
                "better": "lower",
            },
        ]
        # Five rotations that start alike: each file's first line is the same 3 kB.
        alike = unique("rotalike")
        script = (
            "h=$(head -c 3000 /dev/zero | tr '\\0' y); for r in 1 2 3 4 5; do echo $h; "
            "for i in $(seq 1 200); do echo round $r line $i; done; usleep 300000; done"
        )
        stack.run(
            script, service=alike, log_config={"type": "json-file", "config": {"max-size": "20k", "max-file": "3"}}
        ).wait()
        wanted = 5 * 201
        got: list[object] = []

        def complete() -> bool:
            got[:] = stack.rows(f'{{service_name="{alike}"}}', 900)
            return len(got) >= wanted

        with contextlib.suppress(TimeoutError):
            wait_until("rotations that start alike", complete, 60, 1)
        rows.append(
            {
                "what": "lines of 5 rotations that start with the same 3 kB line",
                "value": len(got),
                "unit": "lines",
                "reach": wanted,
                "better": "higher",
            }
        )
    report("rotation", rows)


if __name__ == "__main__":
    main()

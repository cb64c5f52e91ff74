"""A Loki of the tests' own with our config, and lines in and out of it by its API."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from onecollector.local.ports import any_free_port
from onecollector_resources.loki.config import OVERRIDES, render_loki_config, render_overrides
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.settings import Settings

TENANT = {"X-Scope-OrgID": "default"}


def new_loki(
    binary: Path, folder: Path, settings: Settings, environment: Mapping[str, str] | None = None
) -> LokiLifecycle:
    """Not started. Its config lies in ``folder``, what it stores in ``folder/data``."""
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    http_port = any_free_port(set())
    grpc_port = any_free_port({http_port})
    text = render_loki_config(settings, data_dir=data, http_port=http_port, grpc_port=grpc_port)
    (folder / "config.yaml").write_text(text)
    (data / OVERRIDES).write_text(render_overrides(settings))
    return LokiLifecycle(binary, folder / "config.yaml", data, http_port, folder / "loki.log", environment)


def push(loki: LokiLifecycle, service: str, lines: Sequence[str], age_s: float = 0) -> None:
    """Lines of one stream, a microsecond apart, the first ``age_s`` ago."""
    first = time.time_ns() - int(age_s * 1e9)
    values = [[str(first + number * 1_000), line] for number, line in enumerate(lines)]
    answer = httpx.post(
        f"{loki.url}/loki/api/v1/push",
        json={"streams": [{"stream": {"service_name": service}, "values": values}]},
        headers=TENANT,
        timeout=60,
    )
    assert answer.status_code == 204, answer.text


def lines_of(loki: LokiLifecycle, service: str, back_s: float = 86_400) -> list[str]:
    """All lines of a service, in order."""
    answer = httpx.get(
        f"{loki.url}/loki/api/v1/query_range",
        params={
            "query": f'{{service_name="{service}"}}',
            "start": time.time_ns() - int(back_s * 1e9),
            "end": time.time_ns() + int(60e9),
            "limit": 10_000,
            "direction": "forward",
        },
        headers=TENANT,
        timeout=60,
    )
    answer.raise_for_status()
    rows = [value for stream in answer.json()["data"]["result"] for value in stream["values"]]
    return [line for _, line in sorted((int(stamp), line) for stamp, line, *_ in rows)]

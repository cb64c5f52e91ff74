"""What a Loki would do to lines: its clock, and limits that lose late ones. Read only; ours or not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import yaml

from onecollector_resources.health.monitor import parse_discarded
from onecollector_resources.records import Finding

SKEW_S = 5.0
"""Seconds: the Date header counts whole ones, and a request takes its time."""

SHARDING = "limits_config: {shard_streams: {enabled: true, time_sharding_enabled: true, desired_rate: 64MB}, per_stream_rate_limit: 64MB}"


def preflight(
    url: str, tenants: Iterable[str], *, http: httpx.Client | None = None, clock: Callable[[], float] = time.time
) -> Iterator[Finding]:
    """Findings about a Loki; none where it keeps everything. Never raises for a Loki that is away: that is a finding."""
    client = http or httpx.Client(timeout=10)
    try:
        answer = client.get(f"{url}/ready")
        config = client.get(f"{url}/config")
    except httpx.HTTPError as error:
        yield Finding(
            "error",
            "loki-away",
            url,
            f"Loki does not answer: {type(error).__name__}",
            "start it: onecollector up; or mend loki.url",
        )
        return
    skew = _skew(answer, clock())
    if abs(skew) > SKEW_S:
        yield Finding(
            "error",
            "clock-skew",
            url,
            f"Loki's clock is {skew:+.0f} s off this host's: lines would be refused or land in the wrong hour",
            "synchronise both with NTP: timedatectl set-ntp true",
        )
    if answer.status_code != 200:
        yield Finding(
            "error",
            "loki-not-ready",
            url,
            f"/ready says {answer.status_code}: {answer.text.strip()[:100]}",
            "onecollector logs loki",
        )
    if config.status_code == 200:
        yield from limit_findings(yaml.safe_load(config.text), url)
    else:
        yield Finding(
            "warning",
            "limits-unknown",
            url,
            f"/config says {config.status_code}: its limits cannot be read",
            "ask its operator for limits_config",
        )
    yield from _discarded(client, url, set(tenants))


def limit_findings(config: Any, url: str) -> Iterator[Finding]:
    """Limits that lose, double or hide lines."""
    limits = (config or {}).get("limits_config") or {}
    shards = limits.get("shard_streams") or {}
    if not shards.get("time_sharding_enabled"):
        yield Finding(
            "error",
            "loses-late-lines",
            url,
            "time sharding is off: after an outage most lines that are over an hour behind their stream's newest are lost, with a 204",
            SHARDING,
        )
    if not limits.get("allow_structured_metadata", True):
        yield Finding(
            "error",
            "no-metadata",
            url,
            "structured metadata is off: OTLP lines are refused",
            "limits_config: {allow_structured_metadata: true}",
        )
    if limits.get("ingestion_rate_mb", 0) and float(limits["ingestion_rate_mb"]) < 8:
        yield Finding(
            "warning",
            "low-rate",
            url,
            f"ingestion_rate_mb is {limits['ingestion_rate_mb']}: a backlog drains slowly and others are refused meanwhile",
            "limits_config: {ingestion_rate_mb: 64, ingestion_burst_size_mb: 128}",
        )


def _skew(answer: httpx.Response, now: float) -> float:
    date = answer.headers.get("Date")
    return parsedate_to_datetime(date).timestamp() - now if date else 0.0


def _discarded(client: httpx.Client, url: str, tenants: set[str]) -> Iterator[Finding]:
    try:
        metrics = client.get(f"{url}/metrics")
    except httpx.HTTPError:
        return
    for one in parse_discarded(metrics.text):
        if one.tenant in tenants:
            yield Finding(
                "warning",
                "discarded",
                one.tenant,
                f"Loki discarded {one.lines} lines of {one.tenant} since its start: {one.reason}",
                "onecollector prove --tenant " + one.tenant,
            )

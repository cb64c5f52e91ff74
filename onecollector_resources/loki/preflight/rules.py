"""What a Loki's config says it would lose, double or hide. Pure: each rule looks at one value and names its cure.

A value that is not told gives no finding: what a Loki does is then for the trials to find out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onecollector_resources.loki.catalogue import seconds_of_duration
from onecollector_resources.loki.preflight.known import Known, bytes_of
from onecollector_resources.records import Finding

MIB = 1 << 20

SHARDING = "limits_config: {shard_streams: {enabled: true, time_sharding_enabled: true, desired_rate: 64MB}, per_stream_rate_limit: 64MB, per_stream_rate_limit_burst: 128MB}"
RATES = "limits_config: {ingestion_rate_mb: 64, ingestion_burst_size_mb: 128}"
MESSAGES = "server: {grpc_server_max_recv_msg_size: 104857600, grpc_server_max_send_msg_size: 104857600}"
METADATA = "limits_config: {allow_structured_metadata: true}"
STREAMS = "limits_config: {max_global_streams_per_user: 100000}"
OLD = "limits_config: {reject_old_samples_max_age: 744h}"
LOOK_BACK = "ingester: {query_store_max_look_back_period: -1}"

ENOUGH_PER_STREAM = 16 * MIB
"""Bytes a second: what one service at full speed writes; ours has 64 MiB."""

BACKLOG_S = 48 * 3600
"""Seconds: an outage over a weekend."""


def config_findings(known: Known, where: str) -> Iterator[Finding]:
    """All rules."""
    yield from late_lines(known, where)
    if known.limit("allow_structured_metadata") is False:
        yield Finding("error", "no-metadata", where, "structured metadata is off: OTLP lines are refused", METADATA)
    rate = known.limit("ingestion_rate_mb")
    if rate and float(rate) < 8:
        yield Finding(
            "warning",
            "low-rate",
            where,
            f"ingestion_rate_mb is {rate}: a backlog drains slowly and others are refused meanwhile",
            RATES,
        )
    yield from hot_streams(known, where)
    yield from resent_lines(known, where)
    yield from look_back(known, where)
    message = known.setting("server", "grpc_server_max_recv_msg_size")
    if isinstance(message, int) and message < 16 * MIB:
        yield Finding(
            "warning",
            "hangs-on-large-pages",
            where,
            f"messages between Loki's parts are limited to {message / MIB:.0f} MiB: a larger page of a query is no error, it hangs for a minute",
            MESSAGES,
        )
    streams = known.limit("max_global_streams_per_user")
    if isinstance(streams, int) and 0 < streams <= 5_000:
        yield Finding(
            "warning",
            "few-streams",
            where,
            f"max_global_streams_per_user is {streams:,}: past it new services store nothing (hosts x services, and seven times that in a backlog)",
            STREAMS,
        )
    oldest = seconds_of_duration(known.limit("reject_old_samples_max_age"))
    if known.limit("reject_old_samples") and oldest is not None and 0 < oldest < BACKLOG_S:
        yield Finding(
            "warning",
            "refuses-backlogs",
            where,
            f"lines older than {known.limit('reject_old_samples_max_age')} are refused: an outage over a weekend loses them",
            OLD,
        )


def late_lines(known: Known, where: str) -> Iterator[Finding]:
    """Without time sharding a stream takes only lines up to half a chunk's age behind its newest."""
    shards = known.limit("shard_streams")
    if isinstance(shards, dict) and not shards.get("time_sharding_enabled"):
        yield Finding(
            "error",
            "loses-late-lines",
            where,
            "time sharding is off: after an outage most lines that are over an hour behind their stream's newest are lost, with a 204",
            SHARDING,
        )


def hot_streams(known: Known, where: str) -> Iterator[Finding]:
    """A stream over its rate loses lines, and a quiet stream behind it in the push makes the answer a 204."""
    rate = bytes_of(known.limit("per_stream_rate_limit"))
    if rate is None or not 0 < rate < ENOUGH_PER_STREAM:
        return
    sharded = known.limit("shard_streams", "enabled")
    tenant_rate = float(known.limit("ingestion_rate_mb") or 0) * MIB
    if tenant_rate and tenant_rate <= rate:
        return
    helped = " while its stream is being sharded" if sharded else ""
    yield Finding(
        "warning" if sharded else "error",
        "loses-hot-lines",
        where,
        f"per_stream_rate_limit is {known.limit('per_stream_rate_limit')}: a service that writes more loses lines{helped}, with a 204 where a quiet one is in the same push",
        SHARDING,
    )


def resent_lines(known: Known, where: str) -> Iterator[Finding]:
    """Loki knows a line that was sent twice only within one shard of its stream."""
    desired = bytes_of(known.limit("shard_streams", "desired_rate"))
    if known.limit("shard_streams", "enabled") and desired is not None and desired < ENOUGH_PER_STREAM:
        yield Finding(
            "warning",
            "doubles-resent-lines",
            where,
            f"streams are sharded from {known.limit('shard_streams', 'desired_rate')}/s on: a line that is sent again after a restart may land in another shard, and is there twice",
            SHARDING,
        )


def look_back(known: Known, where: str) -> Iterator[Finding]:
    """``-1s`` where only ``-1`` is meant passes Loki's own check, and its queries are wrong."""
    value: Any = known.setting("ingester", "query_store_max_look_back_period")
    if str(value).startswith("-") and str(value) not in ("-1", "-1ns"):
        yield Finding(
            "error",
            "wrong-rows",
            where,
            f"query_store_max_look_back_period is {value}: only -1 may be negative; queries return lines twice, or not at all",
            LOOK_BACK,
        )

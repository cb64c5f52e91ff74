"""Our own Loki's config, rendered from settings: one process, writable rules, deletes and retention.

Several values are only here because lines were lost, doubled or hidden without them; each says so where it stands.
The result is plain data until the end, so that it can be checked: Loki accepts some values that make it return wrong
answers, and those are refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from onecollector_resources.retention.policies import Policy
from onecollector_resources.retention.render import retention_limits
from onecollector_resources.settings import Settings

MESSAGE_BYTES = 104_857_600
"""gRPC message limit. With Loki's own 4 MiB a large page is not an error but a hang of 60 s."""

NEGATIVE = re.compile(r"-\s*(?:\d+\.?\d*|\.\d+)\s*(?:ns|us|µs|ms|s|m|h|d|w|y)\S*")

DEFAULTED = re.compile(r"\$\{\w+:-?(?P<value>-[^}]*)\}")
"""``${NAME:-1s}``: Loki puts the default in when the variable is not set."""

OVERRIDES = "overrides.yaml"
"""Per-tenant limits, in the data folder; Loki does not start without the file."""


class LokiConfigError(ValueError):
    """A config that Loki would accept or refuse, and that must not be used."""


def loki_config(settings: Settings, *, data_dir: Path, http_port: int, grpc_port: int) -> dict[str, Any]:
    """The config as data. ``data_dir`` holds everything Loki writes."""
    data = str(data_dir)
    s3 = settings.loki.store == "s3"
    store = "s3" if s3 else "filesystem"
    config: dict[str, Any] = {
        "target": "all",
        "auth_enabled": True,
        "analytics": {"reporting_enabled": False},
        "server": {
            "http_listen_address": "127.0.0.1",
            "http_listen_port": http_port,
            "grpc_listen_address": "127.0.0.1",
            "grpc_listen_port": grpc_port,
            "http_server_read_timeout": "10m",
            "http_server_write_timeout": "10m",
            "grpc_server_max_recv_msg_size": MESSAGE_BYTES,
            "grpc_server_max_send_msg_size": MESSAGE_BYTES,
            # One client that is slow to go holds a stop up for this long: 30 s by default.
            "graceful_shutdown_timeout": "5s",
            "log_level": "warn",
        },
        "common": {
            "instance_addr": "127.0.0.1",
            "instance_interface_names": ["lo"],
            "path_prefix": data,
            "replication_factor": 1,
            "ring": {"instance_addr": "127.0.0.1", "kvstore": {"store": "inmemory"}},
        },
        "storage_config": {
            # Without it rules on disk are read-only.
            "use_thanos_objstore": True,
            "object_store": _object_store(settings, data),
            "tsdb_shipper": {
                "active_index_directory": f"{data}/tsdb-active",
                "cache_location": f"{data}/tsdb-cache",
            },
        },
        "schema_config": {
            "configs": [
                {
                    "from": "2024-01-01",
                    "store": "tsdb",
                    "object_store": store,
                    "schema": "v13",
                    "index": {"prefix": "index_", "period": "24h"},
                }
            ]
        },
        "frontend": {
            "encoding": "protobuf",
            "max_outstanding_per_tenant": 4096,
            # Until it has found the scheduler Loki is not ready, and it looks every 10 s: the longest part of a start.
            "scheduler_dns_lookup_period": "500ms",
        },
        "frontend_worker": {
            "grpc_client_config": {"max_recv_msg_size": MESSAGE_BYTES, "max_send_msg_size": MESSAGE_BYTES}
        },
        # A line is asked for within a second of its arrival: a cached "nothing there" would be wrong.
        "query_range": {"cache_results": False, "parallelise_shardable_queries": True},
        "ingester": {
            "chunk_encoding": "snappy",
            "lifecycler": {"min_ready_duration": "0s", "final_sleep": "0s"},
            "wal": {
                "enabled": True,
                "dir": f"{data}/wal",
                "replay_memory_ceiling": "1GB",
                # A stop leaves everything in the store: with S3 the machine may go then.
                "flush_on_shutdown": True,
            },
        },
        "compactor": {
            "working_directory": f"{data}/compactor",
            "retention_enabled": True,
            "delete_request_store": store,
            # Lines are hidden at once. Those whose chunks are not in the store yet when Loki gets to a request stay for
            # good, so it waits until the oldest chunk in memory (2 h) is written, not a day as it does by default.
            "delete_request_cancel_period": "3h",
            "compaction_interval": "1m",
        },
        "ruler_storage": _ruler_storage(settings, data),
        "ruler": {
            "enable_api": True,
            "enable_alertmanager_v2": True,
            "rule_path": f"{data}/rules-tmp",
            "poll_interval": "5s",
            "evaluation_interval": "15s",
            "wal": {"dir": f"{data}/ruler-wal"},
            "ring": {"kvstore": {"store": "inmemory"}},
        },
        "runtime_config": {"file": f"{data}/{OVERRIDES}", "period": "5s"},
        "limits_config": {
            # Time sharding: without it a backlog of some hours loses two lines in three, with a 204. The desired rate
            # is high because a line that is sent again and lands in another shard is a line twice.
            "shard_streams": {"enabled": True, "time_sharding_enabled": True, "desired_rate": "64MB"},
            "per_stream_rate_limit": "64MB",
            "per_stream_rate_limit_burst": "128MB",
            "ingestion_rate_mb": 64,
            "ingestion_burst_size_mb": 128,
            "max_global_streams_per_user": 100_000,
            "otlp_config": {
                "resource_attributes": {
                    "ignore_defaults": True,
                    "attributes_config": [
                        {
                            "action": "index_label",
                            "attributes": [
                                "service.name",
                                "service.namespace",
                                "deployment.environment.name",
                                "host.name",
                            ],
                        }
                    ],
                }
            },
            "discover_log_levels": False,
            "discover_service_name": [],
            # The head of a line that is too long is worth more than nothing.
            "max_line_size": "1MB",
            "max_line_size_truncate": True,
            "max_entries_limit_per_query": 50_000,
            # The proof of collection groups by container: one query for thousands of them.
            "max_query_series": 20_000,
            "query_timeout": "10m",
            "volume_enabled": True,
            "retention_period": settings.loki.retention,
            "reject_old_samples": True,
            "reject_old_samples_max_age": "744h",
            "creation_grace_period": "2h",
        },
    }
    if not s3:
        # Lines older than three hours are else accepted and invisible until their chunk is flushed. Exactly -1: other
        # negative values make Loki return rows twice, and with S3 any value is a start-up error.
        config["ingester"]["query_store_max_look_back_period"] = -1
    if settings.loki.alertmanager_url:
        config["ruler"]["alertmanager_url"] = settings.loki.alertmanager_url
    return _merged(config, settings.loki.overrides)


def _object_store(settings: Settings, data: str) -> dict[str, Any]:
    if settings.loki.s3 is None or settings.loki.store != "s3":
        return {"filesystem": {"dir": f"{data}/objects"}}
    return {"s3": _bucket(settings, settings.loki.s3.bucket)}


def _ruler_storage(settings: Settings, data: str) -> dict[str, Any]:
    if settings.loki.s3 is None or settings.loki.store != "s3":
        return {"backend": "filesystem", "filesystem": {"dir": f"{data}/rules"}}
    return {"backend": "s3", "s3": _bucket(settings, settings.loki.s3.rules_bucket)}


def _bucket(settings: Settings, name: str) -> dict[str, Any]:
    s3 = settings.loki.s3
    assert s3 is not None
    return {
        "bucket_name": name,
        "endpoint": re.sub(r"^https?://", "", s3.endpoint),
        "region": s3.region,
        # Secrets stay out of the file: Loki expands these when it starts.
        "access_key_id": f"${{{s3.access_key_env}}}",
        "secret_access_key": f"${{{s3.secret_key_env}}}",
        "insecure": s3.insecure or s3.endpoint.startswith("http://"),
        "bucket_lookup_type": "path",
        "max_retries": 5,
    }


def _merged(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in over.items():
        mine = out.get(key)
        out[key] = _merged(mine, value) if isinstance(mine, dict) and isinstance(value, Mapping) else value
    return out


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every scalar with its dotted path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def refuse_negative_durations(config: Mapping[str, Any]) -> None:
    """Raise LokiConfigError for a negative duration other than -1.

    Loki's own check lets ``-1s`` pass where only ``-1`` is meant, and then returns rows twice. A bare number is
    nanoseconds to it, so those below -1 are refused, too.
    """
    for path, value in leaves(config):
        if _negative(value):
            raise LokiConfigError(
                f"loki config: {path}: {value!r} is a negative duration; expected a positive one or exactly -1. "
                "Loki would accept it and return wrong rows; mend loki.overrides in onecollector.yaml"
            )


def _negative(value: Any) -> bool:
    if isinstance(value, int | float):
        return value < 0 and value != -1
    if not isinstance(value, str):
        return False
    # Wherever a default begins with a minus: `${A:-5s}` is the shell's way to say 5s, and to Loki's reader -5s.
    default = DEFAULTED.search(value)
    return bool(NEGATIVE.fullmatch(value.strip()) or (default and NEGATIVE.fullmatch(default["value"].strip())))


def render_loki_config(settings: Settings, *, data_dir: Path, http_port: int, grpc_port: int) -> str:
    """The config as YAML: byte-identical for equal input. Raises LokiConfigError."""
    config = loki_config(settings, data_dir=data_dir, http_port=http_port, grpc_port=grpc_port)
    refuse_negative_durations(config)
    return yaml.safe_dump(config, sort_keys=True, width=120)


def render_overrides(settings: Settings, policies: Mapping[str, Policy] | None = None) -> str:
    """Per-tenant limits, which Loki takes in within seconds and without a restart. Raises LokiConfigError.

    ``policies`` are retention policies by tenant; they go over what ``loki.tenant_overrides`` says of retention.
    """
    tenants = {tenant: dict(limits) for tenant, limits in settings.loki.tenant_overrides.items()}
    for tenant, policy in (policies or {}).items():
        tenants[tenant] = tenants.get(tenant, {}) | retention_limits(policy)
    overrides = {"overrides": tenants}
    refuse_negative_durations(overrides)
    return yaml.safe_dump(overrides, sort_keys=True)

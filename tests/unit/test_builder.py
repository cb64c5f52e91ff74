"""Collector configs: equal input gives equal bytes, containers change nothing, and every rule can catch its fault."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.collector.builder import (
    OtelConfigBuilder,
    pipelines_in_use,
    poll_interval_ms,
    render_yaml,
    share_queues,
)
from onecollector_resources.collector.in_force import live_pipelines
from onecollector_resources.collector.names import parse_names
from onecollector_resources.collector.rules import check_rules
from onecollector_resources.records import LogSource
from onecollector_resources.settings import MultilineRule, Settings, TenantSettings


def settings(*tenants: str) -> Settings:
    return Settings(
        tenants={name: TenantSettings() for name in ("default", *tenants)},
        multiline={"java": MultilineRule(first_line=r"^\d{4}-")},
    )


def source(tenant: str = "default", multiline: str | None = None) -> LogSource:
    return LogSource(
        "h", "a" * 64, "container", "n", "n", tenant, "web", "web", "docker", multiline, "link", "/x", "collecting"
    )


GOLDEN = OtelConfigBuilder(settings("acme")).generate_config().text


def test_equal_input_gives_equal_bytes_and_our_rules_find_nothing() -> None:
    assert OtelConfigBuilder(settings("acme")).generate_config().text == GOLDEN
    assert check_rules(GOLDEN) == ()


def test_a_container_of_a_known_tenant_changes_nothing() -> None:
    assert pipelines_in_use([source()], settings()) == pipelines_in_use([], settings())


def test_a_tenant_that_is_not_on_the_list_never_ships() -> None:
    assert ("nobody", "docker") not in pipelines_in_use([source("nobody")], settings())


def test_a_rule_in_use_is_a_pipeline_of_its_own() -> None:
    assert ("default", "docker+java") in pipelines_in_use([source(multiline="java")], settings())
    assert ("default", "docker+nope") not in pipelines_in_use([source(multiline="nope")], settings())


def test_what_a_config_collects_is_read_back_from_its_globs() -> None:
    assert live_pipelines(GOLDEN) == {("default", "docker"), ("acme", "docker")}
    assert live_pipelines("{not yaml") == frozenset()
    assert live_pipelines("a: 1") == frozenset()


@given(st.integers(0, 3000), st.sampled_from([None, 200, 500, 1000]))
def test_the_poll_class_follows_the_links_and_does_not_flap(live: int, current: int | None) -> None:
    chosen = poll_interval_ms(live, current)
    assert chosen in (200, 500, 1000)
    assert poll_interval_ms(live, chosen) == chosen


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(16, 4096), min_size=1, max_size=8),
    st.integers(64, 8192),
)
def test_queues_stay_under_the_hosts_limit(wanted: dict[str, int], total: int) -> None:
    shared = dict(share_queues(wanted, total))
    assert set(shared) == set(wanted)
    assert sum(shared.values()) <= max(total, 8 * len(wanted))


def test_names_are_read_out_of_the_binarys_error() -> None:
    error = '\'receivers\' unknown type: "x" for id: "x" (valid values: [nop file_log filelog])'
    assert parse_names(error) == {"receivers": frozenset({"nop", "file_log", "filelog"})}


def _receiver(config: dict[str, Any]) -> dict[str, Any]:
    return next(iter(config["receivers"].values()))


def _exporter(config: dict[str, Any]) -> dict[str, Any]:
    return next(iter(config["exporters"].values()))


def _pipeline(config: dict[str, Any]) -> dict[str, Any]:
    return next(iter(config["service"]["pipelines"].values()))


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A mutation that sets, or with ... deletes, a dotted key below the receiver, exporter or pipeline."""

    def mutate(config: dict[str, Any]) -> None:
        root, *keys = path.split(".")
        node: Any = {"receiver": _receiver, "exporter": _exporter, "pipeline": _pipeline, "config": lambda c: c}[root](
            config
        )
        for key in keys[:-1]:
            node = node[key]
        if value is ...:
            del node[keys[-1]]
        else:
            node[keys[-1]] = value

    return mutate


MUTATIONS = [
    ("receiver.storage", ...),
    ("receiver.storage", "file_storage/nope"),
    ("receiver.retry_on_failure", ...),
    ("receiver.retry_on_failure.enabled", False),
    ("receiver.retry_on_failure.max_elapsed_time", "5m"),
    ("receiver.start_at", "end"),
    ("receiver.start_at", ...),
    ("receiver.include_file_record_number", ...),
    ("receiver.include_file_record_number", False),
    ("receiver.poll_interval", "10ms"),
    ("receiver.poll_interval", "1m"),
    ("receiver.include", []),
    ("receiver.include", ...),
    ("receiver.operators", []),
    ("exporter.sending_queue", ...),
    ("exporter.sending_queue.storage", ...),
    ("exporter.sending_queue.num_consumers", ...),
    ("exporter.sending_queue.num_consumers", 4),
    ("exporter.sending_queue.storage", "x"),
    ("exporter.sending_queue.block_on_overflow", False),
    ("exporter.sending_queue.block_on_overflow", ...),
    ("exporter.sending_queue.batch", ...),
    ("exporter.sending_queue.batch.max_size", 50_000_000),
    ("exporter.sending_queue.batch.max_size", 0),
    ("exporter.retry_on_failure", ...),
    ("exporter.retry_on_failure.enabled", False),
    ("exporter.retry_on_failure.max_elapsed_time", "300s"),
    ("exporter.endpoint", "http://x/v1/logs"),
    ("exporter.endpoint", ...),
    ("exporter.headers", ...),
    ("exporter.headers", {}),
    ("exporter.headers", {"X-Scope-OrgID": "a", "Authorization": "Bearer abc"}),
    ("exporter.headers", {"X-Scope-OrgID": "a", "Authorization": "Bearer abc${env:X}"}),
    ("exporter.endpoint", "https://me:secret@loki/otlp"),
    ("exporter.tls", {"key_pem": "-----BEGIN"}),
    ("exporter.tls", {"insecure_skip_verify": True}),
    ("pipeline.processors", []),
    ("pipeline.processors", ...),
    ("pipeline.processors", ["transform/lines", "memory_limiter"]),
    ("pipeline.processors", ["memory_limiter", "batch"]),
    ("pipeline.receivers", []),
    ("pipeline.receivers", ["nope"]),
    ("pipeline.exporters", ["nope"]),
    ("pipeline.exporters", []),
    ("config.receivers", {}),
    ("config.receivers", None),
    ("config.exporters", ...),
    ("config.processors", ...),
    ("config.extensions", ...),
    ("config.service", ...),
    ("config.service.pipelines", {}),
    ("config.extensions.health_check", {"endpoint": "0.0.0.0:13133"}),
    ("config.service.telemetry.metrics.address", "0.0.0.0:8888"),
    ("config.service.extensions", []),
    ("config.processors.transform/lines", {"log_statements": []}),
    ("config.receivers.file_log/again", {"include": ["x"]}),
]


@pytest.mark.parametrize(
    ("path", "value"), MUTATIONS, ids=[f"{p}={'deleted' if v is ... else v}"[:60] for p, v in MUTATIONS]
)
def test_a_fault_is_caught_by_a_rule(path: str, value: Any) -> None:
    config = copy.deepcopy(yaml.safe_load(GOLDEN))
    change(path, value)(config)
    findings = check_rules(render_yaml(config))
    assert any(finding.level == "error" for finding in findings)
    assert all(finding.fix and finding.where for finding in findings)


def test_what_is_no_yaml_is_one_finding() -> None:
    assert [f.rule for f in check_rules("{a: [")] == ["yaml"]
    assert [f.rule for f in check_rules("- a")] == ["yaml"]

"""A tenant that leaves the list keeps its pipeline until its queue is empty; nothing that waits is stranded."""

from __future__ import annotations

from pathlib import Path

import pytest

from onecollector_resources.collector.builder import OtelConfigBuilder
from onecollector_resources.collector.in_force import live_pipelines, queue_sizes
from onecollector_resources.collector.leaving import leaving_tenants, let_go, take_back
from onecollector_resources.collector.metrics import metric_sum, queued_bytes
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.settings import MultilineRule, Settings, TenantSettings

METRICS = """\
# TYPE otelcol_exporter_queue_size gauge
otelcol_exporter_queue_size{data_type="logs",exporter="otlp_http/acme",service_instance_id="x"} 1.5e+06
otelcol_exporter_queue_size{data_type="logs",exporter="otlp_http/default",service_instance_id="x"} 0
otelcol_exporter_queue_capacity{data_type="logs",exporter="otlp_http/acme"} 2.68435456e+08
"""


def settings(*tenants: str) -> Settings:
    return Settings(
        tenants={name: TenantSettings(queue_mib=64) for name in ("default", *tenants)},
        multiline={"java": MultilineRule(first_line=r"^\d{4}-")},
    )


@pytest.fixture
def registry(tmp_path: Path) -> LogSourceRegistry:
    made = LogSourceRegistry(f"sqlite:///{tmp_path / 'r.db'}")
    made.migrate()
    return made


def config_of(registry: LogSourceRegistry, policy: Settings, *, live: bool = True) -> str:
    take_back(registry, policy.tenants)
    builder = OtelConfigBuilder(policy)
    builder.load_registry_state(registry)
    config = builder.generate_config()
    registry.record_config(config, "unknown", actor="t")
    if live:
        registry.set_config_verdict(config.hash, "live", (), actor="t")
    return config.text


def test_its_pipeline_queue_and_size_stay_until_it_is_let_go(registry: LogSourceRegistry) -> None:
    with_acme = config_of(registry, settings("acme"))
    assert config_of(registry, settings()) == with_acme
    let_go(registry, "acme")
    without = config_of(registry, settings())
    assert {tenant for tenant, _ in live_pipelines(without)} == {"default"}
    assert queue_sizes(without) == {"default": 64}


def test_a_tenant_that_came_back_has_to_be_drained_again(registry: LogSourceRegistry) -> None:
    config_of(registry, settings("acme"))
    let_go(registry, "acme")
    config_of(registry, settings())
    config_of(registry, settings("acme"))
    assert [one.tenant for one in leaving_tenants(registry, ["default"], "default")] == ["acme"]
    assert ("acme", "docker") in live_pipelines(config_of(registry, settings()))


def test_a_rule_that_went_with_its_tenant_leaves_a_pipeline_that_can_be_rendered(registry: LogSourceRegistry) -> None:
    policy = settings("acme")
    declared = {"glob": "/var/log/a.log", "service": "a", "tenant": "acme", "multiline": "java"}
    config_of(registry, Settings.model_validate({**policy.model_dump(), "files": [declared]}))
    assert [one.pipelines for one in leaving_tenants(registry, ["default"], "default")] == [
        ("docker", "docker+java", "plain+java")
    ]
    rest = Settings(tenants={"default": TenantSettings(queue_mib=64)})
    kept = {pipeline for tenant, pipeline in live_pipelines(config_of(registry, rest)) if tenant == "acme"}
    assert kept == {"docker", "plain"}


def test_queues_are_read_by_tenant_from_the_collectors_figures() -> None:
    assert queued_bytes(METRICS) == {"acme": 1_500_000, "default": 0}
    assert metric_sum(METRICS, "otelcol_exporter_queue_size") == 1_500_000
    assert metric_sum(METRICS, "otelcol_exporter_sent") is None
    assert queued_bytes("") == {}

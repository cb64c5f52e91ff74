"""``collector_config``: the config that hosts should run, built from settings and registry; checked before it goes on."""

import time
from pathlib import Path

import dagster as dg

from onecollector_assets.presentation import config_diff, findings_table, markdown_table
from onecollector_resources.collector.builder import AGENT_CLASS
from onecollector_resources.collector.leaving import take_back
from onecollector_resources.collector.lines import told
from onecollector_resources.dagster_resources import OneCollectorResource

ACTOR = "dagster"


@dg.asset(
    deps=["log_sources"],
    group_name="collection",
    description="The OpenTelemetry Collector's config, byte-identical for equal input. It changes with policy, never with containers.",
    kinds={"opentelemetry", "yaml"},
    owners=["team:platform"],
)
def collector_config(context: dg.AssetExecutionContext, onecollector: OneCollectorResource) -> dg.MaterializeResult:
    began = time.monotonic()
    registry, builder = onecollector.registry(), onecollector.builder()
    take_back(registry, builder.settings.tenants)
    builder.load_registry_state(registry)
    binary, environment = Path(onecollector.runtime().collector_binary), onecollector.collector_environment()
    config = builder.generate_config(binary, environment)
    registry.record_config(config, "unknown", actor=ACTOR)
    live = registry.live_config(AGENT_CLASS)
    before = live.config.text if live else ""
    unchanged = live is not None and live.config.hash == config.hash
    context.log.info("config %s: %s", config.hash, "unchanged" if unchanged else "new")
    return dg.MaterializeResult(
        metadata={
            "hash": config.hash,
            "state": "unchanged" if unchanged else "changed" if live else "first",
            "live": live.config.hash if live else "none",
            "diff": dg.MetadataValue.md(config_diff(before, config.text)),
            "pipelines": dg.MetadataValue.md(markdown_table(("tenant", "pipeline"), config.pipelines)),
            "leaving": dg.MetadataValue.md(
                markdown_table(
                    ("tenant off the list", "kept until its queue is empty"),
                    [(one.tenant, ", ".join(one.pipelines)) for one in builder.leaving],
                )
            ),
            "quarantined": dg.MetadataValue.md(
                markdown_table(
                    ("tenant", "fragment", "reason"), [(q.tenant, q.fragment, q.reason) for q in config.quarantined]
                )
            ),
            "bytes": len(config.text.encode()),
            "build seconds": round(time.monotonic() - began, 3),
        },
        data_version=dg.DataVersion(config.hash),
    )


@dg.asset_check(
    asset=collector_config,
    blocking=True,
    description="Our rules, then the deployed collector's own check. A config that fails goes nowhere.",
)
def config_is_valid(context: dg.AssetCheckExecutionContext, onecollector: OneCollectorResource) -> dg.AssetCheckResult:
    began = time.monotonic()
    registry, builder = onecollector.registry(), onecollector.builder()
    builder.load_registry_state(registry)
    binary, environment = Path(onecollector.runtime().collector_binary), onecollector.collector_environment()
    config = builder.generate_config(binary, environment)
    stored = registry.get_config(config.hash)
    if stored is not None and stored.verdict in ("valid", "live"):
        return dg.AssetCheckResult(passed=True, metadata={"hash": config.hash, "seen before": stored.verdict})
    findings = builder.validate_config(config.text, binary, environment)
    errors = [finding for finding in findings if finding.level == "error"]
    context.log.info("config %s: %s errors", config.hash, len(errors))
    if stored is not None:
        registry.set_config_verdict(
            config.hash, "invalid" if errors else "valid", [f.message for f in errors], actor=ACTOR
        )
    return dg.AssetCheckResult(
        passed=not errors,
        description=told(errors[0], config.text) if errors else "accepted by rules and binary",
        metadata={
            "hash": config.hash,
            "findings": dg.MetadataValue.md(findings_table(findings, config.text)),
            "seconds": round(time.monotonic() - began, 3),
        },
    )

"""``collector_rollout``: the config on the host, judged on data; ``pipeline_delivers``: a line through every pipeline."""

import time

import dagster as dg

from onecollector_assets.collector_config import ACTOR, collector_config
from onecollector_assets.presentation import markdown_table
from onecollector_resources.collector.builder import AGENT_CLASS
from onecollector_resources.collector.rollout import roll_out
from onecollector_resources.collector.transports import TransportError
from onecollector_resources.dagster_resources import OneCollectorResource


@dg.asset(
    deps=[collector_config],
    group_name="collection",
    description="The config that hosts do run. A new one is live only after its probe lines came out of Loki.",
    kinds={"opentelemetry"},
    owners=["team:platform"],
)
def collector_rollout(context: dg.AssetExecutionContext, onecollector: OneCollectorResource) -> dg.MaterializeResult:
    began = time.monotonic()
    registry, builder = onecollector.registry(), onecollector.builder()
    builder.load_registry_state(registry)
    from pathlib import Path

    config = builder.generate_config(
        Path(onecollector.runtime().collector_binary), onecollector.collector_environment()
    )
    registry.record_config(config, "unknown", actor=ACTOR)
    result = roll_out(config, onecollector.manager(), registry, actor=ACTOR)
    push = result.push
    metadata = {
        "state": "nothing to do" if push.state == "unchanged" else push.state,
        "hash": config.hash,
        "from": result.previous_hash or "none",
        "agent class": AGENT_CLASS,
        "steps": dg.MetadataValue.md(
            markdown_table(("step", "seconds"), [(k, f"{v:.2f}") for k, v in push.seconds.items()])
        ),
        "slowest probe seconds": round(push.slowest_probe, 3),
        "reasons": dg.MetadataValue.md(markdown_table(("reason",), [(reason,) for reason in push.reasons])),
        "seconds": round(time.monotonic() - began, 3),
    }
    if push.state == "rejected":
        raise dg.Failure(
            f"config {config.hash} was at fault and is not offered again: {'; '.join(push.reasons)}",
            metadata=metadata,
            allow_retries=False,
        )
    if push.state == "undecided":
        raise dg.Failure(
            f"config {config.hash} is not live, and it is open whether it is at fault; the next reconcile tries again: {'; '.join(push.reasons)}",
            metadata=metadata,
            allow_retries=False,
        )
    context.log.info("config %s: %s", config.hash, metadata["state"])
    return dg.MaterializeResult(metadata=metadata)


@dg.asset_check(
    asset=collector_rollout,
    blocking=True,
    description="A probe line through every live pipeline has come out of Loki.",
)
def pipeline_delivers(
    context: dg.AssetCheckExecutionContext, onecollector: OneCollectorResource
) -> dg.AssetCheckResult:
    try:
        look = onecollector.monitor().verify_pipeline_ok()
    except TransportError as error:
        return dg.AssetCheckResult(passed=False, description=str(error))
    rows = [(p.tenant, p.pipeline, "not seen" if s is None else f"{s:.2f} s") for p, s in look.seen.items()]
    context.log.info("%s of %s probes seen", sum(1 for s in look.seen.values() if s is not None), len(rows))
    description = (
        f"{len(rows)} of {len(rows)} probes back, slowest in {look.slowest:.2f} s" if look.ok else "probes are missing"
    )
    return dg.AssetCheckResult(
        passed=look.ok,
        description=description + (f"; {look.loki_error}" if look.loki_error else ""),
        metadata={
            "probes": dg.MetadataValue.md(markdown_table(("tenant", "pipeline", "seen after"), rows)),
            "slowest seconds": round(look.slowest, 3),
        },
    )

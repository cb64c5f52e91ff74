"""``log_sources``: what is collected, as the registry knows it. One run takes in everything that changed.

The seed's three activities are its ops. Nothing passes between them but the registry's revision: what they read is
level-triggered, so a run that was queued twice does no harm.
"""

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from onecollector_assets.presentation import markdown_table, sources_table
from onecollector_resources.collector.transports import TransportError
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.loki.links import lines_link
from onecollector_resources.registry.store import CONCERNS

MARK = "reconciled"
"""Registry mark: every concern up to it was taken in by a run."""

SERVICES = dg.DynamicPartitionsDefinition(name="services")


@dg.op(description="Reads what the agents found: every container and file, and what changed since the last reconcile.")
def discover_log_files_activity(context: dg.OpExecutionContext, onecollector: OneCollectorResource) -> dict[str, Any]:
    registry = onecollector.registry()
    revision, mark = registry.revision(CONCERNS), registry.get_mark(MARK)
    changed = sorted({(e.host, e.source_id) for e in registry.events_after(mark, 100_000, CONCERNS) if e.source_id})
    context.log.info("revision %s, reconciled until %s, %s sources changed", revision, mark, len(changed))
    return {"revision": revision, "mark": mark, "changed": changed}


@dg.op(
    description="Joins what changed with its labels: tenant, service, pipeline; records an event per service that changed."
)
def label_enrichment_activity(
    context: dg.OpExecutionContext, onecollector: OneCollectorResource, found: dict[str, Any]
) -> dict[str, Any]:
    sources = onecollector.registry().lookup_sources()
    keys = {tuple(key) for key in found["changed"]}
    changed = [source for source in sources if source.key in keys]
    by_service: dict[str, list[Any]] = {}
    for source in changed:
        by_service.setdefault(source.service, []).append(source)
    if by_service:
        context.instance.add_dynamic_partitions("services", sorted(by_service))
    loki, loki_url = onecollector.settings().loki, onecollector.runtime().loki_url
    for service, mine in sorted(by_service.items()):
        newest = max((source.first_seen for source in mine if source.first_seen), default=None)
        context.log_event(
            dg.AssetMaterialization(
                "log_sources",
                partition=service,
                metadata={
                    "sources": len(mine),
                    "states": dict(Counter(source.state for source in mine)),
                    "tenant": ", ".join(sorted({source.tenant for source in mine})),
                    "table": dg.MetadataValue.md(sources_table(mine)),
                    "query": f"onecollector query '{{service_name=\"{service}\"}}' --tenant {mine[0].tenant} --since 5m",
                    "lines": dg.MetadataValue.url(lines_link(loki, loki_url, service)),
                    "seconds since first seen": round((datetime.now(UTC) - newest).total_seconds(), 2)
                    if newest
                    else 0.0,
                },
            )
        )
    return {**found, "services": sorted(by_service), "changed": len(changed)}


@dg.op(description="How far shipping has come: bytes behind per source. The collector ships, Python never does.")
def tail_and_ship_logs_activity(
    context: dg.OpExecutionContext, onecollector: OneCollectorResource, enriched: dict[str, Any]
) -> dg.Output[int]:
    began = time.monotonic()
    sources = [source for source in onecollector.registry().lookup_sources() if source.phase != "gone"]
    try:
        behind = sorted(onecollector.transport().sources(), key=lambda row: -row["behind"])
        late = [(row["service"], row["name"], f"{row['behind']:,}") for row in behind if row["behind"]]
        shipping = markdown_table(("service", "name", "bytes behind"), late) if late else "nothing is behind"
        total = sum(row["behind"] for row in behind)
    except TransportError as error:
        shipping, total = f"the agent does not answer: {error}", -1
    context.log.info("%s sources, %s changed, %s bytes behind", len(sources), enriched["changed"], total)
    return dg.Output(
        enriched["revision"],
        metadata={
            "sources": len(sources),
            "changed": enriched["changed"],
            "services changed": ", ".join(enriched["services"][:50]) or "none",
            "states": dict(Counter(source.state for source in sources)),
            "table": dg.MetadataValue.md(sources_table(sources)),
            "bytes behind": total,
            "shipping": dg.MetadataValue.md(shipping),
            "revision": enriched["revision"],
            "seconds": round(time.monotonic() - began, 3),
        },
    )


@dg.graph_asset(
    name="log_sources",
    group_name="collection",
    description="Every container and file on every host, by service, with its state. The registry holds the history.",
    kinds={"docker", "python"},
    owners=["team:platform"],
)
def log_sources() -> int:
    return tail_and_ship_logs_activity(label_enrichment_activity(discover_log_files_activity()))

"""The reconcile: all four assets and their checks in one run and one process."""

from __future__ import annotations

import dagster as dg

TAGS = {
    # The queue's limit on this tag makes reconciles one at a time.
    "onecollector/plane": "control",
    "dagster/max_runtime": "600",
}

reconcile = dg.define_asset_job(
    "reconcile",
    selection=dg.AssetSelection.groups("collection") | dg.AssetSelection.checks_for_assets("collector_config"),
    # A process per step would cost four seconds for three steps of milliseconds.
    executor_def=dg.in_process_executor,
    tags=TAGS,
    description="Takes in what changed: sources, config, rollout, rules; each with its check.",
)

"""Dagster's code location ``control``: what exists, what checks it and when it happens, everything listed by name.

It loads where nothing runs; assets and sensors then say what is missing.
"""

from __future__ import annotations

import dagster as dg

from onecollector_assets.archive import archive, archive_job, archive_restores, drill_job
from onecollector_assets.collector_config import collector_config, config_is_valid
from onecollector_assets.exports import log_exports
from onecollector_assets.jobs import reconcile
from onecollector_assets.loki_rules import loki_rules, rules_are_live
from onecollector_assets.retention import (
    report_retention,
    report_retention_daily,
    retention_is_kept,
    retention_policies_are_in_force,
    retention_report,
)
from onecollector_assets.rollout import collector_rollout, pipeline_delivers
from onecollector_assets.sources import log_sources
from onecollector_resources.dagster_resources import OneCollectorResource
from sensors.archive import archive_daily, restore_drill_weekly
from sensors.containers import containers
from sensors.exports import export_hour, export_hourly
from sensors.health import health
from sensors.schedules import prune, prune_daily, reconcile_everything

defs = dg.Definitions(
    assets=[
        log_sources,
        collector_config,
        collector_rollout,
        loki_rules,
        log_exports,
        archive,
        archive_restores,
        retention_report,
    ],
    asset_checks=[
        config_is_valid,
        pipeline_delivers,
        rules_are_live,
        retention_is_kept,
        retention_policies_are_in_force,
    ],
    jobs=[reconcile, prune, export_hour, archive_job, drill_job, report_retention],
    sensors=[containers, health],
    schedules=[
        reconcile_everything,
        prune_daily,
        export_hourly,
        archive_daily,
        restore_drill_weekly,
        report_retention_daily,
    ],
    resources={"onecollector": OneCollectorResource(), "io_manager": dg.mem_io_manager},
    # What is launched from the UI and by backfills, too: nothing is handed on between steps, and each process costs a second.
    executor=dg.in_process_executor,
)

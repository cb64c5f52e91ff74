"""Dagster's code location ``ml``: what is learned from exported lines. Apart from ``control``, so that what learns can
be heavy and can fail without anything that collects noticing.
"""

from __future__ import annotations

import dagster as dg

from onecollector_assets.anomaly_models import (
    anomaly_models,
    count_day,
    production_models,
    promote_models,
    train_models,
)
from onecollector_assets.incident_runs import investigate_incident
from onecollector_assets.tallies import minute_tallies
from onecollector_assets.templates import log_templates
from onecollector_resources.dagster_resources import OneCollectorResource
from sensors.incidents import new_incidents
from sensors.training import count_daily, shadows_that_are_whole, train_daily

defs = dg.Definitions(
    assets=[log_templates, minute_tallies, anomaly_models, production_models],
    jobs=[count_day, train_models, promote_models, investigate_incident],
    schedules=[count_daily, train_daily],
    sensors=[new_incidents, shadows_that_are_whole],
    resources={"onecollector": OneCollectorResource(), "io_manager": dg.mem_io_manager},
    # What is launched from the UI and by backfills, too: nothing is handed on between steps.
    executor=dg.in_process_executor,
)

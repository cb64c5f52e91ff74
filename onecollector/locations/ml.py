"""Dagster's code location ``ml``: what is learned from exported lines. Apart from ``control``, so that what learns can
be heavy and can fail without anything that collects noticing.
"""

from __future__ import annotations

import dagster as dg

from onecollector_assets.templates import log_templates
from onecollector_resources.dagster_resources import OneCollectorResource

defs = dg.Definitions(
    assets=[log_templates],
    resources={"onecollector": OneCollectorResource(), "io_manager": dg.mem_io_manager},
)

"""Both code locations: in the repository's workspace, and as `up` renders them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from onecollector.local.programs import DAGSTER_YAML, programs, workspace_yaml
from onecollector_resources.runtime import Runtime
from onecollector_resources.settings import Settings

ROOT = Path(__file__).parents[2]


def runtime() -> Runtime:
    values: dict[str, Any] = {
        one.name: 0 if one.type == "int" else "" for one in dataclasses.fields(Runtime) if one.name != "ml_port"
    }
    return Runtime(**{**values, "code_server_port": 4000}, ml_port=4001)


@pytest.mark.parametrize("enabled", [True, False])
def test_each_location_has_a_code_server_of_its_own(tmp_path: Path, enabled: bool) -> None:
    settings = Settings(state_dir=tmp_path, models={"enabled": enabled})  # pyright: ignore[reportArgumentType]
    servers = [row["grpc_server"] for row in yaml.safe_load(workspace_yaml(settings, runtime()))["load_from"]]
    locations = ["control", "ml"] if enabled else ["control"]
    assert [server["location_name"] for server in servers] == locations
    started = {program.name: program.command for program in programs(settings, runtime())}
    for server in servers:
        command = started[server["location_name"]]
        assert str(server["port"]) in command and f"onecollector.locations.{server['location_name']}" in command
    assert ("ml" in started) is enabled
    assert ("scorer" in started) is enabled


def test_the_repository_says_what_up_renders() -> None:
    assert yaml.safe_load((ROOT / "dagster.yaml").read_text()) == DAGSTER_YAML
    rows = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert [row["python_module"]["location_name"] for row in rows] == ["control", "ml"]


def test_everything_that_is_promised_is_there() -> None:
    from onecollector.locations.ml import defs

    dg.Definitions.validate_loadable(defs)
    assets = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    assert {"log_templates", "minute_tallies", "anomaly_models", "production_models"} <= assets
    job = defs.resolve_job_def("train_models")
    assert {node.name for node in job.nodes} == {"anomaly_models", "production_models"}
    assert defs.resolve_job_def("count_day").partitions_def is not None
    assert {sensor.name for sensor in defs.sensors or ()} == {"new_incidents", "shadows_that_are_whole"}

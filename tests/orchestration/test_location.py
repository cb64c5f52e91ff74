"""The code location loads anywhere, quickly, and says what is not running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from sensors.containers import containers
from sensors.health import health

HEAVY = ("pandas", "pyarrow", "sklearn", "boto3", "docker", "polars")


def test_it_loads_in_a_fresh_interpreter_without_heavy_imports() -> None:
    code = f"import sys, onecollector.locations.control as c; print([m for m in {HEAVY!r} if m in sys.modules]); print(type(c.defs).__name__)"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True)
    assert done.stdout.split("\n")[:2] == ["[]", "Definitions"], done.stderr


def test_everything_that_is_promised_is_there() -> None:
    from onecollector.locations.control import defs

    dg.Definitions.validate_loadable(defs)
    assets = {spec.key.to_user_string() for spec in defs.resolve_all_asset_specs()}
    collection = {"log_sources", "collector_config", "collector_rollout", "loki_rules"}
    assert assets == {*collection, "log_exports", "archive", "archive_restores", "retention_report"}
    reconcile = defs.resolve_job_def("reconcile")
    names = {node.name for node in reconcile.nodes}
    assert {
        "collector_config_config_is_valid",
        "collector_rollout_pipeline_delivers",
        "loki_rules_rules_are_live",
    } <= names


def test_assets_can_be_materialised_from_the_ui_and_by_backfills() -> None:
    """Dagster plans those runs with the location's own executor, and refuses the usual one: results stay in memory."""
    from onecollector.locations.control import defs

    job = defs.resolve_implicit_global_asset_job_def()
    assert job.executor_def is dg.in_process_executor


@pytest.mark.parametrize("sensor", [containers, health], ids=["containers", "health"])
def test_a_sensor_says_what_is_missing_instead_of_failing(
    sensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onecollector_resources.dagster_resources import OneCollectorResource

    monkeypatch.setenv("ONECOLLECTOR_STATE_DIR", str(tmp_path))
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        context = dg.build_sensor_context(instance=instance, resources={"onecollector": OneCollectorResource()})
        result = sensor(context)
    assert isinstance(result, dg.SkipReason)
    assert "onecollector up" in str(result.skip_message)


def test_the_agent_imports_neither_dagster_nor_alembic() -> None:
    code = "import sys, onecollector.agent.__main__; print([m for m in ('dagster', 'alembic', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True).stdout.strip() == "[]"
    )

"""Retention on a real Loki: a policy is in force within seconds, the plan counts what goes, and exactly that goes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import yaml

from bench.stack import wait_until
from onecollector_assets.retention import retention_is_kept, retention_policies_are_in_force, retention_report
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.retention.applied import load_applied
from onecollector_resources.retention.apply import apply
from onecollector_resources.retention.policies import RetentionError
from onecollector_resources.retention.preview import holdings
from onecollector_resources.retention.survey import survey
from onecollector_resources.runtime import Runtime, save_runtime
from onecollector_resources.settings import Settings, load_settings
from tests.real.lokis import new_loki

pytestmark = [pytest.mark.real]

DAY = 86_400
WRITTEN = time.time()
AGES = (25, 20, 10, 2)
"""Days before ``WRITTEN`` at which each service wrote."""
LINES = 100
SERVICES = {"web": {"env": "dev"}, "audit": {}, "shop": {"env": "prod"}}

POLICY = """\
keep: 4d
rules:
  - selector: '{env="dev"}'
    keep: 15d
    why: dev is quiet
  - {selector: '{service_name="audit"}', keep: forever}
"""


@pytest.fixture(scope="module")
def place(part: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LokiLifecycle, Path]]:
    """A Loki of ours as ``up`` lays it out, that sweeps every few seconds, with lines of many days."""
    root = tmp_path_factory.mktemp("retention")
    # Loki's folder is the state's, as after `up`.
    state, config = root / "state", root / "onecollector.yaml"
    fast = {
        "compactor": {"compaction_interval": "4s", "apply_retention_interval": "3s", "retention_delete_delay": "1s"}
    }
    config.write_text(
        yaml.safe_dump({"state_dir": str(state), "tenants": ["default", "payments"], "loki": {"overrides": fast}})
    )
    settings = load_settings(config)
    loki = new_loki(part("loki"), root / "made", settings)
    state.mkdir()
    (state / "loki").symlink_to(loki.data_dir)
    texts = {"docker_host": "", "docker_links": "", "docker_containers": "", "collector_binary": "", "loki_binary": ""}
    ports = ("loki_grpc", "agent", "collector_health", "collector_metrics", "dagster", "code_server")
    numbers: dict[str, Any] = {f"{name}_port": 1 for name in ports}
    save_runtime(settings.layout, Runtime(loki_url=loki.url, loki_port=loki.http_port, **texts, **numbers))
    (root / "policies").mkdir()
    try:
        loki.start()
        for days in AGES:
            streams = [
                {
                    "stream": {"service_name": service, **labels},
                    "values": [
                        [str(int(WRITTEN) * 10**9 - days * DAY * 10**9 + n), f"{days} {n}"] for n in range(LINES)
                    ],
                }
                for service, labels in SERVICES.items()
            ]
            pushed = httpx.post(
                f"{loki.url}/loki/api/v1/push",
                json={"streams": streams},
                headers={"X-Scope-OrgID": "default"},
                timeout=60,
            )
            assert pushed.status_code == 204, pushed.text
        yield loki, root
    finally:
        loki.kill()


def run(root: Path, *words: str, answer: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "onecollector.cli.main", "retention", *words],
        env={**os.environ, "ONECOLLECTOR_CONFIG": str(root / "onecollector.yaml")},
        input=answer,
        text=True,
        capture_output=True,
        timeout=250,
    )


def limits(loki: LokiLifecycle, tenant: str) -> dict[str, Any]:
    answer = httpx.get(f"{loki.url}/config/tenant/v1/limits", headers={"X-Scope-OrgID": tenant}, timeout=60)
    return yaml.safe_load(answer.text)


def chunks(loki: LokiLifecycle) -> int:
    # Not rglob: it fails at a folder that the sweep takes away while it is looked at.
    return sum(len(files) for _, _, files in os.walk(loki.data_dir / "objects" / "default"))


def looked_at(root: Path, loki: LokiLifecycle) -> tuple[Settings, Any]:
    settings = load_settings(root / "onecollector.yaml")
    return settings, survey(
        settings, root / "onecollector.yaml", lambda name: LokiQuerierClient(settings.loki.access(loki.url, name))
    )


def test_a_policy_from_file_to_sweep(place: tuple[LokiLifecycle, Path]) -> None:
    loki, root = place
    (root / "policies" / "default.yaml").write_text(POLICY)

    # -- the dry run counts what would go, and changes nothing
    done = run(root, "plan", "--json")
    assert done.returncode == 0, done.stderr
    going = {row["selector"]: row for row in json.loads(done.stdout)["going"] if row["tenant"] == "default"}
    counted = {name: (row["newly"]["lines"], row["newly"]["counted"]) for name, row in going.items()}
    assert counted == {
        '{env="dev"}': (2 * LINES, True),
        '{service_name="audit"}': (0, True),
        "everything else": (3 * LINES, True),
    }
    assert all(row["anyway"]["lines"] == 0 for row in going.values())
    days = sorted(time.strftime("%Y-%m-%d", time.gmtime(WRITTEN - ago * DAY)) for ago in (25, 10))
    assert [going["everything else"]["newly"][end] for end in ("oldest", "newest")] == days
    assert going['{env="dev"}']["why"] == "dev is quiet"
    assert "retention_stream" not in limits(loki, "default")
    text = run(root, "plan").stdout
    assert f"{5 * LINES} lines" in text
    assert "because of the change" in text

    # -- asked, and told no
    refused = run(root, "apply", answer="n\n")
    assert refused.returncode != 0
    assert "retention_stream" not in limits(loki, "default")

    # -- in force, live, and Loki says so; a bad file of another tenant holds nobody up
    (root / "policies" / "payments.yaml").write_text("keep: 12h\n")
    done = run(root, "apply", "--yes", "--json")
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert (said["changed"], said["blocked"]) == (["default"], ["payments"])
    assert limits(loki, "default")["retention_period"] == "4d"
    assert limits(loki, "default")["retention_stream"] == [
        {"selector": '{env="dev"}', "priority": 2, "period": "15d"},
        {"selector": '{service_name="audit"}', "priority": 1, "period": "100y"},
    ]
    assert limits(loki, "payments")["retention_period"] == "31d"
    shown = run(root, "show")
    assert shown.returncode == 1
    assert "payments.yaml:1: keep: expected at least 24h (or forever), found '12h'" in shown.stderr
    states = {row["tenant"]: row["state"] for row in json.loads(run(root, "show", "--json").stdout)}
    assert states == {"default": "in force", "payments": "bad file"}

    # -- a good file that turns bad: its last good stays
    (root / "policies" / "default.yaml").write_text(POLICY.replace("15d", "-15d"))
    (root / "policies" / "payments.yaml").write_text("keep: 7d\n")
    assert json.loads(run(root, "apply", "--yes", "--json").stdout)["changed"] == ["payments"]
    assert limits(loki, "default")["retention_stream"][0]["period"] == "15d"
    assert limits(loki, "payments")["retention_period"] == "1w"

    # -- the account: what is due is overdue until it is swept
    settings, found = looked_at(root, loki)
    with LokiQuerierClient(settings.loki.access(loki.url, "default")) as client:
        rows = {row.selector: row for row in holdings(client, found[0], time.time_ns())}
    assert {name: (row.held.lines, row.next_day.lines, row.overdue.lines) for name, row in rows.items()} == {
        '{env="dev"}': (4 * LINES, 0, 2 * LINES),
        '{service_name="audit"}': (4 * LINES, 0, 0),
        "everything else": (4 * LINES, 0, 3 * LINES),
    }

    # -- the same in Dagster, with both checks
    result = dg.materialize(
        [retention_report, retention_is_kept, retention_policies_are_in_force],
        resources={"onecollector": OneCollectorResource(config_file=str(root / "onecollector.yaml"))},
    )
    assert result.success
    told = result.asset_materializations_for_node("retention_report")[0].metadata
    assert '| default | {env="dev"} | 15d | 400 |' in str(told["table"].value)
    checks = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert not checks["retention_is_kept"].passed
    assert "2 rules hold lines more than 6 h past their date" in str(checks["retention_is_kept"].description)
    assert not checks["retention_policies_are_in_force"].passed
    assert "default.yaml:4" in str(checks["retention_policies_are_in_force"].metadata["faults"].value)

    # -- and exactly that goes, lines from before the policy among them: 10 and 2 d of dev, all of audit, 2 d of the rest
    into_the_store(loki)
    assert chunks(loki) == 12
    wait_until("chunks to be marked", lambda: marked(loki) >= 5, 150, 0.5)
    # Loki looks for marks when it starts, and then once a minute.
    into_the_store(loki)
    wait_until("the sweep", lambda: chunks(loki) <= 2 + 4 + 1, 200, 0.5)
    assert chunks(loki) == 2 + 4 + 1


def into_the_store(loki: LokiLifecycle) -> None:
    """Nothing stays in memory, where retention does not look."""
    loki.stop()
    shutil.rmtree(loki.data_dir / "wal")
    loki.start()


def marked(loki: LokiLifecycle) -> int:
    found = re.findall(
        r"^loki_boltdb_shipper_retention_marker_count_total\{.*\} (\d+)$", httpx.get(f"{loki.url}/metrics").text, re.M
    )
    return sum(map(int, found))


def test_limits_that_loki_refuses_are_put_back(place: tuple[LokiLifecycle, Path]) -> None:
    loki, root = place
    (root / "policies" / "default.yaml").write_text("keep: 9d\n")
    before = (loki.data_dir / "overrides.yaml").read_text()
    settings, found = looked_at(root, loki)
    # A limit of another tenant, which nothing of ours checks.
    broken = settings.model_copy(
        update={
            "loki": settings.loki.model_copy(update={"tenant_overrides": {"x": {"retention_period": "no duration"}}})
        }
    )
    applied = load_applied(settings.layout)
    with pytest.raises(
        RetentionError, match=r"did not take the limits of default.* nothing has changed\. Loki refuses"
    ):
        apply(
            broken,
            found,
            lambda name: settings.loki.access(loki.url, name),
            clock=time.monotonic,
            sleep=time.sleep,
            deadline_s=10,
        )
    assert (loki.data_dir / "overrides.yaml").read_text() == before
    assert load_applied(settings.layout) == applied

"""Several tenants in one scorer with findings in PostgreSQL: each has its own, and one's damaged model is its own trouble."""

from __future__ import annotations

from pathlib import Path
from subprocess import Popen

import orjson
import pytest

from bench.stack import wait_until
from onecollector.scorer.status_file import health_of, read_status
from onecollector_resources.findings.records import FINDINGS_SERVICE
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.layout import StateLayout
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.registry.store import LogSourceRegistry
from tests.real.killing import Killer, slow_webhook
from tests.real.postgres import Cluster
from tests.real.scored import ended, past, prepared, started, store_of
from tests.unit.damage import flip_a_bit
from tests.unit.scorer_world import models

pytestmark = [pytest.mark.real]

FAULTS = {
    "tenant-east": [("cart", 7)],
    "tenant-west": [("web", 7)],
    "tenant-hurt": [("mailer", 7)],
    "tenant-new": [("cart", 7)],
}
"""So late that their findings stay open for as long as the test may take."""


def damage(layout: StateLayout, tenant: str) -> None:
    """Of every model of the tenant the first shard is not what was written."""
    shards = list((layout.models / "models" / tenant).rglob("shard-0000.npz"))
    assert shards
    for path in shards:
        flip_a_bit(path)


def test_each_tenant_has_its_own_findings_and_a_damaged_model_stops_no_other(
    loki: LokiLifecycle, postgres: Cluster, tmp_path: Path
) -> None:
    layout, url, minutes = StateLayout(tmp_path / "s"), postgres.new_database(), past(12)
    LogSourceRegistry(url).migrate()
    store = FindingStore(url)
    with slow_webhook(Killer(), answers_after_s=0) as hook:
        for tenant, faults in FAULTS.items():
            minutes.push(loki.url, tenant, faults)
            if tenant != "tenant-new":
                models(layout.models, tenant=tenant)
                state = layout.scorer / "tenants" / tenant
                minutes.score(minutes.scorer(loki.url, tenant, store_of(layout, tenant), store, state))
        damage(layout, "tenant-hurt")
        config = prepared(layout, loki.url, hook.url, FAULTS, registry={"url": url})
        process = started(config, tmp_path / "scorer.log")

        def found() -> list[tuple[str, str]]:
            stored = [one.finding for tenant in FAULTS for one in store.open_findings(tenant)]
            return [(one.tenant, one.service) for one in stored]

        def scored() -> bool:
            status = read_status(layout.scorer_status)
            wanted = minutes.first + minutes.scored - 1
            assert process.poll() is None, (tmp_path / "scorer.log").read_text()[-2000:]
            return status is not None and all(
                status.tenants[tenant]["minute"] >= wanted for tenant in ("tenant-east", "tenant-west")
            )

        try:
            wait_until("two tenants are scored", scored, 150, 0.1)
            wait_until("both are told", lambda: len(hook.bodies) == 2, 120, 0.1)
        finally:
            ended(process, Popen.terminate)
    assert sorted(found()) == [("tenant-east", "cart"), ("tenant-west", "web")]
    told = [orjson.loads(body[0]) for body in hook.bodies.values()]
    assert sorted((one["tenant"], one["service"]) for one in told) == [("tenant-east", "cart"), ("tenant-west", "web")]
    for tenant, services in (
        ("tenant-east", ["cart"]),
        ("tenant-west", ["web"]),
        ("tenant-hurt", []),
        ("tenant-new", []),
    ):
        with LokiQuerierClient(LokiAccess(loki.url, tenant)) as client:
            start = minutes.first * 60 * 10**9
            entries = client.entries(f'{{service_name="{FINDINGS_SERVICE}"}}', start, start + 3600 * 10**9, 100)
        assert [orjson.loads(entry.line)["service"] for entry in entries] == services, tenant
    status = read_status(layout.scorer_status)
    assert status is not None
    assert status.tenants["tenant-new"]["waits"] == "no model serves" and not status.tenants["tenant-new"]["problems"]
    assert "shard-0000" in status.tenants["tenant-hurt"]["problems"]["model"]
    ok, note = health_of(status, status.written)
    assert ok and note.startswith("tenant-hurt: ") and "shard-0000" in note, note
    store.disconnect()

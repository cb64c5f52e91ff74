"""A scorer beside a real Loki: lines of closed minutes in, one finding out, with a query that finds its lines."""

from __future__ import annotations

import json
import time
from pathlib import Path

import httpx

from ml.redaction import redacted
from ml.templates import TemplateMiner
from onecollector.scorer.reader import LokiLines
from onecollector.scorer.service import ScorerService
from onecollector.scorer.state import ScorerState
from onecollector.scorer.status_file import health_of, read_status
from onecollector.scorer.tenant import TenantScorer
from onecollector.scorer.tenant_status import Options
from onecollector_resources.findings.delivery import deliver_due
from onecollector_resources.findings.loki_lines import LokiSender
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.layout import StateLayout
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.registry.store import LogSourceRegistry
from tests.unit.scorer_world import NOW, SERVICES, FakeSight, models, time_of, written

HISTORY = 80


def test_a_fault_in_a_real_loki_is_found_explained_and_sent(loki: LokiLifecycle, tmp_path: Path) -> None:
    first, end = NOW - HISTORY, NOW + 8
    at = int(time.time() // 60) - HISTORY - 20
    shift = (at - first) * 60 * 10**9
    # A place of its own in a Loki that other tests write to.
    access = LokiAccess(loki.url, "scored")
    for service in SERVICES:
        lines = [line for minute in range(first, end) for line in written(service, minute)]
        if service == "cart":
            faulty = range(NOW + 2, end)
            lines += [
                line
                for m in faulty
                for line in written(service, m, [('{"msg":"card {n} \\"declined\\"","n":{n}}', 6.0)], True)
            ]
        streams: dict[str, list[list[str]]] = {"info": [], "error": []}
        for stamp, _, text, bad in lines:
            streams["error" if bad else "info"].append([str(stamp + shift), text])
        body = [{"stream": {"service_name": service, "level": level}, "values": v} for level, v in streams.items() if v]
        httpx.post(
            f"{loki.url}/loki/api/v1/push", json={"streams": body}, headers={"X-Scope-OrgID": "scored"}, timeout=60
        ).raise_for_status()
    reader = LokiLines(access, ours=True)
    now = (at + HISTORY) * 60.0 + 20
    counts = reader.counts(at, at + HISTORY)
    assert all(counts[s, at + n] == len(written(s, first + n)) for s in SERVICES for n in range(HISTORY))
    registry = LogSourceRegistry(f"sqlite:///{tmp_path}/registry.db")
    registry.migrate()
    store = FindingStore(f"sqlite:///{tmp_path}/registry.db", channels=("loki",))
    layout = StateLayout(tmp_path)
    scorer = TenantScorer(
        "default",
        reader,
        models(tmp_path / "models"),
        store,
        FakeSight(),
        ScorerState(layout.scorer / "tenants" / "default"),
        Options(),
        TemplateMiner,
        redacted,
    )
    for minute in range(9):
        while scorer.step(now + minute * 60):
            pass
    (stored,) = store.open_findings("default")
    found = stored.finding
    assert found.service == "cart" and found.first in (time_of(at + HISTORY + 2), time_of(at + HISTORY + 3))
    (moved,) = found.templates
    assert moved.is_error and len(moved.examples) == 3 and all("declined" in line for line in moved.examples)
    asked = reader.examples(found.query, at + HISTORY, at + HISTORY + 8, 1000)
    assert len(asked) == sum(len(written("cart", m, [("x", 6.0)], True)) for m in range(NOW + 2, NOW + 8))
    assert all("declined" in line for line in asked)
    assert deliver_due(store, [LokiSender(lambda tenant: access)], time_of(NOW + 10**6)) == 1
    told = json.loads(reader.examples('{service_name="onecollector-findings"}', at + HISTORY, at + HISTORY + 9, 5)[0])
    assert told["message"].startswith("cart wrote ") and told["finding"] == stored.number
    # What it wrote itself is not read.
    assert all(service in SERVICES for service, _ in reader.counts(at, at + HISTORY + 9))
    service = ScorerService(layout, [scorer], store, [], clock=lambda: now + 9 * 60)
    service.stop()
    service.run()
    status = read_status(layout.scorer_status)
    assert status is not None and health_of(status, status.written)[0] and status.tenants["default"]["services"] == 4
    reader.close()

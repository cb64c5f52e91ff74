"""Findings as lines in a real Loki: there once however often they are sent, and found by what they are about."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from bench.stack import wait_until
from onecollector_assets.investigation import lines_of as evidence_of
from onecollector_resources.findings.delivery import deliver_due
from onecollector_resources.findings.loki_lines import LokiSender
from onecollector_resources.findings.records import FINDINGS_SERVICE
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.registry.store import LogSourceRegistry
from tests.real.lokis import lines_of, push
from tests.unit.findings_made import MINUTE, finding

pytestmark = [pytest.mark.real]


def test_a_finding_is_one_line_in_its_tenant_however_often_it_is_sent(loki: LokiLifecycle, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'r.db'}"
    LogSourceRegistry(url).migrate()
    store = FindingStore(url, channels=("loki",))
    first = datetime.now(UTC).replace(second=0, microsecond=0) - 20 * MINUTE
    store.open(finding(first=first), "sent")
    store.close("default", first + 30 * MINUTE)
    opened = store.due("loki", datetime.now(UTC))[0]
    sender = LokiSender(lambda tenant: LokiAccess(loki.url, tenant))
    # As a process that ended before it noted that the line is there.
    sender.send(opened)
    for _ in range(2):
        assert deliver_due(store, [sender], datetime.now(UTC)) == 1
    sender.send(opened)

    def told() -> list[Any]:
        # Other tests find things in this Loki, too.
        return [one for one in map(orjson.loads, lines_of(loki, FINDINGS_SERVICE)) if one["service"] == "payments"]

    wait_until("both lines are there", lambda: len(told()) >= 2, 60, 0.2)
    lines = told()
    assert [(line["kind"], line["finding"], line["message"]) for line in lines] == [
        ("opened", 1, "412 lines of a new error, expected 0"),
        ("closed", 1, "412 lines of a new error, expected 0"),
    ]
    with LokiQuerierClient(LokiAccess(loki.url, "default")) as client:
        query = f'{{service_name="{FINDINGS_SERVICE}"}} | service="payments" | severity="error" | finding="1"'
        found = client.entries(query, int((first - MINUTE).timestamp() * 1e9), time.time_ns())
    assert [entry.metadata["finding_kind"] for entry in found] == ["closed", "opened"]
    # The evidence of it is read from the same Loki.
    push(loki, "payments", ["connection to ann@example.org refused"], age_s=19 * 60)
    with LokiQuerierClient(LokiAccess(loki.url, "default")) as client:

        def seen() -> list[str]:
            templates, missing = evidence_of([store.by_number(1)], client)
            assert not missing
            return [line["line"] for one in templates for line in one["lines"]]

        wait_until("the line is there", lambda: bool(seen()), 60, 0.2)
        assert seen() == ["connection to [email] refused"]
    # A line that Loki will never take is put aside with Loki's words.
    old = finding("old", first - timedelta(days=300))
    store.open(old, "sent")
    deliver_due(store, [sender], datetime.now(UTC))
    refused = store.deliveries(old.key)[0]
    assert (refused.state, "answered 400" in refused.last_error) == ("refused", True)
    sender.close()
    store.disconnect()

"""A scorer that is killed over and over while it catches up with minutes that have faults, and what is there in the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen

from sqlalchemy import select

from bench.stack import wait_until
from onecollector_resources.findings.records import FINDINGS_SERVICE, Finding
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.layout import StateLayout
from onecollector_resources.loki.access import LokiAccess
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.loki.querier import LokiQuerierClient
from onecollector_resources.registry.finding_tables import finding_deliveries, findings
from onecollector_resources.registry.store import LogSourceRegistry
from tests.real.killing import Killer, slow_webhook, watched_loki, watched_state
from tests.real.scored import Past, ended, prepared, started, store_of
from tests.unit.scorer_world import models

MOST = 100
"""Findings that are sent in an hour: what many hours had is told within minutes."""
LIFE_S = 120.0
"""A life in which its moment did not come for so long has gone wrong, or there is nothing left to do."""


def lived_through(
    loki: LokiLifecycle,
    folder: Path,
    tenant: str,
    past: Past,
    faults: Sequence[tuple[str, int]],
    lives: Sequence[str | float],
    hangs: int,
) -> list[str]:
    """Kill at each moment, or after so many seconds, then let one live to the end, of whose first messages so many hang.

    Answers the moments that came. Raises AssertionError where findings or messages are not exactly those of a scorer that nobody killed.
    """
    layout, killer = StateLayout(folder / "s"), Killer()
    past.push(loki.url, tenant, faults)
    models(layout.models, tenant=tenant)
    for root in (layout.root, folder / "calm"):
        root.mkdir(parents=True, exist_ok=True)
        LogSourceRegistry(f"sqlite:///{root}/registry.db").migrate()
    store = FindingStore(f"sqlite:///{layout.registry_db}")
    calm = FindingStore(f"sqlite:///{folder}/calm/registry.db", channels=("loki",))
    try:
        past.score(
            past.scorer(loki.url, tenant, store_of(layout, tenant), calm, folder / "calm/state", MOST), past.scored
        )
        past.score(
            past.scorer(loki.url, tenant, store_of(layout, tenant), store, layout.scorer / "tenants" / tenant, MOST)
        )
        with (
            slow_webhook(killer) as hook,
            watched_loki(killer, loki.url) as url,
            watched_state(killer, layout, tenant),
        ):
            config = prepared(layout, url, hook.url + "/findings", [tenant], MOST)
            for life in lives:
                _life(killer, config, folder / "scorer.log", life)
            hook.hangs = hangs
            process = started(config, folder / "scorer.log")
            try:
                wait_until("all is told", lambda: _told(store, len(faults)) or process.poll() is not None, 240, 0.1)
            finally:
                ended(process, Popen.terminate)
            assert process.returncode == 0, (folder / "scorer.log").read_text()[-2000:]
        expected, found = _findings(calm), _findings(store)
        assert [one.service for one in expected] == sorted(service for service, _ in faults), (
            "the scorer that nobody killed"
        )
        assert found == expected
        messages = {f"{one.key}:{kind}" for one in expected for kind in ("opened", "closed")}
        assert hook.bodies.keys() == messages
        assert all(len(set(bodies)) == 1 for bodies in hook.bodies.values()), "a repeat that is another message"
        assert sorted(_lines(loki, tenant)) == sorted(
            (one.key, kind) for one in expected for kind in ("opened", "closed")
        )
    finally:
        store.disconnect()
        calm.disconnect()
    return killer.hits


def _life(killer: Killer, config: Path, log: Path, life: str | float) -> None:
    process = started(config, log)
    try:
        if isinstance(life, str):
            killer.moment, killer.process = life, process
        end = time.monotonic() + (LIFE_S if isinstance(life, str) else life)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        killer.process = None
        ended(process, Popen.kill)


def _findings(store: FindingStore) -> list[Finding]:
    with store.database.reading() as connection:
        numbers = [row.number for row in connection.execute(select(findings.c.number))]
    found = [store.by_number(number).finding for number in numbers]
    return sorted(found, key=lambda one: (one.service, one.first))


def _told(store: FindingStore, faults: int) -> bool:
    with store.database.reading() as connection:
        states = [row.state for row in connection.execute(select(finding_deliveries.c.state))]
    # Opened and closed, to Loki and to the webhook.
    assert len(states) <= 4 * faults, "more messages than there are"
    return states == ["sent"] * (4 * faults)


def _lines(loki: LokiLifecycle, tenant: str) -> list[tuple[str, str]]:
    import orjson

    with LokiQuerierClient(LokiAccess(loki.url, tenant)) as client:
        query = f'{{service_name="{FINDINGS_SERVICE}"}}'
        entries = client.entries(query, time.time_ns() - 12 * 3600 * 10**9, time.time_ns(), 1000)
    told = [orjson.loads(entry.line) for entry in entries]
    return [(one["key"], one["kind"]) for one in told]

"""A new incident is looked into once, and what is found is there for whoever is woken by it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from onecollector_assets.incident_runs import OP, evidence_table, investigate_incident
from onecollector_assets.investigation import MOST_EVENTS, MOST_TEMPLATES, Beside, events_of, investigate
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.findings.opening import finding_store
from onecollector_resources.findings.records import Incident, Notice
from onecollector_resources.findings.report import evidence_rows
from onecollector_resources.findings.store import FindingStore
from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.records import Gap
from onecollector_resources.registry.store import LogSourceRegistry
from onecollector_resources.settings import Settings
from sensors.incidents import new_incidents
from tests.unit.findings_made import MINUTE, REFUSED, finding
from tests.unit.test_registry import source

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
FIRST = NOW - 20 * MINUTE


class FakeLoki:
    """Answers every query with one line, or not at all."""

    def __init__(self, line: str = "connection to 10.0.3.7 refused for ann@example.org", down: str = "") -> None:
        self.line, self.down = line, down
        self.asked: list[tuple[str, int, int, int, str]] = []

    def __enter__(self) -> FakeLoki:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def entries(
        self, query: str, start_ns: int, end_ns: int, limit: int = 1000, direction: Any = "backward"
    ) -> Sequence[Entry]:
        self.asked.append((query, start_ns, end_ns, limit, direction))
        if self.down:
            raise LokiError(self.down)
        return (Entry(start_ns + 10**9, self.line, {}, {}),)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("ONECOLLECTOR_STATE_DIR", str(tmp_path))
    return Settings(state_dir=tmp_path)


@pytest.fixture
def registry(settings: Settings) -> Iterator[LogSourceRegistry]:
    made = LogSourceRegistry(settings.registry_url)
    made.migrate()
    yield made
    made.close()


@pytest.fixture
def store(settings: Settings, registry: LogSourceRegistry) -> Iterator[FindingStore]:
    made = finding_store(settings)
    yield made
    made.disconnect()


def opened(store: FindingStore) -> Incident:
    store.open(finding(first=FIRST), "sent")
    return store.incidents_after(0)[0]


def test_evidence_is_lines_without_secrets_and_what_else_happened(
    store: FindingStore, registry: LogSourceRegistry
) -> None:
    incident, loki = opened(store), FakeLoki()
    registry.register_source(source(1, service="payments"), actor="t")
    gap = Gap("h", "s", "web", "default", "log_removed", FIRST, FIRST + MINUTE, lines=12, key="g")
    registry.record_gaps([gap, Gap("h", "s", "web", "other", "log_removed", FIRST, FIRST, key="o")], actor="t")
    store.notice(Notice("default", "payments", FIRST - MINUTE, 5))
    store.open(finding("mail", FIRST + MINUTE), "sent")
    store.open(finding("mail", FIRST - timedelta(hours=5)), "sent")
    investigate(incident, store, registry, lambda _: loki, NOW)
    kept = store.incident(incident.key)
    assert kept is not None
    shown = evidence_rows(kept.evidence)
    texts = [text for _, text in shown]
    assert sum("connection to 10.0.3.7 refused for [email]" in text for text in texts) == 3
    assert any(text.endswith("deploy or restart of payments: 5 new templates") for text in texts)
    assert any(text.endswith("12 lines of web missing: log_removed") for text in texts)
    assert [text.split()[0] for label, text in shown if label == "also"] == ["2"]
    # Of what came the first lines are read, of what became rare the last.
    assert [(limit, direction) for *_, limit, direction in loki.asked] == [
        (5, "forward"),
        (1, "forward"),
        (5, "backward"),
    ]


def test_what_loki_does_not_give_is_named_and_the_rest_is_kept(
    store: FindingStore, registry: LogSourceRegistry
) -> None:
    incident = opened(store)
    store.notice(Notice("default", "payments", FIRST, 5))
    evidence = investigate(incident, store, registry, lambda _: FakeLoki(down="Loki does not answer"), NOW)
    assert evidence["missing"] == ["lines of payments: Loki does not answer"]
    kept = store.incident(incident.key)
    assert kept is not None and len(kept.evidence["events"]) == 1  # pyright: ignore[reportArgumentType]


def test_an_incident_of_everything_costs_no_more_than_a_small_one(
    store: FindingStore, registry: LogSourceRegistry
) -> None:
    for n in range(40):
        store.open(finding(f"s{n}", FIRST, incident="all", templates=(REFUSED,) * 5), "sent")
    (incident,) = store.incidents_after(0)
    loki = FakeLoki("x" * 100_000)
    evidence = investigate(incident, store, registry, lambda _: loki, NOW)
    assert len({one["service"] for one in evidence["templates"]}) == MOST_TEMPLATES
    assert len(loki.asked) <= 2 * MOST_TEMPLATES
    assert len(str(evidence)) < 20_000
    many = events_of(incident, Beside(notices=[Notice("default", f"x{n}", FIRST, 1) for n in range(99)]))
    assert len(many) == MOST_EVENTS + 1 and many[-1]["what"] == "and 69 more events of other services"


def test_each_incident_starts_one_run_and_what_it_finds_is_shown(
    settings: Settings, store: FindingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident = opened(store)
    store.open(finding("old", NOW - timedelta(days=3)), "sent")
    monkeypatch.setattr(OneCollectorResource, "loki", lambda *_: FakeLoki("a `b` | <b>c</b> [d](http://e)"))
    with dg.DagsterInstance.ephemeral() as instance:
        resources = {"onecollector": OneCollectorResource()}
        context = dg.build_sensor_context(instance=instance, resources=resources)
        result = new_incidents(context)
        assert isinstance(result, dg.SensorResult) and result.run_requests is not None
        (request,) = result.run_requests
        assert request.run_key == incident.key
        done = investigate_incident.execute_in_process(
            run_config=request.run_config, instance=instance, resources=resources
        )
        assert done.success
        again = new_incidents(dg.build_sensor_context(instance=instance, resources=resources, cursor=result.cursor))
        assert isinstance(again, dg.SkipReason)
        (event,) = [one for one in done.events_for_node(OP) if one.is_successful_output]
        told = event.step_output_data.metadata
    assert "`payments" in told["evidence"].value and "a 'b' ¦ <b>c</b> [d](http://e)`" in told["evidence"].value
    assert told["look"].value == "onecollector findings show 1"
    kept = store.incident(incident.key)
    assert kept is not None and kept.evidence["missing"] == []
    assert evidence_table({}) == "nothing else is known of that time"


def test_where_no_registry_is_the_sensor_says_so(settings: Settings) -> None:
    context = dg.build_sensor_context(resources={"onecollector": OneCollectorResource()})
    result = new_incidents(context)
    assert isinstance(result, dg.SkipReason) and "onecollector up" in str(result.skip_message)

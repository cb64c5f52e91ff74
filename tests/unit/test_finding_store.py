"""What a keeper of findings promises, on any database: found twice is one row, and what is to be sent is never lost.

tests/real/test_findings_postgres.py holds PostgreSQL to every test of this module: it brings its own ``registry_url``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from onecollector_resources.findings import store as store_module
from onecollector_resources.findings.records import Judged, Notice, StoredFinding
from onecollector_resources.findings.store import FindingStore, UnknownFinding
from onecollector_resources.registry.finding_tables import finding_deliveries, findings
from onecollector_resources.registry.store import LogSourceRegistry
from tests.unit.findings_made import AT, CHARGED, MINUTE, finding
from tests.unit.test_registry import NOW, source

HOUR = timedelta(hours=1)


@pytest.fixture
def registry_url(tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:///{tmp_path / 'r.db'}"


class Clock:
    now = AT + 10 * MINUTE

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(registry_url: str, clock: Clock) -> Iterator[FindingStore]:
    registry = LogSourceRegistry(registry_url)
    registry.migrate()
    registry.close()
    one = FindingStore(registry_url, clock)
    yield one
    one.disconnect()


def count(store: FindingStore, table: object) -> int:
    with store.database.reading() as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)  # pyright: ignore[reportArgumentType]


def test_a_registry_of_the_first_version_keeps_its_rows_and_takes_findings(registry_url: str) -> None:
    registry = LogSourceRegistry(registry_url, lambda: NOW)
    registry.migrate("0001")
    with registry.engine.connect() as connection:
        assert not connection.dialect.has_table(connection, "findings")
    registry.register_source(source(1), actor="t")
    before, audit = registry.list_sources(), registry.audit_rows()
    registry.migrate()
    registry.migrate()
    assert (registry.list_sources(), registry.audit_rows(), registry.revision()) == (before, audit, 1)
    with registry.reading() as connection:
        assert connection.scalar(text("select value from meta where name = 'schema_version'")) == 2
    registry.close()
    store = FindingStore(registry_url)
    assert store.open(finding()).number == 1
    store.disconnect()


def test_what_is_opened_is_found_again_as_it_was(store: FindingStore) -> None:
    made = finding()
    stored = store.open(made)
    assert stored == store.open(made, "held_back") == store.by_number(stored.number)
    assert (stored.number, stored.finding, stored.state, stored.announcement) == (1, made, "open", "sent")
    assert [(one.channel, one.kind) for one in store.deliveries(made.key)] == [
        ("webhook", "opened"),
        ("loki", "opened"),
    ]
    with pytest.raises(UnknownFinding, match="no finding has the number 99; look: onecollector findings list"):
        store.by_number(99)


def test_many_that_open_the_same_make_one_finding_and_one_message_a_channel(
    store: FindingStore, registry_url: str
) -> None:
    stores = [FindingStore(registry_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        made = [finding(first=AT + n * MINUTE, incident="i") for n in range(5)]
        numbers = list(pool.map(lambda one: [one.open(m, "sent").number for m in made], stores))
    assert all(row == numbers[0] for row in numbers)
    assert (count(store, findings), count(store, finding_deliveries)) == (5, 10)
    for one in stores:
        one.disconnect()


def test_a_finding_without_its_messages_does_not_happen(store: FindingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(stored: StoredFinding, kind: str) -> dict[str, object]:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "message", dies)
        with pytest.raises(RuntimeError):
            store.open(finding(), "sent")
    assert (count(store, findings), store.incidents_after(0)) == (0, [])
    store.open(finding(), "sent")
    assert len(store.deliveries(finding().key)) == 2


def test_a_finding_goes_on_and_ends(store: FindingStore) -> None:
    made = finding()
    store.open(made, "sent")
    store.judge(1, "confirmed", "ann")
    longer = replace(made, last=AT + 20 * MINUTE, observed=900.0, templates=(CHARGED,), incident="other")
    extended = store.extend(longer)
    assert extended.finding == replace(longer, incident=made.incident)
    assert extended.judgement == "confirmed"
    assert [one.number for one in store.open_findings("default")] == [1]
    incident = store.incident(made.incident)
    assert incident is not None and incident.last == longer.last
    assert store.close("default", longer.last) == 0
    assert store.close("other", longer.last + HOUR) == 0
    assert store.close("default", longer.last + MINUTE) == 1
    assert store.close("default", longer.last + MINUTE) == 0
    assert store.open_findings("default") == []
    closed = store.deliveries(made.key)[-1]
    assert (closed.kind, closed.payload["observed"], closed.payload["number"]) == ("closed", 900.0, 1)
    with pytest.raises(UnknownFinding):
        store.extend(finding("nobody"))


def test_what_is_beyond_the_cap_is_kept_and_told_of_in_one_message(store: FindingStore, clock: Clock) -> None:
    store.open(finding(), "sent")
    for n in range(1, 4):
        store.open(finding(first=AT + n * MINUTE), "held_back")
        store.held_back("default", AT.replace(minute=0), n)
    assert store.announced_since("default", clock.now) == 1
    assert store.announced_since("default", clock.now + MINUTE) == 0
    assert len(store.due("loki", clock.now)) == 4
    assert [one.kind for one in store.due("webhook", clock.now)] == ["opened"]
    late = [one for one in store.due("webhook", clock.now + HOUR) if one.kind == "held_back"]
    assert [one.payload["sentence"] for one in late] == [
        "3 findings held back this hour: beyond models.findings_per_hour"
    ]
    store.sent(late[0])
    store.held_back("default", AT.replace(minute=0), 4)
    assert [one.kind for one in store.due("webhook", clock.now + HOUR)] == ["opened"]


def test_nothing_is_told_of_a_finding_before_that_it_opened(store: FindingStore, clock: Clock) -> None:
    store.open(finding(), "sent")
    store.close("default", AT + HOUR)
    opened = store.due("webhook", clock.now)
    assert [one.kind for one in opened] == ["opened"]
    store.try_again(opened[0], clock.now + MINUTE, "500")
    assert store.due("webhook", clock.now) == []
    later = store.due("webhook", clock.now + MINUTE)
    assert [(one.kind, one.attempts, one.last_error) for one in later] == [("opened", 1, "500")]
    store.refused(later[0], "404")
    assert [one.kind for one in store.due("webhook", clock.now)] == ["closed"]
    assert [one.state for one in store.deliveries(finding().key)] == ["refused", "pending", "pending", "pending"]


def test_findings_are_looked_up_by_what_people_ask_for(store: FindingStore) -> None:
    for n, service in enumerate(("web", "payments", "web")):
        store.open(finding(service, first=AT + n * HOUR), "sent")
    store.judge(1, "dismissed", "ann", "a batch job")
    store.close("default", AT + HOUR)
    assert [one.number for one in store.find()] == [3, 2, 1]
    assert [one.number for one in store.find(service="web")] == [3, 1]
    assert [one.number for one in store.find(tenant="other")] == []
    assert [one.number for one in store.find(since=AT + HOUR)] == [3, 2]
    assert [one.number for one in store.find(until=AT + HOUR)] == [2, 1]
    assert [one.number for one in store.find(state="closed")] == [1]
    assert [one.number for one in store.find(judgement="none", limit=1)] == [3]


def test_a_judgement_is_on_record_and_learned_from(store: FindingStore, registry_url: str) -> None:
    for n in range(3):
        store.open(finding(first=AT + n * HOUR), "sent")
    store.judge(1, "dismissed", "ann", "a batch job\0")
    store.judge(2, "dismissed", "ann")
    judged = store.judge(2, "confirmed", "bob", "the disk was full")
    assert (judged.judgement, judged.judged_by, judged.note) == ("confirmed", "bob", "the disk was full")
    minute = int(AT.timestamp()) // 60
    assert store.judged("default", minute) == [
        Judged("payments", minute, minute + 7, "dismissed", 4.6),
        Judged("payments", minute + 60, minute + 67, "confirmed", 4.6),
    ]
    assert len(store.judged("default", minute + 1)) == 1
    assert store.judged("other", 0) == []
    registry = LogSourceRegistry(registry_url)
    rows = registry.audit_rows()
    registry.close()
    assert [(row["actor"], row["what"], row["subject"]) for row in rows] == [
        ("ann", "finding.dismissed", "default/payments/1"),
        ("ann", "finding.dismissed", "default/payments/2"),
        ("bob", "finding.confirmed", "default/payments/2"),
    ]
    assert rows[2]["before"] == {"judgement": "dismissed", "note": ""}
    with pytest.raises(UnknownFinding):
        store.judge(99, "confirmed", "ann")


def test_an_incident_gathers_findings_notices_and_evidence(store: FindingStore) -> None:
    first = finding()
    store.open(first, "sent")
    store.open(finding("web", AT + MINUTE, 30, incident=first.key), "sent")
    store.open(finding("mail"), "sent")
    one, other = store.incidents_after(0)
    assert (one.services, one.findings, one.last) == (("payments", "web"), (1, 2), AT + 31 * MINUTE)
    assert store.incidents_after(one.number) == [other]
    store.add_evidence(one.key, {"lines": ["a\0b"], "missing": float("nan")})
    found = store.incident(one.key)
    assert found is not None and found.evidence == {"lines": ["a\ufffdb"], "missing": 0.0}
    assert store.incident("none") is None
    with pytest.raises(UnknownFinding):
        store.add_evidence("none", {})
    for _ in range(2):
        store.notice(Notice("default", "web", AT, 5))
    assert store.notices("default", AT, AT) == [Notice("default", "web", AT, 5)]
    assert store.notices("default", AT + MINUTE, AT + HOUR) == []


def test_old_findings_are_forgotten_and_a_number_is_never_used_twice(store: FindingStore) -> None:
    store.open(finding(), "sent")
    assert store.forget(AT + HOUR) > 0
    assert [one.number for one in store.find()] == [1]
    store.close("default", AT + HOUR)
    store.forget(AT + HOUR)
    assert (store.find(), store.incidents_after(0), store.deliveries(finding().key)) == ([], [], [])
    assert store.open(finding(), "sent").number == 2

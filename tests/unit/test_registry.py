"""What a registry promises, on any database: what was written is there, and what changed is an event.

tests/real/test_registry_postgres.py holds PostgreSQL to every test of this module: it brings its own ``registry_url``.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from onecollector_resources.records import CollectorConfig, Gap, LogSource, Phase
from onecollector_resources.registry import database, schema
from onecollector_resources.registry.store import (
    CONCERNS,
    LogSourceRegistry,
    RegistryNotMigrated,
    RegistryTooNew,
    RegistryUnavailable,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def source(number: int, host: str = "h", service: str = "web", phase: Phase = "collecting") -> LogSource:
    return LogSource(
        host,
        f"{number:064x}",
        "container",
        f"n{number}",
        f"n{number}",
        "default",
        service,
        service,
        "docker",
        None,
        "link",
        "/x",
        phase,
    )


@pytest.fixture
def registry_url(tmp_path: Path) -> str:
    """An empty database."""
    return f"sqlite:///{tmp_path / 'r.db'}"


@pytest.fixture
def registry(registry_url: str) -> Iterator[LogSourceRegistry]:
    one = LogSourceRegistry(registry_url)
    one.migrate()
    yield one
    one.close()


def test_what_is_registered_can_be_looked_up_changed_and_deleted(registry: LogSourceRegistry) -> None:
    registry.register_source(source(1), actor="t")
    key = source(1).key
    found = registry.get_source(key)
    assert found is not None
    assert found.first_seen is not None
    registry.update_source(key, {"service": "shop"}, actor="t")
    assert [s.service for s in registry.lookup_sources(service="shop")] == ["shop"]
    assert registry.delete_source(key, actor="t")
    assert not registry.delete_source(key, actor="t")
    assert [e.kind for e in registry.events_after(0)] == ["appeared", "changed", "removed"]


def test_a_report_that_says_nothing_new_changes_nothing(registry: LogSourceRegistry) -> None:
    sources = [source(n) for n in range(5)]
    first = registry.sync_host("h", sources, actor="t")
    again = registry.sync_host("h", sources, actor="t")
    assert len(first.appeared) == 5
    assert again.revision == first.revision
    assert len(registry.audit_rows()) == 5


def test_what_a_full_report_leaves_out_is_gone_and_a_partial_one_takes_nothing(registry: LogSourceRegistry) -> None:
    registry.sync_host("h", [source(1), source(2)], actor="t")
    assert registry.sync_host("h", [source(1)], actor="t", full=False).gone == ()
    assert registry.sync_host("h", [source(1)], actor="t").gone == (source(2).key,)
    assert registry.sync_host("h", [source(1)], actor="t").gone == ()


def test_a_long_poll_waits_for_concerns_only(registry: LogSourceRegistry) -> None:
    registry.sync_host("h", [source(1)], actor="t")
    revision = registry.revision(CONCERNS)
    registry.set_flow({source(1).key: ("flowing", "")}, actor="t")
    slept: list[float] = []
    clock = iter(range(100))
    assert (
        registry.wait_for_revision(revision, 3, CONCERNS, sleep=slept.append, monotonic=lambda: float(next(clock)))
        == revision
    )
    assert slept
    registry.record_event("policy", {"x": 1}, actor="t")
    assert registry.wait_for_revision(revision, 3, CONCERNS) > revision


def test_pages_by_key_are_all_sources_once(registry: LogSourceRegistry) -> None:
    registry.sync_host("h", [source(n) for n in range(25)], actor="t")
    seen, after = [], None
    while page := registry.list_sources(10, after):
        seen += [s.key for s in page]
        after = page[-1].key
    assert seen == [source(n).key for n in range(25)]


def test_one_config_is_live_and_a_rejection_can_be_forgiven(registry: LogSourceRegistry) -> None:
    one, two = (CollectorConfig(h, "text", "default", "i", (("default", "docker"),)) for h in ("a", "b"))
    for config in (one, two):
        registry.record_config(config, "valid", actor="t")
        registry.set_config_verdict(config.hash, "live", actor="t")
    live = registry.live_config()
    assert live is not None
    assert live.config == two
    registry.reject_config("default", "c", "why", actor="t")
    assert registry.rejected_configs() == {"c": "why"}
    before = registry.revision(CONCERNS)
    assert registry.forgive_config("default", "c", actor="t")
    assert registry.revision(CONCERNS) > before
    assert not registry.forgive_config("default", "c", actor="t")


def test_a_gap_that_is_reported_twice_is_one_row(registry: LogSourceRegistry) -> None:
    gap = Gap("h", "x", "web", "default", "truncated", NOW, NOW, 10, None, "d", "k")
    assert registry.record_gaps([gap], actor="t") == 1
    assert registry.record_gaps([gap], actor="t") == 0
    assert registry.list_gaps() == [gap]


def test_history_is_pruned_by_age(registry: LogSourceRegistry) -> None:
    registry.sync_host("h", [source(1)], actor="t")
    registry.sync_host("h", [], actor="t")
    assert registry.prune(datetime.now(UTC) + timedelta(days=1)) > 0
    assert registry.events_after(0) == []
    assert registry.lookup_sources() == []


def _write_many(url: str, host: str) -> None:
    registry = LogSourceRegistry(url)
    for number in range(25):
        registry.sync_host(host, [source(number, host)], actor=host, full=False)


def test_several_processes_write_at_once_and_no_revision_is_lost(registry: LogSourceRegistry) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(registry.url, f"h{n}")) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    revisions = [event.revision for event in registry.events_after(0)]
    assert revisions == sorted(set(revisions))
    assert registry.revision() == 75


def _migrate(url: str) -> None:
    LogSourceRegistry(url).migrate()


def test_processes_that_migrate_at_once_make_one_registry(registry_url: str) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_migrate, args=(registry_url,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    registry = LogSourceRegistry(registry_url)
    registry.register_source(source(1), actor="t")
    registry.migrate()
    assert registry.revision() == 1
    registry.close()


def test_a_long_poll_wakes_when_another_writes_and_holds_nobody_up(
    registry: LogSourceRegistry, registry_url: str
) -> None:
    other = LogSourceRegistry(registry_url)
    before = registry.revision(CONCERNS)
    with ThreadPoolExecutor(1) as pool:
        looked = threading.Event()

        def sleep(seconds: float) -> None:
            looked.set()
            time.sleep(seconds)

        woken = pool.submit(registry.wait_for_revision, before, 120, CONCERNS, sleep)
        assert looked.wait(60)
        began = time.monotonic()
        written = other.register_source(source(1), actor="t")
        assert woken.result(60) == written
        assert time.monotonic() - began < 60
    other.close()


def test_a_change_without_its_audit_row_does_not_happen(
    registry: LogSourceRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.register_source(source(1), actor="alice")
    before, rows = registry.revision(), registry.audit_rows()
    assert [(row["actor"], row["what"], row["subject"]) for row in rows] == [
        ("alice", "source.appeared", f"h/{source(1).source_id}")
    ]

    def fails(*_: Any) -> None:
        raise RuntimeError("no audit row")

    monkeypatch.setattr(registry, "record_audit", fails)
    for change in (
        lambda: registry.delete_source(source(1).key, actor="t"),
        lambda: registry.set_flow({source(1).key: ("flowing", "")}, actor="t"),
        lambda: registry.record_event("policy", {}, actor="t"),
    ):
        with pytest.raises(RuntimeError, match="no audit row"):
            change()
    found = registry.get_source(source(1).key)
    assert found is not None
    assert found.flow == "unknown"
    assert (registry.revision(), registry.audit_rows()) == (before, rows)
    assert [event.kind for event in registry.events_after(0)] == ["appeared"]


def test_a_held_lock_is_a_clear_error_and_the_next_try_comes_through(
    registry: LogSourceRegistry, registry_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 200)
    waiting, other = LogSourceRegistry(registry_url), registry
    with other.writing():
        with pytest.raises(RegistryUnavailable, match="holds it for long"):
            waiting.register_source(source(1), actor="t")
        assert waiting.lookup_sources() == []
    assert waiting.register_source(source(1), actor="t") == 1
    waiting.close()


def test_a_writer_that_waits_for_another_comes_through(registry: LogSourceRegistry, registry_url: str) -> None:
    waiting = LogSourceRegistry(registry_url)
    with ThreadPoolExecutor(1) as pool:
        with registry.writing() as connection:
            begun = pool.submit(waiting.register_source, source(1), actor="t")
            assert registry.next_revision(connection) == 1
            with pytest.raises(TimeoutError):
                begun.result(0.3)
        assert begun.result(60) == 2
    waiting.close()


def test_a_newer_schema_is_refused_and_left_as_it_is(registry: LogSourceRegistry, registry_url: str) -> None:
    registry.register_source(source(1), actor="t")
    with registry.engine.begin() as connection:
        connection.execute(update(schema.meta).where(schema.meta.c.name == "schema_version").values(value=99))
    for call in ("migrate", "check", "revision", "lookup_sources"):
        fresh = LogSourceRegistry(registry_url)
        with pytest.raises(
            RegistryTooNew, match=rf"expected schema {schema.VERSION} or older, found 99.*use the newer"
        ):
            getattr(fresh, call)()
        fresh.close()
    with registry.engine.connect() as connection:
        assert connection.scalar(select(schema.meta.c.value).where(schema.meta.c.name == "schema_version")) == 99
        assert len(connection.execute(select(schema.sources)).all()) == 1


def test_without_tables_it_says_that_it_has_to_be_migrated(registry_url: str) -> None:
    registry = LogSourceRegistry(registry_url)
    with registry.engine.connect():
        pass
    with pytest.raises(RegistryNotMigrated, match="onecollector up"):
        registry.revision()
    registry.close()


def test_texts_as_others_write_them_keep_no_host_out(registry: LogSourceRegistry) -> None:
    odd = replace(
        source(1),
        name="n\0" + "long" * 5_000,
        service_raw="not utf-8 \udc80",
        path="/\U0001f433/'\"; drop table sources",
        image="i" * 5_000,
        labels={"a\0\udc80": "b\0", "ключ": "値"},
    )
    first = registry.sync_host("h", [odd, source(2)], actor="t")
    assert len(first.appeared) == 2
    # What was put right on its way in is no news the next time.
    assert registry.sync_host("h", [odd, source(2)], actor="t").revision == first.revision
    found = registry.get_source(odd.key)
    assert found is not None
    assert (found.path, found.labels, found.service_raw) == (odd.path, odd.labels, "not utf-8 ?")


def test_the_longest_names_fit(registry: LogSourceRegistry) -> None:
    long = Gap("h" * 255, "f" * 64, "s" * 128, "t" * 100, "disk_full", NOW, NOW, None, None, "d", "/folder" * 100)
    assert registry.record_gaps([long], actor="t") == 1
    assert registry.record_gaps([long], actor="t") == 0
    registry.set_mark("drained/" + "t" * 100, 1)
    assert registry.get_mark("drained/" + "t" * 100) == 1

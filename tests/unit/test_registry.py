"""The registry: what was written is there, what changed is an event, and a bad file is a clear error."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.records import CollectorConfig, Gap, LogSource, Phase
from onecollector_resources.registry.source_rows import difference
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
def registry(tmp_path: Path) -> LogSourceRegistry:
    one = LogSourceRegistry(f"sqlite:///{tmp_path / 'r.db'}")
    one.migrate()
    return one


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


def test_the_first_designs_names_are_the_same_methods() -> None:
    pairs = [
        ("register_log_target", "register_source"),
        ("update_source_metadata", "update_source"),
        ("remove_source", "delete_source"),
        ("list_all_sources", "list_sources"),
    ]
    assert all(getattr(LogSourceRegistry, a) is getattr(LogSourceRegistry, b) for a, b in pairs)


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


def test_a_lost_registry_is_rebuilt_from_a_full_report(registry: LogSourceRegistry, tmp_path: Path) -> None:
    sources = [source(n) for n in range(3)]
    registry.sync_host("h", sources, actor="t")
    registry.close()
    for path in tmp_path.glob("r.db*"):
        path.unlink()
    with pytest.raises(RegistryUnavailable):
        LogSourceRegistry(registry.url).revision()
    fresh = LogSourceRegistry(registry.url)
    fresh.migrate()
    assert len(fresh.sync_host("h", sources, actor="t").appeared) == 3


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


def test_a_newer_file_is_refused_and_left_as_it_is(registry: LogSourceRegistry, tmp_path: Path) -> None:
    registry.close()
    with sqlite3.connect(tmp_path / "r.db") as db:
        db.execute("update meta set value = 99 where name = 'schema_version'")
    for call in ("migrate", "check"):
        with pytest.raises(RegistryTooNew, match="expected schema 1 or older, found 99"):
            getattr(LogSourceRegistry(registry.url), call)()


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(RegistryUnavailable, match="move it away"):
        LogSourceRegistry(f"sqlite:///{path}").migrate()
    assert path.read_bytes() == b"not a database at all" * 100


def test_an_empty_file_says_that_it_has_to_be_migrated(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    sqlite3.connect(path).close()
    path.touch()
    with pytest.raises(RegistryNotMigrated, match="onecollector up"):
        LogSourceRegistry(f"sqlite:///{path}").revision()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_is_a_clear_error(registry: LogSourceRegistry, tmp_path: Path) -> None:
    registry.close()
    (tmp_path / "r.db").chmod(0o400)
    with pytest.raises(RegistryUnavailable, match="right to write"):
        LogSourceRegistry(registry.url).register_source(source(1), actor="t")


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
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    revisions = [event.revision for event in registry.events_after(0)]
    assert revisions == sorted(set(revisions))
    assert registry.revision() == 75


phases = st.sampled_from(["waiting", "collecting", "finished", "uncollectable"])
states = st.dictionaries(st.integers(0, 8), phases, max_size=8)


@given(st.lists(states, min_size=1, max_size=6))
def test_the_difference_leads_from_what_was_known_to_what_is_reported(reports: list[dict[int, Phase]]) -> None:
    known: dict[tuple[str, str], LogSource] = {}
    for report in reports:
        sources = [source(number, phase=phase) for number, phase in report.items()]
        for change in difference(known, sources, full=True, now=NOW):
            assert change.before == known.get(change.after.key)
            known[change.after.key] = change.after
        assert {k: s.phase for k, s in known.items() if s.phase != "gone"} == {s.key: s.phase for s in sources}
        assert difference(known, [replace(s) for s in sources], full=True, now=NOW) == []


def test_the_registry_imports_neither_alembic_nor_dagster() -> None:
    code = "import sys, onecollector_resources.registry.store; print([m for m in ('alembic', 'dagster', 'pandas') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True).stdout.strip() == "[]"
    )

"""Links: a file gets one link under the name that says whose it is, and nothing unread goes without a gap."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.stack import wait_until
from onecollector_resources.discovery.heads import judge_plain, judge_timed
from onecollector_resources.discovery.links_model import link_name, parse_path
from onecollector_resources.discovery.retention import Held, Limits, links_to_drop
from onecollector_resources.settings import AgentSettings
from tests.unit.link_host import ID, LIVE, Host, MemoryJournal, record


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@given(st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", fullmatch=True), st.integers(0, 5000))
def test_a_links_name_reads_back(name: str, segment: int) -> None:
    tree = Path("/t")
    parsed = parse_path(tree / "ten" / "docker+java" / "svc" / link_name(name, ID, segment), tree)
    assert parsed is not None
    assert (parsed.safe_name, parsed.source_id, parsed.segment, parsed.pipeline) == (name, ID, segment, "docker+java")


def test_a_containers_file_is_placed_under_its_identity(host: Host) -> None:
    path = host.write(record("hello"))
    host.keeper.reconcile({ID: host.observed()})
    assert host.placed() == [host.root / "links" / "default" / "docker" / "web" / f"fox--{ID}.log"]
    assert host.placed()[0].stat().st_ino == path.stat().st_ino


def test_a_file_that_is_gone_before_anybody_knew_it_is_kept_by_its_claim(host: Host) -> None:
    path = host.write(record("hello"))
    host.keeper.start()
    wait_until("its claim", host.claims, 60)
    path.unlink()
    path.parent.rmdir()
    host.keeper.place_now(host.observed())
    host.keeper.stop()
    assert [p.read_text() for p in host.placed()] == [record("hello")]


def test_each_rotated_file_gets_the_next_number_in_the_order_of_writing(host: Host) -> None:
    path = host.write(record("one"))
    host.keeper.reconcile({ID: host.observed()})
    path.rename(path.with_name(path.name + ".1"))
    host.write(record("two"))
    host.keeper.reconcile({ID: host.observed()})
    assert [p.name for p in host.placed()] == [f"fox--{ID}.1.log", f"fox--{ID}.log"]
    assert host.placed()[0].read_text() == record("two")


def test_files_found_after_several_rotations_are_numbered_oldest_first(host: Host) -> None:
    for name, text in ((".2", "one"), (".1", "two"), ("", "three")):
        path = host.write("")
        path.with_name(path.name + name).write_text(record(text))
    host.keeper.reconcile({ID: host.observed()})
    by_segment = {parse_path(p, host.root / "links").segment: p.read_text() for p in host.placed()}  # type: ignore[union-attr]
    assert by_segment == {0: record("one"), 1: record("two"), 2: record("three")}


def test_an_unknown_tenant_is_held_and_placed_when_it_is_put_on_the_list(host: Host) -> None:
    host.write(record("held"))
    held = host.observed(held="unknown tenant 'x'")
    host.keeper.reconcile({ID: held})
    assert host.placed() == []
    assert host.keeper.phase_of(held)[::2] == ("waiting", "unknown tenant 'x'")
    host.keeper.reconcile({ID: host.observed()})
    assert len(host.placed()) == 1


def test_a_pipeline_that_is_not_live_yet_holds_its_files(host: Host) -> None:
    host.write(record("x"))
    observed = host.observed(multiline="java")
    host.keeper.reconcile({ID: observed})
    assert host.placed() == []
    host.keeper.set_live_pipelines(LIVE | {("default", "docker+java")})
    assert len(host.placed()) == 1


def test_two_files_with_the_same_long_first_line_are_told_apart_by_a_spool(host: Host) -> None:
    other = "cd" * 32
    line = '{"log":"' + "x" * 3000 + '\\n","stream":"stdout","time":"2026-01-01T00:00:00.%09dZ"}\n'
    host.write(line % 1 + record("a"))
    host.write(line % 2 + record("b"), other)
    host.keeper.reconcile({ID: host.observed(), other: host.observed(other)})
    host.keeper.pump_spools()
    heads = [p.read_bytes()[:1000] for p in host.placed()]
    assert len(heads) == 2
    assert heads[0] != heads[1]
    assert sum(p.read_text().count("\n") for p in host.placed()) == 4


def test_a_restarted_keeper_finds_everything_again(host: Host) -> None:
    path = host.write(record("one"))
    host.keeper.reconcile({ID: host.observed()})
    before = host.placed()
    host.keeper = host.new_keeper()
    path.rename(path.with_name(path.name + ".1"))
    host.write(record("two"))
    host.keeper.reconcile({ID: host.observed()})
    assert before[0] in host.placed()
    assert len(host.placed()) == 2


def test_a_lost_journal_is_read_back_from_the_tree(host: Host) -> None:
    host.write(record("one"))
    host.keeper.reconcile({ID: host.observed()})
    host.journal = MemoryJournal()
    host.keeper = host.new_keeper()
    host.keeper.reconcile({ID: host.observed()})
    assert len(host.placed()) == 1


def test_a_finished_link_goes_only_when_loki_has_shown_its_last_record(host: Host) -> None:
    host.write(record("one") + record("two"))
    host.keeper.reconcile({ID: host.observed()})
    host.keeper.reconcile({ID: host.observed(running=False, ended=datetime.now(UTC))})
    assert host.keeper.mark_delivered([(ID, 0, 1)]) == 0
    assert host.keeper.collect_garbage(0) == 0
    assert host.keeper.mark_delivered([(ID, 0, 2)]) == 1
    assert host.keeper.collect_garbage(0) == 1
    assert host.placed() == []
    assert host.gaps == []


def test_a_container_that_is_started_again_is_linked_again_under_the_same_number(host: Host) -> None:
    ended = host.observed(running=False, ended=datetime.now(UTC))
    host.write(record("one"))
    host.keeper.reconcile({ID: host.observed()})
    host.keeper.reconcile({ID: ended})
    host.keeper.mark_delivered([(ID, 0, 1)])
    host.keeper.collect_garbage(0)
    host.write(record("two"))
    host.keeper.reconcile({ID: host.observed()})
    assert [p.name for p in host.placed()] == [f"fox--{ID}.log"]


def test_dropping_unread_lines_by_age_is_a_gap_with_its_bytes(host: Host) -> None:
    host.settings = AgentSettings(free_space_floor_bytes=0, finished_max_age_s=1)
    host.keeper = host.new_keeper()
    path = host.write(record("one"))
    host.keeper.reconcile({ID: host.observed(running=False, ended=datetime.now(UTC))})
    assert host.keeper.collect_garbage(datetime.now(UTC).timestamp() + 10) == 1
    assert [(gap.cause, gap.bytes) for gap in host.gaps] == [("links_over_age", path.stat().st_size)]


def test_records_are_counted_and_parts_of_long_lines_are_told(host: Host) -> None:
    part = '{"log":"half","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n'
    host.write(record("one") + part + record("rest"))
    host.keeper.reconcile({ID: host.observed()})
    found = host.keeper.segment_records()[0]
    assert (found.records, found.joined) == (3, 1)


def test_an_excluded_container_leaves_nothing_behind(host: Host) -> None:
    host.write(record("secret"))
    host.keeper.start()
    wait_until("its claim", host.claims, 60)
    host.keeper.reconcile({ID: host.observed(excluded=True)})
    assert host.placed() == []
    assert list((host.root / "links" / ".pending").iterdir()) == []


def test_truncation_in_place_is_a_gap(host: Host) -> None:
    path = host.write(record("one") * 10)
    host.keeper.reconcile({ID: host.observed()})
    stat = path.stat()
    host.positions[(stat.st_dev, stat.st_ino)] = stat.st_size
    host.keeper.segment_records()
    os.truncate(path, 0)
    host.keeper.segment_records()
    assert [gap.cause for gap in host.gaps] == ["truncated"]


@given(st.binary(max_size=1200), st.lists(st.binary(max_size=1000), max_size=5))
def test_a_plain_head_is_unique_only_if_no_other_begins_alike(head: bytes, known: list[bytes]) -> None:
    verdict = judge_plain(head, known)
    alike = any(k and (head[:1000].startswith(k) or k.startswith(head[:1000])) for k in known)
    assert verdict == ("wait" if not head else "tie" if alike else "unique")


@given(st.binary(min_size=1, max_size=60).filter(lambda b: b"\n" not in b), st.integers(1000, 1100))
def test_a_long_first_line_ties_only_with_itself(some: bytes, size: int) -> None:
    head = (some * size)[:size]
    assert judge_timed(head, [], finished=False) == "unique"
    assert judge_timed(head, [head[:1000]], finished=False) == "tie"


held = st.builds(
    Held,
    st.sampled_from(["a", "b", "c"]),
    st.integers(0, 50),
    st.floats(0, 1000),
    st.integers(0, 100),
    st.integers(0, 100),
    st.booleans(),
)


@given(
    st.lists(held, max_size=30, unique_by=lambda h: (h.source_id, h.segment)), st.floats(0, 2000), st.integers(0, 5000)
)
def test_retention_drops_no_more_than_it_must(finished: list[Held], now: float, max_bytes: int) -> None:
    drops = links_to_drop(finished, Limits(10_000, max_bytes, 0), now=now, free=1)
    assert all(drop.cause is None for drop in drops if drop.held.delivered)
    left = [h for h in finished if h not in [drop.held for drop in drops]]
    assert sum(h.size for h in left) <= max_bytes
    forced = [drop.held for drop in drops if drop.cause]
    if forced:
        assert sum(h.size for h in left) + forced[-1].size > max_bytes

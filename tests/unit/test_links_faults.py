"""What happens to links when the world is not in order: agents away, files that shrink, disks that refuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from onecollector_resources.discovery.links_model import source_from_text, source_to_text
from onecollector_resources.settings import AgentSettings
from tests.unit.link_host import ID, Host, MemoryJournal, record

LONG = '{"log":"' + "x" * 3000 + '\\n","stream":"stdout","time":"2026-01-01T00:00:00.%09dZ"}\n'


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def plain(host: Host, name: str, text: str) -> tuple[str, Path]:
    """A declared file; answers its id and path."""
    path = host.root / name
    path.write_text(text)
    return name[0] * 64, path


def file_source(host: Host, source_id: str, path: Path):
    return host.observed(source_id, kind="file", driver="file", profile="plain", log_path=str(path))


# -- the agent was away


def test_a_container_that_went_while_no_agent_ran_is_counted_shown_and_let_go(host: Host) -> None:
    path = host.write(record("one") + record("two"))
    host.keeper.reconcile({ID: host.observed(image="shop:1", labels={"a": "b"})})
    path.unlink()
    path.parent.rmdir()
    host.keeper = host.new_keeper()
    assert host.keeper.keeps(ID)
    host.keeper.reconcile({})
    (left,) = host.keeper.leftovers([])
    assert (left.service, left.image, left.labels, left.running) == ("web", "shop:1", {"a": "b"}, False)
    assert [(r.records, r.final) for r in host.keeper.segment_records()] == [(2, True)]
    assert host.keeper.mark_delivered([(ID, 0, 2)]) == 1
    host.keeper.collect_garbage(0)
    host.keeper.collect_garbage(0)
    assert host.placed() == []
    assert host.journal.links == {}
    assert host.journal.values == {}
    assert host.gaps == []


def test_the_same_without_a_journal_is_read_from_the_links_name(host: Host) -> None:
    path = host.write(record("one"))
    host.keeper.reconcile({ID: host.observed()})
    path.unlink()
    host.journal = MemoryJournal()
    host.keeper = host.new_keeper()
    host.keeper.reconcile({})
    (left,) = host.keeper.leftovers([])
    assert (left.tenant, left.service, left.safe_name, left.kind) == ("default", "web", "fox", "container")


def test_a_container_that_was_held_and_went_meanwhile_ships_when_its_tenant_comes(host: Host) -> None:
    path = host.write(record("held"))
    held = host.observed(held="unknown tenant 'x'")
    host.keeper.reconcile({ID: held})
    path.unlink()
    host.keeper = host.new_keeper()
    host.keeper.reconcile({})
    assert [s.held for s in host.keeper.leftovers([])] == ["unknown tenant 'x'"]
    host.keeper.place_now(host.observed(running=False, ended=datetime.now(UTC)))
    host.keeper.reconcile({})
    assert [p.read_text() for p in host.placed()] == [record("held")]


def test_a_pending_file_that_nobody_can_name_is_a_gap_with_its_bytes(host: Host) -> None:
    path = host.write(record("held"))
    host.keeper.reconcile({ID: host.observed(held="unknown tenant")})
    path.unlink()
    host.journal = MemoryJournal()
    clock = [1_000.0]
    host.keeper = host.new_keeper(clock=lambda: clock[0])
    host.keeper.reconcile({})
    assert host.gaps == []
    clock[0] += 61
    host.keeper.reconcile({})
    assert [(gap.cause, gap.bytes) for gap in host.gaps] == [("unknown_containers", len(record("held")))]
    assert list((host.root / "links" / ".pending").iterdir()) == []


def test_an_incomplete_listing_takes_nothing_for_gone(host: Host) -> None:
    host.write(record("one"))
    host.keeper.reconcile({ID: host.observed()})
    host.keeper = host.new_keeper()
    host.keeper.reconcile({}, complete=False)
    assert host.keeper.leftovers([]) == []
    host.keeper.reconcile({ID: host.observed()})
    assert [r.final for r in host.keeper.segment_records()] == [False]


def test_a_description_reads_back_as_it_was(host: Host) -> None:
    observed = host.observed(warnings=("w",), ended=datetime.now(UTC), labels={"k": "v"})
    assert source_from_text(source_to_text(observed)) == observed
    assert source_from_text('{"of": "another version"}') is None


# -- files that shrink


@pytest.mark.parametrize("after", ["", "x\n", "other " * 100])
def test_a_declared_file_that_was_truncated_between_two_looks_is_a_gap(host: Host, after: str) -> None:
    """Whether anything was read of it, and also where it is as long again."""
    source_id, path = plain(host, "a.log", "before\n" * 20)
    host.keeper.reconcile({source_id: file_source(host, source_id, path)})
    host.keeper.segment_records()
    with path.open("r+") as file:
        file.truncate(0)
        file.write(after)
    host.keeper.segment_records()
    assert [gap.cause for gap in host.gaps] == ["truncated"]
    host.keeper.segment_records()
    assert len(host.gaps) == 1, "told once"
    with path.open("r+") as file:
        file.truncate(0)
    host.keeper.segment_records()
    assert len(host.gaps) == (2 if after else 1), "a second time is a second gap"


def test_a_file_that_grows_is_no_truncated_one(host: Host) -> None:
    source_id, path = plain(host, "a.log", "a")
    host.keeper.reconcile({source_id: file_source(host, source_id, path)})
    for n in range(300):
        with path.open("a") as file:
            file.write(f"{n}\n")
        host.keeper.segment_records()
    assert host.gaps == []


# -- spools


def test_a_rest_without_a_newline_is_spooled_once(host: Host) -> None:
    banner = "b" * 1500 + "\n"
    (one, first), (two, second) = plain(host, "a.log", banner + "x\n"), plain(host, "b.log", banner + "no end")
    sources = {one: file_source(host, one, first), two: file_source(host, two, second)}
    host.keeper.reconcile(sources)
    ended = {key: host.observed(key, **_ended(value)) for key, value in sources.items()}
    host.keeper.reconcile(ended)
    for _ in range(5):
        host.keeper.pump_spools()
    spools = [p for p in host.placed() if p.is_relative_to(host.root / "files" / "default" / "docker")]
    assert [p.read_text().count("no end") for p in spools] == [1]


def _ended(observed) -> dict:
    return {
        "kind": observed.kind,
        "driver": observed.driver,
        "profile": observed.profile,
        "log_path": observed.log_path,
        "running": False,
        "ended": datetime.now(UTC),
    }


def test_a_spool_is_not_delivered_before_all_of_its_file_is_copied(host: Host) -> None:
    other = "cd" * 32
    host.write(LONG % 1 + record("a"))
    host.write(LONG % 2 + record("b"), other)
    host.keeper.reconcile({ID: host.observed(), other: host.observed(other)})
    host.keeper.pump_spools()
    host.write(record("late"), other)
    gone = {"running": False, "ended": datetime.now(UTC)}
    host.keeper.reconcile({ID: host.observed(**gone), other: host.observed(other, **gone)})
    spooled = next(status.source_id for status in host.keeper.statuses() if status.mode == "spool")
    records = 2 if spooled == ID else 3
    if spooled == other:
        assert host.keeper.mark_delivered([(spooled, 0, 2)]) == 0
    host.keeper.pump_spools()
    assert host.keeper.mark_delivered([(spooled, 0, records)]) == 1


def test_a_container_that_is_started_again_does_not_tie_with_itself(host: Host) -> None:
    ended = host.observed(running=False, ended=datetime.now(UTC))
    host.write(LONG % 1)
    host.keeper.reconcile({ID: host.observed()})
    host.keeper.reconcile({ID: ended})
    host.keeper.mark_delivered([(ID, 0, 1)])
    host.keeper.collect_garbage(0)
    host.write(record("again"))
    host.keeper.reconcile({ID: host.observed()})
    assert [status.mode for status in host.keeper.statuses()] == ["link"]


def test_a_spool_that_cannot_begin_is_tried_again(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "cd" * 32
    host.write(LONG % 1)
    host.write(LONG % 2, other)
    both = {ID: host.observed(), other: host.observed(other)}

    def full(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "touch", full)
        host.keeper.reconcile(both)
    reasons = [status.reason for status in host.keeper.statuses() if not status.placed]
    assert reasons == ["cannot be placed: No space left on device"]
    host.keeper.reconcile(both)
    assert sorted(status.mode for status in host.keeper.statuses()) == ["link", "spool"]


# -- followed over the log API


def follow(host: Host, records: list[str]) -> Callable[[], str]:
    observed = host.observed(driver="local", log_path="")
    path = host.keeper.api_spool_file(observed)
    with path.open("a") as file:
        for stamp in records:
            file.write(f'{{"time":"{stamp}","log":"x\\n","stream":"stdout"}}\n')
    return path.name.__str__


def test_a_followed_container_that_ended_is_finished_delivered_and_gone(host: Host) -> None:
    running = host.observed(driver="local", log_path="")
    ended = host.observed(driver="local", log_path="", running=False, ended=datetime.now(UTC))
    host.keeper.reconcile({ID: running})
    assert [one.source_id for one in host.keeper.wants_api()] == [ID]
    follow(host, ["2026-01-01T00:00:00.1Z", "2026-01-01T00:00:00.2Z"])
    host.keeper.reconcile({ID: ended})
    host.keeper.api_ended(ID)
    assert host.keeper.wants_api() == []
    assert host.keeper.phase_of(ended)[0] == "finished"
    assert host.keeper.mark_delivered([(ID, 0, 2)]) == 1
    host.keeper.collect_garbage(0)
    assert host.placed() == []
    # Started again: the next file goes on behind what was delivered.
    host.keeper.reconcile({ID: running})
    assert [one.source_id for one in host.keeper.wants_api()] == [ID]
    assert follow(host, [])() == f"fox--{ID}.1.log"
    assert host.keeper.followed(ID) == ("2026-01-01T00:00:00.2Z", 1)


def test_a_new_file_after_a_kill_goes_on_behind_the_one_before(host: Host) -> None:
    """The rotation of a spool that was cut by a kill: the new file is empty, and nothing is fetched a second time."""
    host.keeper.reconcile({ID: host.observed(driver="local", log_path="")})
    follow(host, ["2026-01-01T00:00:00.5Z", "2026-01-01T00:00:00.5Z"])
    host.keeper.next_api_segment(ID)
    host.keeper = host.new_keeper()
    host.keeper.reconcile({ID: host.observed(driver="local", log_path="")})
    assert host.keeper.followed(ID) == ("2026-01-01T00:00:00.5Z", 2)


# -- one trouble is not everybody's


def test_a_source_that_cannot_be_looked_at_leaves_the_others_theirs(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_id, path = plain(host, "a.log", "a\n")
    other, good = plain(host, "b.log", "b\n")
    link = os.link

    def refuse(src: object, *args: object, **kwargs: object) -> None:
        if str(src) == str(path):
            raise OSError(5, "Input/output error")
        link(src, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", refuse)
    path.chmod(0)
    monkeypatch.setattr(
        "onecollector_resources.discovery.links.spooling.FileSpool",
        lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")),
    )
    host.keeper.reconcile({source_id: file_source(host, source_id, path), other: file_source(host, other, good)})
    assert [p.read_text() for p in host.placed()] == ["b\n"]


def test_other_limits_hold_at_once(host: Host) -> None:
    host.write(record("one"))
    host.keeper.reconcile({ID: host.observed(running=False, ended=datetime.now(UTC))})
    assert host.keeper.collect_garbage(datetime.now(UTC).timestamp() + 10) == 0
    host.keeper.use_settings(AgentSettings(free_space_floor_bytes=0, finished_max_age_s=1))
    assert host.keeper.collect_garbage(datetime.now(UTC).timestamp() + 10) == 1

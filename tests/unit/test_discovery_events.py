"""What is said of the time in which nobody listened to the engine: nothing where all is known, else one gap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.discovery.docker import frame_lines
from onecollector_resources.discovery.events import (
    REMEMBERED,
    Unheard,
    came_and_went,
    forgotten,
    gap_of_container,
    gap_of_unknown,
    parse_event,
)
from onecollector_resources.records import ContainerEvent

A, B, C = "a" * 64, "b" * 64, "c" * 64


def unheard(since: int, until: int = 1000, *, by_engine: bool = False, away: bool = True) -> Unheard:
    return Unheard(since, until, by_engine, away)


def event(action: str, source_id: str, time_ns: int, **attributes: str) -> ContainerEvent:
    return ContainerEvent("docker", action, source_id, time_ns, attributes)


def test_a_memory_that_reaches_back_leaves_nothing_unknown() -> None:
    assert forgotten(unheard(100), [90, 150, 200], None) is None


def test_a_full_memory_that_does_not_reach_back_leaves_the_time_before_it_unknown() -> None:
    assert forgotten(unheard(100), range(300, 300 + REMEMBERED), 50) == (100, 300)


def test_a_quiet_engine_that_ran_all_the_time_has_forgotten_nothing() -> None:
    assert forgotten(unheard(100), [], 50) is None
    assert forgotten(unheard(100), [200], 50) is None


def test_an_engine_that_was_started_anew_cannot_tell_what_was_before() -> None:
    assert forgotten(unheard(100), [], 400) == (100, 400)
    assert forgotten(unheard(100), [450], 400) == (100, 400)


def test_nothing_is_created_in_an_engine_that_has_gone() -> None:
    assert forgotten(unheard(100, by_engine=True, away=False), [450], 400) is None


def test_what_cannot_be_known_is_taken_for_lost() -> None:
    assert forgotten(unheard(100), [], None) == (100, 1000)


@given(
    st.integers(0, 1000),
    st.lists(st.integers(0, 1000), max_size=REMEMBERED + 10),
    st.none() | st.integers(0, 1000),
    st.booleans(),
)
def test_an_unknown_time_lies_within_the_unheard_time(
    since: int, times: list[int], started: int | None, by: bool
) -> None:
    span = forgotten(unheard(since, 1000, by_engine=by), times, started)
    assert span is None or since <= span[0] <= span[1] <= 1000


def test_containers_that_came_and_went_are_named_once_and_only_with_something_to_say() -> None:
    events = [
        event("create", A, 110, name="seen", image="web:1"),
        event("start", A, 111),
        event("die", A, 112),
        event("destroy", A, 113),
        event("create", B, 120, name="still-there"),
        event("start", B, 121),
        event("create", C, 130, name="never-started"),
        event("destroy", C, 131),
    ]
    assert [(e.attributes["name"], gone) for e, gone in came_and_went(events, 100)] == [("seen", 113)]
    assert came_and_went(events, 110) == []
    excluded = [event("create", A, 110, **{"onecollector.io/exclude": "true"}), *events[1:4]]
    assert came_and_went(excluded, 100) == []


def test_a_gap_names_the_container_and_its_service_and_is_the_same_when_told_twice() -> None:
    created = event("create", A, 1_000_000_000, name="job", image="team/batch:3")
    gap = gap_of_container(created, 2_000_000_000, "h")
    assert (gap.service, gap.tenant, gap.cause, gap.source_id) == ("batch", "default", "unknown_containers", A)
    assert "job" in gap.detail
    assert gap.key == gap_of_container(created, 2_000_000_000, "h").key
    assert gap_of_unknown((1, 2), "h").key == gap_of_unknown((1, 3), "h").key != gap_of_unknown((2, 3), "h").key


def test_events_about_anything_but_the_life_of_a_container_are_none() -> None:
    actor = {"ID": A, "Attributes": {"name": "n"}}
    row = {"Type": "container", "Action": "start", "Actor": actor, "timeNano": 7}
    assert parse_event(row) == event("start", A, 7, name="n")
    for other in ({"Action": "exec_start: sh"}, {"Type": "network"}, {"Actor": {"ID": "short"}}):
        assert parse_event({**row, **other}) is None


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_a_terminal_log_is_framed_without_losing_a_byte(chunks: list[bytes]) -> None:
    frames = list(frame_lines(iter(chunks)))
    assert b"".join(frame[8:] for frame in frames) == b"".join(chunks)
    for frame in frames:
        assert frame[0] == 1
        assert int.from_bytes(frame[4:8], "big") == len(frame) - 8

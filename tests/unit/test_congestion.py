"""How many requests at once and how long to wait: down by halves at a trouble, up again one by one."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.loki.congestion import (
    ENOUGH,
    FIRST_DELAY_S,
    GROWTH,
    LONGEST_DELAY_S,
    MOST_TIMEOUT_S,
    Congestion,
    delay_s,
)


def grown(answers: int, start: Congestion, took_s: float = 0.1) -> Congestion:
    for _ in range(answers):
        start = start.after_answer(took_s)
    return start


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=200), st.integers(1, 16))
def test_there_is_always_one_and_never_more_than_allowed(events: list[tuple[bool, float]], most: int) -> None:
    state, now = Congestion(most, most), 0.0
    for good, took in events:
        now += 0.1
        state = state.after_answer(took) if good else state.after_trouble(now - took, now)
        assert 1 <= state.at_once <= most
        assert 0 < state.timeout_s(0) <= MOST_TIMEOUT_S


def test_troubles_of_one_moment_count_once() -> None:
    state = Congestion(8, 8)
    for _ in range(8):
        # All began before the first of them failed.
        state = state.after_trouble(began_at=1, now=2)
    assert state.at_once == 4
    assert state.after_trouble(began_at=3, now=4).at_once == 2


def test_it_grows_by_one_a_round() -> None:
    state = Congestion(2, 8)
    assert [(state := grown(state.at_once + 1, state)).at_once for _ in range(4)] == [3, 4, 5, 6]
    assert grown(1_000, state).at_once == 8


def test_a_hang_is_known_by_what_is_usual() -> None:
    assert Congestion(4, 4).timeout_s(0) == 30
    assert grown(ENOUGH - 1, Congestion(4, 4)).timeout_s(0) == 10
    quick = grown(ENOUGH, Congestion(4, 4))
    assert [quick.timeout_s(silences) for silences in (0, 1, 2)] == [3, 6, 12]
    assert grown(ENOUGH, Congestion(4, 4), took_s=5).timeout_s(0) == 20
    assert grown(ENOUGH, Congestion(4, 4), took_s=50).timeout_s(3) == MOST_TIMEOUT_S
    # One that was slow does not make the next hang cost more.
    assert quick.after_answer(50).timeout_s(0) == 3


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_delays_grow_up_to_a_bound_and_are_spread(tries: int, chance: float) -> None:
    full = delay_s(tries, 1)
    assert full == LONGEST_DELAY_S or full == FIRST_DELAY_S * GROWTH ** (tries - 1) < LONGEST_DELAY_S
    assert full / 2 <= delay_s(tries, chance) <= full


def test_an_outage_is_over_for_us_when_it_lasted_half_as_long_again() -> None:
    tries = list(itertools.accumulate(delay_s(n, 1) for n in range(1, 30)))
    for before, after in itertools.pairwise(tries):
        assert after <= 1.5 * before + FIRST_DELAY_S

"""A noisy service is asked for more, step by step, within bounds, and only for as long as it is noisy."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ml.pressure import MOST, WEEK, pressure, pressures

BUDGET = 0.5
NOW = 2950 * WEEK + 700


def test_too_many_findings_raise_the_threshold_by_half_a_decade_a_week_and_a_decade_in_all() -> None:
    assert pressure([0, 0, 0, 300], BUDGET) == 0.5
    assert pressure([0, 0, 300, 300], BUDGET) == pressure([300] * 4, BUDGET) == MOST
    assert pressure([0, 0, 0, 7], BUDGET) < 0.2


def test_within_the_budget_nothing_rises_and_nothing_is_lowered() -> None:
    assert pressure([3, 3, 3, 3], BUDGET) == 0
    assert pressure([0, 0, 0, 0], BUDGET) == 0


def test_it_falls_again_when_it_is_quiet() -> None:
    assert 0 < pressure([0, 0, 300, 0], BUDGET) < pressure([0, 0, 0, 300], BUDGET)
    assert pressure([0, 300, 0, 0], BUDGET) == 0


@given(st.lists(st.integers(0, 10_000), min_size=4, max_size=4), st.floats(0.01, 100), st.integers(0, 3))
def test_it_is_bounded_and_more_findings_never_lower_it(weeks: list[int], budget: float, place: int) -> None:
    more = [n + (7 if at == place else 0) for at, n in enumerate(weeks)]
    assert 0 <= pressure(weeks, budget) <= pressure(more, budget) <= MOST


def test_only_whole_weeks_of_late_count() -> None:
    this_week = [("web", NOW - 5)] * 50
    long_ago = [("cart", NOW - 6 * WEEK)] * 50
    last_week = [("mail", NOW - 5 * 1440)] * 50
    assert pressures([*this_week, *long_ago, *last_week], NOW, BUDGET) == {"mail": 0.5}

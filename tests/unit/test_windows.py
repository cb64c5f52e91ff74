"""Windows cut by what the index knows: they cover the range, none overlaps, each is about as large as was wanted."""

from __future__ import annotations

import bisect
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.loki.windows import BLIND_NS, LONGEST_NS, SECOND_NS, Size, Window, cut

BUDGET = Size(1_000, 10)


@given(st.lists(st.integers(0, 10**13), max_size=300), st.integers(0, 10**12), st.integers(0, 10**13))
def test_windows_cover_the_range_and_hold_no_more_than_wanted(times: list[int], start: int, length: int) -> None:
    times.sort()
    asked = []

    def size_of(low: int, high: int) -> Size:
        asked.append((low, high))
        count = bisect.bisect_left(times, high) - bisect.bisect_left(times, low)
        return Size(count * 50, count)

    windows = list(cut(start, start + length, size_of, lambda: BUDGET))
    borders = [start, *(w.end_ns for w in windows)]
    assert [w.start_ns for w in windows] == borders[:-1]
    assert borders[-1] == start + length
    assert all(low < high for low, high in pairwise(borders)) or length == 0
    for window in windows:
        assert window.size is not None
        assert window.size.entries <= 1.1 * BUDGET.entries or window.end_ns - window.start_ns < 2 * SECOND_NS
        assert window.end_ns - window.start_ns <= LONGEST_NS
    assert len(asked) == len(set(asked))
    assert windows == list(cut(start, start + length, size_of, lambda: BUDGET))


def test_even_data_needs_hardly_more_questions_than_windows() -> None:
    asked = [0]

    def size_of(low: int, high: int) -> Size:
        asked[0] += 1
        return Size((high - low) // SECOND_NS, 0)

    windows = list(cut(0, 3600 * 64 * SECOND_NS, size_of, lambda: Size(60, 10)))
    assert 3600 * 64 / 60 * 0.9 <= len(windows) <= 1.3 * 3600 * 64 / 60
    assert asked[0] < 1.3 * len(windows)


def test_where_the_index_is_silent_windows_are_of_one_length() -> None:
    windows = list(cut(0, 3 * BLIND_NS + 1, lambda low, high: None, lambda: BUDGET))
    assert len(windows) == 4
    assert all(w.size is None and w.end_ns - w.start_ns <= BLIND_NS for w in windows)


def test_nothing_is_asked_before_it_is_needed() -> None:
    chance, asked = random.Random(1), []

    def size_of(low: int, high: int) -> Size:
        asked.append((low, high))
        return Size(chance.randrange(2_000), 1)

    windows = cut(0, 10**15, size_of, lambda: BUDGET)
    next(windows)
    assert len(asked) < 20


@pytest.mark.parametrize(("longest", "count"), [(LONGEST_NS, 1), (3600 * SECOND_NS, 24), (7 * SECOND_NS, 12_343)])
def test_no_window_is_longer_than_a_query_may_be(longest: int, count: int) -> None:
    windows = list(cut(0, 24 * 3600 * SECOND_NS, lambda low, high: Size(0, 0), lambda: BUDGET, longest_ns=longest))
    assert len(windows) == count


def test_a_window_reads_as_two_times() -> None:
    window = Window(1_800_000_000 * SECOND_NS + 5, 1_800_000_001 * SECOND_NS)
    assert str(window) == "[2027-01-15T08:00:00.000000005Z, 2027-01-15T08:00:01.000000000Z)"

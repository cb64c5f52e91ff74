"""A model that no longer fits is told, days that are merely unlike each other are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.wear import BINS, LEAST_MINUTES, WORN, Usual, histogram, stability, usual_of, worn_signals

DAY, DAYS = 1440, 14
MINUTES = np.arange(DAYS * DAY) + 20_000 * DAY
ALL = np.ones(DAYS * DAY, np.bool_)


def decades(chance: np.random.Generator, minutes: int, shift: float = 0.0) -> np.ndarray:
    """Of one signal [T, 1]; nought for the commoner half, as ``calibration.digits`` has it."""
    digits = -np.log10(chance.random(minutes)) + shift
    return np.where(digits < -np.log10(0.5), 0, digits)[:, None]


@pytest.fixture(scope="module")
def usual() -> Usual:
    return usual_of(decades(np.random.default_rng(1), DAYS * DAY), ALL, MINUTES)


def test_days_like_those_that_were_learned_from_are_well(usual: Usual) -> None:
    chance = np.random.default_rng(2)
    days = [histogram(decades(chance, DAY)) for _ in range(2)]
    assert worn_signals(usual, 0, days) == {}
    assert usual.furthest[0, 0] < WORN / 4


def test_two_days_that_are_rarer_than_they_should_be_are_worn_and_one_is_not(usual: Usual) -> None:
    chance = np.random.default_rng(3)
    good, bad = histogram(decades(chance, DAY)), histogram(decades(chance, DAY, shift=0.5))
    assert worn_signals(usual, 0, [bad, bad]).keys() == {0}
    assert worn_signals(usual, 0, [bad, bad])[0] > WORN
    assert worn_signals(usual, 0, [bad, good]) == worn_signals(usual, 0, [good, bad]) == {}
    assert worn_signals(usual, 0, [bad]) == {}


def test_a_signal_that_falls_silent_is_worn_too(usual: Usual) -> None:
    nothing = histogram(np.zeros((DAY, 1)))
    assert worn_signals(usual, 0, [nothing, nothing]).keys() == {0}


def test_a_service_whose_days_differ_is_held_against_its_own_worst_day() -> None:
    chance = np.random.default_rng(4)
    wild = np.concatenate([decades(chance, DAY, shift=0.6 * (day % 3 == 0)) for day in range(DAYS)])
    usual = usual_of(wild, ALL, MINUTES)
    day = histogram(decades(chance, DAY, shift=0.5))
    assert usual.furthest[0, 0] > WORN and worn_signals(usual, 0, [day, day]) == {}


def test_half_a_day_says_nothing(usual: Usual) -> None:
    short = histogram(decades(np.random.default_rng(5), LEAST_MINUTES - 1, shift=2))
    assert worn_signals(usual, 0, [short, short]) == {}
    assert usual_of(np.zeros((DAY, 1)), np.zeros(DAY, np.bool_), MINUTES[:DAY]).furthest[0, 0] == 0


@given(st.lists(st.floats(0, 8), min_size=1, max_size=200))
def test_every_minute_is_in_one_bin_and_equal_days_are_not_apart(digits: list[float]) -> None:
    counts = histogram(np.array(digits)[:, None])
    assert counts.shape == (1, BINS) and counts.sum() == len(digits) and counts.min() >= 0
    assert stability(counts / counts.sum(), counts)[0] == pytest.approx(0)

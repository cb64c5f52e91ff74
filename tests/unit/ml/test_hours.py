"""What a user of quiet services relies on: a silence of hours is found and said in hours, a silent night is no finding."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import detectors, hours, hours_fitting
from ml.evaluation.days import DAY, START_MINUTE, live
from ml.evaluation.faults import Fault, into_days
from ml.evaluation.harness import Case, case_of
from ml.evaluation.services import make_sparse, template_id
from ml.explain import Explanation, explain
from ml.features import Minute, advanced
from ml.quarters import QUARTER, REMEMBERED, Quarters
from ml.signals import CHANNELS, HISTORY, HOURS
from onecollector_resources.findings.report import SIGNALS

LEARNT = 14 * DAY
NOON = 12 * 60


@cache
def made(lines_a_day: float, *faults: tuple[int, int, float], nightly: bool = False, seed: int = 5) -> Case:
    """Two weeks to learn from and two days with these faults (row, minutes, share of the lines that is left)."""
    chance = np.random.default_rng(seed)
    days = live(make_sparse(0, lines_a_day, chance, nightly=nightly), chance, quiet_days=16, test_days=0)
    every = tuple(template_id(number) for number in range(len(days.spec.templates)))
    some = [Fault("traffic drop", LEARNT + row, minutes, left, every) for row, minutes, left in faults]
    return case_of(into_days(days, some, chance), LEARNT, some, chance)


def shard_of(case: Case) -> detectors.Shard:
    return detectors.fit_shard([replace(case.train, service="s0")], [case.vocabulary], with_forest=False)


def found(case: Case) -> tuple[detectors.Shard, detectors.Scores, list[detectors.Episode]]:
    shard = shard_of(case)
    scores = detectors.score(shard, [replace(case.test, service="s0")])
    return shard, scores, detectors.episodes(shard, scores, detectors.thresholds(shard))


def told(case: Case, episode: detectors.Episode) -> Explanation:
    shard, scores, _ = found(case)
    texts = {name: f"kind {name}" for name in case.test.templates}
    labels = {"service_name": "s0"}
    frames = [replace(case.test, service="s0")]
    return explain(shard, frames, scores, episode, tenant="t", labels=labels, texts=texts)


def within(case: Case, episodes: list[detectors.Episode], fault: Fault) -> list[detectors.Episode]:
    start = case.test.start + HISTORY + fault.row
    return [episode for episode in episodes if start <= episode.first < start + fault.minutes]


def test_four_hours_of_silence_of_a_hundred_lines_a_day_are_found_and_explained_by_what_was_written() -> None:
    case = made(100, (DAY + NOON, 240, 0.0))
    _, _, episodes = found(case)
    (episode,) = within(case, episodes, case.faults[0])
    assert episode.vote == "quiet"
    record = told(case, episode)
    rows = slice(record.window_first - case.test.start, record.window_last + 1 - case.test.start)
    assert record.observed == case.test.counts[rows].sum() == 0
    assert record.window_last - record.window_first >= 60
    assert record.expected > 5
    assert "has written nothing for" in record.sentence
    assert " h" in record.sentence
    assert record.templates
    assert all(moved.observed == 0 < moved.expected for moved in record.templates)
    assert sum(moved.expected for moved in record.templates) <= record.expected * 1.3


def test_half_the_lines_for_six_hours_are_found_and_told_with_both_numbers() -> None:
    case = made(3_000, (DAY + NOON - 60, 360, 0.5))
    _, _, episodes = found(case)
    episode = next(e for e in within(case, episodes, case.faults[0]) if e.vote == "hours_down")
    record = told(case, episode)
    rows = slice(record.window_first - case.test.start, record.window_last + 1 - case.test.start)
    assert record.observed == case.test.counts[rows].sum()
    assert record.observed < 0.8 * record.expected
    assert "has written less than usual for" in record.sentence


@pytest.mark.parametrize("seed", [5, 6, 7, 8])
def test_a_service_that_is_silent_by_night_is_no_finding_each_night(seed: int) -> None:
    case = made(300, nightly=True, seed=seed)
    night = case.train.counts.sum(1)[:LEARNT].reshape(14, 24, 60).sum((0, 2))
    assert night.min() <= 2 < 100 < night.max()
    _, _, episodes = found(case)
    assert not [episode for episode in episodes if episode.vote in ("quiet", "hours_down")]


def test_hours_that_nobody_observed_are_no_silence() -> None:
    case = made(300, (DAY + NOON, 240, 0.0))
    first = HISTORY + DAY + NOON
    observed = case.test.observed.copy()
    observed[first : first + 240] = False
    case = replace(case, test=replace(case.test, observed=observed))
    shard = shard_of(case)
    scores = detectors.score(shard, [replace(case.test, service="s0")])
    part = slice(DAY + NOON, DAY + NOON + 12 * 60)
    assert (scores.digits[part, 0, HOURS].max(0) < 2).all(), scores.digits[part, 0, HOURS].max(0)


@pytest.mark.parametrize(("begin", "end"), [(3, DAY + NOON + 100), (DAY + NOON + 150, DAY + NOON + 290)])
def test_minute_by_minute_a_scorer_sees_what_a_whole_day_shows(begin: int, end: int) -> None:
    """In a silence, and when it is over."""
    case = made(300, (DAY + NOON, 240, 0.0))
    shard, test = shard_of(case), replace(case.test, service="s0")
    whole = detectors.score(shard, [test])
    first = HISTORY + end
    frame = test.rows(begin - 3, HISTORY + begin)
    assert (frame.earlier.table[2] > 0).sum() >= REMEMBERED - 1
    for row in range(HISTORY + begin, first + 1):
        there = np.flatnonzero(test.counts[row])
        names = [test.templates[n] for n in there]
        lines = test.counts[row, there].astype(np.int64)
        nothing = np.zeros(len(there))
        errors = lines * test.is_error[there]
        minute = Minute(
            np.full(len(there), test.start + row), names, lines, errors, lines,
            nothing.astype(np.int64), nothing, nothing,
        )  # fmt: skip
        frame = advanced(frame, minute, case.vocabulary)
    stepped = detectors.score(shard, [frame])
    assert whole.digits[DAY + NOON + 100, 0, HOURS.start] > 1
    assert np.allclose(stepped.digits[-1, 0, HOURS], whole.digits[end, 0, HOURS], atol=1e-3)


@pytest.mark.parametrize("seed", [5, 6, 7])
def test_a_silence_that_is_over_is_not_told_again_as_hours_with_fewer_lines(seed: int) -> None:
    case = made(3_000, (DAY + NOON, 240, 0.0), seed=seed)
    shard, scores, _ = found(case)
    back = slice(DAY + NOON + 240 + 15, DAY + NOON + 240 + 6 * 60)
    assert scores.digits[back, 0, CHANNELS.index("hours_down")].max() < detectors.thresholds(shard)[0]


def test_templates_of_a_deploy_are_no_rise_over_hours() -> None:
    case = made(3_000)
    unknown = case.test.unknown.copy()
    unknown[HISTORY + 600 :: 2] += 4
    shard = shard_of(case)
    scores = detectors.score(shard, [replace(case.test, service="s0", unknown=unknown)])
    plain = detectors.score(shard, [replace(case.test, service="s0")])
    up = CHANNELS.index("hours_up")
    assert np.allclose(scores.digits[:, 0, up], plain.digits[:, 0, up], atol=1e-4)


minutes = st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=1, max_size=400)


@given(minutes, st.integers(0, 10_000), st.data())
@settings(max_examples=60, deadline=None)
def test_a_day_is_remembered_alike_however_its_minutes_come(rows: list, start: int, data: st.DataObject) -> None:
    start += START_MINUTE
    lines, observed = np.array([row[0] for row in rows]), np.array([row[1] for row in rows], np.bool_)
    whole = Quarters().followed_by(start, lines, lines // 2, observed)
    cut = data.draw(st.integers(0, len(rows)))
    parts = Quarters().followed_by(start, lines[:cut], lines[:cut] // 2, observed[:cut])
    parts = Quarters.of_plain(parts.plain())
    for row in range(cut, len(rows)):
        one = slice(row, row + 1)
        parts = parts.followed_by(start + row, lines[one], lines[one] // 2, observed[one])
    newest = (start + len(rows) - 1) // QUARTER
    assert np.array_equal(whole.ending(newest), parts.ending(newest))
    assert whole.ending(newest)[0].sum() == lines[observed].sum()
    assert whole.ending(newest)[2].sum() == observed.sum()
    assert whole.ending(newest + REMEMBERED).sum() == 0


calls = st.lists(st.integers(0, 600), min_size=48, max_size=48)


@given(calls, st.integers(0, 47))
@settings(max_examples=60, deadline=None)
def test_a_season_is_finite_keeps_the_total_about_and_rises_with_its_own_hour(some: list, hour: int) -> None:
    number, seen = np.array(some, np.float64)[:, None], np.full(48, 600.0)
    rates = hours_fitting.log_lines(number, seen)
    assert np.isfinite(rates).all()
    assert np.isfinite(hours_fitting.log_calls(number, seen)).all()
    wanted = float((np.exp(rates[:, 0]) * seen).sum())
    assert wanted == pytest.approx(float(number.sum()), rel=0.25, abs=150)
    more = number.copy()
    more[hour] += 200
    assert hours_fitting.log_lines(more, seen)[hour] > rates[hour]


@given(st.floats(0.5, 200), st.floats(1, 6), st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_a_spread_is_about_that_of_the_counts(mean: float, clump: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    wanted = np.full(4_000, mean)
    observed = clump * chance.poisson(mean / clump, 4_000)
    phi, a = hours_fitting.spread(observed, wanted)
    variance = phi * mean + a * mean**2
    assert 0.6 * clump * mean <= variance <= max(1.5 * clump * mean, 1.2 * mean) + hours_fitting.LEAST_A * mean**2


def test_rarity_of_steady_halves_is_greater_the_longer_they_last() -> None:
    case = made(3_000, (DAY + NOON - 60, 360, 0.5))
    _, scores, _ = found(case)
    down = scores.digits[:, 0, CHANNELS.index("hours_down")]
    row = DAY + NOON - 60
    assert down[row + 350] > down[row + 60]
    assert down[row - 60 : row].max() < 3


def test_an_empty_service_can_be_fitted() -> None:
    table = pl.DataFrame(schema={"minute": pl.Int64, "template": pl.String, "lines": pl.Int64})
    from ml.features import choose_vocabulary, frame_of

    vocabulary = choose_vocabulary(table)
    frame = frame_of("s", table, vocabulary, START_MINUTE, START_MINUTE + 3 * DAY)
    fit = detectors.fit_service(frame, vocabulary)
    assert all(np.isfinite(values).all() for name, values in fit.params.items() if name.startswith("hour_"))
    assert hours.SPANS[-1] < REMEMBERED


def test_every_signal_has_words_for_people() -> None:
    assert set(SIGNALS) == set(detectors.VOTES)

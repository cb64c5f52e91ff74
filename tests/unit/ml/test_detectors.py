"""What a user relies on: a fault is found and explained by its own numbers, a quiet service stays quiet, twice is once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ml import detectors
from ml.evaluation.days import DAY, live
from ml.evaluation.faults import Fault, into_days, targets_of
from ml.evaluation.harness import Case, case_of
from ml.evaluation.services import make_service
from ml.explain import explain
from ml.features import Vocabulary, choose_vocabulary, frame_of
from ml.moved_templates import Subject, change
from ml.panel import panel_of
from ml.shard_arrays import BadShard, from_arrays, to_arrays
from ml.signals import HISTORY

LEARNT = 4 * DAY


def made(*faults: tuple[str, int, float], rate: float = 200.0, seed: int = 3) -> Case:
    """Four days to learn from and one with these faults (class, row, size), ten minutes each."""
    chance = np.random.default_rng(seed)
    days = live(make_service(0, rate, chance), chance, quiet_days=5, test_days=0)
    targets = targets_of(days)
    hit = {
        "new error": (),
        "traffic drop": (*targets.traffic, *targets.errors, *targets.periodic),
        "periodic stops": targets.periodic[:1],
        "latency": targets.timed,
        "traffic surge": targets.traffic,
    }
    some = [Fault(kind, LEARNT + row, 10, size, hit[kind]) for kind, row, size in faults]  # pyright: ignore[reportArgumentType]
    return case_of(into_days(days, some, chance), LEARNT, some, chance)


@pytest.fixture(scope="module")
def case() -> Case:
    return made(("new error", 200, 8), ("traffic drop", 500, 0.1), ("periodic stops", 800, 0), ("latency", 1_100, 6))


@pytest.fixture(scope="module")
def shard(case: Case) -> detectors.Shard:
    return detectors.fit_shard([case.train], [case.vocabulary])


@pytest.fixture(scope="module")
def found(case: Case, shard: detectors.Shard) -> list[detectors.Episode]:
    scores = detectors.score(shard, [case.test])
    return detectors.episodes(shard, scores, detectors.thresholds(shard))


def of(case: Case, found: list[detectors.Episode], fault: Fault) -> detectors.Episode:
    start = case.test.start + HISTORY + fault.row
    return next(e for e in found if start <= e.first < start + fault.minutes)


def test_each_fault_is_found_by_the_signal_that_is_made_for_it(case: Case, found: list[detectors.Episode]) -> None:
    votes = [of(case, found, fault).vote for fault in case.faults]
    assert votes[0] == "new_errors"
    assert votes[1] in ("total_down", "template_down", "silence")
    assert votes[2] in ("silence", "template_down")
    assert votes[3] == "latency_up"
    assert len(found) <= len(case.faults) + 2


def test_an_explanation_says_what_the_counts_say(
    case: Case, shard: detectors.Shard, found: list[detectors.Episode]
) -> None:
    scores = detectors.score(shard, [case.test])
    texts = {name: f"template {name} of <V>" for name in case.train.templates}
    labels = {"service_name": "service-0"}
    for fault in case.faults[1:3]:
        told = explain(shard, [case.test], scores, of(case, found, fault), tenant="t", labels=labels, texts=texts)
        rows = slice(told.window_first - case.test.start, told.window_last - case.test.start + 1)
        assert told.templates
        for moved in told.templates:
            column = case.test.templates.index(moved.template)
            assert moved.observed == case.test.counts[rows, column].sum()
            assert moved.observed < moved.expected
        assert told.observed == case.test.counts[rows].sum() + case.test.unknown[rows].sum()
        assert 0 < told.p < 1e-3
        assert told.sentence.startswith("service-0 ")
        assert told.query == f'{{service_name="service-0"}} |> "template {told.templates[0].template} of <_>"'
        assert told.signal not in told.unchanged
        assert told.as_json()["templates"][0]["observed"] == told.templates[0].observed


def test_what_goes_on_for_a_while_is_told_with_the_lines_of_that_while(case: Case, shard: detectors.Shard) -> None:
    row = HISTORY + 505
    panel = panel_of([case.test.rows(row - HISTORY, row + 1)])
    subject = Subject(shard.params, panel, case.test.rows(row - HISTORY, row + 1), {}, {})
    told = change(subject, "sustained_up", {})
    assert told.minutes == 10
    assert told.observed == case.test.counts[row - 9 : row + 1].sum() + case.test.unknown[row - 9 : row + 1].sum()


def test_an_explanation_of_a_new_error_names_it(
    case: Case, shard: detectors.Shard, found: list[detectors.Episode]
) -> None:
    scores = detectors.score(shard, [case.test])
    episode = of(case, found, case.faults[0])
    told = explain(
        shard, [case.test], scores, episode, tenant="t", labels={"service_name": "s"},
        texts={"n1": "panic in \x1b[31mred\n<V>"}, new={"n1": 23.0},
    )  # fmt: skip
    assert told.severity == "error"
    assert told.templates[0].observed == 23
    assert "\x1b" not in told.sentence
    assert "\n" not in told.sentence
    assert "23 lines" in told.sentence


def test_a_latency_finding_says_milliseconds(
    case: Case, shard: detectors.Shard, found: list[detectors.Episode]
) -> None:
    scores = detectors.score(shard, [case.test])
    told = explain(shard, [case.test], scores, of(case, found, case.faults[3]), tenant="t", labels={}, texts={})
    assert told.observed > 2 * told.expected
    assert "ms" in told.sentence
    assert "new_errors" in told.unchanged


def test_a_minute_scored_twice_in_another_batch_gives_the_same_evidence_and_key(
    case: Case, shard: detectors.Shard, found: list[detectors.Episode]
) -> None:
    episode = of(case, found, case.faults[1])
    row = episode.peak - case.test.start
    whole = detectors.score(shard, [case.test])
    few = detectors.score(shard, [case.test.rows(row - HISTORY - 14, row + 1)])
    at = row - HISTORY
    assert np.allclose(few.digits[-1, 0], whole.digits[at, 0], atol=0.02)
    assert np.allclose(few.weight[-1], whole.weight[at], atol=0.02)
    again = detectors.episodes(shard, whole, detectors.thresholds(shard))
    assert [e.key("t") for e in again] == [e.key("t") for e in found]
    assert found[0].key("t") != found[0].key("u")


def test_services_scored_together_get_what_each_gets_alone(case: Case, shard: detectors.Shard) -> None:
    other = made(("traffic surge", 300, 3.0), rate=60.0, seed=8)
    other = replace(other, train=replace(other.train, service="b"), test=replace(other.test, service="b"))
    fits = [detectors.fit_service(c.train, c.vocabulary) for c in (case, other)]
    alone = [
        detectors.score(detectors.join([fit], with_forest=False), [c.test])
        for fit, c in zip(fits, (case, other), strict=True)
    ]
    together = detectors.score(detectors.join(fits, with_forest=False), [case.test, other.test])
    new = detectors.NEW_ERRORS  # drawn towards what the shard has in common
    for number, one in enumerate(alone):
        kept = np.delete(np.arange(len(detectors.VOTES)), new)
        assert np.allclose(together.digits[:, number][:, kept], one.digits[:, 0][:, kept], atol=1e-3)


def test_a_larger_budget_never_finds_less(shard: detectors.Shard, case: Case) -> None:
    scores = detectors.score(shard, [case.test])
    limits = [float(detectors.thresholds(shard, budget)[0]) for budget in (0.1, 0.5, 2, 10)]
    assert limits == sorted(limits, reverse=True)
    numbers = [int((scores.weight >= limit).sum()) for limit in limits]
    assert numbers == sorted(numbers)


def test_a_shard_survives_its_arrays_and_refuses_others(case: Case, shard: detectors.Shard, tmp_path) -> None:
    arrays, names = to_arrays(shard)
    np.savez(tmp_path / "a.npz", **arrays)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as read:
        again = from_arrays(dict(read), names)
    one, other = (detectors.score(s, [case.test]) for s in (shard, again))
    assert np.array_equal(one.digits, other.digits)
    assert np.array_equal(detectors.thresholds(shard), detectors.thresholds(again))
    with pytest.raises(BadShard, match="schema"):
        from_arrays(arrays, {**names, "schema": 0})
    with pytest.raises(BadShard, match="tails is missing"):
        from_arrays({k: v for k, v in arrays.items() if k != "tails"}, names)
    with pytest.raises(BadShard, match="expected, found"):
        from_arrays({**arrays, "param_phi": arrays["param_phi"][:, 1:]}, names)
    with pytest.raises(BadShard, match="no numbers"):
        from_arrays({**arrays, "days": np.full_like(arrays["days"], np.nan)}, names)
    with pytest.raises(BadShard, match="outside"):
        from_arrays({**arrays, "forest_left": arrays["forest_left"] + 10_000}, names)


def tally(rows: list[tuple[int, str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["minute", "template", "lines"], orient="row")


@pytest.mark.parametrize("rows", [[], [(29_459_520, "a", 1)], [(29_459_520 + n, "a", 1) for n in range(50)]])
def test_an_empty_day_one_line_and_a_short_hour_can_be_fitted_and_find_nothing(rows: list) -> None:
    table = tally(rows) if rows else tally([(0, "a", 1)]).clear()
    vocabulary = choose_vocabulary(table)
    frame = frame_of("s", table, vocabulary, 29_459_520, 29_459_520 + 200)
    shard = detectors.fit_shard([frame], [vocabulary])
    assert shard.learning[0]
    scores = detectors.score(shard, [frame])
    assert np.isfinite(scores.weight).all()
    assert detectors.episodes(shard, scores, detectors.thresholds(shard)) == []


def test_a_service_that_ends_is_one_finding_and_not_one_a_minute(case: Case, shard: detectors.Shard) -> None:
    gone = case.test.counts.copy()
    gone[HISTORY + 300 :] = 0
    frame = replace(case.test, counts=gone, errors=case.test.errors * 0, fresh_errors=case.test.fresh_errors * 0,
                    took_lines=case.test.took_lines * (gone.sum(1) > 0)[:, None])  # fmt: skip
    found = detectors.episodes(shard, detectors.score(shard, [frame]), detectors.thresholds(shard))
    after = [e for e in found if e.first >= frame.start + HISTORY + 300]
    assert len(after) == 1
    assert after[0].first - frame.start - HISTORY - 300 <= 3


def test_minutes_that_nobody_observed_are_no_silence(case: Case, shard: detectors.Shard) -> None:
    counts, observed = case.test.counts.copy(), case.test.observed.copy()
    counts[HISTORY + 20 : HISTORY + 50], observed[HISTORY + 20 : HISTORY + 50] = 0, False
    scores = detectors.score(shard, [replace(case.test, counts=counts, observed=observed)])
    assert (scores.digits[20:50] == 0).all()
    limit = detectors.thresholds(shard)[0]
    assert (scores.weight[20:70, 0] < limit).all()


def test_frames_of_other_services_or_too_few_minutes_are_refused(case: Case, shard: detectors.Shard) -> None:
    with pytest.raises(ValueError, match="in this order"):
        detectors.score(shard, [replace(case.test, service="other")])
    with pytest.raises(ValueError, match="minutes of history"):
        detectors.score(shard, [case.test.rows(0, HISTORY)])


def test_vocabularies_hold_at_most_so_many_templates_and_keep_errors() -> None:
    rows = [(5, f"t{n}", 1000 - n) for n in range(600)]
    table = tally(rows).with_columns(
        pl.when(pl.col("template") == "t599").then(pl.col("lines")).otherwise(0).alias("errors")
    )
    vocabulary = choose_vocabulary(table)
    assert isinstance(vocabulary, Vocabulary)
    assert len(vocabulary.templates) == 300
    assert "t599" in vocabulary.templates
    assert len(vocabulary.rest) == 300


@pytest.mark.parametrize("burst", [2_000, 20_000, 500_000, 5_000_000])
@pytest.mark.parametrize("rate", [1, 20, 200])
@pytest.mark.parametrize("others", [(), (3.0, 1.0)])
def test_a_burst_of_one_template_leaves_a_model_that_can_be_kept(
    burst: int, rate: int, others: tuple[float, ...]
) -> None:
    chance = np.random.default_rng(burst)
    counts = [chance.poisson(mean, 2 * DAY) for mean in (rate, *others)]
    counts[0][1_500:1_510] = burst
    rows = [(n, f"t{k}", int(series[n]), 0) for k, series in enumerate(counts) for n in np.flatnonzero(series)]
    table = pl.DataFrame(rows, schema=["minute", "template", "lines", "errors"], orient="row")
    vocabulary = choose_vocabulary(table)
    fit = detectors.fit_service(frame_of("s", table, vocabulary, 0, 2 * DAY), vocabulary)
    assert fit.sound
    shard = detectors.join([fit], with_forest=False)
    assert from_arrays(*to_arrays(shard)).services == ("s",)
    damaged = {**fit.params, "mix_mean": fit.params["mix_mean"] * np.float32("nan")}
    assert not replace(fit, params=damaged).sound

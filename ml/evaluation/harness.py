"""The examination: days with faults, a model that never saw a label, baselines beside it, all judged alike.

Split by time: 14 days to learn from (season, spreads, tails, thresholds), 4 days with faults. The five seeds are fixed and
were not looked at while the detectors were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ml import detectors
from ml.evaluation.baselines import BASELINES
from ml.evaluation.days import CALIBRATE_DAYS, DAY, TRAIN_DAYS, ServiceDays, make_days
from ml.evaluation.faults import Fault, into_days, plan, targets_of
from ml.evaluation.judge import Run, Verdict, judge, merged
from ml.evaluation.services import RATES
from ml.evaluation.tallies import tally_of
from ml.features import Frame, Vocabulary, choose_vocabulary, frame_of
from ml.signals import HISTORY
from ml.zones import UTC

SEEDS = (11, 22, 33, 44, 55)
EACH = 2
"""Faults of each class in a service's four test days: 100 of a class over all seeds."""
MODEL = "OneCollector"


@dataclass(frozen=True, slots=True)
class Case:
    """One service: what is learnt from, what is judged on (``HISTORY`` minutes more at the front), and the truth."""

    train: Frame
    vocabulary: Vocabulary
    test: Frame
    faults: tuple[Fault, ...]
    """By row of the judged minutes."""
    benign: tuple[tuple[int, str], ...]


def own_cases(seed: int, rates: Sequence[float] = RATES, each: int = EACH) -> list[Case]:
    """The harness's own days of one seed."""
    cases = []
    for number, days in enumerate(make_days(seed, tuple(rates))):
        chance = np.random.default_rng((seed, number, 1))
        first = (TRAIN_DAYS + CALIBRATE_DAYS) * DAY
        faults = plan(targets_of(days), first, len(days.counts), each, chance)
        cases.append(case_of(into_days(days, faults, chance), first, faults, chance))
    return cases


def case_of(days: ServiceDays, first: int, faults: Sequence[Fault], chance: np.random.Generator) -> Case:
    """A case from days whose rows from ``first`` on are judged."""
    import polars as pl

    table = tally_of(days, chance)
    border = days.start_minute + first
    learnt = table.filter(pl.col("minute") < border)
    vocabulary = choose_vocabulary(learnt)
    train = frame_of(days.spec.name, learnt, vocabulary, days.start_minute, border)
    recent = table.filter(pl.col("minute") >= border - HISTORY)
    end = days.start_minute + len(days.counts)
    start = border - HISTORY
    test = frame_of(
        days.spec.name,
        recent,
        vocabulary,
        start,
        end,
        sightings=train.sightings,
        earlier=train.quarters_before(start),
    )
    return Case(
        train,
        vocabulary,
        test,
        tuple(replace(fault, row=fault.row - first) for fault in faults),
        tuple((event.row - first, event.kind) for event in days.events if event.row >= first),
    )


def model_runs(cases: Sequence[Case], budget: float, *, with_forest: bool = True) -> list[Run]:
    """One shard fitted to all cases, and its alarms."""
    return runs_of(fitted(cases, with_forest=with_forest), cases, budget)


def fitted(cases: Sequence[Case], *, with_forest: bool = True) -> detectors.Shard:
    """One shard of what the cases have to learn from."""
    vocabularies = [case.vocabulary for case in cases]
    return detectors.fit_shard([case.train for case in cases], vocabularies, with_forest=with_forest)


def runs_of(shard: detectors.Shard, cases: Sequence[Case], budget: float) -> list[Run]:
    """The alarms of a shard's services, in its order, on the days that are judged."""
    scores = detectors.score(shard, [case.test for case in cases])
    found = detectors.episodes(shard, scores, detectors.thresholds(shard, budget))
    first = int(scores.minutes[0])
    alarms: dict[str, list[tuple[int, int]]] = {}
    for episode in found:
        alarms.setdefault(episode.service, []).append((episode.first - first, episode.last - first))
    return [_run(case, tuple(alarms.get(case.train.service, ()))) for case in cases]


def baseline_runs(cases: Sequence[Case], rule: Callable, budget: float, zone: str = UTC) -> list[Run]:
    """A baseline's alarms, merged as the model's are; its hours are the zone's."""
    runs = []
    for case in cases:
        rows = rule(case.train, case.test, budget, zone) - HISTORY
        runs.append(_run(case, merged(rows[rows >= 0], 10)))
    return runs


def examine(
    seeds: Sequence[int] = SEEDS,
    budget: float = detectors.DEFAULT_BUDGET,
    *,
    rates: Sequence[float] = RATES,
    each: int = EACH,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Verdict]:
    """The model, the model without its forest, and every baseline, over all seeds."""
    return examine_cases((own_cases(seed, rates, each) for seed in seeds), budget, tell=tell)


def examine_cases(
    shards: Iterable[Sequence[Case]],
    budget: float = detectors.DEFAULT_BUDGET,
    *,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Verdict]:
    """The same for any cases; those of one shard are fitted together."""
    runs: dict[str, list[Run]] = {MODEL: [], f"{MODEL} without the forest": [], **{name: [] for name in BASELINES}}
    for number, cases in enumerate(shards):
        runs[MODEL] += model_runs(cases, budget)
        runs[f"{MODEL} without the forest"] += model_runs(cases, budget, with_forest=False)
        for name, rule in BASELINES.items():
            runs[name] += baseline_runs(cases, rule, budget)
        tell(f"shard {number + 1}: {len(cases)} services examined")
    return [judge(name, some) for name, some in runs.items()]


def _run(case: Case, alarms: tuple[tuple[int, int], ...]) -> Run:
    return Run(case.train.service, len(case.test.counts) - HISTORY, case.faults, case.benign, alarms)

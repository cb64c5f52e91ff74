"""The examination of sparse services: 50 to 3,000 lines a day, and faults of hours.

In five to fifteen minutes, the length of the harness's faults, such a service may well write nothing: its faults last for an
hour (a surge to ten times the lines), four (silence) and six (half the lines), at any time of the day. How many of them can be
found at all is counted from what the days were drawn around: of a silence that chance gives once in ten thousand minutes
nobody can know that it is one. The same days are judged without the faults too: whether a budget is kept shows there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np

from ml.detectors import DEFAULT_BUDGET
from ml.evaluation.days import DAY, ServiceDays, live, negative_binomial
from ml.evaluation.faults import Fault, FaultKind, into_days
from ml.evaluation.harness import Case, case_of, fitted, runs_of
from ml.evaluation.judge import GRACE, Figure, Run, delay_of, wilson
from ml.evaluation.services import make_sparse, template_id

LINES_A_DAY = (50, 100, 300, 1_000, 3_000)
NIGHTLY = 300
"""Lines a day of services that are silent by night."""
SEEDS = (101, 102, 103)
EACH = 8
"""Services of a kind in a seed."""
LEARNT_DAYS, JUDGED_DAYS = 14, 5
FAULTS: dict[str, tuple[FaultKind, int, float]] = {
    "surge": ("traffic surge", 60, 10.0),
    "silence": ("traffic drop", 240, 0.0),
    "half rate": ("traffic drop", 360, 0.5),
}
"""Class, minutes, and what is left of the lines or how many times as many there are."""
QUIET_BETWEEN = 8 * 60
AFTER = 6 * 60
"""Minutes, the longest span that a signal looks back."""
POSSIBLE = log(1e4)
POSSIBLE_Z = 3.72
"""The same of a normal distribution."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One service's days with its faults in them, by name; ``possible`` are those that are rarer than chance gives.

    ``calm`` are the same days without faults.
    """

    group: str
    case: Case
    calm: Case
    faults: dict[str, Fault]
    possible: frozenset[str]


@dataclass(frozen=True, slots=True)
class Row:
    """What was found of one kind of service: of each fault, of those of them that can be, and findings beside them."""

    group: str
    services: int
    found: dict[str, Figure]
    possible: dict[str, int]
    found_of_possible: dict[str, int]
    delay: dict[str, float]
    """Median minutes, NaN where none was found."""
    false_a_day: Figure
    after: int
    """Of the false findings, those within ``AFTER`` minutes after a fault."""
    calm_a_day: Figure
    """Findings a service-day on days without faults."""


def groups() -> list[tuple[str, float, bool]]:
    """Kinds of services: name, lines a day, silent by night."""
    usual = [(f"{n:,} lines", float(n), False) for n in LINES_A_DAY]
    return [*usual, (f"{NIGHTLY} lines, none by night,", float(NIGHTLY), True)]


def subjects(seed: int, each: int = EACH) -> list[Subject]:
    """All services of one seed."""
    out = []
    for number, (group, lines, nightly) in enumerate(one for one in groups() for _ in range(each)):
        chance = np.random.default_rng((seed, number))
        days = live(
            make_sparse(number, lines, chance, nightly=nightly),
            chance,
            quiet_days=LEARNT_DAYS + JUDGED_DAYS,
            test_days=0,
        )
        first = LEARNT_DAYS * DAY
        faults = _planned(days, first, chance)
        faulty = _into(days, list(faults.values()), chance)
        possible = frozenset(name for name, fault in faults.items() if _possible(days, fault))
        case = case_of(faulty, first, list(faults.values()), chance)
        calm = case_of(days, first, [], np.random.default_rng((seed, number, 1)))
        named = dict(zip(faults, case.faults, strict=True))
        out.append(Subject(group, case, calm, named, possible))
    return out


def examined(seeds: Sequence[int] = SEEDS, each: int = EACH, budget: float = DEFAULT_BUDGET) -> list[Row]:
    """One row for each kind of service, over all seeds; the services of a seed are fitted together."""
    judged: list[tuple[Subject, Run, Run]] = []
    for seed in seeds:
        some = subjects(seed, each)
        shard = fitted([one.case for one in some])
        faulty = runs_of(shard, [one.case for one in some], budget)
        calm = runs_of(shard, [one.calm for one in some], budget)
        judged += zip(some, faulty, calm, strict=True)
    return [_row(group, [one for one in judged if one[0].group == group]) for group, _, _ in groups()]


def table(rows: Sequence[Row]) -> str:
    """In markdown; in brackets 95 % intervals."""
    head = ["a day", *FAULTS, "false a service-day", "on days without faults"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [
            f"{row.found[name]}; {row.found_of_possible[name]} of {row.possible[name]} possible" for name in FAULTS
        ]
        lines.append("| " + " | ".join([row.group, *cells, str(row.false_a_day), str(row.calm_a_day)]) + " |")
    return "\n".join(lines)


def _planned(days: ServiceDays, first: int, chance: np.random.Generator) -> dict[str, Fault]:
    """One fault of each kind, in random order, at random times, hours apart."""
    names = [list(FAULTS)[n] for n in chance.permutation(len(FAULTS))]
    needed = sum(FAULTS[name][1] + QUIET_BETWEEN for name in names)
    waits = np.sort(chance.integers(0, len(days.counts) - first - needed, len(names)))
    every = tuple(template_id(number) for number in range(len(days.spec.templates)))
    planned, at = {}, first
    for name, wait in zip(names, waits, strict=True):
        kind, minutes, size = FAULTS[name]
        row = at + QUIET_BETWEEN + int(wait)
        planned[name] = Fault(kind, row, minutes, size, every)
        at += QUIET_BETWEEN + minutes
    return {name: planned[name] for name in FAULTS}


def _into(days: ServiceDays, faults: Sequence[Fault], chance: np.random.Generator) -> ServiceDays:
    """With the faults in them. A surge adds lines of its own: ten times no line is no line."""
    counts = days.counts.copy()
    for fault in faults:
        if fault.size > 1:
            rows = slice(fault.row, fault.end)
            for column, template in enumerate(days.spec.templates):
                more = (fault.size - 1) * days.mean[rows, column].astype(np.float64)
                counts[rows, column] += negative_binomial(more, template.spread, chance).astype(np.int32)
    surged = ServiceDays(days.spec, days.start_minute, counts, days.mean, days.log_ms, days.events)
    return into_days(surged, [fault for fault in faults if fault.size <= 1], chance)


def _possible(days: ServiceDays, fault: Fault) -> bool:
    """Whether chance would do as much less than once in ten thousand times, by what the lines were drawn around."""
    mean = days.mean[fault.row : fault.end].astype(np.float64)
    spread = np.array([max(template.spread, 1.0) for template in days.spec.templates])
    if fault.size == 0:
        # Minus the logarithm of a negative binomial's probability of nought.
        return float((mean * np.log(np.maximum(spread, 1.001)) / np.maximum(spread - 1, 0.001)).sum()) >= POSSIBLE
    total, variance = float(mean.sum()), float((mean * spread).sum())
    return 2 * abs(np.sqrt(total * fault.size) - np.sqrt(total)) / np.sqrt(variance / total) >= POSSIBLE_Z


def _row(group: str, judged: Sequence[tuple[Subject, Run, Run]]) -> Row:
    delays = {name: [delay_of(run, subject.faults[name]) for subject, run, _ in judged] for name in FAULTS}
    possible = {name: [name in subject.possible for subject, _, _ in judged] for name in FAULTS}
    found = {name: [delay is not None for delay in some] for name, some in delays.items()}
    return Row(
        group,
        len(judged),
        {name: wilson(sum(some), len(some)) for name, some in found.items()},
        {name: sum(some) for name, some in possible.items()},
        {name: sum(one and could for one, could in zip(found[name], possible[name], strict=True)) for name in FAULTS},
        {name: float(np.median([d for d in some if d is not None] or [np.nan])) for name, some in delays.items()},
        _false_a_day([run for _, run, _ in judged]),
        sum(
            any(fault.end + GRACE <= first < fault.end + AFTER for fault in run.faults)
            for _, run, _ in judged
            for first in _false(run)
        ),
        _false_a_day([calm for _, _, calm in judged]),
    )


def _false(run: Run) -> list[int]:
    """Rows outside of faults in which a finding begins."""
    return [first for first, _ in run.alarms if not any(f.row <= first < f.end + GRACE for f in run.faults)]


def _false_a_day(runs: Sequence[Run]) -> Figure:
    """Findings that begin outside of faults a service-day; the interval by drawing services with replacement."""
    counts, days = [], []
    for run in runs:
        free = np.ones(run.rows, np.bool_)
        for fault in run.faults:
            free[fault.row : fault.end + GRACE] = False
        counts.append(len(_false(run)))
        days.append(free.sum() / DAY)
    n, d = np.array(counts, np.float64), np.array(days)
    drawn = np.random.default_rng(0).integers(0, len(n), (1000, len(n)))
    low, high = np.quantile(n[drawn].sum(1) / d[drawn].sum(1), [0.025, 0.975])
    return Figure(float(n.sum() / d.sum()), float(low), float(high))

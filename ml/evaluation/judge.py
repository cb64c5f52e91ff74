"""What counts as found, and what as false: by incident, not by minute, and without mercy for a detector that always cries.

A fault is found if an alarm begins within it and the hour before it was quiet. An alarm is false if it begins outside of
all faults and the ``GRACE`` minutes after them (the way back to normal is part of the incident). There is no point adjustment: with it,
random scores look like the state of the art (Kim et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.faults import COUNT_KINDS, KINDS, Fault

QUIET_BEFORE = 60
GRACE = 15
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Run:
    """One service's test days: faults by row, benign rows with names, and alarms (first row, last row), merged, in order."""

    service: str
    rows: int
    faults: tuple[Fault, ...]
    benign: tuple[tuple[int, str], ...]
    alarms: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good a detector was. ``recall`` is the mean over the first six classes, ``by_kind`` has all seven.

    ``false_a_day`` counts findings per service and day outside faults; ``false_by_cause`` says next to what they were.
    ``f1`` is by minutes, of which ``prevalence`` are faulty.
    """

    detector: str
    service_days: float
    recall: Figure
    by_kind: dict[str, Figure]
    faults: dict[str, int]
    false_a_day: Figure
    false_by_cause: dict[str, float]
    median_delay: float
    delay_p90: float
    f1: float
    prevalence: float
    alarmed: float
    """Share of all minutes that were in alarm."""


@dataclass(frozen=True, slots=True)
class _Tally:
    hits: dict[str, list[bool]]
    delays: list[int]
    false: list[str]
    days: float
    positive: NDArray[np.bool_]
    alarmed: NDArray[np.bool_]


def judge(detector: str, runs: Sequence[Run]) -> Verdict:
    """The verdict over all runs; intervals of single classes are Wilson's, of means over services by bootstrap."""
    tallies = [_tally(run) for run in runs]
    hits = {kind: [hit for tally in tallies for hit in tally.hits[kind]] for kind in KINDS}
    delays = [delay for tally in tallies for delay in tally.delays]
    days = sum(tally.days for tally in tallies)
    causes = [cause for tally in tallies for cause in tally.false]
    positive = np.concatenate([tally.positive for tally in tallies])
    alarmed = np.concatenate([tally.alarmed for tally in tallies])
    both = float((positive & alarmed).sum())
    return Verdict(
        detector,
        days,
        _bootstrap(tallies, _mean_recall),
        {kind: wilson(sum(found), len(found)) for kind, found in hits.items()},
        {kind: len(found) for kind, found in hits.items()},
        _bootstrap(tallies, lambda some: sum(len(t.false) for t in some) / max(1e-9, sum(t.days for t in some))),
        {cause: causes.count(cause) / max(days, 1e-9) for cause in sorted(set(causes))},
        float(np.median(delays)) if delays else float("nan"),
        float(np.quantile(delays, 0.9)) if delays else float("nan"),
        2 * both / max(1.0, float(positive.sum() + alarmed.sum())),
        float(positive.mean()) if len(positive) else 0.0,
        float(alarmed.mean()) if len(alarmed) else 0.0,
    )


def delay_of(run: Run, fault: Fault) -> int | None:
    """Minutes from a fault's first to the alarm's first; None where it was not found."""
    if any(first < fault.row and last >= fault.row - QUIET_BEFORE for first, last in run.alarms):
        return None
    return next((first - fault.row + 1 for first, _ in run.alarms if fault.row <= first < fault.end), None)


def wilson(hits: int, of: int) -> Figure:
    """A share with Wilson's 95 % interval (Wilson 1927); of nothing it is anything."""
    if of == 0:
        return Figure(float("nan"), 0.0, 1.0)
    z2, share = 1.96**2, hits / of
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = 1.96 / (1 + z2 / of) * np.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    return Figure(share, float(max(0.0, middle - half)), float(min(1.0, middle + half)))


def merged(rows: NDArray[np.integer], within: int) -> tuple[tuple[int, int], ...]:
    """Alarming rows as (first, last) of runs that are more than ``within`` rows apart."""
    if len(rows) == 0:
        return ()
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > within) + 1)
    return tuple((int(part[0]), int(part[-1])) for part in parts)


def _tally(run: Run) -> _Tally:
    hits: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    delays, false = [], []
    for fault in run.faults:
        delay = delay_of(run, fault)
        hits[fault.kind].append(delay is not None)
        if delay is not None and fault.kind in COUNT_KINDS:
            delays.append(delay)
    free = np.ones(run.rows, np.bool_)
    positive, alarmed = ~free, ~free
    for fault in run.faults:
        free[fault.row : fault.end + GRACE] = False
        positive[fault.row : fault.end] = True
    for first, last in run.alarms:
        alarmed[first : last + 1] = True
        if free[first]:
            near = [name for row, name in run.benign if -1 <= first - row <= 20]
            false.append(near[0] if near else "nothing")
    return _Tally(hits, delays, false, float(free.sum()) / 1440, positive, alarmed)


def _mean_recall(tallies: Sequence[_Tally]) -> float:
    shares = []
    for kind in COUNT_KINDS:
        found = [hit for tally in tallies for hit in tally.hits[kind]]
        if found:
            shares.append(sum(found) / len(found))
    return float(np.mean(shares)) if shares else float("nan")


def _bootstrap(tallies: Sequence[_Tally], of: Callable[[Sequence[_Tally]], float]) -> Figure:
    """By drawing services with replacement: what happens to one service is not independent."""
    chance = np.random.default_rng(0)
    drawn = [of([tallies[n] for n in chance.integers(0, len(tallies), len(tallies))]) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Figure(of(tallies), float(low), float(high))

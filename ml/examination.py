"""The examination of a tenant's model on the tenant's own last days: as they were, and with faults put into them.

What is judged never saw the days it is judged on: a sibling of the model is fitted to the days before, with everything
else equal. The model in production is judged on the same faults, and so are the baselines. Findings that people judged
are held against the model itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ml import detectors
from ml.budgets import Budget
from ml.detectors import Shard
from ml.dismissals import MOST_A_WEEK, excess
from ml.evaluation.baselines import BASELINES
from ml.evaluation.faults import APART, KINDS, LONGEST, Fault
from ml.evaluation.harness import Case, baseline_runs
from ml.evaluation.judge import Run, Verdict, judge
from ml.evaluation.user_days import MOST_EACH, with_faults
from ml.features import Vocabulary, frame_of, tally
from ml.shard_parts import part_of
from ml.signals import CHANNELS, HISTORY, HOURS
from ml.tally_store import Ranges
from ml.tenant_training import AFTER, Learnt, as_known
from ml.wear import Worn, histogram, worn_signals
from ml.zones import UTC
from onecollector_resources.findings.records import Judged

if TYPE_CHECKING:
    import polars as pl

JUDGED_MINUTES = 2 * 1440
"""The last 48 hours."""
ENOUGH_SERVICES = 50
"""Scoring fewer than these costs what scoring these does."""
Rows = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """One service under examination: what its sibling learns from, and tallies of ``HISTORY`` minutes and the judged ones.

    ``faulty`` is None where no faults were put in, ``why_not`` then says why.
    """

    learnt: Learnt
    border: int
    end: int
    clean: pl.DataFrame
    unobserved: Ranges
    faulty: pl.DataFrame | None = None
    faults: tuple[Fault, ...] = ()
    benign: tuple[tuple[int, str], ...] = ()
    why_not: str = ""

    @property
    def service(self) -> str:
        return self.learnt.frame.service


@dataclass(frozen=True, slots=True)
class Replay:
    """The judged days as they were: findings in so many service-days."""

    services: int
    days: float
    findings: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """What became of judged findings; ``missed`` were confirmed, ``again`` and ``beyond`` were dismissed.

    ``beyond``: found again, because it is further above the threshold than a dismissal may move it.
    """

    confirmed: int = 0
    dismissed: int = 0
    missed: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Artefact:
    """``score_cpu_s`` is for 500 services and a minute."""

    bytes: int
    largest_file: int
    score_cpu_s: float


class Detector:
    """Fitted services, each with the threshold that its whole shard gave it."""

    def __init__(self, shards: Sequence[Shard], budget: Budget) -> None:
        self._of = {
            service: (shard, float(limit))
            for shard in shards
            for service, limit in zip(shard.services, detectors.thresholds(shard, budget), strict=True)
        }

    def __contains__(self, service: str) -> bool:
        return service in self._of

    def vocabulary(self, service: str) -> Vocabulary:
        """What the service's frames have to be made with."""
        shard, _ = self._of[service]
        return shard.vocabularies[shard.services.index(service)]

    def alarms(self, service: str, subject: Subject, table: pl.DataFrame) -> Rows:
        """First and last row of each finding in the judged minutes."""
        return self.findings(service, self._frame(service, subject, table))

    def _frame(self, service: str, subject: Subject, table: pl.DataFrame) -> detectors.Frame:
        return frame_of(
            service,
            table,
            self.vocabulary(service),
            subject.border - HISTORY,
            subject.end,
            sightings=subject.learnt.frame.sightings,
            unobserved=subject.unobserved,
            earlier=subject.learnt.frame.quarters_before(subject.border - HISTORY),
        )

    def worn(self, subject: Subject) -> list[Worn]:
        """Signals of a service that were unlike the days that this model learned from on each of the judged days."""
        service = subject.service
        shard, limit = self._of[service]
        part = part_of(shard, [service])
        frame = self._frame(service, subject, subject.clean)
        scores = detectors.score(part, [frame])
        counted = frame.observed[HISTORY:] & (scores.weight[:, 0] < limit) & (scores.settles[:, 0] == 0)
        days = scores.minutes // 1440
        every = [histogram(scores.digits[counted & (days == day), 0, : len(CHANNELS)]) for day in np.unique(days)]
        found = worn_signals(part.usual, 0, every)
        # What is so for hours makes no day like the others.
        return [Worn(service, CHANNELS[number], index) for number, index in found.items() if number < HOURS.start]

    def findings(self, service: str, frame: detectors.Frame) -> Rows:
        """First and last row, after ``HISTORY``, of each finding in a frame."""
        shard, limit = self._of[service]
        part = part_of(shard, [service])
        scores = detectors.score(part, [frame])
        found = detectors.episodes(part, scores, np.array([limit], np.float32))
        start = int(scores.minutes[0])
        return tuple((episode.first - start, episode.last - start) for episode in found)

    def excess(self, service: str, frame: detectors.Frame) -> float:
        """Decades from the threshold up to the weightiest minute after ``HISTORY``; less than nought: no finding."""
        shard, limit = self._of[service]
        return excess(part_of(shard, [service]), frame, limit)


def subject_of(
    learnt: Learnt,
    judged: pl.DataFrame,
    lines: pl.DataFrame | None,
    mine: Callable[[pl.DataFrame], Sequence[str]],
    border: int,
    end: int,
    unobserved: Ranges,
    chance: np.random.Generator,
    *,
    why_not: str = "",
) -> Subject:
    """A service's judged minutes [border, end). ``judged`` is its tally and ``lines`` are its lines from ``HISTORY`` before.

    Without lines (``why_not`` says why), or without room for one fault of each class, it is only replayed.
    """
    import polars as pl

    bare = Subject(learnt, border, end, judged, unobserved, why_not=why_not)
    each = min(MOST_EACH, (end - border - 60) // (len(KINDS) * (APART + LONGEST)))
    if lines is None:
        return bare
    if each < 1:
        return replace(bare, why_not=f"{end - border} minutes are too short for a fault of each class")
    start = border - HISTORY
    sparing = [(first - start, last - start) for first, last in unobserved]
    faulty, faults, benign = with_faults(lines, learnt.table, mine, start, end - border, each, chance, sparing=sparing)
    found = tally(faulty.with_columns(pl.Series("template", mine(faulty), pl.String)))
    shifted = tuple(replace(fault, row=fault.row - HISTORY) for fault in faults)
    return replace(bare, faulty=found, faults=shifted, benign=tuple(benign))


def replayed(detector: Detector, subjects: Sequence[Subject]) -> Replay:
    """The judged minutes as they were."""
    mine = [subject for subject in subjects if subject.service in detector]
    findings = sum(len(detector.alarms(s.service, s, s.clean)) for s in mine)
    return Replay(len(mine), sum(s.end - s.border for s in mine) / 1440, findings)


def worn_of(detector: Detector, subjects: Sequence[Subject]) -> tuple[Worn, ...]:
    """What of a model no longer fits the judged days as they were."""
    return tuple(one for subject in subjects if subject.service in detector for one in detector.worn(subject))


def verdict_of(name: str, detector: Detector, subjects: Sequence[Subject]) -> Verdict | None:
    """The judged minutes with faults; None where there are none for this detector."""
    runs = [
        Run(s.service, s.end - s.border, s.faults, s.benign, detector.alarms(s.service, s, s.faulty))
        for s in subjects
        if s.faulty is not None and s.faults and s.service in detector
    ]
    return judge(name, runs) if runs else None


def baseline_verdicts(subjects: Sequence[Subject], budget: float, zone: str = UTC) -> list[Verdict]:
    """Every baseline on the same faults, by the clocks of the same zone."""
    cases = [_case(subject) for subject in subjects if subject.faulty is not None and subject.faults]
    if not cases:
        return []
    return [judge(name, baseline_runs(cases, rule, budget, zone)) for name, rule in BASELINES.items()]


def remembered(detector: Detector, learnt: Mapping[str, Learnt], findings: Sequence[Judged], end: int) -> Remembered:
    """Whether the model still finds what was confirmed, and would find what was dismissed if it came again.

    Only findings of minutes that it can be asked about count: those in ``learnt``, before ``end``.
    """
    counts = {"confirmed": 0, "dismissed": 0}
    missed, again, beyond = [], [], []
    for finding in findings:
        known = learnt.get(finding.service)
        if known is None or finding.service not in detector:
            continue
        start = known.frame.start
        if finding.first - HISTORY < start or finding.last >= end:
            continue
        counts[finding.verdict] += 1
        told = f"{finding.service} {np.datetime64(finding.first, 'm')}"
        vocabulary, stop = detector.vocabulary(finding.service), min(finding.last + AFTER + 1, end)
        if finding.verdict == "dismissed":
            over = detector.excess(finding.service, as_known(known, vocabulary, finding.first - HISTORY, stop))
            if over >= 0:
                (beyond if over > MOST_A_WEEK else again).append(told)
            continue
        # From the service's first minute on, so that it is known what was new then.
        frame = frame_of(finding.service, known.table, vocabulary, start, end)
        if not detector.findings(finding.service, frame.rows(finding.first - start - HISTORY, stop - start)):
            missed.append(told)
    return Remembered(counts["confirmed"], counts["dismissed"], tuple(missed), tuple(again), tuple(beyond))


def score_cpu_s(shard: Shard, clock: Callable[[], float] = time.process_time) -> float:
    """CPU seconds to score a minute of 500 services like those of the shard."""
    import polars as pl

    nothing = pl.DataFrame(schema={"minute": pl.Int64, "template": pl.String, "lines": pl.Int64, "errors": pl.Int64})
    frames = [
        frame_of(service, nothing, vocabulary, 0, HISTORY + 1)
        for service, vocabulary in zip(shard.services, shard.vocabularies, strict=True)
    ]
    spans = []
    for _ in range(3):
        began = clock()
        detectors.score(shard, frames)
        spans.append(clock() - began)
    return min(spans) / max(len(shard.services), ENOUGH_SERVICES) * 500


def _case(subject: Subject) -> Case:
    assert subject.faulty is not None
    learnt = subject.learnt
    test = frame_of(
        subject.service,
        subject.faulty,
        learnt.vocabulary,
        subject.border - HISTORY,
        subject.end,
        sightings=learnt.frame.sightings,
        unobserved=subject.unobserved,
        earlier=learnt.frame.quarters_before(subject.border - HISTORY),
    )
    return Case(learnt.frame, learnt.vocabulary, test, subject.faults, subject.benign)

"""A tenant's services from kept tallies into packed shards, on as many processes as there are cores.

One task is a group of whole buckets: its tallies are read, its services fitted one after the other and packed in one
worker, so that minutes never travel between processes and no more than one service a worker is unpacked at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING

from ml.budgets import Budget
from ml.detectors import DEFAULT_BUDGET, ServiceFit, fit_service, join
from ml.dismissals import Dismissed, excused
from ml.drift import OVERFLOW, Sightings
from ml.features import Frame, Vocabulary, choose_vocabulary, frame_of, within
from ml.model_store import ServiceFacts, TrainedShard, packed
from ml.signals import HISTORY
from ml.tally_store import (
    DAY_MINUTES,
    OpenedBucket,
    Ranges,
    TalliedDay,
    TallyStore,
    bucket_of,
    day_start_minute,
    joined,
    tally_of,
    with_ids,
    without,
)
from ml.zones import UTC
from onecollector_resources.storage.objects import ObjectStore

if TYPE_CHECKING:
    import polars as pl

SHARD_SERVICES = 50
LEARNING_DAYS = 7.0
AFTER = 15
"""Minutes after a judged finding in which the model may still find it."""
AROUND = 15
"""Minutes before and after a confirmed finding that are not learned from either."""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What is learned from: the minutes [start, end), on the days that were tallied.

    ``merged`` resolves ids of templates that others have taken in, by service; ``set_aside`` are minutes of confirmed
    findings, which nothing is to be learned from, ``dismissed`` those of findings that are normal at ``budget`` findings a day
    and service. Services with fewer than ``learning_days`` observed days are learning: only new errors count there. Nothing
    is learned of services that are ``left_out``. Seasons go by the clocks of ``zone``.
    """

    tenant: str
    days: tuple[TalliedDay, ...]
    start: int
    end: int
    merged: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    set_aside: Mapping[str, Ranges] = field(default_factory=dict)
    learning_days: float = LEARNING_DAYS
    dismissed: Mapping[str, Ranges] = field(default_factory=dict)
    budget: Budget = DEFAULT_BUDGET
    left_out: frozenset[str] = frozenset()
    zone: str = UTC

    @property
    def services(self) -> tuple[str, ...]:
        """All that wrote a line in that time and are not left out; lines without a service are nobody's."""
        wrote = {service for day in self.days for service in day.services if service}
        return tuple(sorted(wrote - self.left_out))

    def until(self, end: int) -> TrainingPlan:
        """The same up to an earlier minute."""
        return replace(self, end=end, days=tuple(d for d in self.days if day_start_minute(d.day) < end))

    def unobserved(self, service: str) -> Ranges:
        """Minutes of which nobody knows what the service wrote; a day that was not tallied is one gap."""
        gaps: list[tuple[int, int]] = []
        known: list[tuple[int, int]] = []
        for day in self.days:
            first = day_start_minute(day.day)
            known.append((first, first + DAY_MINUTES))
            gaps += day.coverage.unobserved(service)
        return joined([*gaps, *without(((self.start, self.end),), joined(known))])


@dataclass(frozen=True, slots=True)
class Learnt:
    """A service's minutes as they are learned from. ``tally`` has settled ids, as categories."""

    frame: Frame
    vocabulary: Vocabulary
    tally: pl.DataFrame
    facts: ServiceFacts

    @property
    def table(self) -> pl.DataFrame:
        """The tally with ids as text."""
        return with_ids(self.tally)


@dataclass(frozen=True, slots=True)
class FittedGroup:
    """A shard, packed, with facts about its services; without any, nothing is packed. ``unfit`` services are left out."""

    arrays: bytes
    names: bytes
    facts: tuple[ServiceFacts, ...]
    minutes: int
    unfit: tuple[str, ...] = ()


Opener = Callable[[], ObjectStore]
"""Opens the store; has to be something that another process can be given."""


def groups_of(services: Sequence[str], size: int = SHARD_SERVICES) -> list[list[str]]:
    """Services by whole buckets, at least ``size`` in a group but for the last."""
    groups: list[list[str]] = [[]]
    for _, members in _by_bucket(services):
        if len(groups[-1]) >= size:
            groups.append([])
        groups[-1] += members
    return [group for group in groups if group]


def fit_groups(
    opener: Opener, plan: TrainingPlan, workers: int = 2, size: int = SHARD_SERVICES
) -> Iterator[FittedGroup]:
    """The tenant's shards, in order, of at least ``size`` services. One worker fits in this process."""
    groups = groups_of(plan.services, size)
    parts = [_part(plan, group) for group in groups]
    if workers <= 1 or len(groups) <= 1:
        yield from (fit_group(opener, *pair) for pair in zip(parts, groups, strict=True))
        return
    # A fresh interpreter: a fork of a process with threads may inherit a lock that nobody will ever open.
    with ProcessPoolExecutor(min(workers, len(groups)), get_context("spawn")) as pool:
        yield from pool.map(fit_group, [opener] * len(groups), parts, groups)


def fit_group(opener: Opener, plan: TrainingPlan, services: Sequence[str]) -> FittedGroup:
    """One shard, packed. Raises TallyRefused, StoreError."""
    fits: list[ServiceFit] = []
    facts: list[ServiceFacts] = []
    sightings: list[Sightings] = []
    dismissed: list[Dismissed] = []
    unfit: list[str] = []
    minutes = 0
    for learnt in learnt_services(opener(), plan, services):
        fit = fit_service(learnt.frame, learnt.vocabulary, plan.zone)
        if not fit.sound:
            unfit.append(fit.service)
            continue
        fits.append(fit)
        facts.append(learnt.facts)
        sightings.append(learnt.frame.sightings)
        minutes += int(learnt.frame.observed.sum())
        dismissed += dismissed_of(learnt, plan)
    if not fits:
        return FittedGroup(b"", b"", (), 0, tuple(unfit))
    shard = excused(join(fits), dismissed, plan.end, plan.budget)
    learning = [one.learning or bool(short) for one, short in zip(facts, shard.learning, strict=True)]
    shard = replace(shard, learning=shard.learning | [one.learning for one in facts])
    told = (replace(one, learning=flag) for one, flag in zip(facts, learning, strict=True))
    return FittedGroup(*packed(TrainedShard(shard, tuple(sightings))), tuple(told), minutes, tuple(unfit))


def learnt_services(store: ObjectStore, plan: TrainingPlan, services: Sequence[str]) -> Iterator[Learnt]:
    """Services that wrote anything before the plan's end, in the order of their buckets. Raises TallyRefused, StoreError."""
    kept = TallyStore(store, plan.tenant)
    for bucket, members in _by_bucket(services):
        opened = [found for day in plan.days if (found := kept.bucket(day, bucket))]
        for service in members:
            learnt = _learnt(opened, plan, service)
            if learnt is not None:
                yield learnt


def dismissed_of(learnt: Learnt, plan: TrainingPlan) -> Iterator[Dismissed]:
    """The service's dismissed findings that it can be asked about: with enough minutes before them."""
    service = learnt.frame.service
    for first, end in plan.dismissed.get(service, ()):
        if first - HISTORY >= learnt.frame.start and end <= plan.end:
            gaps = plan.unobserved(service)
            stop = min(end + AFTER, plan.end)
            yield Dismissed(service, first, as_known(learnt, learnt.vocabulary, first - HISTORY, stop, gaps))


def as_known(learnt: Learnt, vocabulary: Vocabulary, start: int, end: int, unobserved: Ranges = ()) -> Frame:
    """Minutes as they would be seen if they came again: no template of theirs is new any more."""
    frame = learnt.frame
    return frame_of(
        frame.service,
        learnt.table,
        vocabulary,
        start,
        end,
        sightings=frame.sightings,
        unobserved=unobserved,
        earlier=frame.quarters_before(start),
    )


def settled(table: pl.DataFrame, merged: Mapping[str, str]) -> pl.DataFrame:
    """The tally with the ids that templates have now."""
    import polars as pl

    return table.with_columns(pl.col("template").cast(pl.String).replace(merged)) if merged else table


def _learnt(opened: Sequence[OpenedBucket], plan: TrainingPlan, service: str) -> Learnt | None:
    import polars as pl

    parts = [table for bucket in opened if (table := bucket.packed(service)) is not None]
    if not parts:
        return None
    table = settled(within(tally_of(parts), plan.start, plan.end), plan.merged.get(service, {}))
    if table.height == 0:
        return None
    first = table["minute"].min()
    assert isinstance(first, int)
    vocabulary = choose_vocabulary(table)
    gaps = plan.unobserved(service)
    aside = joined((a - AROUND, b + AROUND) for a, b in plan.set_aside.get(service, ()))
    frame = frame_of(service, table, vocabulary, first, plan.end, unobserved=joined([*gaps, *aside]))
    span = plan.end - first
    missing = sum(min(end, plan.end) - max(low, first) for low, end in gaps if end > first and low < plan.end)
    days = float(frame.observed.sum()) / DAY_MINUTES
    facts = ServiceFacts(
        service,
        round(days, 3),
        int(table["lines"].sum()),
        table["template"].n_unique(),
        round(missing / max(span, 1), 4),
        days < plan.learning_days,
        int(table.filter(pl.col("template") == OVERFLOW)["lines"].sum()),
    )
    return Learnt(frame, vocabulary, table, facts)


def _by_bucket(services: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Services bucket by bucket, each bucket's by name."""
    buckets: dict[int, list[str]] = {}
    for service in services:
        buckets.setdefault(bucket_of(service), []).append(service)
    yield from ((bucket, sorted(members)) for bucket, members in sorted(buckets.items()))


def _part(plan: TrainingPlan, services: Sequence[str]) -> TrainingPlan:
    """What a worker needs of the plan: files and ids of its own services."""
    mine, buckets = set(services), {bucket_of(service) for service in services}
    days = tuple(
        replace(
            day,
            files=tuple(file for file in day.files if file.bucket in buckets),
            coverage=replace(
                day.coverage,
                gaps={s: r for s, r in day.coverage.gaps.items() if s in mine},
                known={s: r for s, r in day.coverage.known.items() if s in mine},
            ),
        )
        for day in plan.days
    )
    merged = {service: ids for service, ids in plan.merged.items() if service in mine}
    aside = {service: ranges for service, ranges in plan.set_aside.items() if service in mine}
    dismissed = {service: ranges for service, ranges in plan.dismissed.items() if service in mine}
    return replace(plan, days=days, merged=merged, set_aside=aside, dismissed=dismissed)

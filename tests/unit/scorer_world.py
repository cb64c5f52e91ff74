"""A small tenant for scorers: services that write lines, a model of three days of them, and a Loki that is a dictionary."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from ml.detectors import fit_shard
from ml.features import choose_vocabulary, frame_of, tally
from ml.live_window import Blind
from ml.model_manifest import Learned
from ml.model_store import ModelStore, ServiceFacts, TrainedShard, packed
from ml.redaction import redacted
from ml.template_store import StoredTemplates
from ml.templates import TemplateMiner
from onecollector.scorer.reader import MINUTE_NS, ReadTrouble
from onecollector.scorer.sight import Whole
from onecollector.scorer.state import ScorerState
from onecollector.scorer.tenant import TenantScorer
from onecollector.scorer.tenant_status import Options
from onecollector_resources.findings.records import Announcement, Finding, Notice, StoredFinding
from onecollector_resources.storage.file_store import FileStore

DAY = 1440
FIRST = 29_700_000 // DAY * DAY
"""Midnight, in minutes since 1970; three days are learned from here on."""
NOW = FIRST + 3 * DAY + 600
SERVICES = ("web", "cart", "mailer", "ledger")
USUAL: tuple[tuple[str, float], ...] = (
    ("GET /api/orders/{n} took {n} ms", 6.0),
    ("session {n} opened", 3.0),
    ("session {n} closed", 3.0),
    ("cache hit for {n}", 4.0),
    ("WARN retry {n} of upstream", 0.3),
)
REFUSALS: tuple[tuple[str, float], ...] = (("login of {name} refused by the directory", 3.0),)
"""Errors that ``mailer`` writes all the time where it is asked for."""
Line = tuple[int, str, str, bool]
"""Time in ns, service, text, whether it is an error."""


@cache
def _counts(service: str, rate: float, error: bool) -> np.ndarray:
    place = SERVICES.index(service) if service in SERVICES else 99
    return np.random.default_rng((place, int(rate * 10), error)).poisson(rate, 5 * DAY)


def written(service: str, minute: int, kinds: Iterable[tuple[str, float]] = USUAL, error: bool = False) -> list[Line]:
    """What a service writes in a minute: the same whenever it is asked."""
    out: list[Line] = []
    for text, rate in kinds:
        for _ in range(_counts(service, rate, error)[minute - FIRST]):
            number = len(out)
            at = minute * MINUTE_NS + number * 30_000_001
            line = text.replace("{n}", str((minute * 7 + number) % 890 + 10))
            out.append((at, service, line.replace("{name}", _name(minute * 13 + number)), error))
    return out


def _name(number: int) -> str:
    """One of seventeen thousand."""
    return "".join(chr(97 + number * step % 26) for step in (1, 3, 7)) + chr(97 + number // 26 % 26)


def table(lines: Sequence[Line]) -> pl.DataFrame:
    """As a LineReader gives them."""
    names = ("timestamp", "service", "line", "is_error")
    kinds = {"timestamp": pl.Int64, "service": pl.String, "line": pl.String, "is_error": pl.Boolean}
    return pl.DataFrame(list(lines), schema={name: kinds[name] for name in names}, orient="row")


@cache
def learned(refusals: bool = False) -> tuple[bytes, bytes, StoredTemplates]:
    """A model's shard, packed, and its templates; it may know of ``REFUSALS``."""
    miner, frames, vocabularies = TemplateMiner(), [], []
    for service in SERVICES:
        errors = REFUSALS if refusals and service == "mailer" else ()
        minutes = range(FIRST, FIRST + 3 * DAY)
        lines = table(
            [
                line
                for minute in minutes
                for line in (*written(service, minute), *written(service, minute, errors, error=True))
            ]
        )
        ids = pl.Series("template", miner.mine(lines["line"], service, minutes=3 * DAY).ids())
        counted = tally(lines.drop("service").with_columns(ids))
        vocabularies.append(choose_vocabulary(counted))
        frames.append(frame_of(service, counted, vocabularies[-1], FIRST, FIRST + 3 * DAY))
    shard = fit_shard(frames, vocabularies, with_forest=False)
    templates = StoredTemplates()
    templates.take(miner)
    return *packed(TrainedShard(shard, tuple(frame.sightings for frame in frames))), templates


def models(
    folder: Path, *, promoted: bool = True, days: int = 1, tenant: str = "default", refusals: bool = False
) -> ModelStore:
    """A store with so many models, the last in production; each is trained later than the one before."""
    arrays, names, templates = learned(refusals)
    store = ModelStore(FileStore(folder, create=True), tenant, lambda: time_of(NOW))
    for number in range(days):
        facts = [ServiceFacts(name, 3.0, 20_000, 5, 0.0, False) for name in SERVICES]
        span = Learned("2026-06-20", f"2026-06-{22 + number}", 3 * DAY, 0.0, {}, {})
        later = replace(store, clock=lambda minute=NOW + number: time_of(minute))
        made = later.write([arrays], [names], facts, {"gates": [], "passed": True}, span, "", templates)
        if promoted:
            store.channels.promote(made.model_id, "test")
    return store


@dataclass
class FakeLoki:
    """A LineReader over lines by service and minute; what nobody put there is what the services usually write."""

    silent: set[tuple[str, int]] = field(default_factory=set)
    extra: dict[tuple[str, int], list[Line]] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)
    away: bool = False
    reads: Counter[int] = field(default_factory=Counter)
    until: int = 1 << 60
    """Minutes from here on have no line."""

    def held(self, service: str, minute: int) -> list[Line]:
        usual = [] if (service, minute) in self.silent or minute >= self.until else written(service, minute)
        return usual + self.extra.get((service, minute), [])

    def counts(self, first: int, end: int) -> Mapping[tuple[str, int], int]:
        self._there()
        pairs = ((s, m) for s in (*SERVICES, *self.others) for m in range(first, end))
        return {pair: n for pair in pairs if (n := len(self.held(*pair)))}

    def lines(
        self, minute: int, only: Sequence[str] = (), without: Sequence[str] = (), most: int | None = None
    ) -> Iterator[pl.DataFrame]:
        self._there()
        self.reads[minute] += 1
        names = [s for s in (*SERVICES, *self.others) if (s in only if only else s not in without)]
        found = sorted(line for service in names for line in self.held(service, minute))
        # In pages, as they come.
        for begin in range(0, len(found) if most is None else min(most, len(found)), 50):
            yield table(found[begin : begin + 50])

    def examples(self, query: str, first: int, end: int, most: int) -> list[str]:
        self._there()
        service = query.split('"')[1]
        lines = sorted(line for minute in range(first, end) for line in self.held(service, minute))
        return [line[2] for line in lines[::-1][:most]]

    def _there(self) -> None:
        if self.away:
            raise ReadTrouble("Loki does not answer")


@dataclass
class FakeLedger:
    """Findings in memory. ``breaks_at``: the call of that number raises, once."""

    clock: Callable[[], float] = lambda: NOW * 60.0
    findings: dict[str, StoredFinding] = field(default_factory=dict)
    notices: set[tuple[str, datetime]] = field(default_factory=set)
    held: dict[datetime, int] = field(default_factory=dict)
    earlier: list[tuple[str, datetime]] = field(default_factory=list)
    """Service and minute of findings of earlier weeks."""

    def open(self, finding: Finding, announcement: Announcement) -> StoredFinding:
        now = datetime.fromtimestamp(self.clock(), UTC)
        number = len(self.findings) + 1
        return self.findings.setdefault(finding.key, StoredFinding(number, finding, "open", announcement, now, now))

    def extend(self, finding: Finding) -> StoredFinding:
        self.findings[finding.key] = replace(self.findings[finding.key], finding=finding)
        return self.findings[finding.key]

    def close(self, tenant: str, last_before: datetime) -> int:
        old = [key for key, one in self.findings.items() if one.state == "open" and one.finding.last < last_before]
        for key in old:
            self.findings[key] = replace(self.findings[key], state="closed")
        return len(old)

    def open_findings(self, tenant: str) -> Sequence[StoredFinding]:
        return [one for one in self.findings.values() if one.state == "open"]

    def announced_since(self, tenant: str, since: datetime) -> int:
        return sum(one.announcement == "sent" and one.opened >= since for one in self.findings.values())

    def unconfirmed_since(self, tenant: str, since: datetime) -> Sequence[tuple[str, datetime]]:
        found = [one for one in self.findings.values() if one.finding.first >= since]
        return [(one.finding.service, one.finding.first) for one in found] + self.earlier

    def held_back(self, tenant: str, hour: datetime, findings: int) -> None:
        self.held[hour] = findings

    def notice(self, notice: Notice) -> None:
        self.notices.add((notice.service, notice.first))


@dataclass
class FakeSight:
    """A Sight that hides what it is told."""

    hides: dict[int, dict[str, str]] = field(default_factory=dict)
    through: int = -1
    collected: frozenset[str] = frozenset(SERVICES)

    def blind(self, tenant: str, first: int, end: int, now: float) -> dict[int, Blind]:
        return {minute: Blind("", names) for minute, names in self.hides.items() if first <= minute < end}

    def whole(self, tenant: str, now: float) -> Whole:
        return Whole(self.through, self.collected)


@dataclass
class World:
    """All of it, and a clock that the test moves."""

    folder: Path
    loki: FakeLoki = field(default_factory=FakeLoki)
    ledger: FakeLedger = field(default_factory=FakeLedger)
    sight: FakeSight = field(default_factory=FakeSight)
    options: Options = field(default_factory=lambda: Options(findings_per_hour=100))
    now: float = NOW * 60.0

    def __post_init__(self) -> None:
        self.models = models(self.folder / "models")
        self.ledger.clock = lambda: self.now

    @classmethod
    def begun(cls, folder: Path, into: Path, options: Options | None = None) -> World:
        """A copy of one whose scorer has scored its first minute; the next one is ``NOW``."""
        shutil.copytree(folder, into, dirs_exist_ok=True)
        world = cls(into, now=NOW * 60.0 + 60)
        world.options = options or world.options
        return world

    def twin(self) -> World:
        """The same tenant once more, with findings and a state of its own."""
        twin = World(self.folder / "twin", now=self.now)
        shutil.copytree(self.folder / "state", twin.folder / "state")
        twin.loki = replace(self.loki, reads=Counter())
        twin.models = self.models
        return twin

    def scorer(self) -> TenantScorer:
        """A process that starts."""
        return TenantScorer(
            "default",
            self.loki,
            self.models,
            self.ledger,
            self.sight,
            ScorerState(self.folder / "state"),
            self.options,
            TemplateMiner,
            redacted,
        )

    def run(self, scorer: TenantScorer, minutes: float, every_s: float = 60.0) -> None:
        """Minutes pass."""
        for _ in range(int(minutes * 60 / every_s)):
            self.now += every_s
            for _ in range(2000):
                if not scorer.step(self.now):
                    break

    def found(self) -> dict[str, StoredFinding]:
        """Findings by service; a second one of a service is an error."""
        names = [one.finding.service for one in self.ledger.findings.values()]
        assert len(names) == len(set(names)), names
        return {one.finding.service: one for one in self.ledger.findings.values()}

    def failing(
        self, service: str, first: int, minutes: int, text: str = "ERROR db {n} refused by peer", lines: float = 8
    ) -> None:
        """A service that writes errors that it never wrote before."""
        for minute in range(first, first + minutes):
            self.loki.extra[service, minute] = written(service, minute, [(text, lines)], error=True)


def time_of(minute: int) -> datetime:
    """As a time."""
    return datetime.fromtimestamp(minute * 60, UTC)

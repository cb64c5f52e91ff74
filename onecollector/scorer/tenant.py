"""One tenant's minutes, each read, counted, scored and told once, in order: the steps between which a process may end.

A minute is read whole or not at all, kept on disk, scored, told to the ledger, and only then marked as told. Whatever
happens in between, the next step does the same again with the same result: keys are of the minute, and the ledger leaves
what it has. Nothing here sleeps or asks for the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from datetime import timedelta

import structlog

from ml.coverage import NOBODY, nothing_came
from ml.following import Unusual
from ml.live_window import Blind, KeptMinute
from ml.model_channels import MovedMeanwhile
from ml.model_manifest import ModelRefused
from ml.model_store import ModelStore
from ml.pressure import WEEK, WEEKS, pressures, week_of
from onecollector.scorer.counting import count
from onecollector.scorer.doubt import Doubt
from onecollector.scorer.explaining import Context, Explainer, Redact, at, minute_of
from onecollector.scorer.late_lines import LateLines
from onecollector.scorer.reader import LineReader, closed_minute
from onecollector.scorer.serving import Serving
from onecollector.scorer.shadow import ShadowWatch
from onecollector.scorer.sight import Sight
from onecollector.scorer.state import ScorerState, Told
from onecollector.scorer.taking_back import take_back
from onecollector.scorer.telling import Teller
from onecollector.scorer.tenant_status import Options, TenantStatus
from onecollector.scorer.watch import MISFITS, NewMiner
from onecollector_resources.discovery.links_model import PROBES
from onecollector_resources.findings.ledger import FindingLedger
from onecollector_resources.findings.records import Notice
from onecollector_resources.storage.objects import StoreError

log = structlog.get_logger()


class TenantScorer:
    """Raises ReadTrouble, RegistryError and OSError from ``step``: ask again later, nothing was lost."""

    def __init__(
        self,
        tenant: str,
        reader: LineReader,
        models: ModelStore,
        ledger: FindingLedger,
        sight: Sight,
        state: ScorerState,
        options: Options,
        new_miner: NewMiner,
        redact: Redact,
    ) -> None:
        self.tenant, self.status = tenant, TenantStatus()
        self._reader, self._models, self._ledger, self._sight, self._state = reader, models, ledger, sight, state
        self._options, self._redact = options, redact
        self._teller = Teller(tenant, ledger, options.findings_per_hour)
        self._shadow = ShadowWatch(models, options.shadow_minutes, options.budget, new_miner)
        self._raised: Mapping[str, float] = {}
        self._raised_in = -1
        self._late = LateLines(tenant, reader, sight, state)
        self._doubt = Doubt(reader)
        self._strangers: set[str] = set()
        self._serving = Serving(
            tenant, models, reader, state, options, new_miner, self._doubt, self.status, self._forget
        )

    def step(self, now: float) -> bool:
        """The next thing to do, if any; answers whether there may be more to do at once. ``now`` in epoch seconds."""
        closed = closed_minute(self._options.grace_s, now)
        self.status.at(now)
        if not self._serving.ready(closed):
            return False
        window = self._serving.watch.window
        if window.end - 1 > self._serving.told.scored:
            self._tell(window.end - 1, now)
            return True
        if self._serving.told.scored >= closed:
            self._look_back(now)
            return False
        minute = self._serving.told.scored + 1
        lines = {service: n for (service, _), n in self._reader.counts(minute, minute + 1).items()}
        if self._doubtful(minute, closed, lines, now):
            return False
        kept = self._read(minute, lines, now)
        self._serving.keep_templates()
        self._state.save_minute(kept)
        window.append(kept)
        self._tell(minute, now)
        return True

    def missed(self, now: float) -> None:
        """Loki did not answer: what it should have had by now may come late."""
        self._doubt.missed(closed_minute(self._options.grace_s, now) + 1)

    def again(self) -> None:
        """After a fault that nobody foresaw: go on from what is on disk."""
        self._serving.forget()
        self._forget()

    def _forget(self) -> None:
        self._late.forget()
        self._shadow.forget()

    # A minute's lines.

    def _read(self, minute: int, lines: Mapping[str, int], now: float) -> KeptMinute:
        """Of each service there are about so many ``lines``. Raises ReadTrouble."""
        watch = self._serving.watch
        window = watch.window
        counter, beside = watch.counter(minute), self._shadow.counters(minute)
        count(self._reader, [counter, *beside], minute, lines)
        tally = counter.done()
        for service in watch.templates.apart_again():
            log.info("templates.kept_apart", tenant=self.tenant, service=service)
        self._late.account(minute, lines)
        blind = self._sight.blind(self.tenant, minute, minute + 1, now).get(minute, Blind())
        history = minute <= self._serving.told.quiet_until
        if nothing_came(tally.lines, window.minutes) or (history and not tally.lines):
            blind = Blind(NOBODY)
        elif window.minutes and window.minutes[-1].blind.everything == NOBODY:
            # Whoever came back did so in the middle of it.
            blind = Blind("collection began in it")
        self.status.lines, self.status.overflow = sum(tally.lines.values()), tally.overflow
        self.status.hidden = len(window.services) if blind.everything else len(blind.services)
        self._tell_of_strangers(tally.lines.keys() - window.services - {PROBES})
        self._shadow.append(beside, minute, blind)
        return KeptMinute(tally, blind)

    def _tell_of_strangers(self, services: Set[str]) -> None:
        """Services that the model does not know are said once: they are learned with the next model."""
        fresh = services - self._strangers
        self._strangers = (self._strangers | fresh) - self._serving.watch.window.services
        self.status.learning = len(self._strangers)
        if fresh:
            log.info("services.learning", tenant=self.tenant, services=sorted(fresh)[:20], number=len(fresh))

    def _doubtful(self, minute: int, closed: int, lines: Mapping[str, int], now: float) -> bool:
        """Whether lines of the minute may still be on their way."""
        if minute <= self._serving.told.quiet_until:
            return False
        doubtful = self._doubt.about(minute, closed, lines, self._serving.watch.window.minutes, now)
        self.status.waits = f"lines of {at(minute):%H:%M} UTC may still be on their way" if doubtful else ""
        return doubtful

    # Lines that came late.

    def _look_back(self, now: float) -> None:
        """Once a minute, when it is told: what changed since is scored from there."""
        newest = self._serving.told.scored
        if not self._late.due(newest):
            return
        again = self._late.look_back(self._serving.watch, self._shadow, newest, now)
        if again:
            self._score_again(again, now)
        self._late.done(newest)

    def _score_again(self, again: Mapping[str, int], now: float) -> None:
        unusual: list[Unusual] = []
        contexts: dict[str, Context] = {}
        for service, minute in again.items():
            if minute <= self._serving.told.quiet_until:
                continue
            shard, frames, scores = self._serving.watch.window.score_from(service, minute)
            contexts[service] = (shard, frames, scores)
            for row in range(2, len(scores.minutes)):
                weight = float(scores.weight[row, 0])
                if self._serving.watch.unusual(service, weight, self._raised):
                    unusual.append(Unusual(service, int(scores.minutes[row]), weight))
        if unusual:
            # What the first pass opens the second one extends.
            for _ in range(2):
                self._serving.told = self._follow(self._serving.told, unusual, contexts, set(), now)

    # A minute's scores.

    def _tell(self, minute: int, now: float) -> None:
        """Score the newest minute and tell what is unusual; then the minute is told."""
        told, unusual = replace(self._serving.told, scored=minute), frozenset[str]()
        if minute > told.quiet_until:
            self._raise_thresholds(minute)
            try:
                told, unusual = self._score(told, minute, now)
            except MISFITS as error:
                log.exception("minute.not_scored", tenant=self.tenant, minute=minute)
                self.status.note("scoring", f"{at(minute):%H:%M} UTC could not be scored: {error!r}")
                told = replace(told, failures=told.failures + 1)
            else:
                told = replace(told, failures=0)
                self.status.problems.pop("scoring", None)
            self._ledger.close(self.tenant, at(minute) - timedelta(minutes=10))
        self._serving.remember(told)
        window = self._serving.watch.window
        if window.fold():
            self._state.save_before(window.start, window.before)
        self.status.minute = minute
        if minute > told.quiet_until:
            self._look_in_the_shadow(minute, unusual)
        self._take_back(told)

    def _raise_thresholds(self, minute: int) -> None:
        """Once a week: services that had too many findings are asked for more."""
        if week_of(minute) == self._raised_in:
            return
        since = at((week_of(minute) - WEEKS) * WEEK)
        opened = self._ledger.unconfirmed_since(self.tenant, since)
        found = [(service, minute_of(first)) for service, first in opened]
        self._raised = pressures(found, minute, self._options.budget)
        self._raised_in, self.status.raised = week_of(minute), len(self._raised)
        if self._raised:
            told = {service: round(decades, 2) for service, decades in sorted(self._raised.items())[:20]}
            log.info("thresholds.raised", tenant=self.tenant, services=told, number=len(self._raised))

    def _look_in_the_shadow(self, minute: int, unusual: Set[str]) -> None:
        """After all else was told: how the candidate finds the minute."""
        self._shadow.look(minute, unusual, self._raised)
        self._shadow.attend(self._serving.watch, minute)
        self.status.shadow = self._shadow.told
        self.status.note("candidate", self._shadow.problem)

    def _score(self, told: Told, minute: int, now: float) -> tuple[Told, frozenset[str]]:
        """What is remembered, and the services that are unusual."""
        unusual: list[Unusual] = []
        contexts: dict[str, Context] = {}
        deployed: set[str] = set()
        for scored in self._serving.watch.score(self._raised):
            shard, scores = scored.shard, scored.scores
            unusual += [Unusual(service, minute, weight) for service, weight in scored.unusual.items()]
            contexts |= dict.fromkeys(scored.unusual, (shard, scored.frames, scores))
            deployed |= {shard.services[n] for n in scores.settles[-1].nonzero()[0].tolist()}
            for service, notices in zip(shard.services, scores.notices, strict=True):
                for notice in notices:
                    first = int(scores.minutes[notice.first])
                    if first == minute:
                        self._ledger.notice(Notice(self.tenant, service, at(first), notice.templates))
        return self._follow(told, unusual, contexts, deployed, now), frozenset(one.service for one in unusual)

    def _follow(
        self, told: Told, unusual: Sequence[Unusual], contexts: Mapping[str, Context], deployed: Set[str], now: float
    ) -> Told:
        return self._teller.follow(told, unusual, contexts, deployed, self._explainer(), now)

    def _explainer(self) -> Explainer:
        watch = self._serving.watch
        return Explainer(
            self.tenant,
            watch.model.model_id,
            self._options.budget,
            watch.window,
            watch.templates,
            self._reader,
            self._redact,
        )

    def _take_back(self, told: Told) -> None:
        try:
            why = take_back(self._models.channels, told, self._serving.watch.window.services, self._options.budget)
        except (StoreError, ModelRefused, MovedMeanwhile) as error:
            self.status.happened("roll back", str(error))
            return
        if why:
            log.warning("model.rolled_back", tenant=self.tenant, model=told.model_id, why=why)
            self.status.happened("roll back", f"{told.model_id} was taken back by itself: {why}")
            self._serving.remember(replace(told, begun=(), failures=0))

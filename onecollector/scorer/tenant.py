"""One tenant's minutes, each read, counted, scored and told once, in order: the steps between which a process may end.

A minute is read whole or not at all, kept on disk, scored, told to the ledger, and only then marked as told. Whatever
happens in between, the next step does the same again with the same result: keys are of the minute, and the ledger leaves
what it has. Nothing here sleeps or asks for the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from datetime import timedelta

import structlog

from ml.coverage import nothing_came
from ml.detectors import Shard, thresholds
from ml.drift import Sightings
from ml.following import Unusual
from ml.live_window import LATE, Blind, KeptMinute, LiveWindow, rested
from ml.minute_tally import MinuteCounter
from ml.model_channels import MovedMeanwhile
from ml.model_manifest import ModelRefused
from ml.model_store import Model, ModelStore
from ml.signals import HISTORY
from ml.template_store import StoredTemplates
from ml.templates import TemplateMiner
from onecollector.scorer.counting import MOST_LINES, counted
from onecollector.scorer.doubt import Doubt
from onecollector.scorer.explaining import Context, Explainer, Redact, at
from onecollector.scorer.live_templates import LiveTemplates
from onecollector.scorer.reader import LineReader, closed_minute
from onecollector.scorer.sight import Sight
from onecollector.scorer.state import Damaged, ScorerState, Told
from onecollector.scorer.taking_back import take_back
from onecollector.scorer.telling import Teller
from onecollector.scorer.tenant_status import Options, TenantStatus
from onecollector_resources.discovery.links_model import PROBES
from onecollector_resources.findings.ledger import FindingLedger
from onecollector_resources.findings.records import Notice
from onecollector_resources.storage.objects import StoreError

log = structlog.get_logger()

FAR_BEHIND = 6 * 60
"""Minutes; what is older is skipped, and said."""
HISTORY_LINES = 3_000_000
"""Lines that are read back at a first start, newest minutes first; what is older counts as unobserved."""
COUNTED = 5
"""Minutes that are counted in one query while history is looked for."""
CLOCK_BACK = 10
"""Minutes that the clock may go back; beyond, the minutes that were told were never there."""
SOON, EVERY = 2, 5
"""Minutes back that are looked for late lines after each minute; after every fifth one it is all of ``LATE``."""
NOBODY = "no service wrote a line"


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
        new_miner: Callable[[], TemplateMiner],
        redact: Redact,
    ) -> None:
        self.tenant, self.status = tenant, TenantStatus()
        self._reader, self._models, self._ledger, self._sight, self._state = reader, models, ledger, sight, state
        self._options, self._new_miner, self._redact = options, new_miner, redact
        self._teller = Teller(tenant, ledger, options.findings_per_hour)
        self._model: Model | None = None
        self._window: LiveWindow | None = None
        self._templates: LiveTemplates | None = None
        self._limits: Mapping[str, float] = {}
        """Thresholds of the model's services."""
        self._told = Told("", 0)
        self._accounted: dict[tuple[str, int], int] = {}
        self._looked_back = 0
        self._doubt = Doubt(reader)
        self._strangers: set[str] = set()

    def step(self, now: float) -> bool:
        """The next thing to do, if any; answers whether there may be more to do at once. ``now`` in epoch seconds."""
        closed = closed_minute(self._options.grace_s, now)
        if not self._serve(closed):
            return False
        self._in_time(closed)
        window = self._held()
        if window.end - 1 > self._told.scored:
            self._tell(window.end - 1, now)
            return True
        if self._told.scored >= closed:
            self._look_back(now)
            return False
        minute = self._told.scored + 1
        lines = {service: n for (service, _), n in self._reader.counts(minute, minute + 1).items()}
        if self._doubtful(minute, closed, lines, now):
            return False
        kept = self._read(minute, lines, now)
        assert self._templates is not None
        if (table := self._templates.changed()) is not None:
            self._state.save_templates(table)
        self._state.save_minute(kept)
        window.append(kept)
        self._tell(minute, now)
        return True

    def missed(self, now: float) -> None:
        """Loki did not answer: what it should have had by now may come late."""
        self._doubt.missed(closed_minute(self._options.grace_s, now) + 1)

    def again(self) -> None:
        """After a fault that nobody foresaw: go on from what is on disk."""
        self._model = self._window = None

    def _held(self) -> LiveWindow:
        assert self._window is not None
        return self._window

    # Which model serves.

    def _serve(self, closed: int) -> bool:
        """Whether a model serves; a new one takes over with what is kept."""
        if self._model is not None and self._told.scored >= closed and self._window is not None:
            return True
        try:
            serving = self._models.serving(self._model)
            self._note("model", "; ".join(serving.problems))
        except StoreError as error:
            self._note("model", str(error))
            if self._model is None:
                return False
            serving = None
        model = self._model if serving is None else serving.model
        if model is None:
            self.status.waits = "no model serves"
            self._model = self._window = None
            return False
        self.status.waits = ""
        if self._window is None:
            self._start(model, closed)
        elif model is not self._model:
            self._adopt(model)
        if model is not self._model:
            self._limits = limits_of(self._held().shards, self._options.budget)
        self._model, self.status.model_id = model, model.model_id
        self.status.services = len(self._held().services)
        return True

    def _start(self, model: Model, closed: int) -> None:
        """Go on where the last process ended; begin where there was none, or what it left is damaged."""
        try:
            kept = self._state.load()
        except Damaged as error:
            log.warning("state.damaged", tenant=self.tenant, error=str(error))
            self._note("state", f"{error}; it was thrown away, and lines are read back")
            kept = None
        if kept is None:
            self._begin(model, closed)
            return
        window = LiveWindow(model, kept.start, kept.before)
        window.load(kept.minutes)
        self._templates = LiveTemplates(model.templates, self._new_miner)
        self._told, self._window = kept.told, window
        if closed - kept.told.scored > 2:
            self._doubt.missed(closed)
        if kept.told.model_id == model.model_id:
            if kept.templates is not None:
                self._templates.take(kept.templates)
            return
        earlier = LiveTemplates(StoredTemplates(), self._new_miner)
        if kept.templates is not None:
            earlier.take(kept.templates)
        self._beside(earlier, model)

    def _begin(self, model: Model, closed: int, before: Mapping[str, Sightings] | None = None) -> None:
        """Read back as much history as signals need, within a bound."""
        first, lines, part = closed + 1, 0, dict[int, int]()
        while first > closed - HISTORY:
            if first - 1 not in part:
                # A few minutes at a time: counting is reading, and a busy tenant needs no more of them.
                part = dict.fromkeys(range(first - COUNTED, first), 0)
                for (_, minute), n in self._reader.counts(first - COUNTED, first).items():
                    part[minute] += n
            lines += part[first - 1]
            if lines > HISTORY_LINES:
                break
            first -= 1
        self._state.clear()
        self._open(model, first, closed, before)

    def _open(self, model: Model, first: int, quiet_until: int, before: Mapping[str, Sightings] | None) -> None:
        """Empty from minute ``first`` on; what is up to ``quiet_until`` is history."""
        window = LiveWindow(model, first, before)
        told = Told(model.model_id, first - 1, quiet_until)
        self._state.clear()
        self._state.save_before(first, window.before)
        self._state.save_told(told)
        self._window, self._told, self._accounted, self._looked_back = window, told, {}, 0
        self._templates = LiveTemplates(model.templates, self._new_miner)

    def _adopt(self, model: Model) -> None:
        """The same minutes with another model's eyes."""
        old, earlier = self._held(), self._templates
        assert earlier is not None
        window = LiveWindow(model, old.start, old.before)
        window.load(old.minutes)
        self._templates = LiveTemplates(model.templates, self._new_miner)
        self._window = window
        log.info("model.serves", tenant=self.tenant, model=model.model_id)
        self._beside(earlier, model)

    def _beside(self, earlier: LiveTemplates, model: Model) -> None:
        window = self._held()
        assert self._templates is not None
        seen = {
            pair
            for kept in window.minutes
            for pair in zip(kept.tally.table["service"].to_list(), kept.tally.table["template"].to_list(), strict=True)
        }
        self._templates.adopt(earlier, seen)
        self._state.drop_templates()
        if (table := self._templates.changed()) is not None:
            self._state.save_templates(table)
        self._state.save_before(window.start, window.before)
        self._remember(replace(self._told, model_id=model.model_id, begun=(), failures=0))

    def _in_time(self, closed: int) -> None:
        """Skip what is too old; begin again where the clock went back."""
        model = self._model
        assert model is not None
        behind = closed - self._told.scored
        if behind > FAR_BEHIND + HISTORY:
            skipped = behind - FAR_BEHIND
            self._note(
                "skipped", f"{skipped} minutes up to {at(closed - FAR_BEHIND):%Y-%m-%d %H:%M} UTC were not scored"
            )
            log.warning("minutes.skipped", tenant=self.tenant, minutes=skipped)
            before = rested(self._held().sightings(), max(0, skipped - HISTORY))
            first = closed - FAR_BEHIND - HISTORY
            self._open(model, first + 1, closed - FAR_BEHIND, before)
        elif behind < -CLOCK_BACK:
            self._note("clock", f"the clock went back by {-behind} minutes; lines are read back")
            self._begin(model, closed)

    # A minute's lines.

    def _read(self, minute: int, lines: Mapping[str, int], now: float) -> KeptMinute:
        """Of each service there are about so many ``lines``. Raises ReadTrouble."""
        window = self._held()
        assert self._templates is not None
        tally = counted(self._reader, MinuteCounter(self._templates.miner, window.services, minute), minute, lines)
        for service in self._templates.apart_again():
            log.info("templates.kept_apart", tenant=self.tenant, service=service)
        self._accounted.update({(service, minute): n for service, n in lines.items()})
        blind = self._sight.blind(self.tenant, minute, minute + 1, now).get(minute, Blind())
        history = minute <= self._told.quiet_until
        if nothing_came(tally.lines, window.minutes) or (history and not tally.lines):
            blind = Blind(NOBODY)
        elif window.minutes and window.minutes[-1].blind.everything == NOBODY:
            # Whoever came back did so in the middle of it.
            blind = Blind("collection began in it")
        self.status.lines, self.status.overflow = sum(tally.lines.values()), tally.overflow
        self.status.hidden = len(window.services) if blind.everything else len(blind.services)
        self._tell_of_strangers(tally.lines.keys() - window.services - {PROBES})
        return KeptMinute(tally, blind)

    def _tell_of_strangers(self, services: Set[str]) -> None:
        """Services that the model does not know are said once: they are learned with the next model."""
        fresh = services - self._strangers
        self._strangers |= fresh
        self.status.learning = len(self._strangers)
        if fresh:
            log.info("services.learning", tenant=self.tenant, services=sorted(fresh)[:20], number=len(fresh))

    def _doubtful(self, minute: int, closed: int, lines: Mapping[str, int], now: float) -> bool:
        """Whether lines of the minute may still be on their way."""
        if minute <= self._told.quiet_until:
            return False
        doubtful = self._doubt.about(minute, closed, lines, self._held().minutes, now)
        self.status.waits = f"lines of {at(minute):%H:%M} UTC may still be on their way" if doubtful else ""
        return doubtful

    # Lines that came late.

    def _look_back(self, now: float) -> None:
        """Once a minute, when it is told: read again what grew, look again at whom nobody could see, and score from there."""
        window, newest = self._held(), self._told.scored
        if self._looked_back >= newest:
            return
        # Counting is reading for Loki: most lines that are late are so by a minute or two.
        far = LATE if newest % EVERY == 0 else SOON
        first = max(window.start, newest - far)
        counts = self._reader.counts(first, newest + 1) if first <= newest else {}
        sights = self._sight.blind(self.tenant, first, window.end, now)
        again: dict[str, int] = {}
        for minute in range(first, window.end):
            kept = window.at(minute)
            assert kept is not None
            grown = self._grown(kept, counts)
            blind = kept.blind
            if minute in sights:
                blind = Blind(blind.everything, {**blind.services, **sights[minute].services})
            if grown:
                kept = self._read_again(kept, grown)
                blind = Blind("", blind.services)
            changed = grown | {s for s in window.services if blind.hides(s) != kept.blind.hides(s)}
            if not changed:
                continue
            kept = KeptMinute(kept.tally, blind)
            self._state.save_minute(kept)
            window.replace(kept, changed)
            self._accounted.update({(s, minute): counts[s, minute] for s in grown})
            for service in changed & window.services:
                again.setdefault(service, minute)
        self._accounted = {pair: n for pair, n in self._accounted.items() if pair[1] >= newest - LATE}
        if again:
            self._score_again(again, now)
        self._looked_back = newest

    def _grown(self, kept: KeptMinute, counts: Mapping[tuple[str, int], int]) -> set[str]:
        had, minute = kept.tally.lines, kept.minute
        return {
            service
            for (service, at_minute), n in counts.items()
            if at_minute == minute
            and service in self._held().services
            and n > max(self._accounted.get((service, minute), 0), had.get(service, 0))
        }

    def _read_again(self, kept: KeptMinute, services: Set[str]) -> KeptMinute:
        assert self._templates is not None
        counter = MinuteCounter(self._templates.miner, self._held().services, kept.minute)
        for batch in self._reader.lines(kept.minute, only=sorted(services), most=MOST_LINES):
            counter.add(batch)
        return KeptMinute(kept.tally.with_services(counter.done(), services), kept.blind)

    def _score_again(self, again: Mapping[str, int], now: float) -> None:
        unusual: list[Unusual] = []
        contexts: dict[str, Context] = {}
        for service, minute in again.items():
            if minute <= self._told.quiet_until:
                continue
            shard, frames, scores = self._held().score_from(service, minute)
            contexts[service] = (shard, frames, scores)
            for row in range(2, len(scores.minutes)):
                weight = float(scores.weight[row, 0])
                if weight >= self._limits[service]:
                    unusual.append(Unusual(service, int(scores.minutes[row]), weight))
        if unusual:
            # What the first pass opens the second one extends.
            for _ in range(2):
                self._told = self._follow(self._told, unusual, contexts, set(), now)

    # A minute's scores.

    def _tell(self, minute: int, now: float) -> None:
        """Score the newest minute and tell what is unusual; then the minute is told."""
        told = replace(self._told, scored=minute)
        if minute > told.quiet_until:
            try:
                told = self._score(told, minute, now)
            except (ValueError, ArithmeticError, LookupError) as error:
                log.exception("minute.not_scored", tenant=self.tenant, minute=minute)
                self._note("scoring", f"{at(minute):%H:%M} UTC could not be scored: {error!r}")
                told = replace(told, failures=told.failures + 1)
            else:
                told = replace(told, failures=0)
                self.status.problems.pop("scoring", None)
            self._ledger.close(self.tenant, at(minute) - timedelta(minutes=10))
        self._remember(told)
        window = self._held()
        if window.fold():
            self._state.save_before(window.start, window.before)
        self.status.minute = minute
        self._take_back(told)

    def _score(self, told: Told, minute: int, now: float) -> Told:
        unusual: list[Unusual] = []
        contexts: dict[str, Context] = {}
        deployed: set[str] = set()
        for shard, frames, scores in self._held().score():
            for service, weight in zip(shard.services, scores.weight[-1].tolist(), strict=True):
                if weight >= self._limits[service]:
                    unusual.append(Unusual(service, minute, weight))
                    contexts[service] = (shard, frames, scores)
            deployed |= {shard.services[n] for n in scores.settles[-1].nonzero()[0].tolist()}
            for service, notices in zip(shard.services, scores.notices, strict=True):
                for notice in notices:
                    first = int(scores.minutes[notice.first])
                    if first == minute:
                        self._ledger.notice(Notice(self.tenant, service, at(first), notice.templates))
        return self._follow(told, unusual, contexts, deployed, now)

    def _follow(
        self, told: Told, unusual: Sequence[Unusual], contexts: Mapping[str, Context], deployed: Set[str], now: float
    ) -> Told:
        return self._teller.follow(told, unusual, contexts, deployed, self._explainer(), now)

    def _explainer(self) -> Explainer:
        assert self._model is not None and self._templates is not None
        return Explainer(
            self.tenant,
            self._model.model_id,
            self._options.budget,
            self._held(),
            self._templates,
            self._reader,
            self._redact,
        )

    def _take_back(self, told: Told) -> None:
        try:
            why = take_back(self._models.channels, told, len(self._held().services), self._options.budget)
        except (StoreError, ModelRefused, MovedMeanwhile) as error:
            self._note("roll back", str(error))
            return
        if why:
            log.warning("model.rolled_back", tenant=self.tenant, model=told.model_id, why=why)
            self._note("roll back", f"{told.model_id} was taken back by itself: {why}")
            self._remember(replace(told, begun=(), failures=0))

    def _remember(self, told: Told) -> None:
        self._state.save_told(told)
        self._told = told

    def _note(self, about: str, problem: str) -> None:
        if problem:
            self.status.problems[about] = problem
        else:
            self.status.problems.pop(about, None)


def limits_of(shards: Sequence[Shard], budget: float) -> dict[str, float]:
    """Each service's threshold in decades for so many findings a day."""
    return {
        service: limit
        for shard in shards
        for service, limit in zip(shard.services, thresholds(shard, budget).tolist(), strict=True)
    }

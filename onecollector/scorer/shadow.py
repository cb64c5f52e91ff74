"""The candidate in the shadow of the model that serves: it reads the same lines, scores the same minutes, tells nobody.

It begins with the minutes that the serving model holds, so it costs no line read twice, neither then nor after a restart.
Whatever goes wrong with it stays here: it is counted as a minute that the candidate could not score, and the candidate
begins again beside the model that serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import structlog

from ml.budgets import Budget
from ml.live_window import Blind, KeptMinute
from ml.minute_tally import MinuteCounter, MinuteTally
from ml.model_manifest import ModelRefused
from ml.model_store import Model, ModelStore
from ml.shadowing import OVERTAKEN, SERVED, Shadow, too_many_failures
from onecollector.scorer.watch import NewMiner, Watch, watch_beside
from onecollector_resources.storage.objects import StoreError

if TYPE_CHECKING:
    import polars as pl

log = structlog.get_logger()

LOOKED_EVERY = 5
"""Minutes between two looks for a candidate."""
SAVED_EVERY = 10
"""Minutes of a shadow that a kill costs at most."""
Made = TypeVar("Made")
REFUSED = "refused"
WRONG = (ValueError, ArithmeticError, LookupError)


class ShadowWatch:
    """One tenant's. ``wanted_minutes`` of 0: candidates are not shadowed. Nothing here raises."""

    def __init__(self, models: ModelStore, wanted_minutes: int, budget: Budget, new_miner: NewMiner) -> None:
        self._models, self._wanted, self._budget, self._new_miner = models, wanted_minutes, budget, new_miner
        self._shadow: Shadow | None = None
        self._model: Model | None = None
        self._watch: Watch | None = None
        self._looked = self._saved = 0
        self._stumbled = False
        self.problem = ""

    @property
    def told(self) -> str:
        """Whom it watches and for how long, for people; empty where nobody is in the shadow."""
        if self._shadow is None:
            return ""
        return f"{self._shadow.model_id} is shadowed, {self._shadow.minutes / 60:.1f} of {self._wanted / 60:g} hours"

    def attend(self, serving: Watch, minute: int) -> None:
        """After a minute was told: go on beside the serving model, or take up the next candidate."""
        if not self._wanted:
            return
        beside = serving.model.model_id
        if self._shadow is not None and self._shadow.beside == beside:
            if self._watch is None:
                self._begin(serving)
            return
        if self._shadow is None and minute - self._looked < LOOKED_EVERY:
            return
        self._looked = minute
        self._drop()
        try:
            self.problem = ""
            self._shadow = self._next(beside, minute)
            if self._shadow is None:
                return
            self._model = self._models.load(self._shadow.model_id)
        except ModelRefused as error:
            self._refuse(error)
        except StoreError as error:
            self._shadow, self.problem = None, str(error)
        else:
            self._saved = minute
            log.info("candidate.shadowed", tenant=self._models.tenant, model=self._shadow.model_id, beside=beside)
            self._begin(serving)

    def counters(self, minute: int) -> list[Apart]:
        """What lines of a minute have to be counted with as well."""
        return [] if self._watch is None else [Apart(self._watch.counter(minute))]

    def append(self, counters: Sequence[Apart], minute: int, blind: Blind) -> None:
        """The next minute, as it was counted with ``counters``."""
        for counter in counters:
            tally = counter.done()
            if tally is None:
                self._stumble()
            if self._watch is None or tally is None:
                continue
            try:
                self._watch.templates.apart_again()
                self._watch.window.append(KeptMinute(tally, blind))
            except WRONG:
                self._stumble()

    def replace(self, counters: Sequence[Apart], minute: int, grown: Set[str], blind: Blind, changed: Set[str]) -> None:
        """A minute in which lines of ``grown`` services came late, or sight of ``changed`` ones changed."""
        kept = None if self._watch is None else self._watch.window.at(minute)
        if self._watch is None or kept is None:
            return
        try:
            tally = kept.tally
            for counter in counters:
                again = counter.done()
                if again is None:
                    self._stumble()
                    return
                tally = tally.with_services(again, grown)
            self._watch.window.replace(KeptMinute(tally, blind), changed)
        except WRONG:
            self._stumble()

    def look(self, minute: int, unusual: Set[str], raised: Mapping[str, float]) -> None:
        """Score the minute; ``unusual`` are services that the serving model finds so, with thresholds that are ``raised``."""
        if self._shadow is None:
            return
        if self._watch is not None:
            try:
                own, seen = unusual_now(self._watch, raised)
                self._watch.window.fold()
                self._shadow = self._shadow.after(minute, seen, own, unusual) if seen else self._shadow
            except WRONG:
                self._stumble()
        if self._stumbled:
            self._shadow = self._shadow.failed(minute)
            if self._shadow.failures > too_many_failures(self._wanted):
                why = f"failed: {self._shadow.failures} minutes could not be scored"
                self._shadow = replace(self._shadow, ended=why)
        self._keep(minute)

    def forget(self) -> None:
        """The serving model's minutes are others now."""
        self._watch = None

    def _next(self, beside: str, minute: int) -> Shadow | None:
        shadows, channels = self._models.shadows, self._models.channels
        for one in reversed(shadows.open_ones()):
            if one.model_id == beside:
                shadows.end(one.model_id, SERVED)
            elif one.model_id < beside:
                shadows.end(one.model_id, OVERTAKEN)
            elif one.beside != beside:
                # What it was compared with is gone.
                return Shadow(one.model_id, beside, minute + 1)
            else:
                # One that is whole is judged before the next one's turn.
                return None if one.whole(self._wanted) else one
        candidate = channels.current("candidate")
        if candidate <= beside:
            return None
        try:
            if (known := shadows.read(candidate)) is not None:
                self.problem = known.ended if known.ended.startswith(REFUSED) else ""
                return None
        except ModelRefused as error:
            log.warning("shadow.damaged", tenant=self._models.tenant, error=str(error))
        if not self._models.evaluation(self._models.manifest(candidate))["passed"]:
            return None
        return Shadow(candidate, beside, minute + 1)

    def _begin(self, serving: Watch) -> None:
        assert self._model is not None
        try:
            self._watch = watch_beside(serving, self._model, self._new_miner, self._budget)
            self._stumbled = False
        except WRONG:
            self._stumble()

    def _keep(self, minute: int) -> None:
        shadow = self._shadow
        assert shadow is not None
        whole = bool(shadow.ended) or shadow.whole(self._wanted)
        if not whole and minute - self._saved < SAVED_EVERY:
            return
        try:
            self._models.shadows.save(shadow)
        except StoreError as error:
            self.problem = str(error)
            return
        self._saved, self.problem = minute, ""
        if whole:
            log.info("candidate.whole", tenant=self._models.tenant, model=shadow.model_id, alarms=len(shadow.own))
            self._drop()

    def _refuse(self, error: ModelRefused) -> None:
        self.problem = f"{REFUSED}: {error}"
        shadow, self._shadow = self._shadow, None
        if shadow is None:
            return
        try:
            self._models.shadows.save(replace(shadow, ended=self.problem))
        except StoreError as trouble:
            self.problem = str(trouble)

    def _stumble(self) -> None:
        log.warning("candidate.stumbled", tenant=self._models.tenant, exc_info=True)
        self._watch, self._stumbled = None, True

    def _drop(self) -> None:
        self._shadow = self._model = self._watch = None
        self._stumbled = False


class Apart:
    """A counter whose mistakes are its own."""

    def __init__(self, counter: MinuteCounter) -> None:
        self._counter: MinuteCounter | None = counter

    def add(self, lines: pl.DataFrame) -> None:
        """As MinuteCounter's."""
        self._guarded(lambda counter: counter.add(lines))

    def unread(self, service: str, lines: int) -> None:
        """As MinuteCounter's."""
        self._guarded(lambda counter: counter.unread(service, lines))

    def done(self) -> MinuteTally | None:
        """None where something went wrong."""
        return self._guarded(lambda counter: counter.done())

    def _guarded(self, call: Callable[[MinuteCounter], Made]) -> Made | None:
        if self._counter is None:
            return None
        try:
            return call(self._counter)
        except WRONG:
            log.warning("candidate.stumbled", exc_info=True)
            self._counter = None
            return None


def unusual_now(watch: Watch, raised: Mapping[str, float]) -> tuple[set[str], int]:
    """Services that are unusual in the newest minute, and how many could be seen in it."""
    own = {
        service
        for shard, _, scores in watch.window.score()
        for service, weight in zip(shard.services, scores.weight[-1].tolist(), strict=True)
        if watch.unusual(service, weight, raised)
    }
    return own, sum(bool(frame.observed[-1]) for frame in watch.window.frames.values())

"""The candidate in the shadow of the model that serves: it reads the same lines, scores the same minutes, tells nobody.

It begins with the minutes that the serving model holds, so it costs no line read twice, neither then nor after a restart.
Whatever goes wrong with it stays here: it is counted as a minute that the candidate could not score, and the candidate
begins again beside the model that serves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace

import structlog

from ml.budgets import Budget
from ml.live_window import Blind, KeptMinute
from ml.model_manifest import ModelRefused
from ml.model_store import Model, ModelStore
from ml.shadowing import OVERTAKEN, SERVED, Shadow, too_many_failures
from onecollector.scorer.guarded_counter import GuardedCounter
from onecollector.scorer.watch import MISFITS, NewMiner, Watch, watch_beside
from onecollector_resources.storage.objects import StoreError

log = structlog.get_logger()

LOOKED_EVERY = 5
"""Minutes between two looks for a candidate."""
SAVED_EVERY = 10
"""Minutes of a shadow that a kill costs at most."""
REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Whom it watches; without a ``watch`` it begins again beside the serving model, and it may have stumbled before."""

    shadow: Shadow
    model: Model
    watch: Watch | None = None
    stumbled: bool = False


class ShadowWatch:
    """One tenant's. ``wanted_minutes`` of 0: candidates are not shadowed. Nothing here raises."""

    def __init__(self, models: ModelStore, wanted_minutes: int, budget: Budget, new_miner: NewMiner) -> None:
        self._models, self._wanted, self._budget, self._new_miner = models, wanted_minutes, budget, new_miner
        self._candidate: Candidate | None = None
        self._looked = self._saved = 0
        self.problem = ""

    @property
    def told(self) -> str:
        """Whom it watches and for how long, for people; empty where nobody is in the shadow."""
        if self._candidate is None:
            return ""
        shadow = self._candidate.shadow
        return f"{shadow.model_id} is shadowed, {shadow.minutes / 60:.1f} of {self._wanted / 60:g} hours"

    def attend(self, serving: Watch, minute: int) -> None:
        """After a minute was told: go on beside the serving model, or take up the next candidate."""
        if not self._wanted:
            return
        beside, held = serving.model.model_id, self._candidate
        if held is not None and held.shadow.beside == beside:
            if held.watch is None:
                self._begin(held, serving)
            return
        if held is None and minute - self._looked < LOOKED_EVERY:
            return
        self._looked, self._candidate, self.problem = minute, None, ""
        shadow = None
        try:
            shadow = self._next(beside, minute)
            if shadow is None:
                return
            model = self._models.load(shadow.model_id)
        except ModelRefused as error:
            self._refuse(shadow, error)
        except StoreError as error:
            self.problem = str(error)
        else:
            self._saved = minute
            log.info("candidate.shadowed", tenant=self._models.tenant, model=shadow.model_id, beside=beside)
            self._begin(Candidate(shadow, model), serving)

    def counters(self, minute: int) -> list[GuardedCounter]:
        """What lines of a minute have to be counted with as well."""
        watch = self._watch
        return [] if watch is None else [GuardedCounter(watch.counter(minute))]

    def append(self, counters: Sequence[GuardedCounter], minute: int, blind: Blind) -> None:
        """The next minute, as it was counted with ``counters``."""
        for counter in counters:
            tally = counter.done()
            if tally is None:
                self._stumble()
            watch = self._watch
            if watch is None or tally is None:
                continue
            try:
                watch.templates.apart_again()
                watch.window.append(KeptMinute(tally, blind))
            except MISFITS:
                self._stumble()

    def replace(
        self, counters: Sequence[GuardedCounter], minute: int, grown: Set[str], blind: Blind, changed: Set[str]
    ) -> None:
        """A minute in which lines of ``grown`` services came late, or sight of ``changed`` ones changed."""
        watch = self._watch
        kept = None if watch is None else watch.window.at(minute)
        if watch is None or kept is None:
            return
        try:
            tally = kept.tally
            for counter in counters:
                again = counter.done()
                if again is None:
                    self._stumble()
                    return
                tally = tally.with_services(again, grown)
            watch.window.replace(KeptMinute(tally, blind), changed)
        except MISFITS:
            self._stumble()

    def look(self, minute: int, unusual: Set[str], raised: Mapping[str, float]) -> None:
        """Score the minute; ``unusual`` are services that the serving model finds so, with thresholds that are ``raised``."""
        held = self._candidate
        if held is None:
            return
        shadow, stumbled = held.shadow, held.stumbled
        if held.watch is not None:
            try:
                own, seen = unusual_now(held.watch, raised)
                held.watch.window.fold()
                shadow = shadow.after(minute, seen, own, unusual) if seen else shadow
            except MISFITS:
                self._stumble()
                stumbled = True
        if stumbled:
            shadow = shadow.failed(minute)
            if shadow.failures > too_many_failures(self._wanted):
                shadow = replace(shadow, ended=f"failed: {shadow.failures} minutes could not be scored")
        self._keep(shadow, minute)

    def forget(self) -> None:
        """The serving model's minutes are others now."""
        if self._candidate is not None:
            self._candidate = replace(self._candidate, watch=None)

    @property
    def _watch(self) -> Watch | None:
        return None if self._candidate is None else self._candidate.watch

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

    def _begin(self, candidate: Candidate, serving: Watch) -> None:
        self._candidate = candidate
        try:
            watch = watch_beside(serving, candidate.model, self._new_miner, self._budget)
            self._candidate = replace(candidate, watch=watch, stumbled=False)
        except MISFITS:
            self._stumble()

    def _keep(self, shadow: Shadow, minute: int) -> None:
        assert self._candidate is not None
        self._candidate = replace(self._candidate, shadow=shadow)
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
            self._candidate = None

    def _refuse(self, shadow: Shadow | None, error: ModelRefused) -> None:
        self.problem = f"{REFUSED}: {error}"
        if shadow is None:
            return
        try:
            self._models.shadows.save(replace(shadow, ended=self.problem))
        except StoreError as trouble:
            self.problem = str(trouble)

    def _stumble(self) -> None:
        log.warning("candidate.stumbled", tenant=self._models.tenant, exc_info=True)
        if self._candidate is not None:
            self._candidate = replace(self._candidate, watch=None, stumbled=True)


def unusual_now(watch: Watch, raised: Mapping[str, float]) -> tuple[set[str], int]:
    """Services that are unusual in the newest minute, and how many could be seen in it."""
    own = {service for scored in watch.score(raised) for service in scored.unusual}
    return own, sum(bool(frame.observed[-1]) for frame in watch.window.frames.values())

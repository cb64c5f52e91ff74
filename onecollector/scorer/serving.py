"""Which model serves a tenant, and with which minutes it goes on.

A process that starts goes on with what the last one kept; another model takes over the minutes that the one before looked
at. Where nothing was kept, or what was kept is damaged, as much history as signals need is read back. Minutes that lie too
far behind are skipped, and said; where the clock went back, those that were told were never there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from ml.drift import Sightings
from ml.live_window import rested
from ml.model_store import Model, ModelStore
from ml.signals import HISTORY
from ml.template_store import StoredTemplates
from onecollector.scorer.doubt import Doubt
from onecollector.scorer.explaining import at
from onecollector.scorer.live_templates import LiveTemplates
from onecollector.scorer.reader import LineReader
from onecollector.scorer.state import Damaged, ScorerState, Told
from onecollector.scorer.tenant_status import Options, TenantStatus
from onecollector.scorer.watch import NewMiner, Watch, seen_in, watch_beside, watch_from
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


class Serving:
    """The model that serves and what it has told, on disk as well. ``emptied`` is called when other minutes are kept."""

    def __init__(
        self,
        tenant: str,
        models: ModelStore,
        reader: LineReader,
        state: ScorerState,
        options: Options,
        new_miner: NewMiner,
        doubt: Doubt,
        status: TenantStatus,
        emptied: Callable[[], None],
    ) -> None:
        self._tenant, self._models, self._reader, self._state = tenant, models, reader, state
        self._options, self._new_miner, self._doubt = options, new_miner, doubt
        self._status, self._emptied = status, emptied
        self._watch: Watch | None = None
        self.told = Told("", 0)

    @property
    def watch(self) -> Watch:
        """The model at work; there is one once it is ``ready``."""
        assert self._watch is not None
        return self._watch

    def ready(self, closed: int) -> bool:
        """Whether a model serves, with minutes from which it can go on to the ``closed`` one. Raises ReadTrouble, OSError."""
        if not self._serve(closed):
            return False
        self._in_time(closed)
        return True

    def remember(self, told: Told) -> None:
        """What was told, on disk first. Raises OSError."""
        self._state.save_told(told)
        self.told = told

    def keep_templates(self) -> None:
        """What was learned of templates since it was last kept. Raises OSError."""
        if (table := self.watch.templates.changed()) is not None:
            self._state.save_templates(table)
            self.watch.templates.kept()

    def forget(self) -> None:
        """Go on from what is on disk."""
        self._watch = None

    def _serve(self, closed: int) -> bool:
        """Whether a model serves; a new one takes over with what is kept."""
        if self._watch is not None and self.told.scored >= closed:
            return True
        held = self._watch.model if self._watch else None
        try:
            serving = self._models.serving(held)
            self._status.note("model", "; ".join(serving.problems))
            model = serving.model
        except StoreError as error:
            self._status.note("model", str(error))
            if held is None:
                return False
            model = held
        if model is None:
            self._status.waits = "no model serves"
            self._watch = None
            return False
        self._status.waits = ""
        if self._watch is None:
            self._start(model, closed)
        elif model is not held:
            log.info("model.serves", tenant=self._tenant, model=model.model_id)
            self._take_over(watch_beside(self._watch, model, self._new_miner, self._options.budget))
        self._status.model_id, self._status.services = model.model_id, len(self.watch.window.services)
        return True

    def _start(self, model: Model, closed: int) -> None:
        """Go on where the last process ended; begin where there was none, or what it left is damaged."""
        try:
            kept = self._state.load()
        except Damaged as error:
            log.warning("state.damaged", tenant=self._tenant, error=str(error))
            self._status.happened("state", f"{error}; it was thrown away, and lines are read back")
            kept = None
        if kept is None:
            self._begin(model, closed)
            return
        watch = watch_from(model, kept.start, kept.before, kept.minutes, self._new_miner, self._options.budget)
        self.told = kept.told
        if closed - kept.told.scored > 2:
            self._doubt.missed(closed)
        if kept.told.model_id == model.model_id:
            if kept.templates is not None:
                watch.templates.take(kept.templates)
            self._watch = watch
            return
        earlier = LiveTemplates(StoredTemplates(), self._new_miner)
        if kept.templates is not None:
            earlier.take(kept.templates)
        watch.templates.adopt(earlier, seen_in(kept.minutes))
        self._take_over(watch)

    def _take_over(self, watch: Watch) -> None:
        """Another model looks at the minutes that are kept."""
        self._watch = watch
        self._state.drop_templates()
        self.keep_templates()
        self._state.save_before(watch.window.start, watch.window.before)
        self.remember(replace(self.told, model_id=watch.model.model_id, begun=(), failures=0))

    def _in_time(self, closed: int) -> None:
        """Skip what is too old; begin again where the clock went back."""
        model = self.watch.model
        behind = closed - self.told.scored
        if behind > FAR_BEHIND + HISTORY:
            skipped = behind - FAR_BEHIND
            self._status.happened(
                "skipped", f"{skipped} minutes up to {at(closed - FAR_BEHIND):%Y-%m-%d %H:%M} UTC were not scored"
            )
            log.warning("minutes.skipped", tenant=self._tenant, minutes=skipped)
            before = rested(self.watch.window.sightings(), max(0, skipped - HISTORY))
            first = closed - FAR_BEHIND - HISTORY
            self._open(model, first + 1, closed - FAR_BEHIND, before)
        elif behind < -CLOCK_BACK:
            self._status.happened("clock", f"the clock went back by {-behind} minutes; lines are read back")
            self._doubt.back_to(closed)
            self._begin(model, closed)

    def _begin(self, model: Model, closed: int) -> None:
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
        self._open(model, first, closed)

    def _open(self, model: Model, first: int, quiet_until: int, before: Mapping[str, Sightings] | None = None) -> None:
        """Empty from minute ``first`` on; what is up to ``quiet_until`` is history."""
        watch = watch_from(model, first, before, (), self._new_miner, self._options.budget)
        told = Told(model.model_id, first - 1, quiet_until)
        self._state.clear()
        self._state.save_before(first, watch.window.before)
        self.remember(told)
        self._watch = watch
        self._emptied()

"""Minutes that were told, looked at again: lines that came late, and services that somebody could see after all.

A minute in which nobody wrote a line was seen by nobody, until it is known that Loki has all that was written: then the
silence was real. That holds only for minutes that this process lived through, for a machine that slept was silent, too.
What changed is scored before it is kept: a process that is killed between the two finds it changed once more.
"""

from __future__ import annotations

from collections.abc import Mapping

from ml.coverage import NOBODY
from ml.live_window import LATE, Blind, KeptMinute, LiveWindow
from onecollector.scorer.counting import count
from onecollector.scorer.reader import NAMED, LineReader
from onecollector.scorer.shadow import ShadowWatch
from onecollector.scorer.sight import Sight, Whole
from onecollector.scorer.state import ScorerState
from onecollector.scorer.watch import Watch

SOON, EVERY = 2, 5
"""Minutes back that are looked for late lines after each minute; after every fifth one it is all of ``LATE``."""
AWAY_S = 180.0
"""Whoever did not look for so long was away."""


class LateLines:
    """Remembers how many lines of a service's minute are accounted for, read or not."""

    def __init__(self, tenant: str, reader: LineReader, sight: Sight, state: ScorerState) -> None:
        self._tenant, self._reader, self._sight, self._state = tenant, reader, sight, state
        self._accounted: dict[tuple[str, int], int] = {}
        self._looked_back = 0
        self._looked_at = self._there_since = 0.0
        self._again: dict[str, int] = {}
        self._changed: dict[int, KeptMinute] = {}

    def account(self, minute: int, lines: Mapping[str, int]) -> None:
        """A minute was read when its services had so many lines."""
        self._accounted.update({(service, minute): n for service, n in lines.items()})

    def forget(self) -> None:
        """Other minutes are kept now."""
        self._accounted, self._looked_back = {}, 0
        self._again, self._changed = {}, {}

    def due(self, newest: int) -> bool:
        """Once for each minute."""
        return self._looked_back < newest

    def look_back(self, watch: Watch, shadow: ShadowWatch, newest: int, now: float) -> Mapping[str, int]:
        """Read again what grew. Answers services that changed and since which minute.

        Raises ReadTrouble and RegistryError; what was read again until then is answered the next time.
        """
        window = watch.window
        if now - self._looked_at > AWAY_S:
            self._there_since = now
        self._looked_at = now
        # Before lines are counted: what came between the two would be missed.
        whole = self._sight.whole(self._tenant, now) if _nobody_in(window) else Whole()
        # Counting is reading for Loki: most lines that are late are so by a minute or two.
        far = LATE if newest % EVERY == 0 else SOON
        first = max(window.start, newest - far)
        counts = self._reader.counts(first, newest + 1) if first <= newest else {}
        sights = self._sight.blind(self._tenant, first, window.end, now)
        for minute in range(first, window.end):
            kept = window.at(minute)
            assert kept is not None
            grown = self._grown(watch, kept, counts)
            blind = kept.blind
            if minute in sights:
                blind = Blind(blind.everything, {**blind.services, **sights[minute].services})
            if blind.everything == NOBODY and minute <= whole.through and minute * 60 >= self._there_since:
                others = dict.fromkeys(window.services - whole.services, NOBODY)
                blind = Blind("", {**others, **blind.services})
            tally, beside = kept.tally, []
            if grown:
                counter, beside = watch.counter(minute), shadow.counters(minute)
                lines = {service: n for (service, at_minute), n in counts.items() if at_minute == minute}
                # So many names are no selector: then it is the whole minute.
                only = sorted(grown) if len(grown) <= NAMED else ()
                count(self._reader, [counter, *beside], minute, lines, only)
                tally = tally.with_services(counter.done(), grown)
                blind = Blind("", blind.services)
            changed = grown | {s for s in window.services if blind.hides(s) != kept.blind.hides(s)}
            if not changed:
                continue
            self._changed[minute] = KeptMinute(tally, blind)
            window.replace(self._changed[minute], changed)
            shadow.replace(beside, minute, grown, blind, changed)
            self.account(minute, {service: counts[service, minute] for service in grown})
            for service in changed & window.services:
                self._again[service] = min(minute, self._again.get(service, minute))
        self._accounted = {pair: n for pair, n in self._accounted.items() if pair[1] >= newest - LATE}
        return self._again

    def done(self, newest: int) -> None:
        """What was answered is told: now it is kept. Raises OSError."""
        for kept in self._changed.values():
            self._state.save_minute(kept)
        self._again, self._changed, self._looked_back = {}, {}, newest

    def _grown(self, watch: Watch, kept: KeptMinute, counts: Mapping[tuple[str, int], int]) -> set[str]:
        had, minute = kept.tally.lines, kept.minute
        return {
            service
            for (service, at_minute), n in counts.items()
            if at_minute == minute
            and service in watch.window.services
            and n > max(self._accounted.get((service, minute), 0), had.get(service, 0))
        }


def _nobody_in(window: LiveWindow) -> bool:
    """Whether nothing came in a minute that is still looked at."""
    return any(kept.blind.everything == NOBODY for kept in window.minutes[-LATE - 1 :])

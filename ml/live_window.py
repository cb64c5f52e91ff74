"""The last minutes of a tenant as its model looks at them: what a resident scorer holds between one minute and the next.

Everything follows from what is kept: the minutes' tallies, who could not be seen in them, and when each template had been
seen before the first of them. So a process that starts again, a minute to which lines came late and a model that takes
another's place all lead to the same frames. Time that nobody observed is not held against a template: it did not
return after a day of silence only because nobody looked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ml.detectors import Scores, Shard, score
from ml.drift import Sightings, bounded, freshness
from ml.features import Frame, Minute, Vocabulary, advanced, frame_of
from ml.minute_tally import MinuteTally
from ml.quarters import Quarters
from ml.shard_parts import part_of
from ml.signals import HISTORY

if TYPE_CHECKING:
    import polars as pl

    from ml.model_store import Model

DEBOUNCED = 3
"""Minutes that are scored to know one: it is debounced with the two before it."""
ROWS = HISTORY + DEBOUNCED
LATE = 10
"""Minutes back in which lines that came late are looked for."""
KEPT = ROWS + LATE + 2
FOLDED = 30
"""Minutes that are folded into the sightings at a time."""


@dataclass(frozen=True, slots=True)
class Blind:
    """Whom nobody could see in a minute, and why: all services, or some."""

    everything: str = ""
    services: Mapping[str, str] = field(default_factory=dict)

    def hides(self, service: str) -> bool:
        """Whether what this service wrote is not known."""
        return bool(self.everything) or service in self.services


@dataclass(frozen=True, slots=True)
class KeptMinute:
    """A minute and who could not be seen in it."""

    tally: MinuteTally
    blind: Blind = Blind()

    @property
    def minute(self) -> int:
        """Since 1970."""
        return self.tally.minute


@dataclass(slots=True)
class _Fitted:
    shard: Shard
    number: int

    @property
    def vocabulary(self) -> Vocabulary:
        return self.shard.vocabularies[self.number]


class LiveWindow:
    """Consecutive minutes [start, end) of a tenant, and a frame of each service that the model knows."""

    def __init__(self, model: Model, start: int, before: Mapping[str, Sightings] | None = None) -> None:
        self.shards: tuple[Shard, ...] = tuple(one.shard for one in model.shards)
        self.start = start
        self.before = dict(sightings_at(model, start, before or {}))
        """When templates had been seen before ``start``, by service."""
        self.minutes: list[KeptMinute] = []
        self.frames: dict[str, Frame] = {}
        self._fitted = {name: _Fitted(shard, n) for shard in self.shards for n, name in enumerate(shard.services)}
        self._blank()

    @property
    def end(self) -> int:
        """The minute after the last one."""
        return self.start + len(self.minutes)

    @property
    def services(self) -> Set[str]:
        """Those that the model knows."""
        return self._fitted.keys()

    def at(self, minute: int) -> KeptMinute | None:
        """What is kept of a minute."""
        row = minute - self.start
        return self.minutes[row] if 0 <= row < len(self.minutes) else None

    def append(self, kept: KeptMinute) -> None:
        """The next minute. Raises ValueError for another one."""
        if kept.minute != self.end:
            raise ValueError(f"expected minute {self.end}, found {kept.minute}")
        rows = _by_service(kept.tally.table)
        for service, fitted in self._fitted.items():
            frame = advanced(self.frames[service], rows.get(service, _NOTHING), fitted.vocabulary, keep=ROWS)
            if kept.blind.hides(service):
                frame.observed[-1] = False
            self.frames[service] = frame
        self.minutes.append(kept)

    def load(self, kept: Iterable[KeptMinute]) -> None:
        """Minutes from the start on, all at once. Raises ValueError for a hole."""
        for one in kept:
            if one.minute != self.end:
                raise ValueError(f"expected minute {self.end}, found {one.minute}")
            self.minutes.append(one)
        self._rebuild(self._fitted)

    def replace(self, kept: KeptMinute, services: Set[str]) -> None:
        """A minute in the place of the one that is kept, for services whose lines or whose sight changed."""
        self.minutes[kept.minute - self.start] = kept
        self._rebuild({service for service in services if service in self._fitted})

    def fold(self) -> bool:
        """Forget minutes that nothing needs any more; answers whether there were any."""
        if len(self.minutes) < KEPT + FOLDED:
            return False
        old, self.minutes = self.minutes[:FOLDED], self.minutes[FOLDED:]
        quarters = self._quarters_through(old, self.start)
        seen = {**self.before, **dict(self._seen_through(old, self.start))}
        self.before = {name: replace(one, quarters=quarters.get(name, Quarters())) for name, one in seen.items()}
        self.start += FOLDED
        return True

    def sightings(self) -> dict[str, Sightings]:
        """When templates were seen up to now, by service."""
        return {
            service: replace(frame.sightings, quarters=frame.quarters_before(self.end))
            for service, frame in self.frames.items()
        }

    def score(self) -> Iterator[tuple[Shard, Sequence[Frame], Scores]]:
        """Each shard's evidence; the last row is the last minute's."""
        for shard in self.shards:
            frames = [self.frames[service] for service in shard.services]
            yield shard, frames, score(shard, frames)

    def score_from(self, service: str, minute: int) -> tuple[Shard, Sequence[Frame], Scores]:
        """One service's evidence from a minute on, as a shard of its own."""
        fitted = self._fitted[service]
        shard = part_of(fitted.shard, [service])
        rows = min(self.end - minute, len(self.minutes)) + ROWS - 1
        frames = [self._frame(service, rows)]
        return shard, frames, score(shard, frames)

    def _blank(self) -> None:
        nothing = MinuteTally(self.start, _no_rows(), {})
        for service in self._fitted:
            self.frames[service] = self._made(service, nothing.table, ROWS)

    def _rebuild(self, services: Iterable[str]) -> None:
        parts = self._tables()
        for service in services:
            self.frames[service] = self._made(service, parts.get(service, _no_rows()), ROWS)

    def _frame(self, service: str, rows: int) -> Frame:
        return self._made(service, self._tables({service}).get(service, _no_rows()), rows)

    def _made(self, service: str, table: pl.DataFrame, rows: int) -> Frame:
        """The service's last minutes; those before the first that is kept were observed by nobody."""
        low = min(self.start, self.end - rows)
        gaps = [(low, self.start)]
        gaps += [(one.minute, one.minute + 1) for one in self.minutes if one.blind.hides(service)]
        before = self.before.get(service, Sightings())
        frame = frame_of(
            service,
            table,
            self._fitted[service].vocabulary,
            low,
            self.end,
            sightings=before,
            unobserved=gaps,
            earlier=before.quarters,
        )
        return frame.rows(len(frame.counts) - rows, len(frame.counts))

    def _tables(self, services: Set[str] | None = None) -> dict[str, pl.DataFrame]:
        import polars as pl

        if not self.minutes:
            return {}
        parts = [one.tally.table for one in self.minutes]
        if services is not None:
            parts = [part.filter(pl.col("service").is_in(sorted(services))) for part in parts]
        together = pl.concat(parts)
        return {str(key[0]): part for key, part in together.partition_by("service", as_dict=True).items()}

    def _seen_through(self, minutes: Sequence[KeptMinute], start: int) -> Iterator[tuple[str, Sightings]]:
        import polars as pl

        for key, part in pl.concat([one.tally.table for one in minutes]).partition_by("service", as_dict=True).items():
            service = str(key[0])
            seen = self.before.get(service, Sightings())
            now = freshness(part["minute"].to_numpy(), part["template"].to_list(), start, seen)[1]
            fitted = self._fitted.get(service)
            lasting = (fitted.vocabulary.templates, fitted.vocabulary.rest) if fitted else ()
            yield service, bounded(now, minutes[-1].minute, *lasting)

    def _quarters_through(self, minutes: Sequence[KeptMinute], start: int) -> dict[str, Quarters]:
        """The day before and up to the end of these minutes, of every service whose sightings are kept."""
        import polars as pl

        parts = pl.concat([one.tally.table for one in minutes]).partition_by("service", as_dict=True)
        out = {}
        for service, seen in self.before.items():
            observed = np.array([not one.blind.hides(service) for one in minutes])
            lines, unknown = np.zeros(len(minutes)), np.zeros(len(minutes))
            if (part := parts.get((service,))) is not None and service in self._fitted:
                row, number = part["minute"].to_numpy() - start, part["lines"].to_numpy()
                strange = ~part["template"].is_in(self._fitted[service].vocabulary.known).to_numpy()
                lines = np.bincount(row, number, len(minutes))
                unknown = np.bincount(row[strange], number[strange], len(minutes))
            out[service] = seen.quarters.followed_by(start, lines, unknown, observed)
        return out


def sightings_at(model: Model, start: int, live: Mapping[str, Sightings]) -> Iterator[tuple[str, Sightings]]:
    """What had been seen before ``start``: live, and for what was not, in the days that the model learned from.

    Between those days and ``start`` nobody looked: that time is taken out.
    """
    for trained in model.shards:
        for service, known in zip(trained.shard.services, trained.sightings, strict=True):
            seen = live.get(service, Sightings())
            newest = max(known.last.values(), default=start)
            away = max(0, start - 1 - newest)
            last = {name: min(at + away, start - 1) for name, at in known.last.items()} | dict(seen.last)
            yield service, Sightings({**known.appeared, **seen.appeared}, last, seen.quarters)


def rested(before: Mapping[str, Sightings], minutes: int) -> dict[str, Sightings]:
    """Sightings after so many minutes in which nobody looked."""
    return {
        service: replace(seen, last={name: at + minutes for name, at in seen.last.items()})
        for service, seen in before.items()
    }


def _by_service(table: pl.DataFrame) -> dict[str, Minute]:
    """The rows of one minute by service; the table is in order of services."""
    if table.height == 0:
        return {}
    whole = Minute.of_table(table)
    names = table["service"].rle().struct.unnest()
    out, at = {}, 0
    templates = table["template"].to_list()
    for length, service in zip(names["len"].to_list(), names["value"].to_list(), strict=True):
        rows = slice(at, at + length)
        out[service] = Minute(
            whole.minute[rows],
            templates[rows],
            whole.lines[rows],
            whole.errors[rows],
            whole.bytes[rows],
            whole.took_lines[rows],
            whole.took_median[rows],
            whole.took_p95[rows],
        )
        at += length
    return out


def _no_rows() -> pl.DataFrame:
    from ml.minute_tally import empty

    return empty()


_NOTHING = Minute(
    np.zeros(0, np.int64),
    [],
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0),
    np.zeros(0),
)

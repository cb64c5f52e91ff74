"""A model at work: the window of minutes that it looks at, the miner that its lines are mined with, its thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ml.budgets import Budget
from ml.detectors import Scores, Shard, thresholds
from ml.drift import Sightings
from ml.features import Frame
from ml.live_window import KeptMinute, LiveWindow
from ml.minute_tally import MinuteCounter
from ml.model_store import Model
from ml.templates import TemplateMiner
from onecollector.scorer.live_templates import LiveTemplates

NewMiner = Callable[[], TemplateMiner]
MISFITS = (ValueError, ArithmeticError, LookupError)
"""What comes of a model that does not fit the minutes that it looks at."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A shard's minutes up to the newest one; ``unusual`` services of that one, with their weights in decades."""

    shard: Shard
    frames: Sequence[Frame]
    scores: Scores
    unusual: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Watch:
    """``limits`` are the model's thresholds in decades by service."""

    model: Model
    window: LiveWindow
    templates: LiveTemplates
    limits: Mapping[str, float]

    def unusual(self, service: str, weight: float, raised: Mapping[str, float]) -> bool:
        """Whether a minute's weight is a finding's, where thresholds are ``raised`` by so many decades."""
        return weight >= self.limits[service] + raised.get(service, 0.0)

    def score(self, raised: Mapping[str, float]) -> Iterator[Scored]:
        """Each shard's newest minute, where thresholds are ``raised`` by so many decades."""
        for shard, frames, scores in self.window.score():
            weights = zip(shard.services, scores.weight[-1].tolist(), strict=True)
            unusual = {service: weight for service, weight in weights if self.unusual(service, weight, raised)}
            yield Scored(shard, frames, scores, unusual)

    def counter(self, minute: int) -> MinuteCounter:
        """Counts a minute's lines as this model tells them apart."""
        return MinuteCounter(self.templates.miner, self.window.services, minute)


def watch_from(
    model: Model,
    start: int,
    before: Mapping[str, Sightings] | None,
    minutes: Iterable[KeptMinute],
    new_miner: NewMiner,
    budget: Budget,
) -> Watch:
    """A model that looks at these minutes from ``start`` on. Raises ValueError for a hole."""
    window = LiveWindow(model, start, before)
    window.load(minutes)
    return Watch(model, window, LiveTemplates(model.templates, new_miner), limits_of(window.shards, budget))


def watch_beside(other: Watch, model: Model, new_miner: NewMiner, budget: Budget) -> Watch:
    """The same minutes with another model's eyes: what the other one's miner learned of late is known here too."""
    old = other.window
    watch = watch_from(model, old.start, old.before, old.minutes, new_miner, budget)
    watch.templates.adopt(other.templates, seen_in(old.minutes))
    return watch


def seen_in(minutes: Iterable[KeptMinute]) -> set[tuple[str, str]]:
    """Services and templates that wrote in these minutes."""
    tables = [kept.tally.table for kept in minutes]
    return {
        pair for table in tables for pair in zip(table["service"].to_list(), table["template"].to_list(), strict=True)
    }


def limits_of(shards: Sequence[Shard], budget: Budget) -> dict[str, float]:
    """Each service's threshold in decades for so many findings a day."""
    return {
        service: limit
        for shard in shards
        for service, limit in zip(shard.services, thresholds(shard, budget).tolist(), strict=True)
    }

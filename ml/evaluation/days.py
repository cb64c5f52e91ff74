"""The harness's own days: minute by minute what each template of a service would have written, faults not yet in them.

Season by hour and weekday, noise that lingers (AR), counts that vary more than chance, cron and periodic templates,
benign bursts, and in the test span one deploy and one restart. Counts come first, because 18 days of ten services are
155 million lines; ``lines.py`` renders any part of them as lines, and a test holds that both say the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.services import RATES, ServiceSpec, TemplateSpec, make_service

DAY = 1440
"""Minutes."""
TRAIN_DAYS, CALIBRATE_DAYS, TEST_DAYS = 10, 4, 4
BURST_MINUTES = 5
BURSTS_A_DAY = 2 / 7
START_MINUTE = 29_459_520
"""Minutes since 1970 of the first row: Monday 2026-01-05 00:00 UTC."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a service's days and is no fault: minute (row), length, what, how strong."""

    row: int
    minutes: int
    kind: str
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class ServiceDays:
    """Days of one service: ``counts[minute, template]``; ``log_ms[minute, template]`` shifts the log of durations.

    ``mean`` is what the counts were drawn around, ``events`` are benign.
    """

    spec: ServiceSpec
    start_minute: int
    counts: NDArray[np.int32]
    mean: NDArray[np.float32]
    log_ms: NDArray[np.float32]
    events: tuple[Event, ...]

    @property
    def minutes(self) -> NDArray[np.int64]:
        """Minutes since 1970 of the rows."""
        return self.start_minute + np.arange(len(self.counts), dtype=np.int64)

    def rows(self, first: int, end: int) -> ServiceDays:
        """The half-open part [first, end)."""
        part = slice(first, end)
        events = tuple(replace(e, row=e.row - first) for e in self.events if first <= e.row < end)
        return ServiceDays(
            self.spec, self.start_minute + first, self.counts[part], self.mean[part], self.log_ms[part], events
        )


def make_days(seed: int, rates: tuple[float, ...] = RATES) -> list[ServiceDays]:
    """All services of one seed over the 18 days; the same seed gives the same days."""
    made = []
    for number, rate in enumerate(rates):
        chance = np.random.default_rng((seed, number))
        made.append(live(make_service(number, rate, chance), chance))
    return made


def live(
    spec: ServiceSpec,
    chance: np.random.Generator,
    quiet_days: int = TRAIN_DAYS + CALIBRATE_DAYS,
    test_days: int = TEST_DAYS,
) -> ServiceDays:
    """Let a service live through days with bursts, and through test days with one deploy and one restart."""
    rows = (quiet_days + test_days) * DAY
    events = [
        Event(int(row), BURST_MINUTES, "burst", float(chance.uniform(2, 4)))
        for row in np.sort(chance.integers(0, rows - 10, int(chance.poisson(BURSTS_A_DAY * rows / DAY))))
    ]
    if test_days:
        low, high = quiet_days * DAY, rows
        deploy, restart = chance.integers(low + 120, high - 120, 2)
        events += [Event(int(deploy), rows - int(deploy), "deploy"), Event(int(restart), 1, "restart")]
    else:
        restart = -1
    minutes = START_MINUTE + np.arange(rows, dtype=np.int64)
    flow = _season(spec, minutes) * np.exp(_ar(rows, spec.ar, spec.ar_sd, chance))
    for event in events:
        if event.kind == "burst":
            flow[event.row : event.row + event.minutes] *= event.factor
    mean = np.zeros((rows, len(spec.templates)), np.float32)
    counts = np.zeros((rows, len(spec.templates)), np.int32)
    for column, template in enumerate(spec.templates):
        mean[:, column], counts[:, column] = _column(template, flow, events, chance)
    if restart >= 0:
        counts[restart] = np.where([t.kind == "startup" for t in spec.templates], counts[restart], 0)
    log_ms = np.repeat(
        _ar(rows, 0.8, 0.06, chance)[:, None].astype(np.float32), len(spec.templates), axis=1
    ) + chance.normal(0, 0.03, counts.shape).astype(np.float32)
    return ServiceDays(spec, START_MINUTE, counts, mean, log_ms, tuple(sorted(events, key=lambda e: e.row)))


def negative_binomial(mean: NDArray[np.floating], spread: float, chance: np.random.Generator) -> NDArray[np.int64]:
    """Counts with variance ``spread`` times the mean; plain Poisson where ``spread`` is 1 or less."""
    if spread <= 1:
        return chance.poisson(mean)
    return chance.poisson(chance.standard_gamma(np.maximum(mean, 1e-9) / (spread - 1)) * (spread - 1))


def _season(spec: ServiceSpec, minutes: NDArray[np.int64]) -> NDArray[np.float64]:
    hour = minutes % DAY / 60
    weekday = (minutes // DAY + 3) % 7
    swing = np.exp(0.5 * np.log(spec.peak_to_trough) * np.cos(2 * np.pi * (hour - spec.peak_hour) / 24))
    swing *= np.where(weekday >= 5, spec.weekend, 1.0)
    return swing / swing[: 7 * DAY].mean()


def _ar(rows: int, ar: float, sd: float, chance: np.random.Generator) -> NDArray[np.float64]:
    from scipy.signal import lfilter

    noise = chance.normal(0, sd * np.sqrt(1 - ar**2), rows)
    noise[0] = chance.normal(0, sd)
    return np.asarray(lfilter([1.0], [1.0, -ar], noise))


def _column(
    template: TemplateSpec, flow: NDArray[np.float64], events: list[Event], chance: np.random.Generator
) -> tuple[NDArray[np.floating], NDArray[np.integer]]:
    """The mean and the counts of one template over all rows."""
    rows = len(flow)
    if template.kind in ("traffic", "error"):
        mean = template.rate * flow
        return mean, negative_binomial(mean, template.spread, chance)
    if template.kind == "deployed":
        mean = template.rate * flow
        mean[: next((e.row for e in events if e.kind == "deploy"), rows)] = 0
        return mean, negative_binomial(mean, template.spread, chance)
    if template.kind == "periodic":
        ticks = np.arange(chance.uniform(0, template.period), rows * 60, template.period)
        ticks = ticks + chance.normal(0, template.spread * template.period, len(ticks))
        kept = ticks[chance.random(len(ticks)) > 0.002]
        counts = np.bincount(np.clip(kept // 60, 0, rows - 1).astype(int), minlength=rows)
        return np.full(rows, template.rate), counts
    mean = np.zeros(rows)
    if template.kind == "cron":
        period = int(template.period)
        mean[int(chance.integers(0, period)) :: period] = template.rate
    elif template.kind == "rare":
        mean[:] = template.rate
    else:
        starts = [0, *(e.row for e in events if e.kind == "restart")]
        mean[starts] = 3
        return mean, np.where(mean > 0, 1 + chance.poisson(2, rows), 0)
    return mean, chance.poisson(mean)

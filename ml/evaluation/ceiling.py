"""How many surges of known errors can be told from chance at all: what nobody could know is no fault of a detector.

Asked of the days themselves, by somebody who knows which template surges and when: in so many minutes, how often would the
template write as many lines without a fault? Counts are taken as negative binomial with the mean and the variance that the
template's minutes had before.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ml.evaluation.days import CALIBRATE_DAYS, DAY, TRAIN_DAYS, make_days
from ml.evaluation.faults import plan, targets_of
from ml.evaluation.harness import EACH, SEEDS
from ml.evaluation.services import RATES, template_number

CHANCE = 1e-4
"""As for services of a few lines an hour; a finding every two days and service is a chance of 1 in 2,880 a minute."""


def surges_by_chance(seeds: Sequence[int] = SEEDS, rates: Sequence[float] = RATES, each: int = EACH) -> list[float]:
    """Of every ``error surge`` of the harness the probability that it is none."""
    out = []
    for seed in seeds:
        for number, days in enumerate(make_days(seed, tuple(rates))):
            first = (TRAIN_DAYS + CALIBRATE_DAYS) * DAY
            faults = plan(targets_of(days), first, len(days.counts), each, np.random.default_rng((seed, number, 1)))
            for fault in faults:
                if fault.kind == "error surge":
                    counts = days.counts[:first, template_number(fault.templates[0])]
                    out.append(by_chance(counts, fault.minutes, fault.size))
    return out


def by_chance(counts: np.ndarray, minutes: int, times: float) -> float:
    """The probability that a template with these ``counts`` a minute writes ``times`` its mean in so many minutes."""
    from scipy.stats import nbinom, poisson

    mean, variance = float(counts.mean()), float(counts.var())
    usual, lines = mean * minutes, int(mean * minutes * times)
    if lines < 1:
        return 1.0
    spread = variance / mean
    if spread <= 1:
        return float(poisson.sf(lines - 1, usual))
    return float(nbinom.sf(lines - 1, usual / (spread - 1), 1 / spread))

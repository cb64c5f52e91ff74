"""What cannot be told from chance is called so: by the mean, by the spread, and by how long it lasts."""

from __future__ import annotations

import numpy as np
import pytest

from ml.evaluation.ceiling import CHANCE, by_chance, surges_by_chance


def test_more_lines_and_longer_surges_are_rarer_and_clumps_are_commoner() -> None:
    chance = np.random.default_rng(1)
    even = chance.poisson(1.0, 20_000)
    clumped = chance.poisson(0.2, 20_000) * 5
    assert by_chance(even, 10, 3) < CHANCE < by_chance(clumped, 10, 3)
    assert by_chance(even, 10, 5) < by_chance(even, 10, 3) < by_chance(even, 5, 3)


def test_a_template_of_a_line_a_day_cannot_surge_visibly() -> None:
    counts = np.zeros(14 * 1440)
    counts[::1440] = 1
    assert by_chance(counts, 10, 20) == 1.0


def test_it_is_the_probability_that_counts_of_that_kind_have() -> None:
    chance = np.random.default_rng(2)
    counts = chance.negative_binomial(0.5, 0.25, 400_000)
    sums = counts[: len(counts) // 10 * 10].reshape(-1, 10).sum(1)
    # Three times the mean of 15 lines in ten minutes.
    assert by_chance(counts, 10, 3) == pytest.approx((sums >= int(counts.mean() * 30)).mean(), rel=0.2)


def test_every_surge_of_a_seed_is_asked_about() -> None:
    found = surges_by_chance(seeds=(11,), rates=(5.0, 3000.0))
    assert len(found) == 4 and all(0 <= p <= 1 for p in found) and min(found) < CHANCE < max(found)

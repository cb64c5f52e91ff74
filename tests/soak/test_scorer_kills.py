"""kill -9 of a real scorer, many times over hours of minutes: every fault is one finding, and every finding is told."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench.loki import private_loki
from tests.real.killing import MOMENTS
from tests.real.lives import lived_through
from tests.real.scored import past
from tests.unit.scorer_world import SERVICES

pytestmark = [pytest.mark.real, pytest.mark.soak, pytest.mark.timeout(900)]

ROUNDS, EVERY = 5, 12


def test_sixty_kills_lose_and_double_no_finding_and_no_message(tmp_path: Path) -> None:
    faults = [(service, 3 + EVERY * n) for n, service in enumerate(SERVICES * ROUNDS)]
    chance = random.Random(5)
    lives: list[str | float] = []
    for _ in range(4):
        for moment in chance.sample(MOMENTS, len(MOMENTS)):
            # Beside chosen moments any other, of a process that takes two seconds to start.
            lives += [moment] if chance.random() < 1 / 3 else [moment, 2 + chance.random()]
    with private_loki() as loki:
        minutes = past(faults[-1][1] + 25)
        hits = lived_through(loki, tmp_path, "default", minutes, faults, lives[:60], hangs=2)
    assert set(hits) == set(MOMENTS) and len(hits) >= 25, hits

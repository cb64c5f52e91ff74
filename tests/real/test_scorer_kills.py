"""kill -9 of a real scorer between any two of its steps: every fault is one finding, and every finding is told."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from onecollector_resources.loki.lifecycle import LokiLifecycle
from tests.real.killing import MOMENTS
from tests.real.lives import lived_through
from tests.real.scored import past

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


def test_killed_at_every_moment_it_finds_each_fault_once_and_tells_of_each(loki: LokiLifecycle, tmp_path: Path) -> None:
    faults = [("cart", 3), ("web", 12), ("mailer", 21), ("ledger", 30)]
    lives = [*MOMENTS]
    hits = lived_through(loki, tmp_path, "killed", past(55), faults, lives, hangs=1)
    assert Counter(hits) == Counter(lives)

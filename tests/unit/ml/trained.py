"""Small models: two services of three days, fitted for real."""

from __future__ import annotations

from functools import cache

import numpy as np

from ml.detectors import fit_shard
from ml.evaluation.days import DAY, live
from ml.evaluation.harness import case_of
from ml.evaluation.services import make_service
from ml.model_manifest import Learned, ModelManifest
from ml.model_store import ModelStore, ServiceFacts, TrainedShard, packed
from ml.template_store import StoredTemplates


@cache
def small_shard(seed: int = 1) -> TrainedShard:
    cases = []
    for number, rate in enumerate((5.0, 20.0)):
        chance = np.random.default_rng((seed, number))
        days = live(make_service(number, rate, chance), chance, quiet_days=4, test_days=0)
        cases.append(case_of(days, 3 * DAY, (), chance))
    shard = fit_shard([case.train for case in cases], [case.vocabulary for case in cases])
    return TrainedShard(shard, tuple(case.train.sightings for case in cases))


LEARNED = Learned("2026-11-01", "2026-11-03", 8640, 0.0, {"2026-11-01": "ab" * 32}, {"numpy": "2"})


def written(models: ModelStore, parent: str = "", seed: int = 1, passed: bool = True) -> ModelManifest:
    """A small model in a store."""
    trained = small_shard(seed)
    arrays, names = packed(trained)
    facts = [ServiceFacts(name, 3.0, 20_000, 12, 0.0, False) for name in trained.shard.services]
    gates = [{"name": "data", "passed": passed, "blocking": True, "expected": "days", "found": "3", "fix": "wait"}]
    return models.write(
        [arrays], [names], facts, {"gates": gates, "passed": passed}, LEARNED, parent, StoredTemplates()
    )

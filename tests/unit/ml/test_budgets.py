"""A service may have a budget of its own: it alone is asked for more or less, in all places where budgets count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ml import detectors
from ml.budgets import Budgets, budget_for, budgets_of, mean_budget
from ml.examination import Detector
from ml.model_store import unpacked
from ml.pressure import WEEK, pressures
from onecollector.scorer.watch import limits_of
from onecollector_resources.settings import SettingsError, load_settings
from tests.unit.scorer_world import SERVICES, learned


def test_a_services_own_budget_moves_its_threshold_and_no_other() -> None:
    arrays, names, _ = learned()
    shard = unpacked(arrays, names).shard
    usual = limits_of([shard], 0.5)
    own = limits_of([shard], Budgets(0.5, {"cart": 5.0, "ledger": 0.05, "nobody": 1.0}))
    assert own["cart"] < usual["cart"] and own["ledger"] > usual["ledger"]
    assert all(own[service] == usual[service] for service in set(SERVICES) - {"cart", "ledger"})
    # As if all had it: what a service is asked for is its own budget's.
    assert own["cart"] == limits_of([shard], 5.0)["cart"]
    assert np.array_equal(detectors.thresholds(shard), detectors.thresholds(shard, Budgets(detectors.DEFAULT_BUDGET)))
    assert "cart" in Detector([shard], Budgets(0.5))


def test_budgets_are_those_of_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "onecollector.yaml"
    path.write_text("models: {alert_budget: 1, services: {cart: {alert_budget: 3}, web: {evidence: 20}}}")
    models = load_settings(path).models
    budgets = budgets_of(models.alert_budget, models.services)
    assert [budgets.of(service) for service in ("cart", "web", "other")] == [3, 1, 1]
    path.write_text("models: {services: {cart: {alert_budget: 0}}}")
    with pytest.raises(SettingsError, match=r"models\.services\.cart\.alert_budget"):
        load_settings(path)


def test_the_mean_is_of_the_services_at_hand() -> None:
    budgets = Budgets(0.5, {"cart": 2.5})
    assert mean_budget(budgets, ["cart", "web"]) == 1.5 and mean_budget(budgets, ["web"]) == 0.5
    assert mean_budget(budgets, []) == mean_budget(0.5, ["cart"]) == budget_for(0.5, "cart") == 0.5


def test_findings_within_a_services_own_budget_raise_nothing() -> None:
    week = 2950
    opened = [
        (service, (week - back) * WEEK) for service in ("cart", "web") for back in (1, 2, 3, 4) for _ in range(30)
    ]
    raised = pressures(opened, week * WEEK + 1, Budgets(0.5, {"cart": 10.0}))
    assert raised.keys() == {"web"}

"""Gates: what passes, what does not, and that chance alone does not fail anybody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.evaluation.faults import COUNT_KINDS, KINDS
from ml.evaluation.judge import Figure, Verdict, wilson
from ml.examination import Artefact, Detector, Remembered, Replay, remembered
from ml.gate_limits import GATES, LEAST_RATE, MOST_RATE
from ml.gates import Evaluation, findings_interval, gates_of, passed
from ml.model_store import ServiceFacts
from ml.shard_parts import part_of
from onecollector_resources.findings.records import Judged
from tests.unit.ml.trained import small_shard


def verdict(name: str, share: float, false: float = 0.4, faults: int = 40, delay: float = 2.0) -> Verdict:
    """A detector that finds this share of the faults of every class."""
    figure = wilson(round(share * faults), faults)
    return Verdict(
        name,
        20.0,
        figure,
        dict.fromkeys(KINDS, figure),
        dict.fromkeys(KINDS, faults),
        Figure(false, false / 2, false * 2),
        {},
        delay,
        delay * 2,
        0.3,
        0.02,
        0.02,
    )


FACTS = tuple(ServiceFacts(f"svc-{n}", 14.0, 100_000, 30, 0.0, False) for n in range(20))
GOOD = Evaluation(
    0.5,
    FACTS,
    0.01,
    Replay(20, 40.0, 18),
    (verdict("OneCollector", 0.8), verdict("all positive", 0.0), verdict("new template", 0.3, 2.0)),
    "20261104T000100-0123456789ab",
    verdict("in production", 0.8),
    Remembered(3, 2),
    Artefact(5_000_000, 2_000_000, 0.3),
)


def failing(**changed: Any) -> list[str]:
    return [gate.name for gate in gates_of(replace(GOOD, **changed)) if not gate.passed]


def test_a_good_model_passes_all_gates_and_they_are_all_told() -> None:
    gates = gates_of(GOOD)
    assert [gate.name for gate in gates] == list(GATES) and passed(gates) and not failing()
    told = GOOD.plain()
    assert told["passed"] and all(gate["expected"] and gate["fix"] and gate["found"] for gate in told["gates"])


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("data", {"facts": ()}),
        ("data", {"missing_share": 0.06}),
        ("templates", {"facts": (replace(FACTS[0], overflow=5_000),)}),
        ("templates", {"facts": (replace(FACTS[0], templates=60_000),)}),
        ("alert_budget", {"replay": Replay(20, 40.0, 70)}),
        ("alert_budget", {"replay": Replay(100, 200.0, 4)}),
        ("faults_found", {"verdicts": (verdict("OneCollector", 0.35),), "incumbent": None}),
        ("delay", {"verdicts": (verdict("OneCollector", 0.8, delay=7.0),)}),
        ("not_worse", {"incumbent": verdict("in production", 0.9)}),
        ("judged_findings", {"remembered": Remembered(3, 0, missed=("web 2026-11-03T14:00",))}),
        ("judged_findings", {"remembered": Remembered(0, 3, again=("a", "b"))}),
        ("baselines", {"verdicts": (verdict("OneCollector", 0.8), verdict("new template", 0.8, 0.3))}),
        ("artefact", {"artefact": Artefact(90_000_000, 70_000_000, 0.3)}),
        ("artefact", {"artefact": Artefact(5_000_000, 2_000_000, 3.0)}),
    ],
)
def test_each_gate_fails_by_itself(name: str, changed: dict[str, Any]) -> None:
    assert failing(**changed) == [name]
    assert passed(gates_of(replace(GOOD, **changed))) is (name == "templates")


@pytest.mark.parametrize(("faults", "told"), [(40, "none of 280 faults was found"), (0, "no fault was put in")])
def test_where_nothing_was_found_there_is_no_delay_to_pass_with(faults: int, told: str) -> None:
    blind = verdict("OneCollector", 0.0, faults=faults, delay=float("nan"))
    (gate,) = [gate for gate in gates_of(replace(GOOD, verdicts=(blind,))) if gate.name == "delay"]
    assert gate.passed is not bool(faults) and told in gate.found


def test_one_weak_class_fails_and_is_named() -> None:
    weak = verdict("OneCollector", 0.8)
    weak = replace(weak, by_kind={**weak.by_kind, "mix shift": wilson(2, 40)})
    (gate,) = [gate for gate in gates_of(replace(GOOD, verdicts=(weak,))) if gate.name == "faults_found"]
    assert not gate.passed and "mix shift" in gate.found


def test_the_latency_class_has_no_floor_but_must_not_be_worse_than_in_production() -> None:
    weak = verdict("OneCollector", 0.8)
    weak = replace(weak, by_kind={**weak.by_kind, "latency": wilson(1, 40)})
    assert failing(verdicts=(weak,), incumbent=None) == []
    assert failing(verdicts=(weak,)) == ["not_worse"]


def test_where_all_services_are_learning_nothing_is_asked_of_faults() -> None:
    learning = tuple(replace(one, learning=True, days=3.0) for one in FACTS)
    changed = {"facts": learning, "replay": None, "verdicts": (), "incumbent": None}
    assert failing(**changed) == []
    told = {gate.name: gate.found for gate in gates_of(replace(GOOD, **changed))}
    assert "all services are learning" in told["alert_budget"] and "20 of them learning" in told["data"]


@given(st.integers(1, 40), st.floats(0.3, 1.5), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_a_model_that_keeps_the_budget_seldom_fails_by_chance(services: int, share: float, seed: int) -> None:
    days = 2.0 * services
    drawn = np.random.default_rng(seed).poisson(share * 0.5 * days, 200)
    kept = []
    for findings in drawn:
        low, high = findings_interval(int(findings), days)
        kept.append(high >= LEAST_RATE * 0.5 and low <= MOST_RATE * 0.5)
    assert np.mean(kept) >= 0.95


def test_a_class_may_lose_one_fault_of_a_few() -> None:
    few = replace(GOOD, verdicts=(verdict("OneCollector", 0.5, faults=4),), incumbent=verdict("in", 0.75, faults=4))
    assert "not_worse" not in [gate.name for gate in gates_of(few) if not gate.passed]


def test_a_part_of_a_shard_has_its_own_arrays() -> None:
    shard = small_shard().shard
    name = shard.services[1]
    part = part_of(shard, [name])
    assert part.services == (name,) and part.tails.shape[0] == 1
    assert part.params["rates"].shape[1] == shard.columns[1]
    assert np.array_equal(part.params["rates"], shard.params["rates"][:, shard.columns[0] :])
    with pytest.raises(ValueError, match="found nobody"):
        part_of(shard, ["nobody"])
    assert set(COUNT_KINDS) < set(KINDS)


def test_findings_of_services_or_days_that_nobody_can_ask_about_do_not_count() -> None:
    detector = Detector([small_shard().shard], 0.5)
    findings = [Judged("gone", 100, 110, "confirmed"), Judged("gone", 5, 6, "dismissed")]
    assert remembered(detector, {}, findings, 10_000) == Remembered()

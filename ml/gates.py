"""The gates a model passes before it serves: each says what was expected, what was found, and what to do.

Two days of a few services are a small sample, so a figure fails a gate only where its 95 % interval lies outside of what
is expected: a gate that fails by chance teaches people to force it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

from ml.evaluation.faults import COUNT_KINDS, KINDS
from ml.evaluation.judge import Verdict, wilson
from ml.examination import Artefact, Remembered, Replay
from ml.gate_limits import (
    FEW_LINES,
    GATES,
    LEAST_RATE,
    LEAST_RECALL,
    LEAST_RECALL_OF_A_CLASS,
    LOST,
    MOST_DELAY,
    MOST_DISTINCT,
    MOST_FILE,
    MOST_MISSING,
    MOST_OVERFLOW,
    MOST_RATE,
    MOST_SCORE_CPU_S,
    MOST_WORN,
    WARNS,
)
from ml.model_store import ServiceFacts
from ml.wear import Worn


@dataclass(frozen=True, slots=True)
class Gate:
    """The outcome of one gate."""

    name: str
    passed: bool
    found: str
    fix: str

    @property
    def blocking(self) -> bool:
        """Whether a model that fails it is kept from serving."""
        return self.name not in WARNS

    def plain(self) -> dict[str, Any]:
        """For eval.json."""
        return {**asdict(self), "expected": GATES[self.name], "blocking": self.blocking}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything the gates look at. ``verdicts`` is the model's, then the baselines'; empty where no faults were put in.

    ``not_examined`` are services without faults put in, and why. ``incumbent`` is the verdict of the model in production, ``worn`` what of it no longer fits the ``examined`` services.
    """

    budget: float
    facts: tuple[ServiceFacts, ...]
    missing_share: float
    replay: Replay | None
    verdicts: tuple[Verdict, ...]
    incumbent_id: str
    incumbent: Verdict | None
    remembered: Remembered
    artefact: Artefact
    not_examined: tuple[tuple[str, str], ...] = ()
    worn: tuple[Worn, ...] = ()
    examined: int = 0

    @property
    def learning(self) -> tuple[str, ...]:
        """Services in learning mode."""
        return tuple(one.service for one in self.facts if one.learning)

    def plain(self) -> dict[str, Any]:
        """For eval.json, with the gates."""
        gates = gates_of(self)
        body = asdict(self)
        body.pop("facts")
        return {**body, "gates": [gate.plain() for gate in gates], "passed": passed(gates)}


def passed(gates: Sequence[Gate]) -> bool:
    """Whether the model may serve."""
    return all(gate.passed for gate in gates if gate.blocking)


def gates_of(evaluation: Evaluation) -> list[Gate]:
    """All gates, in the order of ``GATES``."""
    return [
        _data(evaluation),
        _templates(evaluation),
        _alert_budget(evaluation),
        _faults_found(evaluation),
        _delay(evaluation),
        _not_worse(evaluation),
        _judged_findings(evaluation),
        _baselines(evaluation),
        _wear(evaluation),
        _artefact(evaluation),
    ]


def findings_interval(findings: int, days: float) -> tuple[float, float]:
    """The 95 % interval of findings a day, as they come by chance (Garwood 1936)."""
    from scipy.stats import chi2

    low = float(chi2.ppf(0.025, 2 * findings)) / 2 if findings else 0.0
    return low / days, float(chi2.ppf(0.975, 2 * findings + 2)) / 2 / days


def _data(e: Evaluation) -> Gate:
    if not e.facts:
        return Gate("data", False, "no service wrote a line", "export days first: onecollector export, export.out")
    learning = len(e.learning)
    told = f", {learning} of them learning" if learning else ""
    found = f"{len(e.facts)} services{told}; {e.missing_share:.1%} of the minutes are missing"
    return Gate("data", e.missing_share < MOST_MISSING, found, "export the missing hours: backfill log_exports")


def _templates(e: Evaluation) -> Gate:
    bad = [
        one.service
        for one in e.facts
        if one.lines >= FEW_LINES
        and (one.overflow > MOST_OVERFLOW * one.lines or one.templates > MOST_DISTINCT * one.lines)
    ]
    fix = "give them masks: models.services.NAME.masks"
    return Gate("templates", not bad, f"{_some(bad)} have too many kinds" if bad else "all services are well", fix)


def _alert_budget(e: Evaluation) -> Gate:
    fix = "look at the findings of the last 48 hours: an incident that goes on? Train again when it is over"
    if e.replay is None or e.replay.days == 0:
        return Gate("alert_budget", True, _nothing(e), fix)
    low, high = findings_interval(e.replay.findings, e.replay.days)
    rate = e.replay.findings / e.replay.days
    found = (
        f"{e.replay.findings} findings in {e.replay.days:.1f} service-days: {rate:.2f} a day "
        f"({low:.2f} to {high:.2f}), budget {e.budget}"
    )
    return Gate("alert_budget", high >= LEAST_RATE * e.budget and low <= MOST_RATE * e.budget, found, fix)


def _faults_found(e: Evaluation) -> Gate:
    fix = "see eval.json for what is missed: onecollector models show; more days make the spreads narrower"
    if not e.verdicts:
        return Gate("faults_found", True, _nothing(e), fix)
    model = e.verdicts[0]
    weak = [k for k in COUNT_KINDS if model.faults[k] and model.by_kind[k].high < LEAST_RECALL_OF_A_CLASS]
    # By faults and not by services, of which there may be one.
    faults = sum(model.faults[k] for k in COUNT_KINDS)
    recall = wilson(sum(_found(model, k) for k in COUNT_KINDS), faults)
    found = f"recall {recall} of {faults} faults"
    found += f"; {_some([f'{k} {model.by_kind[k]}' for k in weak])}" if weak else ""
    return Gate("faults_found", recall.high >= LEAST_RECALL and not weak, found, fix)


def _delay(e: Evaluation) -> Gate:
    fix = "as for faults_found"
    if not e.verdicts:
        return Gate("delay", True, _nothing(e), fix)
    model = e.verdicts[0]
    delay, faults = model.median_delay, sum(model.faults.values())
    if isnan(delay):
        found = f"none of {faults} faults was found" if faults else "no fault was put in"
        return Gate("delay", not faults, f"{found}: there is no delay", fix)
    return Gate("delay", delay <= MOST_DELAY, f"{delay:.0f} minutes", fix)


def _not_worse(e: Evaluation) -> Gate:
    fix = "keep the model in production; train again when the days have settled, or promote by hand"
    if e.incumbent is None or not e.verdicts:
        none = "no model is in production" if not e.incumbent_id else _nothing(e)
        return Gate("not_worse", True, none, fix)
    model, other = e.verdicts[0], e.incumbent
    worse = []
    for kind in KINDS:
        ours, theirs = _found(model, kind), _found(other, kind)
        if ours < theirs - max(1, round(LOST * other.faults[kind])):
            worse.append(f"{kind} {ours} instead of {theirs} of {other.faults[kind]}")
    found = _some(worse) if worse else f"recall {model.recall.value:.2f}, {e.incumbent_id} has {other.recall.value:.2f}"
    return Gate("not_worse", not worse, found, fix)


def _judged_findings(e: Evaluation) -> Gate:
    r = e.remembered
    fix = "look at them: onecollector findings show; promote by hand if the judgement no longer holds"
    dismissed = len(r.again) + len(r.beyond)
    found = f"{r.confirmed - len(r.missed)} of {r.confirmed} confirmed are found, {dismissed} of {r.dismissed} dismissed too"
    if r.missed or dismissed:
        told = (
            *(f"missed {one}" for one in r.missed),
            *(f"again {one}" for one in r.again),
            *(f"too heavy to be taken for normal: {one}" for one in r.beyond),
        )
        found += f": {_some(told)}"
    # Half of what was dismissed may come again: a dismissal is about that moment, a confirmation about its kind.
    return Gate("judged_findings", not r.missed and len(r.again) * 2 <= r.dismissed, found, fix)


def _baselines(e: Evaluation) -> Gate:
    fix = "set a plain rule for these services (rules in onecollector.yaml) until there are more days"
    if not e.verdicts:
        return Gate("baselines", True, _nothing(e), fix)
    model, *others = e.verdicts
    better = [
        f"{b.detector}: recall {b.recall.value:.2f} at {b.false_a_day.value:.2f} false a day"
        for b in others
        if b.recall.value >= model.recall.value and b.false_a_day.value <= model.false_a_day.value
    ]
    own = f"recall {model.recall.value:.2f} at {model.false_a_day.value:.2f} false a day"
    return Gate("baselines", not better, f"{own}; {_some(better)}" if better else own, fix)


def _wear(e: Evaluation) -> Gate:
    fix = "this model learned those days: let it serve soon; what changed in these services, and was it meant?"
    services = sorted({one.service for one in e.worn})
    if e.incumbent is None and not e.worn:
        return Gate("wear", True, _nothing(e) if e.incumbent_id else "no model is in production", fix)
    told = _some([f"{one.service} {one.signal} {one.index:.2f}" for one in e.worn])
    found = f"{len(services)} of {e.examined} services{f': {told}' if told else ''}"
    return Gate("wear", len(services) <= max(1, MOST_WORN * e.examined), found, fix)


def _artefact(e: Evaluation) -> Gate:
    a = e.artefact
    found = f"{a.bytes / 1e6:.1f} MB, the largest file {a.largest_file / 1e6:.1f} MB; scoring {a.score_cpu_s:.2f} s"
    return Gate(
        "artefact",
        a.largest_file <= MOST_FILE and a.score_cpu_s <= MOST_SCORE_CPU_S,
        found,
        "fewer templates: masks for services with many",
    )


def _found(verdict: Verdict, kind: str) -> int:
    return round(verdict.by_kind[kind].value * verdict.faults[kind]) if verdict.faults[kind] else 0


def _nothing(e: Evaluation) -> str:
    if e.facts and len(e.learning) == len(e.facts):
        return "nothing to examine: all services are learning"
    return "nothing to examine: " + (_some([why for _, why in e.not_examined[:1]]) or "no service has enough days")


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:3]) + (f" and {len(texts) - 3} more" if len(texts) > 3 else "")

"""Seven classes of faults, each with its range of sizes: planned without looking at a detector, then put into days.

A plan says when, how strong and which templates; ``into_days`` puts it into the harness's own counts, ``lines.py`` into the
lines of a user's own days. Both lose, double and move lines by chance one by one, so that the counts of a faulty minute
vary as those of a healthy one do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.days import ServiceDays, negative_binomial
from ml.evaluation.services import TemplateSpec, template_id, template_number

FaultKind = Literal[
    "new error", "error surge", "periodic stops", "traffic drop", "traffic surge", "mix shift", "latency"
]
COUNT_KINDS: tuple[FaultKind, ...] = (
    "new error",
    "error surge",
    "periodic stops",
    "traffic drop",
    "traffic surge",
    "mix shift",
)
KINDS: tuple[FaultKind, ...] = (*COUNT_KINDS, "latency")
SHORTEST, LONGEST = 5, 15
"""Minutes."""
APART = 120
"""Minutes at least from the end of a fault to the next one: the hour before has to be quiet."""
MAGNITUDES: dict[FaultKind, tuple[float, float]] = {
    "new error": (1, 20),
    "error surge": (3, 20),
    "periodic stops": (0, 0),
    "traffic drop": (0, 0.6),
    "traffic surge": (1.8, 4),
    "mix shift": (0.2, 0.6),
    "latency": (2, 10),
}
"""Lines a minute; factor; -; what is left; factor; share of lines that move; factor. Ratios are drawn evenly in logarithm."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Template ids of a service that faults can hit. ``periodic`` have 1 to 30 lines a minute, ``timed`` have durations."""

    errors: tuple[str, ...]
    periodic: tuple[str, ...]
    traffic: tuple[str, ...]
    timed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the rows [row, row + minutes). ``templates`` are hit, ``towards`` get the lines of a mix shift."""

    kind: FaultKind
    row: int
    minutes: int
    size: float
    templates: tuple[str, ...]
    towards: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """The first row after it."""
        return self.row + self.minutes


def targets_of(days: ServiceDays) -> Targets:
    """What can be hit in the harness's own days."""
    specs = [(template_id(number), spec) for number, spec in enumerate(days.spec.templates)]
    return Targets(
        tuple(name for name, spec in specs if spec.kind == "error"),
        tuple(name for name, spec in specs if spec.kind == "periodic" and 1 <= spec.rate <= 30),
        tuple(name for name, spec in specs if spec.kind == "traffic"),
        tuple(name for name, spec in specs if spec.log_ms is not None),
    )


def draw(kind: FaultKind, row: int, targets: Targets, chance: np.random.Generator) -> Fault | None:
    """One fault of a class at a row; None where the service has nothing that it could hit (no periodic template)."""
    low, high = MAGNITUDES[kind]
    size = float(np.exp(chance.uniform(np.log(low), np.log(high)))) if low > 0 else float(chance.uniform(low, high))
    minutes = int(chance.integers(SHORTEST, LONGEST + 1))
    hit: Sequence[str] = ()
    towards: Sequence[str] = ()
    if kind == "error surge":
        hit = _one(targets.errors, chance)
    elif kind == "periodic stops":
        hit = _one(targets.periodic, chance)
    elif kind == "traffic drop":
        hit = (*targets.traffic, *targets.errors, *targets.periodic)
    elif kind == "traffic surge":
        hit = (*targets.traffic, *targets.errors)
    elif kind == "mix shift" and len(targets.traffic) > 1:
        shuffled = [targets.traffic[n] for n in chance.permutation(len(targets.traffic))]
        cut = max(1, len(shuffled) // int(chance.integers(2, 6)))
        towards, hit = shuffled[:cut], shuffled[cut:]
    elif kind == "latency":
        hit = targets.timed if chance.random() < 0.5 else _one(targets.timed, chance)
    if kind != "new error" and not hit:
        return None
    return Fault(kind, row, minutes, size, tuple(hit), tuple(towards))


def plan(
    targets: Targets, first: int, end: int, each: int, chance: np.random.Generator, kinds: Sequence[FaultKind] = KINDS
) -> list[Fault]:
    """``each`` faults of each class in the rows [first, end), in random order, ``APART`` from each other.

    Raises ValueError where the rows do not hold so many.
    """
    every = [kind for kind in kinds for _ in range(each)]
    order = [every[n] for n in chance.permutation(len(every))]
    needed = len(order) * (APART + LONGEST) + 60
    slack = (end - first) - needed
    if slack < 0:
        raise ValueError(
            f"{len(order)} faults need {needed} minutes, there are {end - first}: inject fewer or give more days"
        )
    waits = np.sort(chance.integers(0, slack + 1, len(order)))
    rows = first + 60 + waits + np.arange(len(order)) * (APART + LONGEST)
    drawn = [draw(kind, int(row), targets, chance) for kind, row in zip(order, rows, strict=True)]
    return [fault for fault in drawn if fault is not None]


def into_days(days: ServiceDays, faults: Sequence[Fault], chance: np.random.Generator) -> ServiceDays:
    """The same days with the faults in them; each new error adds a template at the end."""
    counts, log_ms, mean = days.counts.copy(), days.log_ms.copy(), days.mean
    templates = list(days.spec.templates)
    for fault in faults:
        rows = slice(fault.row, fault.end)
        hit = [template_number(name) for name in fault.templates]
        part = counts[rows][:, hit]
        if fault.kind == "new error":
            templates.append(new_error(fault.size, chance))
            wider = ((0, 0), (0, 1))
            counts, log_ms, mean = np.pad(counts, wider), np.pad(log_ms, wider), np.pad(mean, wider)
            counts[rows, -1] = chance.poisson(fault.size, fault.minutes)
        elif fault.kind == "error surge":
            more = (fault.size - 1) * mean[rows][:, hit].astype(np.float64)
            counts[rows, hit] += negative_binomial(more, templates[hit[0]].spread, chance).astype(np.int32)
        elif fault.kind == "periodic stops":
            counts[rows, hit] = 0
        elif fault.kind == "traffic drop":
            counts[rows, hit] = chance.binomial(part, fault.size)
        elif fault.kind == "traffic surge":
            counts[rows, hit] = part + more_of(part, fault.size - 1, chance)
        elif fault.kind == "mix shift":
            counts[rows] = _moved(counts[rows], fault, chance)
        else:
            log_ms[rows, hit] += np.float32(np.log(fault.size))
    spec = replace(days.spec, templates=tuple(templates))
    return ServiceDays(spec, days.start_minute, counts, mean, log_ms, days.events)


def new_error(rate: float, chance: np.random.Generator) -> TemplateSpec:
    """An error of words that nobody has written before."""
    words = ("".join(chance.choice(list("abcdefghijklmnopqrstuvwxyz"), 9)) for _ in range(2))
    return TemplateSpec("ERROR {} panicked in {} {{n}}".format(*words), "error", rate)


def more_of(lines: NDArray[np.integer], factor: float, chance: np.random.Generator) -> NDArray[np.integer]:
    """Each line ``factor`` times, by chance where that is no whole number."""
    whole = int(factor)
    return (lines * whole + chance.binomial(lines, factor - whole)).astype(lines.dtype)


def _moved(part: NDArray[np.int32], fault: Fault, chance: np.random.Generator) -> NDArray[np.int32]:
    """``size`` of all lines leave ``templates`` (at most what they have) for ``towards``; the total stays."""
    part = part.copy()
    hit, towards = ([template_number(name) for name in names] for names in (fault.templates, fault.towards))
    share = np.minimum(1.0, fault.size * part.sum(1) / np.maximum(part[:, hit].sum(1), 1))
    leaving = chance.binomial(part[:, hit], share[:, None])
    part[:, hit] -= leaving.astype(part.dtype)
    weights = chance.dirichlet(np.ones(len(towards)))
    for row, lines in enumerate(leaving.sum(1)):
        part[row, towards] += chance.multinomial(lines, weights).astype(part.dtype)
    return part


def _one(of: Sequence[str], chance: np.random.Generator) -> tuple[str, ...]:
    return (of[int(chance.integers(len(of)))],) if len(of) else ()

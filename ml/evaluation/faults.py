"""Seven classes of faults, each with its range of sizes: planned without looking at a detector, then put into days.

A plan says when, how strong and which templates; ``into_days`` puts it into the harness's own counts, ``into_lines.py``
into lines of a user's own exported days. Both lose, double and move lines by chance one by one, so that the counts of a
faulty minute vary as those of a healthy one do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ml.evaluation.days import ServiceDays, negative_binomial
from ml.evaluation.services import TemplateSpec

FaultKind = Literal["new error", "error surge", "periodic stops", "traffic drop", "traffic surge", "mix shift", "latency"]
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
"""Lines a minute; factor; -; what is left; factor; share of lines that move; factor."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the rows [row, row + minutes). ``templates`` are hit, ``towards`` get the lines of a mix shift."""

    kind: FaultKind
    row: int
    minutes: int
    size: float
    templates: tuple[int, ...]
    towards: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """The first row after it."""
        return self.row + self.minutes


def draw(kind: FaultKind, row: int, days: ServiceDays, chance: np.random.Generator) -> Fault | None:
    """One fault of a class at a row; None where the service has nothing that it could hit (no periodic template)."""
    low, high = MAGNITUDES[kind]
    size = float(np.exp(chance.uniform(np.log(low), np.log(high)))) if low > 0 else float(chance.uniform(low, high))
    minutes = int(chance.integers(SHORTEST, LONGEST + 1))
    specs = days.spec.templates

    def of(*kinds: str) -> list[int]:
        return [number for number, spec in enumerate(specs) if spec.kind in kinds]

    hit: Sequence[int] = ()
    towards: Sequence[int] = ()
    if kind == "error surge":
        hit = _one(of("error"), chance)
    elif kind == "periodic stops":
        hit = _one([n for n in of("periodic") if 1 <= specs[n].rate <= 30], chance)
    elif kind in ("traffic drop", "traffic surge"):
        hit = of("traffic", "error", "deployed", "periodic" if kind == "traffic drop" else "traffic")
    elif kind == "mix shift":
        traffic = list(chance.permutation(of("traffic")))
        cut = max(1, len(traffic) // int(chance.integers(2, 6)))
        towards, hit = traffic[:cut], traffic[cut:]
    elif kind == "latency":
        timed = [number for number, spec in enumerate(specs) if spec.log_ms is not None]
        hit = timed if chance.random() < 0.5 else _one(timed, chance)
    if kind != "new error" and not len(hit):
        return None
    return Fault(kind, row, minutes, size, tuple(int(n) for n in hit), tuple(int(n) for n in towards))


def plan(
    days: ServiceDays, first: int, end: int, each: int, chance: np.random.Generator, kinds: Sequence[FaultKind] = KINDS
) -> list[Fault]:
    """``each`` faults of each class in the rows [first, end), in random order, ``APART`` from each other.

    Raises ValueError where the rows do not hold so many.
    """
    order = [kind for kind in kinds for _ in range(each)]
    chance.shuffle(order)
    slack = (end - first - 60) - len(order) * (APART + LONGEST)
    if slack < 0:
        raise ValueError(f"{len(order)} faults need {len(order) * (APART + LONGEST) + 60} minutes, there are {end - first}")
    waits = np.sort(chance.integers(0, slack + 1, len(order)))
    rows = first + 60 + waits + np.arange(len(order)) * (APART + LONGEST)
    drawn = [draw(kind, int(row), days, chance) for kind, row in zip(order, rows, strict=True)]
    return [fault for fault in drawn if fault is not None]


def into_days(days: ServiceDays, faults: Sequence[Fault], chance: np.random.Generator) -> ServiceDays:
    """The same days with the faults in them; each new error adds a template at the end."""
    counts, log_ms, mean = days.counts.copy(), days.log_ms.copy(), days.mean
    templates = list(days.spec.templates)
    for number, fault in enumerate(faults):
        rows = slice(fault.row, fault.end)
        hit = list(fault.templates)
        part = counts[rows][:, hit]
        if fault.kind == "new error":
            templates.append(TemplateSpec(f"ERROR {_word(chance)} panicked in {_word(chance)} {{n}}", "error", fault.size))
            counts, log_ms = (np.pad(table, ((0, 0), (0, 1))) for table in (counts, log_ms))
            mean = np.pad(mean, ((0, 0), (0, 1)))
            counts[rows, -1] = chance.poisson(fault.size, fault.minutes)
        elif fault.kind == "error surge":
            more = (fault.size - 1) * mean[rows][:, hit].astype(np.float64)
            counts[rows, hit[0]] += negative_binomial(more, templates[hit[0]].spread, chance)[:, 0].astype(np.int32)
        elif fault.kind == "periodic stops":
            counts[rows, hit[0]] = 0
        elif fault.kind == "traffic drop":
            counts[rows, hit] = chance.binomial(part, fault.size)
        elif fault.kind == "traffic surge":
            counts[rows, hit] = part + _some_of(part, fault.size - 1, chance)
        elif fault.kind == "mix shift":
            counts[rows] = _moved(counts[rows], fault, chance)
        else:
            log_ms[rows, hit] += np.float32(np.log(fault.size))
    spec = replace(days.spec, templates=tuple(templates))
    return ServiceDays(spec, days.start_minute, counts, mean, log_ms, days.events)


def _moved(part: np.ndarray, fault: Fault, chance: np.random.Generator) -> np.ndarray:
    """``size`` of all lines leave ``templates`` (at most what they have) for ``towards``; the total stays."""
    part = part.copy()
    hit, towards = list(fault.templates), list(fault.towards)
    total, available = part.sum(1), part[:, hit].sum(1)
    share = np.minimum(1.0, fault.size * total / np.maximum(available, 1))
    leaving = chance.binomial(part[:, hit], share[:, None])
    part[:, hit] -= leaving
    weights = chance.dirichlet(np.ones(len(towards)))
    for row, lines in enumerate(leaving.sum(1)):
        part[row, towards] += chance.multinomial(lines, weights).astype(part.dtype)
    return part


def _some_of(part: np.ndarray, factor: float, chance: np.random.Generator) -> np.ndarray:
    """Each line ``factor`` more times, by chance where that is no whole number."""
    whole = int(factor)
    return (part * whole + chance.binomial(part, factor - whole)).astype(part.dtype)


def _one(of: Sequence[int], chance: np.random.Generator) -> list[int]:
    return [int(chance.choice(of))] if len(of) else []


def _word(chance: np.random.Generator) -> str:
    return "".join(chance.choice(list("abcdefghijklmnopqrstuvwxyz"), 9))

"""The examination on anybody's own days: their exported lines, faults put into the last of them, mined and judged again.

Faults go in line by line and the lines are mined afterwards, so that masking, templates, durations and counts are examined
with the detectors. Benign changes go in as well: a deploy and a restart that nobody should be woken for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ml.evaluation.faults import APART, KINDS, LONGEST, Fault, plan
from ml.evaluation.harness import Case
from ml.evaluation.lines import MINUTE_NS, Control, control, inject, targets_in
from ml.features import choose_vocabulary, frame_of, tally
from ml.signals import HISTORY

if TYPE_CHECKING:
    import polars as pl

CONTROLS: tuple[Control, ...] = ("deploy", "restart")
MOST_EACH = 3


def case_of_lines(
    service: str,
    lines: pl.DataFrame,
    mine: Callable[[pl.DataFrame], Sequence[str]],
    test_minutes: int,
    chance: np.random.Generator,
    *,
    controls: Sequence[Control] = CONTROLS,
) -> Case:
    """A case out of lines (``timestamp`` in ns since 1970, ``line``, ``is_error``), the last ``test_minutes`` of them faulty.

    ``mine`` gives each line of a table its template's id; it is called for the days to learn from first and then for the
    faulty ones. As many faults of each class go in as there is room for, three at most. Raises ValueError where there is
    not room for one of each.
    """
    import polars as pl

    lines = lines.sort("timestamp")
    stamps = lines["timestamp"].to_numpy()
    start, end = (int(stamps[0]) // MINUTE_NS, int(stamps[-1]) // MINUTE_NS + 1) if len(stamps) else (0, 0)
    border = end - test_minutes
    each = min(MOST_EACH, (test_minutes - 60) // (len(KINDS) * (APART + LONGEST)))
    if border - start < HISTORY or each < 1:
        needed = 60 + len(KINDS) * (APART + LONGEST)
        raise ValueError(
            f"{service}: {needed} minutes to put faults into and at least {HISTORY} before them are needed, "
            f"there are {max(0, end - start)} in all and {test_minutes} of them to be judged"
        )
    learnt = lines.filter(pl.col("timestamp") < border * MINUTE_NS)
    learnt = learnt.with_columns(pl.Series("template", mine(learnt), pl.String))
    judged = lines.filter(pl.col("timestamp") >= (border - HISTORY) * MINUTE_NS)
    known = tally(learnt)
    judged, faults, benign = with_faults(
        judged, known, mine, border - HISTORY, test_minutes, each, chance, controls=controls
    )
    found = tally(judged.with_columns(pl.Series("template", mine(judged), pl.String)))
    vocabulary = choose_vocabulary(known)
    train = frame_of(service, known, vocabulary, start, border)
    first = border - HISTORY
    test = frame_of(
        service, found, vocabulary, first, end, sightings=train.sightings, earlier=train.quarters_before(first)
    )
    shifted = tuple(replace(fault, row=fault.row - HISTORY) for fault in faults)
    return Case(train, vocabulary, test, shifted, tuple(benign))


def with_faults(
    judged: pl.DataFrame,
    known: pl.DataFrame,
    mine: Callable[[pl.DataFrame], Sequence[str]],
    start_minute: int,
    test_minutes: int,
    each: int,
    chance: np.random.Generator,
    *,
    controls: Sequence[Control] = CONTROLS,
    sparing: Sequence[tuple[int, int]] = (),
) -> tuple[pl.DataFrame, list[Fault], list[tuple[int, str]]]:
    """Lines from ``start_minute`` on with ``each`` faults of every class and benign changes in them, after ``HISTORY``.

    ``known`` is the tally of what is learnt from: it says what can be hit. No fault is put into the rows of ``sparing``.
    Answers the faults by row of these lines, the benign changes by row after ``HISTORY``. The lines have to be mined anew.
    """
    import polars as pl

    judged = judged.with_columns(pl.Series("template", mine(judged), pl.String))
    faults = [
        fault
        for fault in plan(targets_in(known), HISTORY, HISTORY + test_minutes, each, chance)
        if not any(fault.row < end and first < fault.end for first, end in sparing)
    ]
    benign = []
    for kind, row in zip(controls, _free(faults, HISTORY, HISTORY + test_minutes, chance), strict=False):
        judged = control(judged, kind, row, start_minute, chance)
        benign.append((row - HISTORY, kind))
    for fault in faults:
        judged = inject(judged, fault, start_minute, chance)
    return judged, faults, benign


def _free(faults: Sequence[Fault], first: int, end: int, chance: np.random.Generator) -> list[int]:
    """Rows in the middle between faults, in random order."""
    borders = [first, *(fault.end for fault in faults)]
    starts = [*(fault.row for fault in faults), end]
    middles = [(low + high) // 2 for low, high in zip(borders, starts, strict=True) if high - low > LONGEST]
    return [middles[n] for n in chance.permutation(len(middles))]

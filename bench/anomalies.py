"""Anomaly models: what a minute of 500 services costs, and how many injected faults are found.

The second part is the harness of ml/evaluation with its five fixed seeds on counts (its lines say the same, a test holds
that), every baseline in the same run; the third the same for sparse services of 50 to 3,000 lines a day, with faults of
hours. ``--quick`` takes one seed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import report
from ml import detectors
from ml.evaluation import harness, sparse
from ml.evaluation.ceiling import CHANCE, surges_by_chance
from ml.evaluation.days import DAY, live
from ml.evaluation.faults import KINDS
from ml.evaluation.judge import Figure
from ml.evaluation.report import table
from ml.evaluation.services import make_service
from ml.features import Frame, Minute, advanced
from ml.signals import HISTORY

DISTINCT = 10
"""Services that are made; all others are these under other names."""
LEARNT_DAYS = 14


@cache
def made(number: int) -> harness.Case:
    """14 days and one more of a service of 5 to 3,000 lines a minute."""
    chance = np.random.default_rng((900, number))
    rate = float(np.geomspace(5, 3000, DISTINCT)[number])
    days = live(make_service(number, rate, chance), chance, quiet_days=LEARNT_DAYS + 1, test_days=0)
    return harness.case_of(days, LEARNT_DAYS * DAY, (), chance)


def minute_of(frame: Frame, row: int) -> Minute:
    """The counts of one minute as they would come in."""
    there = np.flatnonzero(frame.counts[row, :-1])
    names = [frame.templates[n] for n in there]
    lines = frame.counts[row, there].astype(np.int64)
    place = {name: n for n, name in enumerate(frame.timed)}
    timed = [place.get(name, -1) for name in names]

    def took(values: np.ndarray) -> np.ndarray:
        return np.array([values[row, n] if n >= 0 else 0 for n in timed], np.float64)

    at = np.full(len(names), frame.start + row, np.int64)
    errors = lines * frame.is_error[there]
    median, high = took(frame.took_median), took(frame.took_p95)
    return Minute(at, names, lines, errors, lines * 90, took(frame.took_lines).astype(np.int64), median, high)


def load(name: str):
    """A service's minutes by its name."""
    case = made(int(name.rsplit("-", 1)[1]) % DISTINCT)
    return replace(case.train, service=name), case.vocabulary


def scoring(services: int = 500) -> tuple[float, float, float]:
    """CPU seconds: a minute's counts into all frames, scoring them, and both; the median of five rounds."""
    names = [f"service-{number}" for number in range(services)]
    fits = [detectors.fit_service(*load(name)) for name in names[:DISTINCT]]
    shard = detectors.join(
        [replace(fits[n % DISTINCT], service=name) for n, name in enumerate(names)], with_forest=False
    )
    shard = replace(shard, forest=detectors.join(fits).forest)
    limits = detectors.thresholds(shard)
    tests = [replace(made(n % DISTINCT).test, service=name) for n, name in enumerate(names)]
    frames = [test.rows(0, HISTORY + 3) for test in tests]
    rounds = []
    for row in range(HISTORY + 3, HISTORY + 8):
        arriving = [minute_of(test, row) for test in tests]
        began = time.process_time()
        frames = [
            advanced(frame, minute, shard.vocabularies[n])
            for n, (frame, minute) in enumerate(zip(frames, arriving, strict=True))
        ]
        between = time.process_time()
        scores = detectors.score(shard, frames)
        detectors.episodes(shard, scores, limits)
        rounds.append((between - began, time.process_time() - between))
    counted, scored = (float(np.median(part)) for part in zip(*rounds, strict=True))
    return counted, scored, counted + scored


def _span(figure: Figure) -> str:
    return f"{figure.low:.2f} to {figure.high:.2f}"


def of_sparse(examined: Sequence[sparse.Row]) -> list[dict[str, Any]]:
    """Rows of the report: what was found of each fault of hours, what of those that can be, and findings beside them."""
    rows = []
    for one in examined:
        what = f"{one.group} a day"
        for name, figure in one.found.items():
            could = f"{one.found_of_possible[name]} of {one.possible[name]} that can be"
            found = f"{what}: found of {one.services}, {name} ({_span(figure)}; {could})"
            rows.append((found, round(figure.value, 3), "", "higher"))
            if figure.value:
                rows.append((f"{what}: median delay, {name}", one.delay[name], "min", "lower"))
        false = one.false_a_day
        rows.append((f"{what}: false findings a service-day ({_span(false)})", round(false.value, 3), "", "lower"))
        after = f"{what}: of those, within six hours after one of {len(one.found) * one.services} faults"
        rows.append((after, one.after, "", "lower"))
        calm = one.calm_a_day
        on_calm = f"{what}: findings a service-day on days without faults ({_span(calm)})"
        rows.append((on_calm, round(calm.value, 3), "", "lower"))
    return [
        {"what": what, "value": value, "unit": unit, "reach": None, "better": better, "detail": True}
        for what, value, unit, better in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    row = partial(dict, reach=None, better="lower")
    counted, scored, both = scoring()
    rows = [
        row(what="500 services x 1 minute: counts into frames", value=round(counted, 3), unit="s CPU"),
        row(what="500 services x 1 minute: evidence and episodes", value=round(scored, 3), unit="s CPU"),
        row(what="500 services x 1 minute, both", value=round(both, 3), unit="s CPU", reach=0.5),
    ]
    verdicts = harness.examine(harness.SEEDS[:1] if quick else harness.SEEDS, tell=print)
    for verdict in verdicts:
        ours = verdict.detector == harness.MODEL
        name, recall, false = verdict.detector, verdict.recall, verdict.false_a_day
        for what, figure, unit, reach, better in (
            ("recall over six classes", recall, "", 0.75, "higher"),
            ("false findings a service-day", false, "", 0.6, "lower"),
        ):
            value = round(figure.value, 3)
            rows.append(
                row(
                    what=f"{name}: {what} ({_span(figure)})",
                    value=value,
                    unit=unit,
                    reach=reach if ours else None,
                    better=better,
                    **({} if ours else {"detail": True}),
                )
            )
        if ours:
            rows.append(row(what=f"{name}: median delay", value=verdict.median_delay, unit="min", reach=3))
            rows += [
                row(
                    what=f"{name}: found of {verdict.faults[kind]} {kind} ({_span(verdict.by_kind[kind])})",
                    value=round(verdict.by_kind[kind].value, 3),
                    unit="",
                    better="higher",
                    detail=True,
                )
                for kind in KINDS
            ]
            surges = surges_by_chance(harness.SEEDS[:1] if quick else harness.SEEDS)
            can_be = sum(p < CHANCE for p in surges) / len(surges)
            what = f"error surges of {len(surges)} that chance gives less than once in {1 / CHANCE:,.0f} times"
            rows.append(row(what=what, value=round(can_be, 3), unit="", better="higher", detail=True))
            days = round(verdict.service_days, 1)
            rows.append(row(what=f"{name}: service-days judged", value=days, unit="", better="higher", detail=True))
    quiet = sparse.examined(sparse.SEEDS[:1] if quick else sparse.SEEDS)
    rows += of_sparse(quiet)
    tables = table(verdicts) + "\n\n" + sparse.table(quiet) + "\n"
    print(tables)
    report("anomalies", rows)
    folder = Path(__file__).parent / "results"
    (folder / "anomalies.md").write_text(tables, encoding="utf-8")


if __name__ == "__main__":
    main()

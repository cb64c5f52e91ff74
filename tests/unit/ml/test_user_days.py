"""A user's own lines are examined as they would be mined and scored, and too few of them are refused with the reason."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ml.evaluation.days import live
from ml.evaluation.faults import KINDS
from ml.evaluation.harness import MODEL, examine_cases
from ml.evaluation.lines import render
from ml.evaluation.services import make_service
from ml.evaluation.user_days import case_of_lines


def test_lines_of_a_few_days_are_mined_made_faulty_and_judged() -> None:
    templates = pytest.importorskip("ml.templates")
    chance = np.random.default_rng(12)
    days = live(make_service(1, 20.0, chance), chance, quiet_days=3, test_days=0)
    lines = render(days, chance).drop("template")
    miner = templates.TemplateMiner()

    def mine(table: pl.DataFrame) -> list[str]:
        return miner.mine(table["line"], "shop", minutes=max(1.0, len(table))).ids()

    case = case_of_lines("shop", lines, mine, 1440, chance)
    assert len(case.train.counts) == 2 * 1440
    assert {kind for _, kind in case.benign} == {"deploy", "restart"}
    new = next(fault for fault in case.faults if fault.kind == "new error")
    rows = slice(75 + new.row, 75 + new.end)
    assert case.test.fresh_errors[rows].sum() > 0
    verdict = examine_cases([[case]])[0]
    assert verdict.detector == MODEL
    assert sum(verdict.faults.values()) >= len(KINDS) - 1
    assert sum(verdict.by_kind[kind].value for kind in KINDS if verdict.faults[kind]) >= 3


def test_too_few_minutes_are_refused_with_what_is_needed() -> None:
    line = pl.DataFrame({"timestamp": [60_000_000_000], "line": ["a"], "is_error": [False]})
    with pytest.raises(ValueError, match="1005 minutes to put faults into"):
        case_of_lines("s", line, lambda table: ["t"] * len(table), 600, np.random.default_rng(0))
    with pytest.raises(ValueError, match="there are 0 in all"):
        case_of_lines("s", line.clear(), lambda table: [], 600, np.random.default_rng(0))

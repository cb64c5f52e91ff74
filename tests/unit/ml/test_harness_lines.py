"""Lines of the harness say what its counts say, and faults in lines change what they are meant to change."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ml.evaluation.days import live
from ml.evaluation.faults import KINDS, Fault, draw, into_days, plan, targets_of
from ml.evaluation.lines import control, inject, render, targets_in
from ml.evaluation.services import make_service
from ml.evaluation.tallies import tally_of
from ml.features import tally


@pytest.fixture(scope="module")
def days():
    chance = np.random.default_rng(5)
    return live(make_service(0, 25.0, chance), chance, quiet_days=1, test_days=1)


@pytest.fixture(scope="module")
def lines(days) -> pl.DataFrame:
    return render(days, np.random.default_rng(6))


def test_lines_counted_by_their_own_templates_are_the_days_counts(days, lines: pl.DataFrame) -> None:
    counted, given = tally(lines), tally_of(days, np.random.default_rng(7))
    columns = ["minute", "template", "lines", "errors", "took_lines"]
    assert counted.select(columns).sort("minute", "template").equals(given.select(columns).sort("minute", "template"))


def test_durations_of_lines_are_distributed_as_the_tally_says(days, lines: pl.DataFrame) -> None:
    counted, given = tally(lines), tally_of(days, np.random.default_rng(7))
    joined = counted.join(given, on=["minute", "template"])
    odd = joined.filter(pl.col("took_lines") % 2 == 1)
    ratio = np.log(odd["took_median"].to_numpy()) - np.log(odd["took_median_right"].to_numpy())
    assert abs(ratio.mean()) < 0.05
    high = joined.filter(pl.col("took_lines") > 2)
    assert (high["took_p95"] > high["took_median"]).all()
    assert (high["took_p95_right"] > high["took_median_right"]).all()


def test_mining_the_lines_gives_the_same_counts_a_minute(days, lines: pl.DataFrame) -> None:
    templates = pytest.importorskip("ml.templates")
    part = lines.head(20_000)
    mined = templates.TemplateMiner().mine(part["line"], "s", minutes=part.height)
    found = tally(part.with_columns(pl.Series("template", mined.ids())))
    given = tally(part)
    key = ["minute", "lines", "errors", "bytes"]

    def shapes(table: pl.DataFrame) -> list:
        grouped = table.sort("minute").group_by("template", maintain_order=True).agg(pl.struct(key).alias("rows"))
        return sorted(str(rows) for rows in grouped["rows"].to_list())

    assert shapes(found) == shapes(given)


def test_what_faults_can_hit_is_read_off_a_tally(days, lines: pl.DataFrame) -> None:
    read, known = targets_in(tally(lines)), targets_of(days)
    assert set(read.periodic) == set(known.periodic)
    assert set(read.timed) <= set(known.timed)
    assert set(read.errors) <= {*known.errors, *(t for t in read.errors)}
    assert set(known.traffic) >= {t for t in read.traffic if t in known.traffic}


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_in_lines_and_in_counts_moves_the_same_things(kind, days, lines: pl.DataFrame) -> None:
    chance = np.random.default_rng(11)
    fault = draw(kind, 1_000, targets_of(days), chance)
    assert fault is not None
    low, high = days.start_minute + fault.row, days.start_minute + fault.end

    def total(table: pl.DataFrame) -> tuple[float, float]:
        part = table.filter(pl.col("minute").is_between(low, high, closed="left"))
        return float(part["lines"].sum()), float(part["errors"].sum())

    by_lines = [
        total(tally(inject(lines, fault, days.start_minute, chance).with_columns(pl.col("template").fill_null("new"))))
        for _ in range(4)
    ]
    by_counts = [total(tally_of(into_days(days, [fault], chance), chance)) for _ in range(4)]
    for one, other in zip(np.mean(by_lines, axis=0), np.mean(by_counts, axis=0), strict=True):
        assert one == pytest.approx(other, rel=0.25, abs=40)
    outside = inject(lines, fault, days.start_minute, chance).filter(
        ~(pl.col("timestamp") // 60_000_000_000).is_between(low, high, closed="left")
    )
    untouched = lines.filter(~(pl.col("timestamp") // 60_000_000_000).is_between(low, high, closed="left"))
    assert outside.equals(untouched)


def test_a_latency_fault_multiplies_durations_and_nothing_else() -> None:
    line = "GET /a 200 took 12.5ms of 90"
    table = pl.DataFrame({"timestamp": [60_000_000_001], "line": [line], "template": ["t"], "is_error": [False]})
    slow = inject(table, Fault("latency", 1, 1, 4.0, ("t",)), 0, np.random.default_rng(0))
    assert slow["line"].to_list() == ["GET /a 200 took 50.000ms of 90"]


@pytest.mark.parametrize("kind", ["deploy", "busy", "restart", "batch"])
def test_benign_changes_add_no_errors(kind, days, lines: pl.DataFrame) -> None:
    changed = control(lines, kind, 500, days.start_minute, np.random.default_rng(3))
    assert changed["timestamp"].is_sorted()
    assert changed.filter(pl.col("template").is_null())["is_error"].any() is False
    assert changed.height != lines.height


def test_faults_are_apart_and_the_same_seed_gives_the_same_plan(days) -> None:
    plans = [plan(targets_of(days), 0, 4 * 1440, 2, np.random.default_rng(4)) for _ in range(2)]
    assert plans[0] == plans[1]
    for one, next_one in zip(plans[0], plans[0][1:], strict=False):
        assert next_one.row - one.end >= 60
        assert 5 <= one.minutes <= 15


def test_too_many_faults_for_the_days_are_refused_with_a_count(days) -> None:
    with pytest.raises(ValueError, match="inject fewer or give more days"):
        plan(targets_of(days), 0, 1440, 5, np.random.default_rng(4))

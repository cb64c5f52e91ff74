"""The judge is not kind: crying always finds nothing, and a finding is an incident, not its minutes."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from ml.evaluation.baselines import BASELINES, fixed_threshold
from ml.evaluation.faults import Fault
from ml.evaluation.harness import examine
from ml.evaluation.judge import Run, judge, merged, wilson
from ml.evaluation.report import details, figures, plot, table
from ml.features import choose_vocabulary, frame_of

DROP = Fault("traffic drop", 500, 10, 0.2, ("t000",))


def run(*alarms: tuple[int, int]) -> Run:
    return Run("s", 1440, (DROP,), ((900, "burst"),), alarms)


@pytest.mark.parametrize(
    ("alarms", "recall", "false"),
    [
        (((502, 506),), 1.0, 0),
        (((502, 503), (506, 507)), 1.0, 0),
        (((0, 1439),), 0.0, 1),
        (((450, 455), (502, 506)), 0.0, 1),
        (((511, 515),), 0.0, 0),
        (((200, 201), (502, 503), (901, 903)), 1.0, 2),
        ((), 0.0, 0),
    ],
)
def test_found_is_beginning_within_after_a_quiet_hour(alarms: tuple, recall: float, false: int) -> None:
    verdict = judge("x", [run(*alarms)])
    assert verdict.recall.value == recall
    assert verdict.false_a_day.value * verdict.service_days == pytest.approx(false)


def test_delay_counts_from_the_first_faulty_minute_to_the_close_of_the_alarming_one() -> None:
    assert judge("x", [run((500, 500))]).median_delay == 1
    assert judge("x", [run((503, 509))]).median_delay == 4


def test_false_findings_are_put_beside_what_was_near() -> None:
    assert set(judge("x", [run((200, 201), (901, 903))]).false_by_cause) == {"nothing", "burst"}


def test_intervals_hold_the_share_and_narrow_with_more_faults() -> None:
    few, many = wilson(3, 4), wilson(300, 400)
    assert few.low < 0.75 < few.high
    assert many.high - many.low < few.high - few.low
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0, 1)


def test_alarming_rows_merge_within_ten_minutes() -> None:
    assert merged(np.array([1, 2, 12, 30]), 10) == ((1, 12), (30, 30))
    assert merged(np.array([], int), 10) == ()


def test_a_small_examination_beats_its_baselines_and_makes_a_report() -> None:
    verdicts = examine([901], rates=(300.0,), each=1)
    ours, baselines = verdicts[0], verdicts[2:]
    assert all(ours.recall.value > other.recall.value for other in baselines)
    assert table(verdicts).count("\n") == len(verdicts) + 1
    assert "mix shift" in details(ours)
    assert figures(ours)["recall"] == ours.recall.value
    assert plot(verdicts).startswith(b"\x89PNG")


def test_minutes_that_nobody_observed_alarm_no_baseline() -> None:
    chance = np.random.default_rng(5)
    counts = chance.poisson(40.0, 3 * 1440)
    counts[2 * 1440 + 300 : 2 * 1440 + 420] = 0
    rows = [(n, "t", int(lines), 0) for n, lines in enumerate(counts) if lines]
    table = pl.DataFrame(rows, schema=["minute", "template", "lines", "errors"], orient="row")
    vocabulary = choose_vocabulary(table)
    gap = [(2 * 1440 + 300, 2 * 1440 + 420)]
    train = frame_of("s", table, vocabulary, 0, 2 * 1440)
    test = frame_of("s", table, vocabulary, 2 * 1440, 3 * 1440, unobserved=gap)
    for name, baseline in BASELINES.items():
        alarms = baseline(train, test, 0.5)
        assert not ((alarms >= 300) & (alarms < 420)).any(), name
    cut = frame_of("s", table, vocabulary, 0, 3 * 1440, unobserved=gap)
    whole = frame_of("s", table.filter(~pl.col("minute").is_between(*gap[0])), vocabulary, 0, 3 * 1440)
    assert len(fixed_threshold(cut, train, 0.5)) >= len(fixed_threshold(whole, train, 0.5))

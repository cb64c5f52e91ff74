"""The examination of sparse services counts as the judge does, and finds nothing where nothing can be known."""

from __future__ import annotations

import itertools

from ml.evaluation import sparse
from ml.evaluation.days import DAY


def test_faults_are_hours_apart_within_the_judged_days_and_each_is_there_once() -> None:
    subjects = sparse.subjects(7, each=1)
    assert [one.group for one in subjects] == [group for group, _, _ in sparse.groups()]
    for one in subjects:
        assert set(one.faults) == set(sparse.FAULTS)
        ordered = sorted(one.faults.values(), key=lambda fault: fault.row)
        assert ordered[0].row >= sparse.QUIET_BETWEEN
        assert ordered[-1].end <= sparse.JUDGED_DAYS * DAY
        for before, after in itertools.pairwise(ordered):
            assert after.row - before.end >= sparse.QUIET_BETWEEN
        silent = one.faults["silence"]
        rows = slice(silent.row + 75, silent.end + 75)
        assert one.case.test.counts[rows].sum() == 0
        assert one.calm.faults == ()
        assert one.group != "3,000 lines" or one.calm.test.counts[rows].sum() > 100
    possible = {one.group: one.possible for one in subjects}
    assert "silence" in possible["3,000 lines"]
    assert "half rate" not in possible["50 lines"]


def test_a_silence_of_a_thousand_lines_a_day_is_found_and_rows_add_up() -> None:
    rows = {row.group: row for row in sparse.examined((7,), each=2)}
    assert rows["1,000 lines"].found["silence"].value == 1.0
    for row in rows.values():
        for name in sparse.FAULTS:
            assert row.found_of_possible[name] <= min(row.possible[name], round(row.found[name].value * row.services))
        for figure in (row.false_a_day, row.calm_a_day):
            assert figure.low <= figure.value <= figure.high
    assert "| 1,000 lines |" in sparse.table(list(rows.values()))

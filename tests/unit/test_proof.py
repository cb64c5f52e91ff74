"""Proof in rounds against a model of Loki: what is proved is there, what is named lost is lost, nothing is asked twice."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.health.delivery import delivered, gaps_of, prove_records
from onecollector_resources.health.memory import ProofMemory
from onecollector_resources.health.monitor import Discarded, judge_flow
from onecollector_resources.health.rounds import LOST_AGAIN, ProofRounds
from onecollector_resources.loki.querier import Entry, LokiError, Sample
from onecollector_resources.records import LogSource, SegmentRecords

START = datetime(2026, 1, 1, tzinfo=UTC)
ROUND = timedelta(seconds=30)


class ModelLoki:
    """Holds (time, record number) by container and segment, and answers the queries of a proof."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, int], list[tuple[float, int]]] = {}
        self.lines_read = 0

    def take(self, source: str, segment: int, at: datetime, number: int) -> None:
        self.lines.setdefault((source, segment), []).append((at.timestamp(), number))

    def samples(self, query: str, time_ns: int | None = None) -> tuple[Sample, ...]:
        ids = re.search(r'container_id=~"([^"]*)"', query)
        window = re.search(r"\[(\d+)s\]", query)
        assert ids and window and time_ns is not None, query
        end = time_ns / 1e9
        out = []
        for (source, segment), lines in self.lines.items():
            numbers = [n for t, n in lines if end - int(window[1]) <= t < end]
            if source not in ids[1].split("|") or not numbers:
                continue
            self.lines_read += len(numbers)
            value = next(
                fold(numbers)
                for name, fold in (
                    ("count_over", len),
                    ("max_over", max),
                    ("sum_over", sum),
                    ("stdvar_over", statistics.pvariance),
                )
                if name in query
            )
            labels = {"container_id": source, **({"log_segment": str(segment)} if segment else {})}
            out.append(Sample(labels, ((0.0, float(value)),)))
        return tuple(out)

    def all_entries(self, query: str, start_ns: int, end_ns: int) -> Iterable[Entry]:
        source = re.search(r'container_id="([^"]*)" \| log_segment="(\d*)"', query)
        assert source, query
        lines = self.lines.get((source[1], int(source[2] or 0)), [])
        numbers = [n for t, n in lines if start_ns <= t * 1e9 < end_ns]
        self.lines_read += len(numbers)
        return [Entry(1, "", {}, {"log_file_record_number": str(n)}) for n in numbers]


def written(records: int, *, source: str = "c", final: bool = True, behind: int = 0, joined: int = 0) -> SegmentRecords:
    return SegmentRecords(source, 0, records, 100, 100 - behind, final, "default", "web", START, joined)


def look(
    rounds: ProofRounds, loki: ModelLoki, record: SegmentRecords, now: datetime, probed: Iterable[str] = ("default",)
) -> tuple[list, list]:
    return rounds.look([record], lambda _: loki, now, lambda: now, lambda: set(probed))


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3), st.booleans()), min_size=1, max_size=8),
    st.sets(st.integers(1, 64)),
)
def test_rounds_say_of_a_growing_file_what_one_look_at_all_of_it_would_say(
    steps: list[tuple[int, int, bool]], lost: set[int]
) -> None:
    """Lines are written, arrive rounds later or never, some twice; the last rounds see everything that ever comes."""
    loki, rounds = ModelLoki(), ProofRounds()
    on_the_way: list[tuple[int, datetime, int]] = []
    records, now, rows, confirmed = 0, START, [], []
    for number, (fresh, late, twice) in enumerate([*steps, (0, 0, False), (0, 0, False)]):
        now += ROUND
        ended = number >= len(steps)
        for _ in range(fresh):
            records += 1
            if records not in lost:
                on_the_way += [(number + late, now - ROUND / 2, records)] * (2 if twice else 1)
        for due, at, n in [x for x in on_the_way if x[0] <= number or ended]:
            loki.take("c", 0, at, n)
            on_the_way.remove((due, at, n))
        rows, confirmed = look(rounds, loki, written(records, final=ended), now)
        there = {n for _, n in loki.lines.get(("c", 0), [])}
        assert rows[0].complete == (there >= set(range(1, records + 1)))
        assert set(range(1, rows[0].through + 1)) <= there
    gone = {n for n in lost if n <= records}
    assert {n for row in confirmed for a, b in row.missing for n in range(a, b + 1)} == gone
    assert bool(delivered(rows)) == (not gone)


def test_what_was_proved_is_not_read_again() -> None:
    loki, rounds, now = ModelLoki(), ProofRounds(), START
    for number in range(1, 2_001):
        loki.take("c", 0, START + timedelta(hours=number / 1_000), number)
    now = START + timedelta(hours=2)
    look(rounds, loki, written(2_000, final=False), now)
    loki.lines_read = 0
    loki.take("c", 0, now + ROUND / 2, 2_001)
    (row,), _ = look(rounds, loki, written(2_001, final=False), now + ROUND)
    assert row.complete
    assert loki.lines_read < 2_000, "four queries over the last minutes, not over two hours"


def test_nothing_is_lost_before_a_probe_overtook_it_and_a_loss_is_told_once() -> None:
    loki, rounds, now = ModelLoki(), ProofRounds(), START
    loki.take("c", 0, START, 1)
    assert look(rounds, loki, written(2), now)[1] == [], "it has only just ended"
    assert look(rounds, loki, written(2), now + ROUND, probed=())[1] == [], "its tenant's probe did not come out"
    (row,), (lost,) = look(rounds, loki, written(2), now + 2 * ROUND)
    assert row.missing == lost.missing == ((2, 2),)
    (gap,) = gaps_of([lost], "host", now)
    assert (gap.cause, gap.lines, gap.tenant) == ("missing_in_loki", 1, "default")
    assert "records 2 of file 0" in gap.detail

    loki.lines_read = 0
    (row,), again = look(rounds, loki, written(2), now + 3 * ROUND)
    assert (again, row.complete, loki.lines_read) == ([], False, 0)
    loki.take("c", 0, START, 2)
    (row,), _ = look(rounds, loki, written(2), now + 3 * ROUND + LOST_AGAIN)
    assert row.complete, "it came after all"


def test_a_file_that_is_not_read_to_its_end_lost_nothing() -> None:
    loki, rounds = ModelLoki(), ProofRounds()
    for step in range(4):
        (row,), lost = look(rounds, loki, written(5, behind=40), START + step * ROUND)
        assert (row.complete, row.behind, lost) == (False, 40, [])


def test_a_truncated_file_begins_again() -> None:
    loki, memory = ModelLoki(), ProofMemory()
    for number in range(1, 6):
        loki.take("c", 0, START, number)
    assert prove_records([written(5, final=False)], lambda _: loki, START + ROUND, memory)[0].complete
    assert memory.through(written(5)) == 5
    assert memory.through(written(2)) == 0


def test_where_loki_does_not_answer_nothing_is_forgotten() -> None:
    class Away(ModelLoki):
        def samples(self, query: str, time_ns: int | None = None) -> tuple[Sample, ...]:
            raise LokiError("Loki is away", 503)

    loki, rounds = ModelLoki(), ProofRounds()
    loki.take("c", 0, START, 1)
    look(rounds, loki, written(1, final=False), START + ROUND)
    with pytest.raises(LokiError, match="away"):
        look(rounds, Away(), written(2, final=False), START + 2 * ROUND)
    assert rounds.memory.through(written(2)) == 1


def source() -> LogSource:
    names = {"name": "web", "safe_name": "web", "tenant": "default", "service": "web", "service_raw": "web"}
    way = {"profile": "docker", "multiline": None, "mode": "link", "path": "/x"}
    return LogSource("host", "c", "container", **names, **way, phase="collecting", first_seen=START)


@pytest.mark.parametrize(
    ("missing", "records", "last_line_s", "discarded", "flow", "reason"),
    [
        (False, 3, 10, 0, "proved", ""),
        (False, 3, 90_000, 0, "silent", "no line since"),
        (False, 0, None, 0, "silent", "no line yet"),
        (True, 3, 10, 0, "suspect", "missing in Loki: records 2-3"),
        # All of its lines are there: what Loki counted were tries.
        (False, 3, 10, 5, "proved", ""),
    ],
)
def test_flow_is_judged_by_what_loki_holds(
    missing: bool, records: int, last_line_s: int | None, discarded: int, flow: str, reason: str
) -> None:
    loki, now = ModelLoki(), START + timedelta(days=2)
    for number in range(1, 2 if missing else records + 1):
        loki.take("c", 0, START, number)
    rows = prove_records([written(records)], lambda _: loki, now)
    last = None if last_line_s is None else now - timedelta(seconds=last_line_s)
    refused = [Discarded("default", "rate_limited", discarded)] if discarded else []
    found, why = judge_flow(source(), rows, last, refused, now)
    assert (found, reason in why) == (flow, True), why

"""Frames from tallies in any state: duplicates add up, order does not matter, clocks that jump are counted and left out."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import drift
from ml.features import Minute, Vocabulary, advanced, choose_vocabulary, frame_of, tally
from ml.panel import panel_of

START = 29_459_520
VOCABULARY = Vocabulary(("a", "b"), frozenset({"b"}), ("a",), frozenset({"c"}))
rows = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abcd"), st.integers(1, 9)), max_size=60)


def table(some: list[tuple[int, str, int]]) -> pl.DataFrame:
    data = [(START + minute, name, lines, lines if name == "b" else 0) for minute, name, lines in some]
    return pl.DataFrame(
        data, schema=["minute", "template", "lines", "errors"], orient="row", schema_overrides={"minute": pl.Int64}
    )


@given(rows, st.randoms())
@settings(max_examples=40, deadline=None)
def test_order_and_duplicates_of_minutes_do_not_matter(some: list, chance) -> None:
    whole = frame_of("s", table(some), VOCABULARY, START, START + 41)
    mixed = [(m, n, 1) for m, n, lines in some for _ in range(lines)]
    chance.shuffle(mixed)
    again = frame_of("s", table(mixed), VOCABULARY, START, START + 41)
    for name in ("counts", "errors", "unknown", "fresh_errors", "fresh_infos"):
        assert np.array_equal(getattr(whole, name), getattr(again, name))
    assert whole.counts.sum() + whole.unknown.sum() == sum(lines for _, _, lines in some)


@given(rows)
@settings(max_examples=30, deadline=None)
def test_minute_by_minute_is_the_same_as_at_once(some: list) -> None:
    merged = table(some).group_by("minute", "template").agg(pl.col("lines", "errors").sum())
    first = frame_of("s", merged, VOCABULARY, START, START + 20)
    stepped = first
    for minute in range(START + 20, START + 41):
        stepped = advanced(stepped, Minute.of_table(merged.filter(pl.col("minute") == minute)), VOCABULARY, keep=41)
    later = frame_of("s", merged, VOCABULARY, START + 20, START + 41, sightings=first.sightings)
    for name in ("counts", "errors", "unknown", "fresh_errors", "fresh_infos", "fresh_kinds"):
        at_once = np.concatenate([getattr(first, name), getattr(later, name)])
        assert np.array_equal(getattr(stepped, name), at_once)


def test_a_clock_that_jumps_is_counted_and_left_out() -> None:
    frame = frame_of(
        "s", table([(0, "a", 2), (-5_000_000, "a", 3), (90_000_000, "b", 1)]), VOCABULARY, START, START + 5
    )
    assert frame.counts.sum() == 2
    assert frame.outside == 2


def test_a_minute_out_of_turn_is_refused() -> None:
    frame = frame_of("s", table([]), VOCABULARY, START, START + 5)
    with pytest.raises(ValueError, match=f"counts of minute {START + 5} are expected"):
        advanced(frame, Minute.of_table(table([(9, "a", 1)])), VOCABULARY)


def test_durations_are_read_in_milliseconds_whatever_their_unit() -> None:
    text = [
        "took 15ms",
        "elapsed=0.5s ok",
        "latency: 1500us",
        "duration_ms=7 x",
        'time="12" y',
        "id 17 of 30",
        "waited 2 seconds",
    ]
    lines = pl.DataFrame(
        {
            "timestamp": [60_000_000_000] * 7,
            "line": text,
            "template": [f"t{n}" for n in range(7)],
            "is_error": [False] * 7,
        }
    )
    counted = tally(lines).sort("template")
    assert counted["took_median"].to_list() == [15.0, 500.0, 1.5, 7.0, 12.0, None, 2000.0]
    assert counted["took_lines"].to_list() == [1, 1, 1, 1, 1, 0, 1]


def test_a_template_is_fresh_for_half_an_hour_and_again_after_a_day() -> None:
    minutes = np.array([0, 2_000, 2_010, 2_040, 2_100, 4_000]) + START
    fresh, seen = drift.freshness(minutes, ["a"] * 6, START)
    assert fresh.tolist() == [False, True, True, False, False, True]
    assert seen.last == {"a": START + 4_000}
    one_by_one = [drift.freshness(minutes[n : n + 1], ["a"], START, seen)[0][0] for n in (5,)]
    assert one_by_one == [True]


def test_three_new_info_templates_are_one_change_and_a_quiet_hour_is_none() -> None:
    kinds, infos = np.zeros(100, np.float32), np.zeros(100, np.float32)
    kinds[40:60], infos[40:60] = 4, 9
    settles, notices = drift.settling(kinds, infos)
    assert [(n.first, n.templates) for n in notices] == [(40, 4)]
    assert settles[39] == 0
    assert settles[40] == 1
    assert drift.settling(kinds * 0, infos * 0)[1] == []


def test_frames_of_different_minutes_do_not_stand_side_by_side() -> None:
    one, other = (frame_of("s", table([]), VOCABULARY, START + n, START + 90) for n in (0, 1))
    with pytest.raises(ValueError, match="same minutes"):
        panel_of([one, other])


def test_overflow_is_counted_and_never_news() -> None:
    frame = frame_of("s", table([(3, "overflow", 1)] * 1 + [(3, "z", 4)]), VOCABULARY, START, START + 5)
    assert frame.overflow.sum() == 1
    assert frame.unknown.sum() == 4
    assert "overflow" not in choose_vocabulary(table([(3, "overflow", 1), (3, "z", 4)])).templates


def test_of_ever_new_templates_a_model_knows_the_busiest_and_the_errors() -> None:
    flood = [(n % 41, f"{n:016x}", 1) for n in range(3 * drift.MOST_STRANGERS)]
    counted = table([*flood, *((n, "a", 9) for n in range(41)), (5, "b", 1)])
    vocabulary = choose_vocabulary(counted)
    assert len(vocabulary.rest) == drift.MOST_STRANGERS and {"a", "b"} <= set(vocabulary.templates)
    assert vocabulary.error_templates == {"b"}
    seen = frame_of("s", counted, vocabulary, START, START + 41).sightings
    assert len(seen.last) <= len(vocabulary.templates) + 2 * drift.MOST_STRANGERS
    assert seen.last.keys() == seen.appeared.keys() >= {"a", "b"}

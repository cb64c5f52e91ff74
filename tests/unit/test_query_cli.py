"""Stretches of time as they are typed, lines as they are shown, and lines as Parquet."""

from __future__ import annotations

import json
import unicodedata
from contextlib import redirect_stderr, redirect_stdout
from datetime import date, datetime, time, timedelta, timezone
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import typer
from hypothesis import example, given
from hypothesis import strategies as st
from rich.text import Text

from onecollector.cli.errors import explain
from onecollector.cli.lines import LinePrinter, number, trend
from onecollector.cli.render import console, table, warn
from onecollector.cli.spans import YEARS, day_of, instant_ns, seconds_of, span_of, told
from onecollector.cli.visible import escaped, visible
from onecollector_resources.loki.answers import Entry
from onecollector_resources.loki.entry_table import write_parquet
from onecollector_resources.loki.lines import schema

S = 10**9
NOW = 1_793_543_531 * S
"""2026-11-01T14:32:11Z."""


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("2026-11-01", 1_793_491_200 * S),
        ("2026-11-01T14:32", 1_793_543_520 * S),
        ("2026-11-01T14:32:11Z", NOW),
        ("2026-11-01T16:32:11+02:00", NOW),
        ("2026-11-01 14:32:11.000000001", NOW + 1),
        ("now", NOW),
    ],
)
def test_times(text: str, time_ns: int) -> None:
    assert instant_ns(text, NOW) == time_ns


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "2026-11-01T25:00", "1793543531"])
def test_what_is_no_time_is_told_what_one_looks_like(text: str) -> None:
    with pytest.raises(typer.BadParameter, match=r"such as 2026-11-01 or 2026-11-01T14:02:11Z, found"):
        instant_ns(text, NOW)


@given(st.integers(0, 4_000_000_000))
def test_a_time_that_is_told_can_be_typed(second: int) -> None:
    assert instant_ns(told(second * S), NOW) == second * S


@given(st.dates(), st.times(timezones=st.timezones()))
@example(date(9999, 12, 31), time(23, 59, 59, tzinfo=timezone(-timedelta(hours=23))))
@example(date(1, 1, 5), time(0, 0, tzinfo=timezone(timedelta(hours=23))))
def test_a_day_or_a_time_of_any_year_is_taken_or_refused_in_words(day: date, of_day: time) -> None:
    moment = datetime.combine(day, of_day.replace(microsecond=0))
    for read in (lambda: day_of(str(day)).year, lambda: int(told(instant_ns(moment.isoformat(), NOW))[:4])):
        try:
            assert read() in YEARS
        except typer.BadParameter as error:
            assert str(error).startswith("expected a da")


def test_a_duration_that_reaches_behind_every_date_is_refused() -> None:
    assert datetime.now() - timedelta(seconds=seconds_of("1000d"))
    for duration in ("999999999d", "9" * 400 + "w"):
        with pytest.raises(typer.BadParameter, match="expected a duration of 1000 years at most"):
            seconds_of(duration)


def test_spans() -> None:
    assert span_of("5m", None, None, NOW).start_ns == NOW - 300 * S
    assert span_of(None, None, None, NOW).start_ns == NOW - 3_600 * S
    # How far back from an end that is named.
    assert span_of("5m", None, "2026-11-01", NOW).start_ns == (1_793_491_200 - 300) * S
    assert span_of(None, "2026-10-31", "2026-11-01", NOW).end_ns == 1_793_491_200 * S


@pytest.mark.parametrize(
    ("since", "from_", "to", "said"),
    [
        (None, "2026-11-02", None, "begins in the future: 2026-11-02T00:00:00Z, and now is 2026-11-01T14:32:11Z"),
        (None, "2026-10-31", "2026-10-30", "ends before it begins: from 2026-10-31T00:00:00Z to 2026-10-30T00:00:00Z"),
        ("5m", "2026-10-31", None, "--since or --from, not both"),
        ("0s", None, "2026-10-31", "ends before it begins"),
        ("soon", None, None, "expected a duration"),
    ],
)
def test_a_span_that_holds_nothing_is_refused(since: str | None, from_: str | None, to: str | None, said: str) -> None:
    with pytest.raises(typer.BadParameter) as error:
        span_of(since, from_, to, NOW)
    assert said in str(error.value)


MOVING = st.sampled_from("\x1b\x9b\x85\r\x7f\u202e\u2066\u200f\u2028\U000e0041")
FOREIGN = st.lists(st.text(max_size=8) | MOVING, max_size=12).map("".join)


@given(FOREIGN)
@example("\x9b2J\u202e\n\x1b]0;title\x07")
def test_a_line_cannot_move_the_cursor_or_turn_others_around_by_any_way_out(line: str) -> None:
    shown = StringIO()
    with redirect_stdout(shown), redirect_stderr(shown):
        console().print(Text(line), line.replace("[", "("))
        console().print(table((line,), [(line, "x")]))
        warn(line)
        print(explain(ValueError(line)))
        LinePrinter("text").show([Entry(0, line, {"service_name": line}, {})])
    found = shown.getvalue()
    assert visible(line) in found
    assert not {c for c in found if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")} - set("\t\n\u200c\u200d")
    # A cell is one line, whatever is in it.
    assert not {"\t", "\n"} & set("".join(map(str, table(("a",), [(line,)]).columns[0].cells)))


@given(FOREIGN)
def test_json_says_the_same_with_all_of_it_escaped(line: str) -> None:
    document = json.dumps({"line": line}, ensure_ascii=False)
    assert json.loads(escaped(document)) == {"line": line}
    assert visible(escaped(document)) == escaped(document)


def test_colours_of_a_program_go_and_its_words_stay() -> None:
    assert (
        visible("\x1b[1;31mERROR\x1b[0m x\r\n\tgrößer 日本語 👩\u200d🚒 \x9b31m")
        == "ERROR x␍\n\tgrößer 日本語 👩\u200d🚒 "
    )


@given(st.lists(st.floats(), max_size=40))
@example([1.7e308, -1e308])
def test_numbers_of_any_kind_have_a_trend(values: list[float]) -> None:
    assert len(trend(values)) <= 30
    assert all(number(value) for value in values)


def test_lines_as_parquet_have_the_columns_of_an_export(tmp_path: Path) -> None:
    file = tmp_path / "lines.parquet"
    entries = [
        Entry(2, "b", {"app": "x", "level": "WARN"}, {"trace": "1"}, {"field": "v"}),
        Entry(1, "a", {"app": "x"}, {"severity_text": "ERROR"}),
        Entry(1, "a", {"app": "x"}, {"severity_text": "ERROR"}),
    ]
    assert write_parquet(file, entries) == 2
    table = pq.read_table(file)
    assert table.schema.names == schema().names
    assert table.column("line").to_pylist() == ["a", "b"]
    assert table.column("severity").to_pylist() == ["error", "warn"]
    assert [dict(row) for row in table.column("metadata").to_pylist()] == [
        {"severity_text": "ERROR"},
        {"field": "v", "trace": "1"},
    ]
    assert write_parquet(file, []) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["lines.parquet"]

"""The pager against a model of Loki: every line of a window once, whatever shares an instant, a text or a stream."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.loki.pager import Found, Request, Step, TooManyAtOnce, advance, shorter, smaller
from onecollector_resources.loki.splits import Condition, Row, best_cut, query_of
from tests.unit.fake_loki import Line, conditions_of, identity, row

TEXT = st.text(st.sampled_from('ab\n"\\ü\U0001f600`$'), max_size=4)
ROWS = st.builds(
    row,
    st.dictionaries(st.sampled_from(["b", "c", "__time_shard__"]), st.sampled_from(["", "1", "2", 'q"\\'])),
    TEXT,
    st.dictionaries(st.sampled_from(["x", "y"]), st.sampled_from(["", "1", "2", "`"]), max_size=2),
)
LINES = st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 10]), ROWS), max_size=60)


class Model:
    """Loki's part: the first ``limit`` rows of what a request asks for."""

    def __init__(self, lines: list[Line], seed: int) -> None:
        chance = random.Random(seed)
        unique = {identity(line): line for line in lines}.values()
        # Any order within an instant will do, if it is always the same.
        self.lines = sorted(unique, key=lambda line: (line[0], chance.random()))
        self.requests = 0

    def page(self, request: Request) -> list[Line]:
        self.requests += 1
        fitting = [
            line
            for line in self.lines
            if request.start_ns <= line[0] < request.end_ns and all(c.fits(line[1]) for c in request.conditions)
        ]
        return fitting[: request.limit]


def read(model: Model, request: Request, largest: int) -> list[Line]:
    """All that the pager keeps."""
    todo, kept = [request], []
    while todo:
        request = todo.pop()
        page = model.page(request)
        found = Found(len(page), max((time_ns for time_ns, _ in page), default=0))
        step = advance(request, found, largest, lambda page=page: [one for _, one in page])
        kept += [line for line in page if line[0] < step.keep_before_ns]
        todo += step.follow[::-1]
    return kept


@settings(max_examples=300)
@given(LINES, st.integers(2, 8), st.integers(2, 8), st.integers(0, 3), st.integers(0, 12), st.integers(0, 99))
def test_every_line_of_the_window_once(
    lines: list[Line], limit: int, largest: int, start: int, length: int, seed: int
) -> None:
    # What differs only in what cannot be asked for apart (an empty value or none) is one line here.
    lines = [
        (t, Row({k: v for k, v in r.labels.items() if v}, r.line, {k: v for k, v in r.metadata.items() if v}))
        for t, r in lines
    ]
    model = Model(lines, seed)
    expected = sorted(identity(line) for line in model.lines if start <= line[0] < start + length)
    kept = read(model, Request(start, start + length, limit), max(limit, largest))
    assert sorted(map(identity, kept)) == expected


@given(st.lists(ROWS, min_size=2, max_size=30))
def test_a_cut_has_rows_on_both_sides_and_a_side_for_every_row(rows: list[Row]) -> None:
    cut = best_cut(rows)
    plain = {
        identity((0, Row({k: v for k, v in r.labels.items() if v}, r.line, {k: v for k, v in r.metadata.items() if v})))
        for r in rows
    }
    if cut is None:
        assert len(plain) == 1
        return
    fit = sum(cut.fits(one) for one in rows)
    assert 0 < fit < len(rows)
    assert all(cut.fits(one) != cut.opposite().fits(one) for one in rows)


@given(st.lists(ROWS, min_size=2, max_size=30), ROWS)
def test_what_is_asked_is_what_was_meant(rows: list[Row], other: Row) -> None:
    cut = best_cut(rows)
    if cut is not None:
        for side in (cut, cut.opposite()):
            asked = conditions_of(query_of('{app="a"} # all', [side]))
            assert [asked(one) for one in [*rows, other]] == [side.fits(one) for one in [*rows, other]]


@pytest.mark.parametrize("part", ["line", "label", "metadata"])
def test_many_lines_of_one_instant_are_cut_about_in_halves(part: str) -> None:
    def one(number: int) -> Row:
        text = f"{number * 7919 % 100_003:06x}"
        return row(
            {"pod": text} if part == "label" else {},
            text if part == "line" else "x",
            {"trace": text} if part == "metadata" else {},
        )

    model = Model([(7, one(number)) for number in range(20_000)], 0)
    assert len(read(model, Request(0, 100, 100), 1_000)) == 20_000
    assert model.requests < 100


def test_lines_that_differ_in_their_middle_alone_are_told_apart() -> None:
    head, tail = "x" * 5_000, "y" * 5_000
    lines = [(7, row({}, f"{head}{'ab'[n % 2] * (n + 1)}{tail}")) for n in range(12)]
    assert len(read(Model(lines, 0), Request(0, 8, 2), 2)) == 12


def test_the_labels_that_loki_has_an_index_of_are_asked_for_first() -> None:
    rows = [row({"pod": str(n % 3)}, f"{n:04d}", {"trace": str(n)}) for n in range(300)]
    cut = best_cut(rows)
    assert cut is not None
    assert (cut.part, cut.name) == ("label", "pod")


def test_an_instant_that_nothing_tells_apart_fails_by_its_name() -> None:
    same = [row({}, "x", {"by": "1"}), row({}, "x", {"by": "2"})]  # `by` is a word of LogQL, and no name in a filter
    with pytest.raises(TooManyAtOnce, match=r"2 lines at 7 ns fill a page of 2, .* raise max_entries_limit_per_query"):
        advance(Request(7, 8, 2), Found(2, 7), 2, lambda: same)


def test_a_full_page_is_asked_for_again_from_its_last_instant() -> None:
    request = Request(0, 100, 10)
    assert advance(request, Found(9, 50), 10, list) == Step(100)
    assert advance(request, Found(10, 50), 10, list) == Step(50, (Request(50, 100, 10),))
    assert advance(request, Found(10, 0), 50, list) == Step(0, (Request(0, 1, 50), Request(1, 100, 10)))


def test_smaller_and_shorter_ask_for_the_same_lines() -> None:
    side = (Condition("label", "is", "1", "b"),)
    request = Request(0, 3_000_001, 5, side)
    assert smaller(request) == Request(0, 3_000_001, 2, side)
    assert shorter(request) == (Request(0, 1_500_000, 5, side), Request(1_500_000, 3_000_001, 5, side))
    assert smaller(Request(0, 1, 1)).limit == 1
    assert shorter(Request(0, 1, 1)) == (Request(0, 1, 1),)

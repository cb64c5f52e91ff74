"""The pager against a model of Loki: every line of a window once, whatever shares an instant, a text or a stream."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onecollector_resources.loki.pager import MS, Found, Request, Step, TooManyAtOnce, advance, shorter, smaller
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
    """Loki's part: the first or last ``limit`` rows of what a request asks for.

    ``chunk_of`` lines, in their order, lie in one chunk; a chunk that ends in the millisecond that a question begins in
    is not looked into, as Loki 3.7.8 does it.
    """

    def __init__(self, lines: list[Line], seed: int, chunk_of: int = 10**9) -> None:
        chance = random.Random(seed)
        unique = list({identity(line): line for line in lines}.values())
        # Any order within an instant will do, if it is always the same.
        self.lines = sorted(unique, key=lambda line: (line[0], chance.random()))
        chunks = [self.lines[begin : begin + chunk_of] for begin in range(0, len(unique), chunk_of)]
        self.chunk_ends = [chunk[-1][0] // MS for chunk in chunks for _ in chunk]
        self.requests = 0

    def page(self, request: Request) -> list[Line]:
        self.requests += 1
        start = request.asked_from_ns
        fitting = [
            line
            for line, chunk_end in zip(self.lines, self.chunk_ends, strict=True)
            if start <= line[0] < request.end_ns
            # Nobody's lines are of the first millisecond of 1970, but here it is short to write.
            and (chunk_end != start // MS or start == 0)
            and all(c.fits(line[1]) for c in request.conditions)
        ]
        return fitting[-request.limit :] if request.backward else fitting[: request.limit]


def found(page: list[Line]) -> Found:
    times = [time_ns for time_ns, _ in page]
    return Found(len(page), min(times, default=0), max(times, default=0))


def read(model: Model, request: Request, largest: int) -> list[Line]:
    """All that the pager keeps."""
    todo, kept = [request], []
    while todo:
        request = todo.pop()
        page = model.page(request)
        step = advance(request, found(page), largest, lambda page=page: [one for _, one in page])
        kept += [line for line in page if step.keep_from_ns <= line[0] < step.keep_before_ns]
        todo += step.follow[::-1]
    return kept


def plain(lines: list[Line]) -> list[Line]:
    """What differs only in what cannot be asked for apart (an empty value or none) is one line here."""
    return [
        (t, Row({k: v for k, v in r.labels.items() if v}, r.line, {k: v for k, v in r.metadata.items() if v}))
        for t, r in lines
    ]


@settings(max_examples=150)
@given(
    LINES,
    st.integers(2, 8),
    st.integers(2, 8),
    st.integers(0, 3),
    st.integers(0, 12),
    st.integers(0, 99),
    st.booleans(),
)
def test_every_line_of_the_window_once(
    lines: list[Line], limit: int, largest: int, start: int, length: int, seed: int, backward: bool
) -> None:
    model = Model(plain(lines), seed)
    expected = sorted(identity(line) for line in model.lines if start <= line[0] < start + length)
    kept = read(model, Request(start, start + length, limit, backward=backward), max(limit, largest))
    assert sorted(map(identity, kept)) == expected


BORDERS = st.sampled_from([*range(3), MS - 2, MS - 1, MS, MS + 1, MS + 7, 2 * MS - 1, 2 * MS, 3 * MS + 5, 5 * MS])


@settings(max_examples=150)
@given(
    st.lists(st.tuples(BORDERS, ROWS), max_size=60),
    st.integers(1, 6),
    st.integers(2, 8),
    BORDERS,
    BORDERS,
    st.booleans(),
)
def test_no_line_is_missed_where_a_chunk_ends(
    lines: list[Line], chunk_of: int, limit: int, start: int, end: int, backward: bool
) -> None:
    model = Model(plain(lines), 0, chunk_of)
    expected = sorted(identity(line) for line in model.lines if start <= line[0] < end)
    assert sorted(map(identity, read(model, Request(start, end, limit, backward=backward), limit + 2))) == expected


def test_equal_lines_before_the_start_that_fill_a_page_are_in_nobodys_way() -> None:
    model = Model([(n * 1000, row({}, "tick")) for n in range(1_500)], 0, 50)
    for start in (0, 999_000, 999_999, MS, MS + 1):
        kept = read(model, Request(start, 2 * MS, 20), 20)
        assert sorted(t for t, _ in kept) == [n * 1000 for n in range(1_500) if n * 1000 >= start]


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

    model = Model([(7, one(number)) for number in range(8_000)], 0)
    assert len(read(model, Request(0, 100, 100), 400)) == 8_000
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
        advance(Request(7, 8, 2, backward=True), Found(2, 7, 7), 2, lambda: same)


def test_a_full_page_is_asked_for_again_from_its_last_instant() -> None:
    request = Request(5, 2 * MS, 10)
    assert advance(request, Found(9, 5, 50), 10, list) == Step(5, 2 * MS)
    assert advance(request, Found(10, 5, 50), 10, list) == Step(5, 50, (Request(50, 2 * MS, 10),))


def test_a_page_full_of_what_lies_before_is_followed_by_a_larger_and_then_by_one_from_the_end() -> None:
    request, after = Request(5, 2 * MS, 10), Request(MS, 2 * MS, 10)
    assert advance(request, Found(10, 0, 4), 50, list) == Step(5, 5, (Request(5, MS, 50), after))
    assert advance(request, Found(10, 5, 5), 10, list) == Step(5, 5, (Request(5, MS, 10, backward=True), after))


def test_of_a_page_from_the_end_the_earliest_instant_is_asked_for_again() -> None:
    request = Request(5, 100, 10, backward=True)
    assert advance(request, Found(10, 4, 50), 10, list) == Step(5, 100)
    assert advance(request, Found(10, 7, 50), 10, list) == Step(8, 100, (Request(5, 8, 10, backward=True),))


def test_a_question_begins_before_the_millisecond_of_what_is_wanted() -> None:
    assert Request(0, 1, 1).asked_from_ns == 0
    assert Request(3 * MS, 4 * MS, 1).asked_from_ns == 3 * MS - 1
    assert Request(4 * MS - 1, 4 * MS, 1).asked_from_ns == 3 * MS - 1


def test_smaller_and_shorter_ask_for_the_same_lines() -> None:
    side = (Condition("label", "is", "1", "b"),)
    request = Request(0, 3_000_001, 5, side)
    assert smaller(request) == Request(0, 3_000_001, 2, side)
    assert shorter(request) == (Request(0, 1_500_000, 5, side), Request(1_500_000, 3_000_001, 5, side))
    assert smaller(Request(0, 1, 1)).limit == 1
    assert shorter(Request(0, 1, 1)) == (Request(0, 1, 1),)

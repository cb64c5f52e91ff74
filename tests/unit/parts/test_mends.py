"""A statement is moved, a line changed, as said, or nothing is built."""

from __future__ import annotations

import pytest

from onecollector.parts.mends import Change, MendFailed, Move, mended, mends_of
from onecollector.parts.pins import pins

MEND = Move("example.org/m", "q.go", "restore", "delErr :=", "if failed > 0 {")
SOURCE = """\
package q

func (q *Q) other() {
	delErr := q.del()
}

func (q *Q) restore(items []int) {
	got := q.get(items)
	delErr := q.del(items)

	if delErr != nil {
		log(delErr)
	}

	failed := q.put(got)

	if failed > 0 {
		log(failed)
	}
}
"""


def test_the_statement_goes_where_it_should_and_nothing_else_changes() -> None:
    after = mended(SOURCE, MEND)
    assert sorted(after) == sorted(SOURCE)
    assert after.index("q.put(got)") < after.rindex("q.del(items)") < after.index("failed > 0")
    assert after.index("log(delErr)") < after.index("failed > 0")
    assert after.count("func ") == 2


@pytest.mark.parametrize(
    "source",
    [
        SOURCE.replace("restore", "renamed"),
        SOURCE.replace("delErr := q.del(items)", "_ = q.del(items)"),
        SOURCE.replace("if failed > 0 {", "if failed != 0 {"),
        SOURCE.replace("\tif failed > 0 {\n\t\tlog(failed)\n\t}\n}", "}\n\nfunc x() {\n\tif failed > 0 {\n\t}\n}"),
    ],
    ids=["function", "statement", "target", "behind"],
)
def test_another_source_is_refused(source: str) -> None:
    with pytest.raises(MendFailed, match=r"q\.go"):
        mended(source, MEND)


CHANGE = Change("example.org/m", "q.go", "restore", "failed := q.put(got)", "failed := q.keep(got)")


def test_the_line_becomes_the_other_and_nothing_else_changes() -> None:
    assert mended(SOURCE, CHANGE) == SOURCE.replace("q.put(got)", "q.keep(got)")


@pytest.mark.parametrize(
    "source",
    [
        SOURCE.replace("restore", "renamed"),
        SOURCE.replace("q.put(got)", "q.put(got, 1)"),
        SOURCE.replace("\tfailed :=", "}\n\nfunc x() {\n\tfailed :="),
    ],
    ids=["function", "line", "behind"],
)
def test_a_line_that_is_not_there_is_refused(source: str) -> None:
    with pytest.raises(MendFailed, match=r"q\.go: expected"):
        mended(source, CHANGE)


def test_the_collectors_mends_are_part_of_its_key() -> None:
    pin = pins()["collector"]
    assert [mend.function for mend in mends_of(pin.sources)] == ["enqueueNotDispatchedReqs", "isRetryableStatusCode"]
    assert mends_of(pins()["loki"].sources) == ()

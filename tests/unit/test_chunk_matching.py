"""Which streams a selector means, as Loki decides it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onecollector_resources.loki.chunks.matching import MatcherError, matching
from onecollector_resources.loki.logql import Matcher

STREAMS = [{"a": "one", "b": "x"}, {"a": "two"}, {"a": "one\ntwo"}, {"b": "ünï"}, {}, {"a": ""}]


def fits(op: str, value: str, name: str = "a") -> list[int]:
    return matching(STREAMS, [Matcher(name, op, value)]).nonzero()[0].tolist()


@pytest.mark.parametrize(
    ("op", "value", "expected"),
    [
        ("=", "one", [0]),
        ("=", "", [3, 4, 5]),
        ("!=", "", [0, 1, 2]),
        ("!=", "one", [1, 2, 3, 4, 5]),
        ("=~", "one", [0]),
        ("=~", "on", []),
        ("=~", "o.*", [0, 2]),
        ("=~", ".*", [0, 1, 2, 3, 4, 5]),
        ("=~", ".+", [0, 1, 2]),
        ("=~", "one|two", [0, 1]),
        ("=~", "(?i)ONE|TWO", [0, 1]),
        ("!~", "one|two", [2, 3, 4, 5]),
        ("=~", "", [3, 4, 5]),
        (r"=~", r"o\pL+", [0]),
        ("=~", "one$", [0]),
    ],
)
def test_all_of_a_value_must_fit_and_a_missing_label_is_empty(op: str, value: str, expected: list[int]) -> None:
    assert fits(op, value) == expected


def test_all_matchers_must_fit_and_none_means_everything() -> None:
    assert matching(STREAMS, [Matcher("a", "=~", "o.*"), Matcher("b", "=", "x")]).tolist() == [True, *[False] * 5]
    assert matching(STREAMS, []).all()
    assert matching([], [Matcher("a", "=~", ".+")]).tolist() == []
    assert fits("=~", "ü..", "b") == [3]


@pytest.mark.parametrize("value", ["(", "a)|(b", "[", "a{2000}", "(?<=a)b", r"\1"])
def test_an_expression_that_loki_refuses_is_refused(value: str) -> None:
    with pytest.raises(MatcherError, match="a=~: expected an RE2 expression"):
        fits("=~", value)


@given(st.text(max_size=5), st.text(max_size=5))
def test_negation_is_the_opposite(name: str, value: str) -> None:
    streams = [*STREAMS, {name: value}]
    same = matching(streams, [Matcher(name, "=", value)])
    assert (same != matching(streams, [Matcher(name, "!=", value)])).all()
    assert same[-1]

"""A query out of a template is one that Loki takes, whatever the template is made of."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import IsolationForest

from ml.forest import SAMPLE, from_trees
from ml.logql import pattern_of, query_of, quoted
from onecollector_resources.loki.logql import tokens, unquote


def matches(pattern: str, line: str) -> bool:
    """Loki's own rules (pkg/logql/log/pattern): the first literal anywhere, a wildcard takes one character or more."""
    parts = re.split("(<_>)", pattern)
    regex = "".join(".+" if part == "<_>" else re.escape(part) for part in parts)
    return re.fullmatch(regex if pattern.startswith("<_>") else f".*{regex}", line, re.S) is not None


def test_a_template_finds_its_lines() -> None:
    for template, line in (
        ("user <V> logged in", "user 17 logged in"),
        ("<V> <V> GET /a", "10.0.0.1 12 GET /a"),
        ("took <V>", "took 15ms"),
        ("a <V><V> b", "a 1 2 b"),
    ):
        assert matches(pattern_of(template), line)


def test_a_structured_line_is_asked_for_by_its_message() -> None:
    query = query_of({"service_name": "shop"}, "payment <V> declined {level,msg,ts}")
    assert query == '{service_name="shop"} |> "payment <_> declined" or "payment <_> declined<_>"'


def test_a_template_without_words_is_the_whole_service() -> None:
    assert query_of({"service_name": "s"}, "<V> <V>") == '{service_name="s"}'


@given(st.text(max_size=80))
def test_a_pattern_has_no_named_and_no_neighbouring_wildcards_and_is_quoted(text: str) -> None:
    pattern = pattern_of(text)
    assert "<_><_>" not in pattern
    assert re.findall(r"<[A-Za-z0-9]+>", pattern) == []
    query = query_of({"service_name": text}, text)
    assert not {unicodedata.category(c) for c in query} & {"Cc", "Cf", "Zl", "Zp"}


@given(st.text(max_size=8).map(lambda text: text + '\x9b\u202e\U000e0041\x7f"\\'))
def test_what_is_quoted_is_safe_to_show_and_means_the_same_when_pasted(text: str) -> None:
    (token,) = tokens(quoted(text))
    assert unquote(quoted(text), token) == text
    assert not {unicodedata.category(c) for c in quoted(text)} & {"Cc", "Cf", "Zl", "Zp"}


def test_the_forest_walks_its_trees_as_scikit_learn_does() -> None:
    chance = np.random.default_rng(0)
    learnt, asked = (chance.exponential(size=(n, 10)).astype(np.float32) for n in (4_000, 500))
    model = IsolationForest(n_estimators=30, max_samples=SAMPLE, random_state=0).fit(learnt)
    forest = from_trees([estimator.tree_ for estimator in model.estimators_])
    assert np.allclose(forest.isolation(np.minimum(asked, 5)), -model.score_samples(np.minimum(asked, 5)), atol=1e-5)
